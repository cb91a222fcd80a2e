//! Writes: server-side apply, status, creation, deletion.
//!
//! Owns that a write happens only where something of ours changes, that nobody else's object is taken over, and that
//! every call ends in time. One field manager a controller. Decides nothing about content.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::telemetry::operator::Metrics;

use super::watch::{Cache, resource_version};
use super::{Key, compare, labels};

/// Time for one call.
const CALL: Duration = Duration::from_secs(10);

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or dropped a call.
    #[error("failed to {what} {kind} {name}")]
    Call {
        /// `apply`, `delete`, …
        what: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("failed to {what} {kind} {name}: no answer within 10 s")]
    Timeout {
        /// `apply`, `delete`, …
        what: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The object has no JSON form.
    #[error("failed to write an object as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// What the API server says about an object that it will never take: the declaration must change.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) && !status.message.is_empty() => {
                    Some(format!("{self}: {}", status.message))
                }
                _ => None,
            },
            Self::Timeout { .. } | Self::Json(_) => None,
        }
    }

    /// For the metric: few values.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Call { .. } if self.refusal().is_some() => "refused",
            Self::Call { .. } => "call",
            Self::Timeout { .. } => "timeout",
            Self::Json(_) => "json",
        }
    }
}

/// What came of an apply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// Nothing of ours differed.
    Unchanged,
    /// It was written.
    Written,
    /// An object of that name is somebody else's. It was not touched.
    Foreign,
    /// The object is on its way out; its end is a change that will be told.
    Deleting,
}

/// What objects of ours can be.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// A kind and a key.
type Place = (TypeId, Key);

/// What this process wrote and caches may not have yet. The writers of a process share one.
#[derive(Default)]
pub struct Written(Mutex<Versions>);

#[derive(Default)]
struct Versions {
    /// The version that our last write made of an object, until the cache has it.
    made: HashMap<Place, u64>,
    /// [`Cache::rewinds`] of each kind when it was last asked for.
    rewinds: HashMap<TypeId, u64>,
}

impl Written {
    /// Whether what the cache has of an object is our own last write, which nobody need look at. Said once.
    pub fn is_echo<K: Object>(&self, key: &Key, cache: &Cache<K>) -> bool {
        let Some(object) = cache.get(key) else { return false };
        let (place, mut written) = (place::<K>(key), self.0.lock());
        let is_ours = written.made.get(&place) == Some(&resource_version(object.as_ref()));
        if is_ours {
            written.made.remove(&place);
        }
        is_ours
    }

    fn is_behind<K: Object>(&self, key: &Key, cache: &Cache<K>) -> bool {
        let mut written = self.0.lock();
        let (kind, place, rewinds) = (TypeId::of::<K>(), place::<K>(key), cache.rewinds());
        // What was written in a history that went back may never come: waiting for it would be waiting for ever.
        if written.rewinds.insert(kind, rewinds).unwrap_or(0) != rewinds {
            written.made.retain(|(of, _), _| *of != kind);
        }
        let Some(version) = written.made.get(&place) else { return false };
        if cache.version(&key.0) < *version {
            return true;
        }
        written.made.remove(&place);
        false
    }
}

/// Writes for one controller.
pub struct Writer {
    client: Client,
    manager: String,
    metrics: Arc<Metrics>,
    written: Arc<Written>,
    /// What the server made of a declaration, where that is not literally so: digests of both.
    normalised: Mutex<HashMap<Place, (String, String)>>,
}

impl Writer {
    /// Writes as the field manager `toolgate/CONTROLLER`.
    pub fn new(client: Client, controller: &str, metrics: Arc<Metrics>, written: Arc<Written>) -> Self {
        let manager = format!("toolgate/{controller}");
        Self { client, manager, metrics, written, normalised: Mutex::default() }
    }

    /// Whether a cache does not yet have what was last written here: what it says of this object is old.
    pub fn is_behind<K: Object>(&self, key: &Key, cache: &Cache<K>) -> bool {
        self.written.is_behind(key, cache)
    }

    /// An object is gone: nothing more is remembered of it.
    pub fn forget<K: Object>(&self, key: &Key) {
        let place = place::<K>(key);
        self.written.0.lock().made.remove(&place);
        self.normalised.lock().remove(&place);
    }

    /// Brings an object to what is declared. `desired` names its namespace and name, bears our labels, and where it
    /// belongs to another object, a controlling owner reference.
    pub async fn apply<K: Object>(&self, desired: &K, cache: &Cache<K>) -> Result<Applied, Error> {
        let key = key(desired);
        let live = match cache.get(&key) {
            Some(live) => Some(live),
            // Not of ours as far as the cache sees, which sees only what bears our label.
            None => self.get::<K>(&key).await?.map(Arc::new),
        };
        let mut wanted = serde_json::to_value(desired)?;
        let digest = compare::digest(&wanted)?;
        stamp(&mut wanted, &digest);
        if let Some(live) = &live {
            if !is_ours(live.meta(), desired.meta()) {
                return Ok(Applied::Foreign);
            }
            if live.meta().deletion_timestamp.is_some() {
                return Ok(Applied::Deleting);
            }
            let live = serde_json::to_value(live.as_ref())?;
            if compare::is_so(&wanted, &live) || self.is_normalised(&place::<K>(&key), &digest, &live)? {
                return Ok(Applied::Unchanged);
            }
        }
        let params = PatchParams::apply(&self.manager);
        // Without force at first: whoever made such an object since we looked keeps it.
        let params = if live.is_some() { params.force() } else { params };
        let api = self.api::<K>(&key);
        let patch = Patch::Apply(&wanted);
        let call = api.patch(&key.1, &params, &patch);
        let applied = match self.call::<K, _>("apply", &key, call).await {
            Ok(applied) => applied,
            Err(error) if live.is_none() && code(&error) == Some(409) => return Ok(Applied::Foreign),
            Err(error) => return Err(error),
        };
        self.wrote(&applied, "apply");
        let live = serde_json::to_value(&applied)?;
        let place = place::<K>(&key);
        if compare::is_so(&wanted, &live) {
            self.normalised.lock().remove(&place);
        } else {
            let substance = compare::digest(&compare::substance(&live))?;
            self.normalised.lock().insert(place, (digest, substance));
        }
        Ok(Applied::Written)
    }

