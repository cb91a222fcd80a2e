//! The one Secret that the operator may read: get it, or be the one who makes it.
//!
//! Knows no keys: what is in the Secret is its caller's. A Secret that exists is never overwritten, so of several
//! replicas that start at once one makes it and the others find it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};

/// Time for one call.
const CALL: Duration = Duration::from_secs(10);
/// Who writes it.
const FIELD_MANAGER: &str = "toolgate/keys";

/// What is in a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// A Secret as it was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its values.
    pub data: Data,
    /// `metadata.resourceVersion`, for [`replace`].
    pub version: String,
}

/// Why a Secret is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refused.
    #[error("failed to {verb} Secret {namespace}/{name}")]
    Call {
        /// `get`, `create` or `replace`.
        verb: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("failed to {verb} Secret {namespace}/{name}: no answer within {} s", CALL.as_secs())]
    Silent {
        /// `get`, `create` or `replace`.
        verb: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A Secret by name.
#[derive(Clone)]
pub struct SecretAt {
    client: Client,
    namespace: String,
    name: String,
}

impl SecretAt {
    /// Names a Secret; nothing is read yet.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// What is there, or what `make` gives if nothing is. Whoever loses the race reads what the winner made.
    pub async fn get_or_create(&self, make: impl FnOnce() -> Data + Send) -> Result<Found, SecretError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        if let Some(secret) = self.call("get", secrets.get_opt(&self.name)).await? {
            return Ok(found(secret));
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let secret = self.secret(make(), None);
        match self.call("create", secrets.create(&params, &secret)).await {
            Ok(secret) => Ok(found(secret)),
            Err(SecretError::Call { source, .. }) if is_conflict(&source) => {
                Ok(found(self.call("get", secrets.get(&self.name)).await?))
            }
            Err(error) => Err(error),
        }
    }

    /// What is there now; `None` if nothing is.
    pub async fn get(&self) -> Result<Option<Found>, SecretError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(self.call("get", secrets.get_opt(&self.name)).await?.map(found))
    }

    /// Writes new values, if the Secret is still as it was read. `None` if somebody was faster.
    pub async fn replace(&self, before: &Found, data: Data) -> Result<Option<Found>, SecretError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let secret = self.secret(data, Some(before.version.clone()));
        match self.call("replace", secrets.replace(&self.name, &params, &secret)).await {
            Ok(secret) => Ok(Some(found(secret))),
            Err(SecretError::Call { source, .. }) if is_conflict(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn secret(&self, data: Data, version: Option<String>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version: version,
                labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "toolgate".to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }

    async fn call<T>(&self, verb: &'static str, call: impl Future<Output = kube::Result<T>>) -> Result<T, SecretError> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(SecretError::Call { verb, namespace, name, source: Box::new(source) }),
            Err(_) => Err(SecretError::Silent { verb, namespace, name }),
        }
    }
}

/// 409: it exists already, or is no longer what was read.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn found(secret: Secret) -> Found {
    let version = secret.resource_version().unwrap_or_default();
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, ByteString(value))| (key, value)).collect();
    Found { data, version }
}
