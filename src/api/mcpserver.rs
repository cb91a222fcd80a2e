//! McpServer: an MCP server, how it runs, and what it may ask its callers.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::Reference;
use super::sandbox::Sandbox;
use super::source::Source;
use super::status::McpServerStatus;

/// An MCP server behind an enforcing gateway. Callers reach it only through the gateway, and see only what an McpRole
/// allows them. Who may write an McpServer may run any image.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "toolgate.dev",
    version = "v1alpha1",
    kind = "McpServer",
    namespaced,
    category = "mcp",
    shortname = "mcps",
    derive = "PartialEq",
    status = "McpServerStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    doc = "An MCP server behind an enforcing gateway: how to run or reach it, and what it may ask its callers.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.tools.declared"),
    printcolumn(name = "Offered", type_ = "integer", json_path = ".status.tools.discovered"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.address.url"),
    printcolumn(name = "Registration", type_ = "string", json_path = ".spec.registration", priority = 1),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.gatewayRef.name", priority = 1),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.replicas", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.source.container) || !has(self.spec.sandbox) || (!has(self.spec.sandbox.filesystem) && !has(self.spec.sandbox.isolation))")
        .message("sandbox.filesystem and sandbox.isolation have a meaning only with source.container: remove them"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("the name of an McpServer must be lower case letters, digits and '-', start with a letter and have at most 63 characters: a Service will bear it"),
)]
#[serde(rename_all = "camelCase")]
pub struct McpServerSpec {
    /// Where the server comes from. Exactly one member.
    pub source: Source,
    /// What the server's pods have beyond what Toolgate gives them, as a strategic merge patch of a pod template:
    /// volumes and their mounts in the container `server`, scheduling, `serviceAccountName`, `imagePullSecrets`,
    /// `securityContext`, labels and annotations. It cannot touch the containers and volumes named `toolgate-…`, the
    /// labels of `toolgate.dev` and those that select the pods, host namespaces, host ports and `hostPath` volumes,
    /// `shareProcessNamespace`, `restartPolicy` and `automountServiceAccountToken`, nor mount a `toolgate-…` volume.
    /// No effect on a laptop. Example: `{spec: {nodeSelector: {disk: ssd}}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "pod_template")]
    pub pod_template: BTreeMap<String, Value>,
    /// How many pods run the server. Unset: one, or as many as `kubectl scale` or an autoscaler asked for last. 0 stops
    /// it. No effect on a laptop.
    // The server writes the default: without a value it answers no question about the scale. An author who never set
    // the field does not own it, so applying again reverts no scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// The McpGateway of this namespace whose issuers are trusted. Default: the one named `default`. If it does not
    /// exist, no token is accepted.
    #[serde(default = "Reference::default_gateway")]
    pub gateway_ref: Reference,
    /// Which tools callers may see and call. `Declared` (default): only those for which an McpTool exists. `Auto`:
    /// every tool that the server lists, subject to roles; an McpTool still adds what it declares.
    #[serde(default)]
    pub registration: Registration,
    /// What the server may ask the caller of a running call. What is refused here is answered by the gateway with an
    /// error and never reaches the caller.
    #[serde(default)]
    pub server_requests: ServerRequests,
    /// What becomes of a client's session when the server's process, or the server's own session, is gone. `Replay`
    /// (default): the gateway begins it anew with what the client said (`initialize`, log level, subscriptions) and tells
    /// the client, whose session goes on without what the server knew of it. `NotFound`: the session ends, and the client
    /// is answered with 404 until it begins another one; for servers whose state in a session must not be lost unnoticed.
    #[serde(default)]
    pub on_loss: OnLoss,
    /// What the server's pods may do and reach. No effect on a laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// What the gateway does while it cannot hear from the operator. Unset: it keeps the last good policy in force,
    /// for as long as it takes. No effect on a laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnected_policy: Option<DisconnectedPolicy>,
    /// When the server's pods get a new version of the gateway. `OnRollout` (default): with the next change of the
    /// server that restarts them anyway. `Rolling`: at once, one pod after the other. No effect on a laptop.
    #[serde(default)]
    pub gateway_update: GatewayUpdate,
}

// Only the pod template's owner knows all of its fields: what may be patched is checked when the pods are planned.
fn pod_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Which tools of a server exist for callers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Registration {
    /// Those with an McpTool.
    #[default]
    Declared,
    /// All that the server lists.
    Auto,
}

/// What a server may ask its callers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct ServerRequests {
    /// Questions to the user (`elicitation/create`). `Form` (default): forms that the client shows. `FormAndUrl`: also
    /// links that the user is asked to open. `Deny`: none.
    #[serde(default)]
    pub elicitation: Elicitation,
    /// Use of the caller's language model (`sampling/createMessage`). `Allow` or `Deny` (default).
    #[serde(default)]
    pub sampling: Leave,
    /// The caller's working folders (`roots/list`). `Allow` or `Deny` (default).
    #[serde(default)]
    pub roots: Leave,
}

/// Which elicitations pass.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Elicitation {
    /// Forms.
    #[default]
    Form,
    /// Forms and URLs.
    FormAndUrl,
    /// None.
    Deny,
}

/// Whether requests pass.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Leave {
    /// They pass.
    Allow,
    /// They are refused.
    #[default]
    Deny,
}

/// What becomes of a session whose server's side is gone.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnLoss {
    /// It is begun anew.
    #[default]
    Replay,
    /// It ends.
    NotFound,
}

/// What a gateway does while it cannot hear from the operator.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("(self.mode == 'DenyAfter') == has(self.seconds)")
    .message("seconds is required with mode DenyAfter, and has no meaning with KeepLastKnownGood"))]
pub struct DisconnectedPolicy {
    /// `KeepLastKnownGood`: the last good policy stays in force. `DenyAfter`: after `seconds` every call is refused,
    /// until the operator is heard from again; whoever loses a right then loses it within that time, and a long
    /// failure of the operator stops the server.
    pub mode: DisconnectedMode,
    /// With `DenyAfter`: seconds since the gateway was last connected to the operator, also before a restart of its
    /// container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 604_800))]
    pub seconds: Option<i32>,
}

/// See [`DisconnectedPolicy::mode`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DisconnectedMode {
    /// Enforce what is known.
    #[default]
    KeepLastKnownGood,
    /// Refuse after a while.
    DenyAfter,
}

/// When pods get a new version of the gateway.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum GatewayUpdate {
    /// With the next change that restarts them.
    #[default]
    OnRollout,
    /// At once.
    Rolling,
}