    /// Whether the live object is what the server made of this very declaration.
    fn is_normalised(&self, place: &Place, digest: &str, live: &Value) -> Result<bool, Error> {
        let known = self.normalised.lock().get(place).cloned();
        let Some((declared, substance)) = known else { return Ok(false) };
        Ok(declared == digest && substance == compare::digest(&compare::substance(live))?)
    }

    /// Writes a status, whole, unless it is the current one but for times. Says whether it was written.
    pub async fn status<K: Object, S: Serialize + Sync>(
        &self,
        object: &K,
        current: Option<&S>,
        status: &S,
    ) -> Result<bool, Error> {
        let key = key(object);
        let status = serde_json::to_value(status)?;
        let current = current.map_or_else(|| Ok(json!({})), serde_json::to_value)?;
        if compare::same_but_for_times(&current, &status) {
            return Ok(false);
        }
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            // Of this very object: a status is not for another that got its name.
            "metadata": {"name": key.1, "namespace": key.0, "uid": object.meta().uid},
            "status": status,
        });
        let params = PatchParams::apply(&self.manager).force();
        let api = self.api::<K>(&key);
        let patch = Patch::Apply(&body);
        let call = api.patch_status(&key.1, &params, &patch);
        match self.call::<K, _>("write the status of", &key, call).await {
            Ok(written) => {
                self.wrote(&written, "status");
                Ok(true)
            }
            // Deleted, or deleted and made anew: the change is on its way.
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes an object that is never changed afterwards. `false`: there is one of that name.
    pub async fn create<K: Object>(&self, object: &K) -> Result<bool, Error> {
        let key = key(object);
        let params = PostParams { field_manager: Some(self.manager.clone()), ..PostParams::default() };
        let api = self.api::<K>(&key);
        match self.call::<K, _>("create", &key, api.create(&params, object)).await {
            Ok(created) => {
                self.wrote(&created, "create");
                Ok(true)
            }
            Err(error) if code(&error) == Some(409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes exactly this object. `false`: it is gone, or another has its name.
    pub async fn delete<K: Object>(&self, object: &K) -> Result<bool, Error> {
        let key = key(object);
        let only = Preconditions { uid: object.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(only);
        let api = self.api::<K>(&key);
        match self.call::<K, _>("delete", &key, api.delete(&key.1, &params)).await {
            Ok(_) => {
                self.metrics.wrote(&self.manager, &K::kind(&()), "delete");
                self.forget::<K>(&key);
                Ok(true)
            }
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get<K: Object>(&self, key: &Key) -> Result<Option<K>, Error> {
        let api = self.api::<K>(key);
        self.call::<K, _>("read", key, api.get_opt(&key.1)).await
    }

    fn api<K: Object>(&self, key: &Key) -> Api<K> {
        Api::namespaced(self.client.clone(), &key.0)
    }

    async fn call<K: Object, T>(
        &self,
        what: &'static str,
        key: &Key,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let (kind, name) = (K::kind(&()).into_owned(), key.1.clone());
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(Error::Call { what, kind, name, source: Box::new(source) }),
            Err(_) => Err(Error::Timeout { what, kind, name }),
        }
    }

    fn wrote<K: Object>(&self, object: &K, verb: &'static str) {
        self.metrics.wrote(&self.manager, &K::kind(&()), verb);
        let version = resource_version(object);
        self.written.0.lock().made.insert(place::<K>(&key(object)), version);
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn place<K: 'static>(key: &Key) -> Place {
    (TypeId::of::<K>(), key.clone())
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Call { source, .. } => match source.as_ref() {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        Error::Timeout { .. } | Error::Json(_) => None,
    }
}

fn stamp(wanted: &mut Value, digest: &str) {
    let metadata = wanted.get_mut("metadata").and_then(Value::as_object_mut);
    let annotations = metadata.map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.insert(labels::APPLIED.to_owned(), digest.into());
    }
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether a live object may be brought to what is desired: its controller is the same object, or it bears our labels
/// for the same server and has no other controller. One of an earlier object of the same name is taken over, and so
/// is one that `kubectl delete --cascade=orphan` left.
pub fn is_ours(live: &ObjectMeta, desired: &ObjectMeta) -> bool {
    let (has, wants) = (controller(live), controller(desired));
    if let (Some(has), Some(wants)) = (has, wants)
        && has.uid == wants.uid
    {
        return true;
    }
    let label = |meta: &ObjectMeta, name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let is_labelled = label(live, labels::MANAGED_BY).as_deref() == Some(labels::TOOLGATE)
        && label(live, labels::SERVER) == label(desired, labels::SERVER);
    let is_free = has.is_none_or(|has| wants.is_some_and(|wants| has.kind == wants.kind && has.name == wants.name));
    is_labelled && is_free
}

#[cfg(test)]
mod tests;
