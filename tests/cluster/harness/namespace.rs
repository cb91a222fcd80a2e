//! A namespace for one test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use k8s_openapi::api::core::v1::Namespace as Object;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ObjectMeta, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{Cluster, within};

/// A namespace that no other test uses. In a cluster that outlives the test it is deleted when this is dropped.
pub(crate) struct Namespace {
    cluster: Arc<Cluster>,
    client: Client,
    name: String,
}

impl Namespace {
    pub(super) async fn create(cluster: Arc<Cluster>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let client = cluster.client().await;
        // A given cluster may hold what an earlier process of that number left behind: the server makes the name unique.
        let prefix = format!("test-{}-", COUNT.fetch_add(1, Ordering::Relaxed));
        let labels = BTreeMap::from([("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned())]);
        let metadata = ObjectMeta { generate_name: Some(prefix), labels: Some(labels), ..ObjectMeta::default() };
        let object = Object { metadata, ..Object::default() };
        let api = Api::<Object>::all(client.clone());
        let created = within("create a namespace", api.create(&PostParams::default(), &object)).await;
        Self { cluster, client, name: created.expect("a namespace can be created").name_any() }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The objects of a type in it.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// The objects of a resource in it.
    pub(crate) fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.name, resource)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.cluster.is_ours() {
            return;
        }
        let (cluster, name) = (self.cluster.clone(), self.name.clone());
        // The test's runtime cannot be blocked on from within.
        let deleted = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let api = Api::<Object>::all(cluster.client().await);
                within("delete a namespace", api.delete(&name, &DeleteParams::background())).await.map(drop)
            })
        })
        .join();
        if !matches!(deleted, Ok(Ok(()))) {
            eprintln!("namespace {} was not deleted: {deleted:?}", self.name);
        }
    }
}
