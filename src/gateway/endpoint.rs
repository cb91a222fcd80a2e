//! One server behind the gateway: its upstream, the policy in force, its sessions and tasks.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::auth::{Authenticator, Verified, authorization_servers};
use super::drain::Drain;
use super::fetch::Fetcher;
use super::layers::in_flight::InFlight;
use super::layers::listed::Listings;
use super::layers::session::Sessions;
use super::limits;
use super::link::Link;
use super::protocol::error::Reject;
use super::tasks::Tasks;
use super::upstream::{self, Upstream, UpstreamError};
use crate::policy::snapshot::Subject;
use crate::policy::{Policy, SubjectView};
use crate::telemetry::metrics::{Metrics, ServerMetrics};

/// Everything that one `/servers/NAME/mcp` stands for.
pub(super) struct Endpoint {
    pub(super) name: Arc<str>,
    pub(super) config: upstream::Config,
    pub(super) upstream: Upstream,
    /// Absent until the first policy: everything is refused.
    pub(super) force: ArcSwapOption<Force>,
    pub(super) sessions: Sessions,
    pub(super) tasks: Tasks,
    /// What callers listed last.
    pub(super) listings: Listings,
    /// Counts the policies that were enforced.
    pub(super) policies: watch::Sender<u64>,
    /// Requests that run at a server over HTTP, for those who cancel one.
    pub(super) in_flight: InFlight,
    pub(super) streams: Streams,
    /// Cancelled when the server is removed or the gateway ends: ends its streams.
    pub(super) closing: CancellationToken,
    pub(super) drain: Arc<Drain>,
    /// The connection to the policy server, where the policy comes from one.
    pub(super) link: ArcSwapOption<Link>,
    /// The server said that one of its lists changed.
    pub(super) changed: Arc<Notify>,
}

/// A policy in force, with all that depends on it.
pub(super) struct Force {
    pub(super) policy: Arc<Policy>,
    pub(super) authenticator: Arc<Authenticator>,
    /// The view of callers without a token, if policy lets them in and some rule could allow them something.
    pub(super) anonymous: Option<Arc<SubjectView>>,
    /// Whether some issuer of the server has a login that a caller without a token can be sent to.
    pub(super) has_login: bool,
    /// OAuth scopes that roles name: published as `scopes_supported`.
    pub(super) scopes: Vec<String>,
    /// Time without word from the policy server after which everything is refused.
    pub(super) deny_after: Option<Duration>,
    pub(super) metrics: Arc<ServerMetrics>,
    views: RwLock<HashMap<usize, CachedView>>,
}

/// A view, and the token that it belongs to.
type CachedView = (Arc<Verified>, Arc<SubjectView>);

impl Endpoint {
    pub(super) fn new(
        name: &str,
        config: upstream::Config,
        closing: CancellationToken,
        drain: Arc<Drain>,
    ) -> Result<Self, UpstreamError> {
        let upstream = Upstream::new(config.clone())?;
        let changed = match &upstream {
            Upstream::Stdio(upstream) => upstream.changed().clone(),
            Upstream::Http(_) => Arc::default(),
        };
        Ok(Self {
            name: name.into(),
            upstream,
            config,
            force: ArcSwapOption::empty(),
            sessions: Sessions::default(),
            tasks: Tasks::default(),
            listings: Listings::default(),
            policies: watch::Sender::default(),
            in_flight: InFlight::default(),
            streams: Streams::default(),
            closing,
            drain,
            link: ArcSwapOption::empty(),
            changed,
        })
    }

    /// Enforces another policy, from the next decision on.
    pub(super) fn enforce(&self, force: Force) {
        self.force.store(Some(Arc::new(force)));
        self.policies.send_modify(|count| *count += 1);
    }

    /// The policy that is enforced now, for an exchange that began under `before`.
    pub(super) fn enforced(&self, before: &Arc<Force>) -> Arc<Force> {
        self.force.load_full().unwrap_or_else(|| before.clone())
    }

    /// Refuses when the policy in force may be out of date, and says that it then must not be used.
    pub(super) fn check_link(&self, force: &Force) -> Result<(), Reject> {
        match self.link.load().as_ref() {
            Some(link) => link.check(force.deny_after),
            None => Ok(()),
        }
    }
}

