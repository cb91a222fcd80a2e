//! McpGateway: whose tokens count, and what happens to callers without one.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ConfigMapKey, Reference, SAFE_URL, SAFE_URL_MESSAGE};
use super::status::McpGatewayStatus;

/// The trust of a namespace's servers: the issuers whose tokens count.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "toolgate.dev",
    version = "v1alpha1",
    kind = "McpGateway",
    namespaced,
    category = "mcp",
    shortname = "mcpg",
    derive = "PartialEq",
    status = "McpGatewayStatus",
    doc = "Whose tokens the McpServers that refer to it accept, and what callers without a token may do.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers.referring"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Anonymous", type_ = "string", json_path = ".spec.anonymous.mode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct McpGatewaySpec {
    /// The public URL: the RFC 8707 resource that tokens name as their audience. On a laptop the local URLs count
    /// besides. Unset: only the URLs of the servers' own endpoints count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(SAFE_URL).message(SAFE_URL_MESSAGE))]
    pub url: Option<String>,
    /// Who signs the tokens that are accepted. Subjects of McpRoles name issuers by `name`; within a namespace one
    /// name must mean one issuer. Unset: no token is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = Rule::new("self.all(a, !has(a.oidc) || self.exists_one(b, has(b.oidc) && b.oidc.url == a.oidc.url))")
            .message("two issuers have the same oidc.url: a token could not be told to be of one of them"),
        validation = Rule::new("self.filter(a, has(a.serviceAccounts)).size() <= 1")
            .message("two issuers are the cluster's ServiceAccounts: remove one"),
        merge_strategy = ListMerge::Map(vec!["name".into()])
    )]
    pub issuers: Vec<Issuer>,
    /// What callers without a token may do. A token that is present but invalid is always refused.
    #[serde(default)]
    pub anonymous: Anonymous,
}

/// A token issuer.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.oidc) != has(self.serviceAccounts)")
    .message("exactly one of oidc and serviceAccounts must be set"))]
pub struct Issuer {
    /// Name that subjects refer to.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// An OIDC provider, or any OAuth server that signs JWTs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
    /// The cluster itself: tokens of ServiceAccounts, whose audience is the URL of the endpoint. McpRoles name the
    /// callers with subjects of kind `ServiceAccount`. On a laptop there are none, and identities of the overlay stand
    /// in. It has no members: write `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccounts>,
}

/// The cluster's ServiceAccounts as an issuer.
// An API server drops unknown members before it counts, and server-side apply says nothing of those of an object
// without any of its own. So they are kept, and then counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true, "maxProperties" = 0))]
pub struct ServiceAccounts {}

/// How the tokens of an issuer are verified and read.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Oidc {
    /// The `iss` claim of its tokens, exactly. Example: `https://login.example.com`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(SAFE_URL).message(SAFE_URL_MESSAGE))]
    pub url: String,
    /// Claim that holds the list of groups. Default: `groups`.
    #[serde(default = "groups_claim")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_claim: String,
    /// Claim that names the caller, matched by subjects of kind `User`. Default: `sub`. `email` counts only where the
    /// token says `email_verified`.
    #[serde(default = "subject_claim")]
    #[schemars(length(min = 1, max = 256))]
    pub subject_claim: String,
    /// Where the keys come from. Unset: `jwks_uri` of the issuer's own metadata (OIDC Discovery, RFC 8414).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
}

fn groups_claim() -> String {
    "groups".to_owned()
}

fn subject_claim() -> String {
    "sub".to_owned()
}

/// Where keys come from.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.url), has(self.inline), has(self.configMapRef)].filter(x, x).size() == 1")
    .message("exactly one of url, inline and configMapRef must be set"))]
pub struct Jwks {
    /// URL of a JWK set (RFC 7517). It is fetched again when a token names an unknown key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(SAFE_URL).message(SAFE_URL_MESSAGE))]
    pub url: Option<String>,
    /// A JWK set as JSON text, with public keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
    /// A ConfigMap of this namespace that holds a JWK set as JSON text, with public keys only. It needs the label
    /// `toolgate.dev/jwks: "true"`, without which it is not read. A change of it is in force at once. Not read on a
    /// laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKey>,
}

/// What callers without a token may do.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.mode) && self.mode == 'Role') == has(self.roleRef)")
    .message("roleRef is required with mode Role, and has no meaning with mode Deny"))]
pub struct Anonymous {
    /// `Deny` (default): they get 401. `Role`: they have the role of `roleRef` and no other.
    #[serde(default)]
    pub mode: AnonymousMode,
    /// The McpRole of callers without a token. Required with `Role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_ref: Option<Reference>,
}

/// Whether callers without a token are let in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AnonymousMode {
    /// No.
    #[default]
    Deny,
    /// With one role.
    Role,
}
