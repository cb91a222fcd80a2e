//! The status of each kind: what the operator saw. Written by the operator alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use kube::core::object::HasStatus;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest message of a condition, in characters.
pub const MESSAGE_CHARACTERS: usize = 4096;
/// Longest text of a server that a status repeats, in characters.
pub const FOREIGN_CHARACTERS: usize = 256;
/// Most entries of `undeclaredTools`.
pub const UNDECLARED_TOOLS: usize = 64;
/// Most entries of `protocolVersions`.
pub const PROTOCOL_VERSIONS: usize = 16;

/// What the status of every kind has.
pub trait Report: Serialize + Sync {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

macro_rules! reports {
    ($($status:ty),*) => {$(
        impl Report for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )*};
}

reports!(McpServerStatus, McpToolStatus, McpRoleStatus, McpGatewayStatus);

/// The conditions of an object; none before it was first looked at.
pub fn conditions_of<K: HasStatus<Status: Report>>(object: &K) -> &[Condition] {
    object.status().map(Report::conditions).unwrap_or_default()
}

/// What is known of an McpServer.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: callers can use it. `Accepted`: it makes sense. `ResolvedRefs`: what it refers to exists. `Available`:
    /// its pods run. `Isolated`: nobody can go around the gateway. `Discovered`: the server said what it offers.
    /// `Programmed`: every Ready pod enforces this generation. `Reconciling` and `Stalled` are there only when true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// How many pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Label selector of the pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Where callers reach the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// What the server says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_info: Option<ServerInfo>,
    /// How many tools there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolCounts>,
    /// Tools that the server offers and no McpTool declares, the first 64 by name. All tools are in the ConfigMap
    /// `<name>-toolgate-catalogue`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub undeclared_tools: Vec<UndeclaredTool>,
    /// Which policy is in force, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

/// Where callers reach something.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct Address {
    /// The URL of the MCP endpoint, which is also the audience that tokens must name.
    #[schemars(length(max = 2048))]
    pub url: String,
}

/// What a server says of itself. Nothing of it is trusted.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// Its name, cut at 256 characters.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub name: String,
    /// Its version, cut at 256 characters.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub version: String,
    /// MCP versions that it speaks, the newest 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub protocol_versions: Vec<String>,
}

/// How many tools a server has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct ToolCounts {
    /// McpTools that declare one of it.
    #[serde(default)]
    pub declared: i32,
    /// Tools that it offers. Unset: it did not say yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered: Option<i32>,
}

/// A tool that no McpTool declares.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UndeclaredTool {
    /// Its name at the server.
    #[schemars(length(max = 256))]
    pub name: String,
    /// SHA-256 over its definition as the server sent it (RFC 8785).
    #[schemars(length(max = 256))]
    pub definition_digest: String,
}

/// Which policy is in force, and where.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct Enforcement {
    /// The generation of the McpServer from which the newest policy was made.
    #[serde(default)]
    pub generation: i64,
    /// Digest of the newest policy. `toolgate snapshot` computes the same from the same manifests.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub snapshot: String,
    /// How many pods are Ready.
    #[serde(default)]
    pub ready: i32,
    /// How many of them said that they enforce it.
    #[serde(default)]
    pub acknowledged: i32,
}

/// What is known of an McpTool.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct McpToolStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: callers with a role can use it. `Accepted`: it makes sense. `ResolvedRefs`: what it refers to exists.
    /// `Programmed`: every Ready pod of the server enforces this generation. `Reconciling` and `Stalled` are there only
    /// when true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// SHA-256 over the tool's definition as the server sends it (RFC 8785). Unset: the server does not offer the tool,
    /// or did not say yet what it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub observed_digest: Option<String>,
}

/// What is known of an McpRole.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct McpRoleStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: it is in force everywhere. `Accepted`: it makes sense. `ResolvedRefs`: what it refers to exists.
    /// `Programmed`: every Ready pod of the servers that it is about enforces this generation. `Reconciling` and
    /// `Stalled` are there only when true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// What the role comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
}

/// What a role comes to, inherited rules included.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct Effective {
    /// Declared tools that some rule could allow.
    #[serde(default)]
    pub tools: i32,
    /// McpServers that some rule is about.
    #[serde(default)]
    pub servers: i32,
}

/// What is known of an McpGateway.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct McpGatewayStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: it is in force everywhere. `Accepted`: it makes sense. `ResolvedRefs`: what it refers to exists.
    /// `Programmed`: every Ready pod of the servers that refer to it enforces this generation. `Reconciling` and
    /// `Stalled` are there only when true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The McpServers that trust its issuers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServerCounts>,
}

/// How many servers trust the issuers of a gateway.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct ServerCounts {
    /// McpServers whose `gatewayRef` names it.
    #[serde(default)]
    pub referring: i32,
}

// `metav1.Condition`, with the bounds that Kubernetes itself sets.
fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut time = generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>();
    time.insert("description".to_owned(), "When `status` last changed.".into());
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": time,
                "message": {
                    "description": "What is so, and what to do.",
                    "type": "string",
                    "maxLength": 32768,
                },
                "observedGeneration": {
                    "description": "The generation of the object that this condition speaks of.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "Why, in one word.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "`True`, `False` or `Unknown`.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "What this condition is about.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
            },
        },
    })
}
