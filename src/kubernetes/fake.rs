//! For tests: an API server in memory, as far as this room uses one.
//!
//! Objects with versions, server-side apply for managers that do not share fields, status, preconditions, lists and
//! watches, and the garbage collector. [`Fake::stop_after`] lets it fall silent after so many writes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Body = UnsyncBoxBody<Bytes, Infallible>;
/// `apis/apps/v1` and the plural; namespace; name.
type Address = (String, String, String);

/// The server. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Address, Value>,
    /// What each manager applied last, by address and whether it was the status.
    applied: BTreeMap<(Address, String, bool), Value>,
    version: u64,
    writes: Vec<String>,
    stop_after: Option<usize>,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    /// Lists answer with this code instead, so many times.
    refuse_lists: usize,
}

impl Fake {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let fake = fake.clone();
            async move { fake.answer(request).await }
        });
        Client::new(service, "default")
    }

    /// Puts an object there without a client: a user's.
    pub(crate) fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.0.lock();
        let of = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let address = (resource.to_owned(), of("namespace"), of("name"));
        if let Some(before) = state.objects.get(&address) {
            object["metadata"]["uid"] = before["metadata"]["uid"].clone();
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
            if object.get("status").is_none() {
                object["status"] = before["status"].clone();
            }
        }
        state.store(address, object);
    }

    /// Deletes an object as a user would, and what it owned.
    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let mut state = self.0.lock();
        state.delete(&(resource.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    /// Kubernetes' garbage collector: deletes what only absent objects own.
    pub(crate) fn collect(&self) {
        let mut state = self.0.lock();
        let uids: Vec<Value> = state.objects.values().map(|object| object["metadata"]["uid"].clone()).collect();
        let is_orphan = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            !owners.is_empty() && !owners.iter().any(|owner| uids.contains(&owner["uid"]))
        };
        let orphans: Vec<Address> =
            state.objects.iter().filter(|(_, object)| is_orphan(object)).map(|(address, _)| address.clone()).collect();
        for address in &orphans {
            state.delete(address);
        }
    }

    /// Every object of a resource.
    pub(crate) fn all(&self, resource: &str) -> Vec<Value> {
        let state = self.0.lock();
        state.objects.iter().filter(|((of, ..), _)| of == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Every object, without what differs between two histories that end alike.
    pub(crate) fn end_state(&self) -> BTreeMap<String, Value> {
        let state = self.0.lock();
        let plain = |((resource, namespace, name), object): (&Address, &Value)| {
            let mut object = object.clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.retain(|field, _| {
                !["resourceVersion", "uid", "generation", "creationTimestamp"].contains(&field.as_str())
            });
            for owner in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
                owner.as_object_mut().unwrap().remove("uid");
            }
            for condition in
                object.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten()
            {
                condition.as_object_mut().unwrap().remove("lastTransitionTime");
            }
            (format!("{resource}/{namespace}/{name}"), object)
        };
        state.objects.iter().filter(|((resource, ..), _)| !resource.ends_with("/events")).map(plain).collect()
    }

    /// How new the newest object is.
    pub(crate) fn version(&self) -> u64 {
        self.0.lock().version
    }

    /// `VERB resource/namespace/name`, in order. Events are not counted.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.0.lock().writes.clone()
    }

    /// Falls silent after so many more writes: the last of them happens, but is not answered.
    pub(crate) fn stop_after(&self, writes: Option<usize>) {
        let mut state = self.0.lock();
        state.stop_after = writes.map(|more| state.writes.len() + more);
    }

    /// Ends every watch, as an API server does that compacted its history.
    pub(crate) fn break_watches(&self) {
        self.end_watches(410, "Expired");
    }

    /// Every watch breaks off, and may go on from where it was.
    pub(crate) fn cut_watches(&self) {
        self.end_watches(500, "InternalError");
    }

    fn end_watches(&self, code: u16, reason: &str) {
        let mut state = self.0.lock();
        let error = json!({"type": "ERROR", "object": {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "",
        }});
        for (_, watcher) in state.watchers.drain(..) {
            let _ = watcher.send(error.clone());
        }
    }

    /// The next lists fail.
    pub(crate) fn refuse_lists(&self, times: usize) {
        self.0.lock().refuse_lists = times;
    }

    /// The history begins anew at a lower version, as after a restore.
    pub(crate) fn rewind(&self, version: u64) {
        self.0.lock().version = version;
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Result<Response<Body>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut path: Vec<String> = parts.uri.path().trim_matches('/').split('/').map(str::to_owned).collect();
        let prefix = if path[0] == "api" { 2 } else { 3 };
        let mut namespace = String::new();
        if path.get(prefix).map(String::as_str) == Some("namespaces") && path.len() > prefix + 2 {
            namespace = path.remove(prefix + 1);
            path.remove(prefix);
        }
        let resource = path[..=prefix].join("/");
        let name = path.get(prefix + 1).cloned();
        let is_status = path.get(prefix + 2).map(String::as_str) == Some("status");
        let mut state = self.0.lock();
        if state.stop_after.is_some_and(|stop| state.writes.len() >= stop) {
            return Err(std::io::Error::other("the API server is gone"));
        }
        if parts.method == Method::GET {
            return Ok(match name {
                Some(name) => state.get(&(resource, namespace, name)),
                None if query.contains("watch=true") => state.watch(&resource),
                None => state.list(&resource, &namespace, &query),
            });
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let name = name.or_else(|| body["metadata"]["name"].as_str().map(str::to_owned)).unwrap_or_default();
        let address = (resource, namespace, name);
        if !address.0.ends_with("/events") {
            state.writes.push(format!("{} {}/{}/{}", parts.method, address.0, address.1, address.2));
        }
        let answer = match parts.method {
            Method::POST if state.objects.contains_key(&address) => refusal(409, "AlreadyExists"),
            Method::POST => {
                state.store(address.clone(), body);
                state.get(&address)
            }
            Method::PUT => state.replace(&address, body),
            Method::DELETE => state.delete_if(&address, &body),
            _ if query.contains("fieldManager") => {
                let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager=")).unwrap_or_default();
                let is_forced = query.contains("force=true");
                state.apply(&address, manager, is_status, is_forced, body)
            }
            _ => refusal(405, "MethodNotAllowed"),
        };
        if state.stop_after.is_some_and(|stop| state.writes.len() >= stop) {
            return Err(std::io::Error::other("the API server is gone")); // Written, and not answered.
        }
        Ok(answer)
    }
}

impl State {
    fn store(&mut self, address: Address, mut object: Value) {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        if metadata["generation"].is_null() {
            metadata["generation"] = json!(1);
        }
        metadata["name"] = json!(address.2);
        if !address.1.is_empty() {
            metadata["namespace"] = json!(address.1);
        }
        let kind = if self.objects.contains_key(&address) { "MODIFIED" } else { "ADDED" };
        self.tell(&address, kind, &object);
        self.objects.insert(address, object);
    }

    fn delete(&mut self, address: &Address) {
        if let Some(mut object) = self.objects.remove(address) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.applied.retain(|(of, ..), _| of != address);
            self.tell(address, "DELETED", &object);
        }
    }

    fn tell(&mut self, address: &Address, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.watchers.retain(|(resource, watcher)| *resource != address.0 || watcher.send(event.clone()).is_ok());
    }

    fn get(&self, address: &Address) -> Response<Body> {
        match self.objects.get(address) {
            Some(object) => answer(200, object),
            None => refusal(404, "NotFound"),
        }
    }

    fn list(&mut self, resource: &str, namespace: &str, query: &str) -> Response<Body> {
        if self.refuse_lists > 0 && !query.contains("limit=1&") && !query.ends_with("limit=1") {
            self.refuse_lists -= 1;
            return refusal(500, "InternalError");
        }
        let of = |((found, space, _), _): &(&Address, &Value)| {
            found == resource && (namespace.is_empty() || space == namespace)
        };
        let items: Vec<&Value> = self.objects.iter().filter(of).map(|(_, object)| object).collect();
        answer(
            200,
            &json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": self.version.to_string()}}),
        )
    }

    fn watch(&mut self, resource: &str) -> Response<Body> {
        let (send, mut receive) = mpsc::unbounded_channel::<Value>();
        self.watchers.push((resource.to_owned(), send));
        let lines = futures::stream::poll_fn(move |context| {
            receive
                .poll_recv(context)
                .map(|event| event.map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n"))))))
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(lines)))
    }

    fn replace(&mut self, address: &Address, body: Value) -> Response<Body> {
        let Some(current) = self.objects.get(address) else { return refusal(404, "NotFound") };
        let asked = &body["metadata"]["resourceVersion"];
        if !asked.is_null() && *asked != current["metadata"]["resourceVersion"] {
            return refusal(409, "Conflict");
        }
        self.store(address.clone(), body);
        self.get(address)
    }

    fn delete_if(&mut self, address: &Address, body: &Value) -> Response<Body> {
        let Some(current) = self.objects.get(address) else { return refusal(404, "NotFound") };
        let asked = &body["preconditions"]["uid"];
        if !asked.is_null() && *asked != current["metadata"]["uid"] {
            return refusal(409, "Conflict");
        }
        self.delete(address);
        answer(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    fn apply(&mut self, address: &Address, manager: &str, is_status: bool, force: bool, body: Value) -> Response<Body> {
        let current = self.objects.get(address).cloned();
        if is_status && current.is_none() {
            return refusal(404, "NotFound");
        }
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && current.as_ref().is_some_and(|current| current["metadata"]["uid"] != *uid) {
            return refusal(409, "Conflict");
        }
        if current.is_some() && !force {
            return refusal(409, "Conflict");
        }
        let mut said = body;
        if is_status {
            said = json!({"status": said["status"]});
        } else {
            said.as_object_mut().unwrap().remove("status");
        }
        let key = (address.clone(), manager.to_owned(), is_status);
        let before = current.clone().unwrap_or_else(|| json!({}));
        let mut next = before.clone();
        if let Some(old) = self.applied.get(&key) {
            forget(&mut next, old, &said);
        }
        merge(&mut next, &said);
        self.applied.insert(key, said);
        if next != before {
            let changed = |field: &str| before.get(field) != next.get(field);
            if !is_status && (changed("spec") || changed("data") || changed("binaryData")) {
                let generation = before["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                next["metadata"]["generation"] = json!(generation);
            }
            self.store(address.clone(), next);
        }
        self.get(address)
    }
}

/// Removes what was applied once and is not any more.
fn forget(target: &mut Value, old: &Value, new: &Value) {
    let (Some(target), Some(old)) = (target.as_object_mut(), old.as_object()) else { return };
    for (field, old) in old {
        match (new.get(field), target.get_mut(field)) {
            (None, Some(_)) => {
                target.remove(field);
            }
            (Some(new), Some(target)) => forget(target, old, new),
            _ => {}
        }
    }
}

fn merge(target: &mut Value, said: &Value) {
    match (target, said) {
        (Value::Object(target), Value::Object(said)) => {
            for (field, said) in said.iter().filter(|(_, said)| !said.is_null()) {
                merge(target.entry(field.clone()).or_insert(Value::Null), said);
            }
        }
        (target, said) => *target = said.clone(),
    }
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let body = UnsyncBoxBody::new(Full::new(Bytes::from(body.to_string())));
    Response::builder().status(code).body(body).unwrap()
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": reason}),
    )
}
