//! One watch a kind and process: a cache, and a fan-out that tells deletions.
//!
//! Owns what this process believes of the cluster. kube's shared streams drop deletions, and a relist is silent about
//! what vanished meanwhile (kube issue 1590): here a deletion is a [`Change`] like any other, and the end of a relist
//! is [`Change::All`], so that nothing that was deleted stays in force.
//!
//! # Versions
//! [`Cache::version`] is a `resourceVersion` that the cache is surely not older than. Events carry their own; before a
//! relist a version is read with a list of one object, so that what the relist leaves out counts as well. Versions of
//! one kind compare as integers (Kubernetes 1.35, KEP-5504; before that for every etcd-backed server in practice).
//!
//! Lists are read from the majority of etcd, so a relist can be older than what was seen only where the cluster's own
//! history went back, as after a restore of etcd: then the version goes back with it, and [`Cache::rewinds`] counts.
//! No watch tells that: one from a version that the cluster has not reached yet is served, and silent until it has. So
//! after a watch broke off the version is asked for, and one that is behind what was seen is a reason to list anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Fuse, FusedFuture as _, FutureExt as _};
use futures::{StreamExt as _, future};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, broadcast, watch};

pub use self::kept::Keep;
use self::kept::{Kept, Packer};
use super::Key;

/// Changes that a slow listener may be behind; beyond that it is told [`Change::All`].
const CHANGES: usize = 1024;
/// Time for the list of one object before a relist.
const LIST: Duration = Duration::from_secs(10);
/// First and last pause before the version is asked for, after a watch broke off.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest pause before a watch is begun again.
const RETRY: Duration = Duration::from_secs(5);

/// Pauses as kube's, but for the longest. Those reach half a minute, and a server that comes back costs two of them: it
/// says first that what was seen last is too old. Whatever is revoked in the meantime would wait.
struct Retries(DefaultBackoff);

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(RETRY))
    }
}

impl Backoff for Retries {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Which namespaces are watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All of them.
    All,
    /// These alone, each with a watch of its own.
    Namespaces(Vec<String>),
}

/// What changed in a cache.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// One object was written or deleted.
    One(Key),
    /// Of one object nothing but the status was written.
    Status(Key),
    /// Anything may have: a relist ended, or the listener was too slow.
    All,
}

/// Everything of one kind, as last seen.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    packer: Packer,
    parts: Vec<Part<K>>,
    changes: broadcast::Sender<Change>,
}

/// What one watch has seen.
struct Part<K> {
    namespace: Option<String>,
    objects: RwLock<HashMap<Key, Kept<K>>>,
    version: AtomicU64,
    rewinds: AtomicU64,
    is_listed: watch::Sender<bool>,
    /// How often it was listed.
    lists: watch::Sender<u64>,
    is_doubted: Notify,
}

impl<K> Part<K> {
    async fn refresh(&self) {
        let mut lists = self.lists.subscribe();
        lists.borrow_and_update();
        self.is_doubted.notify_one();
        let _ = lists.changed().await; // Its sender lives in the cache.
    }
}

