//! The epoch of versions, and what to do about a gateway that knows more than the cluster.
//!
//! A gateway that comes with a newer version than this replica has read is told nothing, for it would have to refuse
//! it. Either this replica lags, or its watches have been quiet and do not tell how new they are: then listing anew
//! helps. If even a list that began after the gateway came is older than what the gateway claims, the history of the
//! cluster itself went back (etcd was restored): a new epoch begins, in which versions start over. So it does when a
//! cache of this process sees that. The epoch is kept in the Secret of the keys, and raised at most every ten minutes,
//! whatever gateways claim; a claim that comes to nothing is looked into ever less often.
//!
//! Caches see it one after the other. Versions of a new epoch must be those of the new history, or the next cache to
//! see it would make them go back again: so before this process enters an epoch, every kind is listed anew.
//!
//! The Secret goes back with the rest. So an epoch that gateways claim, and the Secret does not know, is one that was
//! lost: the next begins beyond it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Caches;
use crate::kubernetes::secret::{Found, SecretAt, SecretError};
use crate::policy::snapshot::Target;
use crate::policy::version::Version;

/// In the Secret: the epoch.
const EPOCH: &str = "epoch";
/// In the Secret: when it began, in seconds since 1970.
const BEGAN: &str = "epoch-began";
/// The epoch of a new cluster.
const FIRST: u64 = 1;
/// Least time between two epochs.
const APART: Duration = Duration::from_mins(10);
/// Least time between two looks at claims.
const PAUSE: Duration = Duration::from_secs(10);
/// Time for listing anew.
const LIST: Duration = Duration::from_mins(1);
/// Most namespaces whose claims are kept; others claim again.
const CLAIMS: usize = 256;
/// Most epochs that can have been lost. Who claims more lies, and would use up the numbers.
const LOST: u64 = 16;

/// The epoch now, and the claims that could end it.
pub struct Epochs {
    secret: Option<SecretAt>,
    now: watch::Sender<u64>,
    /// By namespace, the newest that gateways claim.
    claims: Mutex<BTreeMap<String, Version>>,
    is_claimed: Notify,
}

impl Epochs {
    /// The epoch that the Secret holds; one that holds none is in the first.
    pub async fn load(secret: SecretAt) -> Result<Self, SecretError> {
        let now = secret.get().await?.as_ref().map_or(FIRST, epoch_of);
        Ok(Self::new(Some(secret), now))
    }

    /// An epoch that never changes.
    pub fn fixed(epoch: u64) -> Self {
        Self::new(None, epoch)
    }

    fn new(secret: Option<SecretAt>, now: u64) -> Self {
        Self { secret, now: watch::Sender::new(now), claims: Mutex::default(), is_claimed: Notify::new() }
    }

    /// The epoch, and its changes.
    pub fn now(&self) -> watch::Receiver<u64> {
        self.now.subscribe()
    }

    /// A gateway of this server claims to have lived under this version, which is newer than what was read here.
    pub(super) fn claim(&self, target: &Target, version: &Version) {
        if self.put(&target.namespace, version) {
            self.is_claimed.notify_one();
        }
    }

    /// Keeps a claim, if there is room.
    fn put(&self, namespace: &str, version: &Version) -> bool {
        let mut claims = self.claims.lock();
        if claims.len() >= CLAIMS && !claims.contains_key(namespace) {
            return false;
        }
        let claim = claims.entry(namespace.to_owned()).or_default();
        *claim = newest(claim, version);
        true
    }

    /// The caches of this process have seen that the cluster's history went back.
    pub(super) fn rewound(&self) {
        self.is_claimed.notify_one();
    }

    /// Looks into claims until `shutdown`.
    pub(super) async fn keep(self: Arc<Self>, caches: Caches, shutdown: CancellationToken) {
        let mut pause = PAUSE;
        let mut settled = 0;
        loop {
            tokio::select! {
                () = self.is_claimed.notified() => {}
                () = shutdown.cancelled() => return,
            }
            let before = *self.now.borrow();
            let is_rewound = super::judge::rewinds(&caches) > settled;
            let claims = std::mem::take(&mut *self.claims.lock());
            let work = async {
                let mut is_settled = true;
                if is_rewound {
                    self.raise(before, &caches).await;
                    is_settled &= *self.now.borrow() > before;
                }
                for (namespace, claim) in claims {
                    if !self.settle(&caches, &namespace, &claim).await {
                        is_settled = false;
                        self.put(&namespace, &claim); // A gateway that waits says nothing twice.
                    }
                }
                is_settled
            };
            let is_settled = tokio::select! {
                is_settled = work => is_settled,
                () = shutdown.cancelled() => return,
            };
            if *self.now.borrow() > before {
                settled = super::judge::rewinds(&caches); // Every cache was listed anew, and saw it then at the latest.
            }
            pause = if is_settled { PAUSE } else { (pause * 2).min(APART) };
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            if super::judge::rewinds(&caches) > settled || !self.claims.lock().is_empty() {
                self.is_claimed.notify_one(); // Not settled: again.
            }
        }
    }