impl Force {
    /// Reuses `before`'s authenticator, and with it every verified token, if issuers and audiences are the same.
    pub(super) fn new(policy: Arc<Policy>, before: Option<&Self>, fetcher: &Fetcher, metrics: &Arc<Metrics>) -> Self {
        let snapshot = policy.snapshot();
        let metrics = metrics.server(&snapshot.target.namespace, &snapshot.target.server);
        metrics
            .retain(|tool| policy.tool(tool).is_some(), |role| snapshot.roles.iter().any(|known| known.name == role));
        metrics.policy_loaded(policy.hash(), Timestamp::now());
        let authenticator = before
            .map(|before| &before.authenticator)
            .filter(|authenticator| authenticator.serves(&snapshot.issuers, &snapshot.urls))
            .cloned()
            .unwrap_or_else(|| Arc::new(Authenticator::new(&snapshot.issuers, &snapshot.urls, fetcher.clone())));
        let mut scopes: Vec<String> = snapshot
            .roles
            .iter()
            .flat_map(|role| &role.subjects)
            .filter_map(|subject| match subject {
                Subject::Scope { name, .. } => Some(name.clone()),
                _ => None,
            })
            .collect();
        scopes.sort();
        scopes.dedup();
        let anonymous = snapshot.anonymous.is_some().then(|| Arc::new(policy.subject(None)));
        // A role that can allow nothing here opens nothing: such callers get the challenge that begins a login.
        let anonymous = anonymous.filter(|view| policy.could_allow_anything(view));
        let has_login = !authorization_servers(&snapshot.issuers, &snapshot.urls).is_empty();
        let deny_after = snapshot.deny_after_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Self { authenticator, anonymous, has_login, scopes, deny_after, metrics, views: RwLock::default(), policy }
    }

    /// The view of a caller who was authenticated under `before`, an earlier policy.
    pub(super) fn view_of(&self, caller: &Caller, before: &Self) -> Arc<SubjectView> {
        match (&caller.verified, &self.anonymous) {
            (Some(verified), _) if self.trusts(verified, before) => self.view(verified),
            (None, Some(view)) => view.clone(),
            // Fail closed: the issuer is not trusted any more, or callers without a token are not let in any more.
            (Some(_) | None, _) => Arc::new(self.policy.nobody()),
        }
    }

    /// Whether a caller who was let in under `before` would surely be let in now.
    pub(super) fn admits(&self, caller: &Caller, before: &Self) -> bool {
        match &caller.verified {
            Some(verified) => self.trusts(verified, before),
            None => self.anonymous.is_some(),
        }
    }

    /// Whether a token that was verified under `before` would surely be accepted now.
    fn trusts(&self, verified: &Verified, before: &Self) -> bool {
        Arc::ptr_eq(&self.authenticator, &before.authenticator)
            || self.authenticator.trusts(verified, &before.authenticator)
    }

    /// Forgets tokens that have expired, and those that were dropped elsewhere.
    pub(super) fn drop_expired(&self, now: Timestamp) {
        self.authenticator.drop_expired(now);
        // Nobody but this table has a token that is not cached any more and not in use.
        self.views.write().retain(|_, (verified, _)| !verified.has_expired(now) && Arc::strong_count(verified) > 1);
    }

    /// The caller's view of this policy, resolved once per token.
    pub(super) fn view(&self, verified: &Arc<Verified>) -> Arc<SubjectView> {
        let key = Arc::as_ptr(verified) as usize; // The entry keeps its token alive, so an address is never reused.
        if let Some((_, view)) = self.views.read().get(&key) {
            return view.clone();
        }
        let view = Arc::new(self.policy.subject(Some(&verified.identity)));
        let mut views = self.views.write();
        if views.len() as u64 >= limits::TOKENS {
            views.clear(); // Rare, and cheaper than to keep an order of use.
        }
        views.insert(key, (verified.clone(), view.clone()));
        view
    }
}

/// Who calls, and what that comes to under the policy in force.
#[derive(Clone)]
pub(super) struct Caller {
    /// `None` for a caller without a token.
    pub(super) verified: Option<Arc<Verified>>,
    pub(super) view: Arc<SubjectView>,
}

impl Caller {
    /// One string for (issuer, subject). All callers without a token have one too, and share their bounds among
    /// themselves alone. Never `None`, which is the gateway's own.
    #[allow(clippy::unnecessary_wraps)] // `None` is the gateway's own key wherever this one is used.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        static ANONYMOUS: LazyLock<Arc<str>> = LazyLock::new(|| upstream::ANONYMOUS.into());
        Some(self.verified.as_ref().map_or(&ANONYMOUS, |verified| &verified.key))
    }

    /// Time until the token expires; `None` for never.
    pub(super) fn expires_in(&self) -> Option<Duration> {
        let verified = self.verified.as_ref()?;
        let seconds = verified.expires.saturating_sub(Timestamp::now().as_second());
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// Long-lived streams, counted per caller.
#[derive(Clone, Default)]
pub(super) struct Streams {
    open: Arc<Mutex<HashMap<Option<Arc<str>>, usize>>>,
}

/// One open stream. Dropping it makes room.
pub(super) struct OpenStream {
    streams: Streams,
    caller: Option<Arc<str>>,
}

impl Streams {
    /// `None` if the caller has [`limits::STREAMS_PER_CALLER`] already.
    pub(super) fn open(&self, caller: &Caller) -> Option<OpenStream> {
        let key = caller.key().cloned();
        let mut open = self.open.lock();
        let count = open.entry(key.clone()).or_default();
        if *count >= limits::STREAMS_PER_CALLER {
            return None;
        }
        *count += 1;
        drop(open);
        Some(OpenStream { streams: self.clone(), caller: key })
    }

    /// All open streams.
    pub(super) fn count(&self) -> usize {
        self.open.lock().values().sum()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        if let Some(count) = open.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.caller);
            }
        }
    }
}
