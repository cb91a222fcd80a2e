//! What a listener does when it cannot accept: waits a moment, warns at most once a second, and goes on.
//!
//! Most such failures are a want of descriptors or memory. The connection stays in the kernel's queue, so the listener
//! stays ready: without a pause the loop would spin until somebody else closes a descriptor.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::limits;

/// Shortest time between two warnings.
const WARNINGS: Duration = Duration::from_secs(1);

/// The failures of one listener.
pub(super) struct AcceptFailures {
    /// What is accepted, in the words of the log.
    what: &'static str,
    warned: Option<Instant>,
    /// Failures since the last warning.
    silent: u64,
}

impl AcceptFailures {
    /// Of a listener that never failed.
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, warned: None, silent: 0 }
    }

    /// Returns when it makes sense to accept again.
    pub(super) async fn pause(&mut self, error: &io::Error) {
        if is_of_one_connection(error) {
            return;
        }
        if let Some(failures) = self.warn_about(Instant::now()) {
            tracing::warn!(%error, failures, "failed to accept {}; it is tried again", self.what);
        }
        sleep(limits::ACCEPT_AGAIN).await;
    }

    /// How many failures to warn about now, this one included; `None`: not yet.
    fn warn_about(&mut self, now: Instant) -> Option<u64> {
        self.silent += 1;
        if self.warned.is_some_and(|warned| now.duration_since(warned) < WARNINGS) {
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

/// Whether the next connection may well be accepted at once: this one ended before it was.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_cannot_accept_pauses_each_time_but_not_for_one_lost_connection() {
        let mut failures = AcceptFailures::new("a connection");
        let begun = Instant::now();
        for _ in 0..10 {
            failures.pause(&io::Error::other("too many open files")).await;
        }
        assert_eq!(begun.elapsed(), limits::ACCEPT_AGAIN * 10);

        failures.pause(&io::ErrorKind::ConnectionAborted.into()).await;

        assert_eq!(begun.elapsed(), limits::ACCEPT_AGAIN * 10);
    }

    #[test]
    fn failures_are_warned_about_once_a_second_and_counted() {
        let mut failures = AcceptFailures::new("a connection");
        let begun = Instant::now();
        let at = |tenths: u32| begun + limits::ACCEPT_AGAIN * tenths;

        let warned: Vec<u64> = (0..=20).filter_map(|tenths| failures.warn_about(at(tenths))).collect();

        assert_eq!(warned, [1, 10, 10]);
    }
}