    /// Whether the claim is no more than what is known now.
    async fn settle(&self, caches: &Caches, namespace: &str, claim: &Version) -> bool {
        let now = *self.now.borrow();
        if claim.epoch > now + LOST {
            tracing::error!(namespace, epoch = claim.epoch, "a gateway claims an epoch that cannot have been");
            return true;
        }
        if claim.epoch > now {
            match self.adopt(caches).await {
                // It was in the Secret before any gateway heard of it: the Secret went back.
                Some(stored) if stored < claim.epoch => self.raise(claim.epoch, caches).await,
                Some(_) | None => {}
            }
            return *self.now.borrow() >= claim.epoch;
        }
        if claim.epoch < now || !is_ahead(caches, namespace, claim) {
            return true;
        }
        // Whoever is behind lists anew. What was listed after the claim came is at least as new as any true claim.
        if timeout(LIST, refresh(caches, namespace, claim)).await.is_err() {
            return false;
        }
        if is_ahead(caches, namespace, claim) {
            self.raise(now, caches).await;
            return *self.now.borrow() > now;
        }
        true
    }

    /// Another replica may have begun a new epoch. What the Secret says, if it was read.
    async fn adopt(&self, caches: &Caches) -> Option<u64> {
        match self.secret.as_ref()?.get().await {
            Ok(Some(found)) => {
                let stored = epoch_of(&found);
                self.enter(stored, caches).await;
                return Some(stored);
            }
            Ok(None) => tracing::warn!("the Secret with the epoch is gone; the epoch stays"),
            Err(error) => tracing::warn!(%error, "the epoch was not read; it stays"),
        }
        None
    }

    /// Begins the epoch after `from`, unless the Secret knows of a newer one.
    async fn raise(&self, from: u64, caches: &Caches) {
        let Some(secret) = &self.secret else { return };
        let found = match secret.get().await {
            Ok(Some(found)) => found,
            Ok(None) => return tracing::warn!("the Secret with the epoch is gone; the epoch stays"),
            Err(error) => return tracing::warn!(%error, "the epoch was not read; it stays"),
        };
        let stored = epoch_of(&found);
        if stored > from {
            return self.enter(stored, caches).await; // Another replica was faster.
        }
        let now = Timestamp::now().as_second();
        let began = number(&found, BEGAN).and_then(|began| i64::try_from(began).ok());
        if began.is_some_and(|began| now.saturating_sub(began) < i64::try_from(APART.as_secs()).unwrap_or(i64::MAX)) {
            return tracing::error!(
                "gateways claim to know more than the cluster, again, although a new epoch has just begun; the epoch \
                 stays"
            );
        }
        let mut data = found.data.clone();
        data.insert(EPOCH.to_owned(), (from + 1).to_string().into_bytes());
        data.insert(BEGAN.to_owned(), now.to_string().into_bytes());
        match secret.replace(&found, data).await {
            Ok(Some(_)) => {
                tracing::warn!(
                    epoch = from + 1,
                    "gateways know more than the cluster: its history went back, so a new epoch begins"
                );
                self.enter(from + 1, caches).await;
            }
            Ok(None) => {
                self.adopt(caches).await;
            }
            Err(error) => tracing::warn!(%error, "the new epoch was not written; the epoch stays"),
        }
    }

    async fn enter(&self, epoch: u64, caches: &Caches) {
        if epoch <= *self.now.borrow() {
            return;
        }
        if timeout(LIST, relist(caches)).await.is_err() {
            return tracing::warn!(epoch, "a new epoch is not entered yet: what is in the cluster could not be listed");
        }
        self.now.send_if_modified(|now| {
            let is_newer = epoch > *now;
            *now = epoch.max(*now);
            is_newer
        });
    }
}

fn newest(a: &Version, b: &Version) -> Version {
    match a.epoch.cmp(&b.epoch) {
        std::cmp::Ordering::Less => b.clone(),
        std::cmp::Ordering::Greater => a.clone(),
        std::cmp::Ordering::Equal => {
            let mut seen = a.seen.clone();
            for (kind, version) in &b.seen {
                let known = seen.entry(kind.clone()).or_default();
                *known = (*known).max(*version);
            }
            Version { epoch: a.epoch, seen }
        }
    }
}

/// Whether some kind is claimed to be newer than what was read. Kinds that are not read here cannot be judged.
fn is_ahead(caches: &Caches, namespace: &str, claim: &Version) -> bool {
    super::judge::seen(caches, namespace)
        .iter()
        .any(|(kind, seen)| claim.seen.get(kind).is_some_and(|claimed| claimed > seen))
}

async fn refresh(caches: &Caches, namespace: &str, claim: &Version) {
    let seen = super::judge::seen(caches, namespace);
    let is_ahead = |kind: &str| claim.seen.get(kind) > seen.get(kind);
    let Caches { servers, tools, roles, gateways, config_maps, pods: _, cluster: _ } = caches;
    tokio::join!(
        async {
            if is_ahead("McpServer") {
                servers.refresh(namespace).await;
            }
        },
        async {
            if is_ahead("McpTool") {
                tools.refresh(namespace).await;
            }
        },
        async {
            if is_ahead("McpRole") {
                roles.refresh(namespace).await;
            }
        },
        async {
            if is_ahead("McpGateway") {
                gateways.refresh(namespace).await;
            }
        },
        async {
            if is_ahead("ConfigMap") {
                config_maps.refresh(namespace).await;
            }
        },
    );
}

async fn relist(caches: &Caches) {
    let Caches { servers, tools, roles, gateways, config_maps, pods: _, cluster: _ } = caches;
    tokio::join!(
        servers.refresh_all(),
        tools.refresh_all(),
        roles.refresh_all(),
        gateways.refresh_all(),
        config_maps.refresh_all(),
    );
}

fn epoch_of(found: &Found) -> u64 {
    number(found, EPOCH).unwrap_or(FIRST)
}

fn number(found: &Found, key: &str) -> Option<u64> {
    std::str::from_utf8(found.data.get(key)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
