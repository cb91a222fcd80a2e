//! The task that says what policy is: caches in, [`Index`] and [`Outbox`] out. One in every replica.
//!
//! It waits for full caches, then judges after every change, once changes have been quiet for a moment. Nothing else
//! stands between an edit and the gateways: no queue, no write, no leader.

mod bench;
mod gather;

pub(super) use self::gather::{rewinds, seen};
mod good;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::bench::{Bench, Stirred};
use super::Caches;
use super::epoch::Epochs;
use super::index::Index;
use super::keys::Keys;
use super::outbox::Outbox;
use crate::kubernetes::watch::{Cache, Change, Changes};

/// Changes that follow each other this closely are judged together.
const QUIET: Duration = Duration::from_millis(20);
/// No change waits longer than this.
const AT_MOST: Duration = Duration::from_millis(200);
/// Policy does not see a status. That it is true at a newer version is said this long after one was written at the latest.
const UNSEEN: Duration = Duration::from_secs(1);

/// Judges for as long as the process lives.
pub struct Judge {
    caches: Caches,
    index: Arc<Index>,
    outbox: Arc<Outbox>,
    keys: Arc<Keys>,
    epochs: Arc<Epochs>,
}

impl Judge {
    /// A judge of these caches, who signs with these keys.
    pub fn new(caches: Caches, index: Arc<Index>, outbox: Arc<Outbox>, keys: Arc<Keys>, epochs: Arc<Epochs>) -> Self {
        Self { caches, index, outbox, keys, epochs }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wakes = Wakes::new(&self.caches, self.epochs.now());
        tokio::select! {
            () = self.ready() => {}
            () = shutdown.cancelled() => return,
        }
        let mut bench = Box::new(Bench::default());
        let mut stirred = Stirred::default();
        let mut before = 0;
        loop {
            let rewound = rewinds(&self.caches);
            if rewound > std::mem::replace(&mut before, rewound) {
                self.epochs.rewound(); // Until the new epoch is there, streams hold back what gateways would refuse.
            }
            let epoch = *self.epochs.now().borrow();
            let (caches, outbox, keys) = (self.caches.clone(), Arc::clone(&self.outbox), Arc::clone(&self.keys));
            // It computes for a while: on a thread where that holds nobody up.
            let judging = tokio::task::spawn_blocking(move || {
                let judgement = bench.judge(&caches, epoch, stirred, &keys, &outbox);
                (bench, judgement)
            });
            bench = match judging.await {
                Ok((bench, judgement)) => {
                    if let Some(judgement) = judgement {
                        self.index.put(judgement);
                    }
                    bench
                }
                Err(error) => {
                    // What was said last stays. Without its memory the next judgement says everything anew.
                    tracing::error!(%error, "policy was not judged: the program failed");
                    Box::default()
                }
            };
            stirred = tokio::select! {
                stirred = wakes.next() => stirred,
                () = shutdown.cancelled() => return,
            };
        }
    }

    /// A cache that is not full must decide nothing: what it does not hold yet would look revoked.
    async fn ready(&self) {
        let Caches { servers, tools, roles, gateways, config_maps, pods: _, cluster } = &self.caches;
        tokio::join!(servers.ready(), tools.ready(), roles.ready(), gateways.ready(), config_maps.ready());
        let mut cluster = cluster.changes();
        let _ = cluster.wait_for(Option::is_some).await; // Its sender lives in the caches.
    }
}

/// Everything that makes a judgement old.
struct Wakes {
    caches: Caches,
    servers: Changes,
    tools: Changes,
    roles: Changes,
    gateways: Changes,
    config_maps: Changes,
    cluster: watch::Receiver<Option<Arc<crate::kubernetes::issuer::ClusterIssuer>>>,
    epoch: watch::Receiver<u64>,
}

impl Wakes {
    fn new(caches: &Caches, epoch: watch::Receiver<u64>) -> Self {
        Self {
            servers: caches.servers.changes(),
            tools: caches.tools.changes(),
            roles: caches.roles.changes(),
            gateways: caches.gateways.changes(),
            config_maps: caches.config_maps.changes(),
            cluster: caches.cluster.changes(),
            epoch,
            caches: caches.clone(),
        }
    }

    /// The changes until it was quiet, or for long enough.
    async fn next(&mut self) -> Stirred {
        let mut stirred = Stirred::default();
        let mut is_seen = self.one(&mut stirred).await;
        let end = Instant::now() + UNSEEN;
        while !is_seen {
            match timeout_at(end, self.one(&mut stirred)).await {
                Ok(one) => is_seen = one,
                Err(_) => return stirred,
            }
        }
        let end = Instant::now() + AT_MOST;
        while timeout_at(end.min(Instant::now() + QUIET), self.one(&mut stirred)).await.is_ok() {}
        stirred
    }

    /// Waits for a change; whether policy can see it.
    async fn one(&mut self, stirred: &mut Stirred) -> bool {
        tokio::select! {
            change = self.servers.next() => note(&self.caches.servers, change, stirred),
            change = self.tools.next() => note(&self.caches.tools, change, stirred),
            change = self.roles.next() => note(&self.caches.roles, change, stirred),
            change = self.gateways.next() => note(&self.caches.gateways, change, stirred),
            change = self.config_maps.next() => note(&self.caches.config_maps, change, stirred),
            changed = self.cluster.changed() => forever_if_gone(changed).await,
            changed = self.epoch.changed() => forever_if_gone(changed).await,
        }
    }
}

/// The sender is gone only when the process ends; until then there is nothing to be woken by.
async fn forever_if_gone(changed: Result<(), watch::error::RecvError>) -> bool {
    if changed.is_err() {
        std::future::pending::<()>().await;
    }
    true
}

/// What came and went between two judgements leaves no trace but this change: it counts all the same, because a
/// replica that lags may be seeing it. Returns whether policy can see the change.
fn note<K>(cache: &Cache<K>, change: Option<Change>, stirred: &mut Stirred) -> bool
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + Sync
        + std::fmt::Debug
        + 'static,
{
    match change {
        Some(Change::Status(_)) => return false,
        Some(Change::One(key)) => {
            if cache.get(&key).is_none() {
                stirred.namespaces.insert(key.0);
            }
        }
        Some(Change::All) | None => stirred.all = true,
    }
    true
}

#[cfg(test)]
mod tests;
