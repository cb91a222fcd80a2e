//! The connection to whoever says what policy is: whether it is there, and since when it is not.
//!
//! A server whose policy says so (`disconnectedPolicy: DenyAfter`) is denied when nothing was heard for too long: a
//! rule may have been revoked meanwhile.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::protocol::error::Reject;
use crate::policy::version::Version;
use crate::telemetry::link::LinkMetrics;

/// The connection of one server's gateway. Begins as lost.
pub(super) struct Link {
    /// `None` while it is there.
    lost: Mutex<Option<Lost>>,
    metrics: LinkMetrics,
}

/// A connection that is not there.
#[derive(Clone, Copy)]
struct Lost {
    since: Instant,
    /// For how long it had not been there by then: before this process began.
    before: Duration,
}

impl Link {
    /// `silent`: for how long nothing was heard before this process began.
    pub(super) fn new(metrics: LinkMetrics, silent: Duration) -> Self {
        metrics.connected(false);
        Self { lost: Mutex::new(Some(Lost { since: Instant::now(), before: silent })), metrics }
    }

    /// It is there, or no longer.
    pub(super) fn set(&self, connected: bool) {
        let mut lost = self.lost.lock();
        let now = || Lost { since: Instant::now(), before: Duration::ZERO };
        *lost = if connected { None } else { lost.or_else(|| Some(now())) };
        self.metrics.connected(connected);
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        self.lost.lock().is_none()
    }

    /// How new the policy in force is.
    pub(super) fn version(&self, version: &Version) {
        self.metrics.version(version.epoch, &version.seen);
    }

    /// Tells the metrics for how long nothing was heard.
    pub(super) fn measure(&self) {
        self.metrics.silent_for(self.silent_for());
    }

    fn silent_for(&self) -> Duration {
        self.lost.lock().map_or(Duration::ZERO, |lost| lost.before + lost.since.elapsed())
    }

    /// Refuses when nothing was heard for longer than the policy in force permits (`deny_after`).
    pub(super) fn check(&self, deny_after: Option<Duration>) -> Result<(), Reject> {
        let Some(limit) = deny_after else { return Ok(()) };
        let silence = self.silent_for();
        if silence < limit { Ok(()) } else { Err(Reject::stale(silence, limit)) } // It may allow what was revoked.
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn silence_before_the_process_counts_until_somebody_is_heard() {
        let limit = Some(Duration::from_mins(1));
        let link = Link::new(Metrics::new().link("agents", "github"), Duration::from_secs(50));
        assert!(link.check(limit).is_ok());
        advance(Duration::from_secs(10)).await;
        assert!(link.check(limit).is_err() && link.check(None).is_ok());

        link.set(true);
        advance(Duration::from_mins(5)).await;
        assert!(link.is_there() && link.check(limit).is_ok());

        link.set(false);
        advance(Duration::from_secs(30)).await;
        link.set(false); // Lost is lost: the time goes on.
        advance(Duration::from_secs(29)).await;
        assert!(!link.is_there() && link.check(limit).is_ok());
        advance(Duration::from_secs(1)).await;
        assert!(link.check(limit).is_err());
    }
}