/// Listens to a cache. Never fails: whoever falls behind is told that anything may have changed.
pub struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// The next change; `None` once the cache is gone.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::All),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// A change that was told already; `None` if there is none.
    pub fn told(&mut self) -> Option<Change> {
        match self.0.try_recv() {
            Ok(change) => Some(change),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Change::All),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        }
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize,
    K: std::fmt::Debug + Send + Sync + 'static,
{
    /// A cache, and the future that keeps it: it must be polled, and ends only when the process does. `labels` is a
    /// label selector, empty for every object.
    pub fn new(client: &Client, scope: &Scope, labels: &str) -> (Self, impl Future<Output = ()> + Send + use<K>) {
        Self::frugal(client, scope, labels, Keep::Whole, |_| {})
    }

    /// As [`Cache::new`], of objects that are kept in less room: without the parts that `strip` takes away, or packed.
    pub fn frugal(
        client: &Client,
        scope: &Scope,
        labels: &str,
        how: Keep,
        strip: fn(&mut K),
    ) -> (Self, impl Future<Output = ()> + Send + use<K>) {
        let namespaces = match scope {
            Scope::All => vec![None],
            Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        };
        let part = |namespace: Option<String>| Part {
            namespace,
            objects: RwLock::default(),
            version: AtomicU64::new(0),
            rewinds: AtomicU64::new(0),
            is_listed: watch::Sender::new(false),
            lists: watch::Sender::new(0),
            is_doubted: Notify::new(),
        };
        let parts = namespaces.into_iter().map(part).collect();
        let changes = broadcast::Sender::new(CHANGES);
        let cache = Self { shared: Arc::new(Shared { packer: Packer::new(how), parts, changes }) };
        let (shared, client, labels) = (cache.shared.clone(), client.clone(), labels.to_owned());
        let keep = async move {
            let kept = |mut object: K| {
                strip(&mut object);
                shared.packer.pack(trimmed(object))
            };
            let follow = |part| follow(&shared, part, &client, &labels, &kept);
            future::join_all(shared.parts.iter().map(follow)).await;
        };
        (cache, keep)
    }

    /// Waits until every watch has listed what there is. A cache that is not yet full must decide nothing.
    pub async fn ready(&self) {
        for part in &self.shared.parts {
            // The sender lives in the cache itself, so waiting cannot fail.
            let _ = part.is_listed.subscribe().wait_for(|is_listed| *is_listed).await;
        }
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.parts.iter().find_map(|part| self.shared.packer.object(part.objects.read().get(key)?))
    }

    /// Every object, in no order.
    pub fn all(&self) -> Vec<Arc<K>> {
        let of = |part: &Part<K>| -> Vec<Arc<K>> {
            part.objects.read().values().filter_map(|kept| self.shared.packer.object(kept)).collect()
        };
        self.shared.parts.iter().flat_map(of).collect()
    }

    /// Every object of a namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let of = |part: &Part<K>| -> Vec<Arc<K>> {
            let objects = part.objects.read();
            let found = objects.iter().filter(|((found, _), _)| found == namespace);
            found.filter_map(|(_, kept)| self.shared.packer.object(kept)).collect()
        };
        self.shared.parts.iter().flat_map(of).collect()
    }

    /// The cache is at least as new as this, for objects of `namespace`. Goes back only with the cluster's own history.
    pub fn version(&self, namespace: &str) -> u64 {
        let part = self.shared.parts.iter().find(|part| part.namespace.as_deref().is_none_or(|own| own == namespace));
        part.map_or(0, |part| part.version.load(Ordering::Acquire))
    }

    /// How often the cluster's own history went back, as far as this cache has seen.
    pub fn rewinds(&self) -> u64 {
        self.shared.parts.iter().map(|part| part.rewinds.load(Ordering::Acquire)).sum()
    }

    /// Lists the objects of a namespace anew, so that [`Cache::version`] is at least what the cluster had when this was
    /// called: a watch on which nothing happens does not tell how new it is. Waits for the list, which does not come
    /// while the API server is away.
    pub async fn refresh(&self, namespace: &str) {
        let part = self.shared.parts.iter().find(|part| part.namespace.as_deref().is_none_or(|own| own == namespace));
        if let Some(part) = part {
            part.refresh().await;
        }
    }

    /// Lists everything anew, as [`Cache::refresh`] does with one namespace.
    pub async fn refresh_all(&self) {
        future::join_all(self.shared.parts.iter().map(Part::refresh)).await;
    }

    /// Tells every change from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.shared.changes.subscribe())
    }
}

