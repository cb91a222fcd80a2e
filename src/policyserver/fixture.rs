//! A small cluster in memory, and tokens that its key signed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::keys::Keys;
use super::{Caches, SERVER_LABEL};
use crate::api::{McpGateway, McpRole, McpServer, McpTool};
use crate::kubernetes::issuer::{ClusterIssuer, ClusterKeys};
use crate::kubernetes::watch::Cache;
use crate::policy::snapshot::{FORMAT, Registration, ServerRequests, Snapshot, Target};

pub(super) const NAMESPACE: &str = "agents";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A snapshot that tells itself from others by one URL.
pub(super) fn snapshot(url: &str) -> Snapshot {
    Snapshot {
        format: FORMAT,
        target: target("github"),
        urls: vec![url.to_owned()],
        registration: Registration::Declared,
        server_requests: ServerRequests::default(),
        deny_after_seconds: None,
        on_loss: crate::policy::snapshot::OnLoss::default(),
        tools: Vec::new(),
        roles: Vec::new(),
        anonymous: None,
        issuers: Vec::new(),
        inputs: Vec::new(),
    }
}

pub(super) fn target(server: &str) -> Target {
    Target { namespace: NAMESPACE.to_owned(), server: server.to_owned() }
}

pub(super) fn object<K: DeserializeOwned>(kind: &str, name: &str, generation: i64, spec: &Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("{kind}-{name}"), "generation": generation},
        "spec": spec,
    }))
    .unwrap()
}

pub(super) fn server(name: &str) -> McpServer {
    let spec = json!({"source": {"service": {"name": name, "port": 8000}}});
    object("McpServer", name, 1, &spec)
}

pub(super) fn tool(server: &str, name: &str) -> McpTool {
    let spec = json!({"serverRef": {"name": server}, "toolName": name, "description": "d"});
    object("McpTool", &format!("{server}-{}", name.replace('_', "-")), 1, &spec)
}

/// A role of the group `engineering` that allows these tools everywhere.
pub(super) fn role(name: &str, generation: i64, tools: &[&str]) -> McpRole {
    let spec = json!({
        "subjects": [{"kind": "Group", "name": "engineering", "issuer": "corp"}],
        "rules": [{"effect": "Allow", "servers": ["*"], "tools": tools}],
    });
    object("McpRole", name, generation, &spec)
}

pub(super) fn gateway() -> McpGateway {
    let spec = json!({"issuers": [{"name": "corp", "oidc": {"url": "https://issuer.example.com"}}]});
    object("McpGateway", "default", 1, &spec)
}

pub(super) fn pod(name: &str, uid: &str, server: Option<&str>) -> Pod {
    let labels: BTreeMap<&str, &str> = server.map(|server| (SERVER_LABEL, server)).into_iter().collect();
    let metadata = json!({"name": name, "namespace": NAMESPACE, "uid": uid, "labels": labels});
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})).unwrap()
}

/// Caches of version 100: servers `github` and `gitlab` with a tool each, one role, their pods.
pub(super) fn caches(signer: &TokenKey) -> Caches {
    Caches {
        servers: Cache::filled(100, vec![server("github"), server("gitlab")]),
        tools: Cache::filled(100, vec![tool("github", "read_x"), tool("gitlab", "read_y")]),
        roles: Cache::filled(100, vec![role("developer", 1, &["read_*"])]),
        gateways: Cache::filled(100, vec![gateway()]),
        config_maps: Cache::<ConfigMap>::filled(100, Vec::new()),
        pods: Cache::filled(
            100,
            vec![
                pod("github-1", "uid-github", Some("github")),
                pod("gitlab-1", "uid-gitlab", Some("gitlab")),
                pod("other-1", "uid-other", None),
            ],
        ),
        cluster: ClusterKeys::fixed(signer.issuer()),
    }
}

pub(super) fn keys() -> Arc<Keys> {
    Arc::new(Keys::of(&Keys::fresh(Timestamp::now()).unwrap()).unwrap())
}

/// The key with which a cluster signs ServiceAccount tokens.
pub(super) struct TokenKey {
    kid: String,
    key: EncodingKey,
    jwk: Value,
}

impl TokenKey {
    pub(super) fn new(kid: &str) -> Self {
        use base64::Engine as _;
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.public_key_raw();
        let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": part(&point[1..33]), "y": part(&point[33..]),
        });
        Self { kid: kid.to_owned(), key: EncodingKey::from_ec_der(pair.serialized_der()), jwk }
    }

    pub(super) fn issuer(&self) -> ClusterIssuer {
        ClusterIssuer { url: ISSUER.to_owned(), jwks: json!({"keys": [self.jwk]}).to_string() }
    }

    /// The claims of a token that is bound to this pod.
    pub(super) fn claims(pod: &str, uid: &str) -> Value {
        let now = Timestamp::now().as_second();
        json!({
            "iss": ISSUER, "aud": ["toolgate-policy"], "iat": now, "nbf": now, "exp": now + 600,
            "sub": format!("system:serviceaccount:{NAMESPACE}:default"),
            "kubernetes.io": {"namespace": NAMESPACE, "pod": {"name": pod, "uid": uid}},
        })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key).unwrap()
    }

    pub(super) fn token(&self, pod: &str, uid: &str) -> String {
        self.sign(&Self::claims(pod, uid))
    }
}
