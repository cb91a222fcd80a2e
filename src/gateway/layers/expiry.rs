//! Sessions that nobody uses any more end by a timer, here and at their server.

use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::replay::end_upstream;
use crate::gateway::endpoint::Endpoint;

/// How often is looked. A session ends so much later than it could, at most.
pub(in crate::gateway) const PERIOD: Duration = Duration::from_secs(30);
/// Servers are told of so many ends at once.
const AT_ONCE: usize = 8;

/// Ends the sessions of one server, for as long as it is served.
pub(in crate::gateway) async fn run(endpoint: Weak<Endpoint>, closing: CancellationToken) {
    while closing.run_until_cancelled(sleep(PERIOD)).await.is_some() {
        let Some(endpoint) = endpoint.upgrade() else { return };
        let expired = endpoint.sessions.expire(Instant::now());
        let ends = futures::stream::iter(expired).for_each_concurrent(AT_ONCE, |session| {
            let endpoint = endpoint.clone();
            async move { end_upstream(&endpoint, &session).await }
        });
        if closing.run_until_cancelled(ends).await.is_none() {
            return;
        }
    }
}