/// Follows one watch for ever.
async fn follow<K>(
    shared: &Shared<K>,
    part: &Part<K>,
    client: &Client,
    labels: &str,
    kept: &(impl Fn(K) -> Kept<K> + Sync),
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize,
    K: std::fmt::Debug + Send + Sync + 'static,
{
    let api: Api<K> = match &part.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let config = watcher::Config::default().labels(labels);
    let begin = || watcher(api.clone(), config.clone()).backoff(Retries(DefaultBackoff::default()));
    let mut events = Box::pin(begin());
    let mut listed = HashMap::new();
    let (mut floor, mut newest) = (0, 0);
    let mut after_break = Box::pin(Fuse::terminated());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = part.is_doubted.notified() => {
                events.set(begin());
                continue;
            }
            version = &mut after_break => {
                if version != 0 && version < part.version.load(Ordering::Acquire) {
                    events.set(begin());
                }
                continue;
            }
        };
        let Some(event) = event else { return };
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                newest = 0;
                // Read before the relist begins: the stream is not polled meanwhile.
                floor = answered_version(&api).await;
            }
            Ok(watcher::Event::InitApply(object)) => {
                newest = newest.max(resource_version(&object));
                listed.insert(key(&object), kept(object));
            }
            Ok(watcher::Event::InitDone) => {
                *part.objects.write() = std::mem::take(&mut listed);
                if floor != 0 && floor < part.version.load(Ordering::Acquire) {
                    part.version.store(floor.max(newest), Ordering::Release);
                    part.rewinds.fetch_add(1, Ordering::AcqRel);
                    tracing::warn!(kind = %K::kind(&()), floor, "the cluster's history went back");
                } else {
                    part.version.fetch_max(newest.max(floor), Ordering::AcqRel);
                }
                part.is_listed.send_replace(true);
                part.lists.send_modify(|lists| *lists += 1);
                let _ = shared.changes.send(Change::All); // Nobody listens yet: nothing to tell.
            }
            Ok(watcher::Event::Apply(object)) => {
                let (key, version) = (key(&object), resource_version(&object));
                let kept = kept(object);
                let now = kept.whole().cloned();
                let before = part.objects.write().insert(key.clone(), kept);
                part.version.fetch_max(version, Ordering::AcqRel);
                let before = before.as_ref().and_then(Kept::whole);
                // Of what is packed it is not told: nobody asks.
                let is_status =
                    before.zip(now).is_some_and(|(before, now)| differ_in_status(before.meta(), now.meta()));
                let _ = shared.changes.send(if is_status { Change::Status(key) } else { Change::One(key) });
            }
            Ok(watcher::Event::Delete(object)) => {
                let (key, version) = (key(&object), resource_version(&object));
                part.objects.write().remove(&key);
                part.version.fetch_max(version, Ordering::AcqRel);
                let _ = shared.changes.send(Change::One(key));
            }
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(kind = %K::kind(&()), error, "a watch broke off, and is tried again");
                if after_break.is_terminated() {
                    after_break.set(next_version(&api).fuse());
                }
            }
        }
    }
}

/// The version of the whole kind, as soon as the server answers, after a pause.
async fn next_version<K>(api: &Api<K>) -> u64
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    tokio::time::sleep(PAUSES.0).await;
    answered_version(api).await
}

/// The version of the whole kind, as soon as the server answers.
async fn answered_version<K>(api: &Api<K>) -> u64
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut pause = PAUSES.0;
    loop {
        if let Some(version) = list_version(api).await {
            return version;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The version of the whole kind now. `None`: no answer; 0, which claims nothing: the server does not say.
async fn list_version<K>(api: &Api<K>) -> Option<u64>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let asked = tokio::time::timeout(LIST, api.list_metadata(&ListParams::default().limit(1))).await;
    let version = asked.ok()?.ok()?.metadata.resource_version;
    Some(version.and_then(|version| version.parse().ok()).unwrap_or(0))
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// `metadata.resourceVersion` as a number; 0, which claims nothing, where it is none.
pub(super) fn resource_version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Whether what was written leaves all but the status as it was. Kinds without a generation never say so.
fn differ_in_status(before: &ObjectMeta, after: &ObjectMeta) -> bool {
    after.generation.is_some()
        && before.generation == after.generation
        && before.uid == after.uid
        && before.labels == after.labels
        && before.annotations == after.annotations
        && before.finalizers == after.finalizers
        && before.owner_references == after.owner_references
        && before.deletion_timestamp == after.deletion_timestamp
}

/// Nobody here reads who wrote which field, which is a third of an object, nor kubectl's copy of the whole of it. A copy
/// of what is left is kept: its lists have no room to grow, which was half of what a Pod took.
fn trimmed<K: Resource + Clone>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object.clone()
}

mod kept;

#[cfg(test)]
#[path = "watch/fixture.rs"]
mod fixture;
#[cfg(test)]
mod tests;
