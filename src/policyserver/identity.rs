//! Who calls: the Pod that a ServiceAccount token is bound to, verified without asking the API server.
//!
//! A gateway gets the policy of its own server and of no other: the server is read from the label of the Pod that
//! this process watches, never from what the caller says.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Deserialize;
use tonic::Status;

use super::SERVER_LABEL;
use crate::kubernetes::issuer::{ClusterIssuer, ClusterKeys};
use crate::kubernetes::watch::Cache;
use crate::policy::snapshot::Target;
use crate::wire::AUDIENCE;

/// Longest token, in bytes.
const TOKEN_BYTES: usize = 8 << 10;
/// How long a caller with a key that is not known waits for the keys to be read again.
const KEYS: Duration = Duration::from_secs(3);
/// How cluster keys may sign: public-key algorithms alone.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A gateway whose Pod is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// The server that it stands before.
    pub target: Target,
    /// `metadata.name` of its Pod.
    pub name: String,
    /// `metadata.uid` of its Pod.
    pub uid: String,
}

/// Why a caller is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The cluster's keys have not been read yet.
    #[error("the cluster's keys are not known yet: try again")]
    NotReady,
    /// No token, or none that could be one.
    #[error("a ServiceAccount token is needed as bearer token")]
    NoToken,
    /// Signed with a key that the cluster does not publish.
    #[error("the token is signed with a key that is not known")]
    UnknownKey,
    /// Expired, of another issuer, for another audience, or forged.
    #[error("the token is refused")]
    Token(#[source] jsonwebtoken::errors::Error),
    /// A token that is not bound to a Pod.
    #[error("the token is not bound to a Pod: use a projected ServiceAccount token")]
    NotBound,
    /// A Pod that this replica does not see, or no longer.
    #[error("the Pod of the token is not known here: try again")]
    UnknownPod,
    /// A Pod that stands before no server.
    #[error("the Pod of the token is no gateway: it has no label {SERVER_LABEL}")]
    NoGateway,
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NotReady | Refused::UnknownPod => Self::unavailable(message),
            Refused::NoToken | Refused::UnknownKey | Refused::Token(_) => Self::unauthenticated(message),
            Refused::NotBound | Refused::NoGateway => Self::permission_denied(message),
        }
    }
}

/// Tells who calls.
#[derive(Clone)]
pub struct Identities {
    cluster: ClusterKeys,
    pods: Cache<Pod>,
}

impl Identities {
    /// Reads keys and Pods from here.
    pub fn new(cluster: ClusterKeys, pods: Cache<Pod>) -> Self {
        Self { cluster, pods }
    }

    /// Who shows this token. A key that is not known makes the keys be read again, and is waited for shortly.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, Refused> {
        let mut changes = self.cluster.changes();
        let issuer = changes.borrow_and_update().clone().ok_or(Refused::NotReady)?;
        let claims = match verify(token, &issuer) {
            Err(Refused::UnknownKey) => {
                self.cluster.refresh();
                let _ = tokio::time::timeout(KEYS, changes.changed()).await; // Nothing new: refused below.
                let issuer = changes.borrow().clone().ok_or(Refused::NotReady)?;
                verify(token, &issuer)?
            }
            verified => verified?,
        };
        self.locate(claims)
    }

    /// Whether the Pod is still there, and still stands before this server.
    pub fn is_current(&self, caller: &Caller) -> bool {
        let bound = Bound {
            namespace: caller.target.namespace.clone(),
            pod: Some(BoundPod { name: caller.name.clone(), uid: caller.uid.clone() }),
        };
        self.locate(bound).is_ok_and(|now| now == *caller)
    }

    fn locate(&self, bound: Bound) -> Result<Caller, Refused> {
        let BoundPod { name, uid } = bound.pod.ok_or(Refused::NotBound)?;
        let key = (bound.namespace, name);
        let pod: Arc<Pod> = self.pods.get(&key).ok_or(Refused::UnknownPod)?;
        // A new Pod of the same name (of a StatefulSet, say) is another one.
        if pod.uid().as_deref() != Some(&uid) {
            return Err(Refused::UnknownPod);
        }
        let server = pod.labels().get(SERVER_LABEL).filter(|server| !server.is_empty()).ok_or(Refused::NoGateway)?;
        let (namespace, name) = key;
        Ok(Caller { target: Target { namespace, server: server.clone() }, name, uid })
    }
}

/// The private claims of a ServiceAccount token.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Bound>,
}

#[derive(Debug, Deserialize)]
struct Bound {
    namespace: String,
    pod: Option<BoundPod>,
}

#[derive(Debug, Deserialize)]
struct BoundPod {
    name: String,
    uid: String,
}

/// What a token says, if it is the cluster's, in force, and for us.
fn verify(token: &str, issuer: &ClusterIssuer) -> Result<Bound, Refused> {
    if token.len() > TOKEN_BYTES {
        return Err(Refused::NoToken);
    }
    let header = decode_header(token).map_err(Refused::Token)?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Refused::Token(jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into()));
    }
    // Keys that this library cannot read are other tokens' business; a set that it cannot read holds none.
    let keys: JwkSet = serde_json::from_str(&issuer.jwks).map_err(|_| Refused::UnknownKey)?;
    let key = header.kid.as_deref().and_then(|kid| keys.find(kid)).ok_or(Refused::UnknownKey)?;
    let key = DecodingKey::from_jwk(key).map_err(Refused::Token)?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[&issuer.url]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    validation.validate_nbf = true;
    let claims = decode::<Claims>(token, &key, &validation).map_err(Refused::Token)?.claims;
    claims.kubernetes.ok_or(Refused::NotBound)
}

#[cfg(test)]
mod tests;
