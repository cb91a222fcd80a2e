//! How long an open stream may live: while the token of its caller counts, its policy may be used, and its server is
//! served.
//!
//! The stream checks this itself whenever it is polled. hyper does not poll the body of a client that does not read, so
//! the connection checks it too, by a timer, and is cut where the stream did not end by itself: then everything is
//! freed that was held for it, the audit slot and the server's stream included.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::endpoint::{Endpoint, Force};
use super::limits;

/// Time between two checks of the policy server's silence.
const PERIOD: Duration = Duration::from_secs(1);

/// What the life of one stream depends on.
#[derive(Clone)]
pub(super) struct Lifetime {
    /// When the caller's token expires.
    pub(super) until: Option<Instant>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) force: Arc<Force>,
}

impl Lifetime {
    /// Completes when the stream must have ended, and had the time to do so by itself.
    async fn is_over(&self) {
        let expired = async {
            match self.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let stale = async {
            // Also a policy that comes later may say that it must not be used for too long.
            while self.endpoint.check_link(&self.endpoint.enforced(&self.force)).is_ok() {
                sleep(PERIOD).await;
            }
        };
        tokio::select! {
            () = expired => {}
            () = stale => {}
            () = self.endpoint.closing.cancelled() => {}
        }
        sleep(limits::STREAM_END).await;
    }
}

/// The lifetime of the stream that a connection carries now; there is at most one.
pub(super) type Carried = Option<Lifetime>;

/// Completes when the stream that the connection carries must not live any longer.
pub(super) async fn over(mut carried: watch::Receiver<Carried>) {
    loop {
        let now = carried.borrow_and_update().clone();
        let is_over = async {
            match now {
                Some(lifetime) => lifetime.is_over().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = carried.changed() => if changed.is_err() {
                std::future::pending::<()>().await; // The connection ends.
            },
            () = is_over => return,
        }
    }
}
