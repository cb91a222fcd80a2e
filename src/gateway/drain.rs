//! The end of a gateway that others must not notice: it stops being ready, goes on serving until nobody comes any more,
//! and lets what runs finish.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::limits;

#[cfg(feature = "sidecar")]
pub(super) mod socket;

/// Whether the gateway is about to end.
pub(super) struct Drain {
    since: Mutex<Option<Instant>>,
    /// Counts up when long-lived streams and idle connections must end.
    round: watch::Sender<u64>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { since: Mutex::default(), round: watch::Sender::new(0) }
    }
}

impl Drain {
    /// Whether it drains. Whoever drains is ended soon; a gateway that is not was drained by mistake, or by somebody
    /// who should not, and serves again after [`limits::DRAIN_LAPSE`].
    pub(super) fn is_on(&self) -> bool {
        self.since.lock().is_some_and(|since| since.elapsed() < limits::DRAIN_LAPSE)
    }

    /// Drains, and returns when nothing runs (0) or the time is up (how much still runs). `running` counts exchanges
    /// but for long-lived streams, which have no end of their own and are ended.
    pub(super) async fn run(&self, running: impl Fn() -> usize) -> usize {
        const LOOK: Duration = Duration::from_millis(50);
        let begun = Instant::now();
        *self.since.lock() = Some(begun);
        // Those who route to us learn of it now; until then new calls come, and are served.
        tokio::time::sleep(limits::DRAIN_NOTICE).await;
        self.round.send_modify(|round| *round += 1);
        loop {
            let left = running();
            if left == 0 || begun.elapsed() >= limits::DRAIN_BOUND {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How often they were ended so far.
    pub(super) fn round(&self) -> u64 {
        *self.round.borrow()
    }

    /// Completes when a stream or an idle connection must end that was opened in this round.
    pub(super) async fn ends(&self, opened: u64) {
        if self.round.subscribe().wait_for(|round| *round != opened).await.is_err() {
            std::future::pending::<()>().await; // Nobody drains any more.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drained_means_that_nothing_runs_and_takes_at_least_the_notice() {
        let (drain, running) = (Arc::new(Drain::default()), Arc::new(AtomicUsize::new(2)));
        let begun = Instant::now();
        let (count, other) = (running.clone(), drain.clone());
        let drained = tokio::spawn(async move { other.run(|| count.load(Ordering::SeqCst)).await });
        tokio::task::yield_now().await;
        assert!(drain.is_on());

        drain.ends(0).await;
        assert!(begun.elapsed() >= limits::DRAIN_NOTICE && !drained.is_finished());
        running.store(0, Ordering::SeqCst);

        assert_eq!(drained.await.unwrap(), 0);
        assert!(begun.elapsed() < limits::DRAIN_BOUND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_is_waited_for_within_a_bound_and_a_drain_lapses() {
        let drain = Drain::default();
        let begun = Instant::now();

        assert_eq!(drain.run(|| 3).await, 3);

        assert!(begun.elapsed() <= limits::DRAIN_BOUND + Duration::from_millis(100));
        assert!(drain.is_on());
        tokio::time::advance(limits::DRAIN_LAPSE).await;
        assert!(!drain.is_on());
    }
}
