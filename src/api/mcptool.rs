//! McpTool: one tool of one server, what we believe of it, and how callers see it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Reference, ToolAnnotations};
use super::status::McpToolStatus;

/// A tool that may exist for callers. Declaring a tool grants it to nobody: that is what McpRoles do.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "toolgate.dev",
    version = "v1alpha1",
    kind = "McpTool",
    namespaced,
    category = "mcp",
    shortname = "mcpt",
    derive = "PartialEq",
    status = "McpToolStatus",
    doc = "A tool of an McpServer that may exist for callers: what is believed of it and how callers see it. Grants nothing by itself.",
    printcolumn(name = "Server", type_ = "string", json_path = ".spec.serverRef.name"),
    printcolumn(name = "Tool", type_ = "string", json_path = ".spec.toolName"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Lifecycle", type_ = "string", json_path = ".spec.lifecycle"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.observedDigest", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.deprecation) || (has(self.lifecycle) && self.lifecycle != 'Active')")
    .message("deprecation has an effect only with lifecycle Deprecated or Disabled: set lifecycle too"))]
pub struct McpToolSpec {
    /// The McpServer that has the tool. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("serverRef is immutable: create another McpTool"))]
    pub server_ref: Reference,
    /// Name of the tool at the server; this is the name that McpRole rules match. One McpTool for each tool of a
    /// server. Immutable.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("toolName is immutable: create another McpTool"))]
    pub tool_name: String,
    /// Name that callers see and use instead. Must be unique among the tools of the server. Unset: `toolName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.-]+$"))]
    pub exposed_name: Option<String>,
    /// Title that callers see. Unset: the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub title: Option<String>,
    /// Description that agents read. Unset: the server's, which it can change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub description: Option<String>,
    /// What you believe about the tool. Unset: the cautious value of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<ToolAnnotations>,
    /// What the tool is for, in words of your own that `toolSelector` of an McpRole matches.
    /// Example: `[issue-tracking]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub capabilities: Vec<String>,
    /// `Active` (default); `Deprecated`: works, and callers are told so; `Disabled`: looks to everybody as if it did
    /// not exist.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// What callers of a deprecated tool are told. Needs `lifecycle` other than `Active`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
}

/// Stage of a tool's life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Lifecycle {
    /// In use.
    #[default]
    Active,
    /// In use, on its way out.
    Deprecated,
    /// Out of use.
    Disabled,
}

/// What callers of a deprecated tool are told.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Deprecation {
    /// Free text, shown with the description and in each result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: Option<String>,
    /// When the tool ends, as RFC 3339; from then on it counts as `Disabled`. Unset: it does not end by itself.
    /// Example: `2027-03-01T00:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset_time: Option<Time>,
    /// `metadata.name` of the McpTool to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub replaced_by: Option<String>,
}
