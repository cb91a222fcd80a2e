//! The connection to whoever says what policy is: whether it is there, and since when it is not.
//!
//! A server whose policy says so (`disconnectedPolicy: DenyAfter`) is denied when nothing was heard for too long: a
//! rule may have been revoked meanwhile.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::endpoint::Force;
use super::protocol::error::Reject;
use crate::policy::version::Version;
use crate::telemetry::link::LinkMetrics;

/// The connection of one server's gateway. Begins as lost.
pub(super) struct Link {
    /// `None` while it is there.
    lost: Mutex<Option<Instant>>,
    metrics: LinkMetrics,
}

impl Link {
    pub(super) fn new(metrics: LinkMetrics) -> Self {
        metrics.connected(false);
        Self { lost: Mutex::new(Some(Instant::now())), metrics }
    }

    /// It is there, or no longer.
    pub(super) fn set(&self, connected: bool) {
        let mut lost = self.lost.lock();
        *lost = if connected { None } else { lost.or_else(|| Some(Instant::now())) };
        self.metrics.connected(connected);
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
        self.lost.lock().map_or(Duration::ZERO, |lost| lost.elapsed())
    }

    /// Refuses when nothing was heard for longer than the policy in force permits.
    pub(super) fn check(&self, force: &Force) -> Result<(), Reject> {
        let Some(limit) = force.deny_after else { return Ok(()) };
        let silence = self.silent_for();
        if silence < limit { Ok(()) } else { Err(Reject::stale(silence, limit)) } // It may allow what was revoked.
    }
}
