//! Tells a caller on an open stream that policy shows them other names than they listed: a revocation, a grant, a
//! window that closed. A server says only what it changed itself.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::listed::{Comparison, Listings};
use crate::gateway::endpoint::{Caller, Endpoint, Force};
use crate::gateway::limits;
use crate::gateway::protocol::list_changed::{self, Kind};
use crate::gateway::protocol::sse;

/// What a stream announces, and what its caller asked for.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Subscription {
    kinds: Vec<Kind>,
    /// JSON text of the listen request's id (2026-07-28).
    id: Option<String>,
}

impl Subscription {
    /// The stream of a legacy session: everything that the capabilities promise.
    pub(in crate::gateway) fn session() -> Self {
        Self { kinds: Kind::ALL.to_vec(), id: None }
    }

    /// A listen stream (2026-07-28), opened by a request with this id (JSON text) and these parameters.
    pub(in crate::gateway) fn listen(id: Option<&str>, params: Option<&str>) -> Self {
        Self { kinds: params.map(list_changed::asked).unwrap_or_default(), id: id.map(str::to_owned) }
    }
}

/// The changes that one stream announces.
pub(super) struct ListChanges {
    subscription: Subscription,
    comparison: Comparison,
    policies: watch::Receiver<u64>,
    /// The policy of the last comparison, as `policies` counts.
    compared: Option<u64>,
    last: Instant,
    /// A listen stream begins with its acknowledgement; nothing of ours comes before it.
    is_open: bool,
}

impl ListChanges {
    pub(super) fn new(subscription: Subscription, endpoint: &Endpoint, force: Arc<Force>, caller: &Caller) -> Self {
        let is_open = subscription.id.is_none();
        let comparison = Comparison::new(force, caller);
        let policies = endpoint.policies.subscribe();
        Self { subscription, comparison, policies, compared: None, last: Instant::now(), is_open }
    }

    /// Waits until the next comparison is due. May be dropped and called again.
    pub(super) async fn due(&mut self) {
        if !self.is_open || self.subscription.kinds.is_empty() {
            return std::future::pending().await;
        }
        let compared = self.compared;
        // Time alone may have changed what is visible: that is looked at seldom.
        let other = self.policies.wait_for(|count| Some(*count) != compared);
        let _ = timeout_at(self.last + limits::LIST_RECHECK, other).await;
        sleep_until(self.last + limits::LIST_CHANGED).await;
    }

    /// The events that announce what has changed by now; `None` if nothing has.
    pub(super) fn compare(&mut self, listings: &Listings, force: &Arc<Force>, caller: &Caller) -> Option<Bytes> {
        self.compared = Some(*self.policies.borrow_and_update());
        self.last = Instant::now();
        let changed = self.comparison.changed(listings, force, caller, Timestamp::now());
        let kinds = self.subscription.kinds.iter().filter(|kind| changed.iter().any(|list| Kind::of(*list) == **kind));
        let id = self.subscription.id.as_deref();
        let events: Vec<Bytes> = kinds.map(|kind| sse::encode(&kind.notification(id))).collect();
        (!events.is_empty()).then(|| events.concat().into())
    }

    /// The server has acknowledged the listen stream with this message. `None`: it passes as it is.
    pub(super) fn acknowledged(&mut self, message: &str) -> Option<String> {
        self.is_open = true;
        list_changed::acknowledge(message, &self.subscription.kinds)
    }
}
