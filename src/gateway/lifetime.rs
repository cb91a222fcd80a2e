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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::gateway::drain::Drain;
    use crate::gateway::fetch::Fetcher;
    use crate::gateway::link::Link;
    use crate::gateway::reach::Reach;
    use crate::gateway::upstream::{Config, http};
    use crate::policy::Policy;
    use crate::policy::snapshot::{FORMAT, ServerRequests};
    use crate::telemetry::metrics::Metrics;

    fn lifetime(until: Option<Duration>) -> (Lifetime, CancellationToken, Arc<Link>) {
        let (closing, metrics) = (CancellationToken::new(), Metrics::new());
        let config = http::Config { url: "http://127.0.0.1:1/".to_owned(), ca: None, reach: Reach::MACHINE };
        let endpoint = Endpoint::new("s", Config::Http(config), closing.clone(), Arc::<Drain>::default()).unwrap();
        let link = Arc::new(Link::new(metrics.link("n", "s"), Duration::ZERO));
        link.set(true);
        endpoint.link.store(Some(link.clone()));
        let policy = json!({
            "format": FORMAT, "target": {"namespace": "n", "server": "s"}, "urls": ["https://a.example/mcp"],
            "registration": "Auto", "serverRequests": ServerRequests::default(), "denyAfterSeconds": 60,
            "tools": [], "roles": [], "issuers": [], "inputs": [],
        });
        let policy = Policy::from_json(policy.to_string().as_bytes()).unwrap();
        let force = Force::new(Arc::new(policy), None, &Fetcher::new(false), &metrics);
        let until = until.map(|left| Instant::now() + left);
        (Lifetime { until, endpoint: Arc::new(endpoint), force: Arc::new(force) }, closing, link)
    }

    async fn lasted(lifetime: Lifetime) -> u64 {
        let (_keep, carried) = watch::channel(Some(lifetime));
        let begun = Instant::now();
        over(carried).await;
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_shortly_after_its_token_although_nobody_polls_it() {
        let (lifetime, ..) = lifetime(Some(Duration::from_mins(5)));

        assert_eq!(lasted(lifetime).await, 300 + limits::STREAM_END.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_the_policy_server_is_silent_for_too_long_or_its_server_is_removed() {
        let (first, _, link) = lifetime(None);
        link.set(false);
        assert_eq!(lasted(first).await, 60 + limits::STREAM_END.as_secs());

        let (second, closing, _) = lifetime(None);
        closing.cancel();
        assert_eq!(lasted(second).await, limits::STREAM_END.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_exchange_of_a_connection_does_not_inherit_the_lifetime() {
        let (lifetime, ..) = lifetime(Some(Duration::from_mins(1)));
        let (carries, stream_now) = watch::channel(Some(lifetime));
        let mut over = Box::pin(over(stream_now));
        assert!(futures::poll!(&mut over).is_pending());

        carries.send_replace(None);

        assert!(tokio::time::timeout(Duration::from_hours(1), over).await.is_err());
    }
}
