//! McpServer: an MCP server, how to run or reach it, and what it may ask its callers.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Reference, SAFE_URL, SAFE_URL_MESSAGE};

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
    doc = "An MCP server behind an enforcing gateway: how to run or reach it, and what it may ask its callers.",
    printcolumn(name = "Registration", type_ = "string", json_path = ".spec.registration"),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.gatewayRef.name", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("the name of an McpServer must be lower case letters, digits and '-', start with a letter and have at most 63 characters: a Service will bear it"),
)]
#[serde(rename_all = "camelCase")]
pub struct McpServerSpec {
    /// Where the server comes from. Exactly one member.
    pub source: Source,
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
}

/// Where a server comes from.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("[has(self.container), has(self.remote)].filter(x, x).size() == 1")
    .message("exactly one of container and remote must be set"))]
pub struct Source {
    /// An image that Toolgate runs. On a laptop the overlay `toolgate.local.yaml` names the command instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// A server that runs elsewhere and is reached over streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// An image that runs as an MCP server.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("self.transport != 'Stdio' || has(self.command)")
    .message("command is required with transport Stdio: the entry point of an image is not known before it runs"))]
#[x_kube(validation = Rule::new("self.transport != 'StreamableHttp' || has(self.port)")
    .message("port is required with transport StreamableHttp"))]
#[x_kube(validation = Rule::new("self.transport != 'Stdio' || (!has(self.port) && !has(self.path))")
    .message("port and path have no meaning with transport Stdio: remove them"))]
#[x_kube(validation = Rule::new("self.transport == 'Stdio' || !has(self.sessions)")
    .message("sessions has a meaning only with transport Stdio: remove it"))]
pub struct Container {
    /// The image, with a tag or a digest. Example: `ghcr.io/github/github-mcp-server:1.4.0`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// How the server speaks. `Stdio`: newline-delimited JSON-RPC on standard input and output. `StreamableHttp`: the
    /// MCP transport of that name, on `port` and `path`.
    pub transport: Transport,
    /// The program and its first arguments; no shell. Required with `Stdio`. Unset: the image's entry point.
    /// Example: `[/server]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 4096)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub command: Vec<String>,
    /// Further arguments. Unset: none with `command`, else the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub args: Vec<String>,
    /// Environment variables. The server sees these and nothing of the gateway's own environment but PATH, HOME and
    /// the like. Not for secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// See [`Sessions`], whose documentation takes the place of this one in the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// The TCP port on which the server listens. Required with `StreamableHttp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The path of the MCP endpoint with `StreamableHttp`. Unset means `/mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: Option<String>,
}

impl Container {
    /// `sessions`, or what unset means.
    pub fn sessions(&self) -> Sessions {
        self.sessions.unwrap_or(Sessions::PerClient)
    }

    /// `path`, or what unset means.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/mcp")
    }
}

/// How a server speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Transport {
    /// Newline-delimited JSON-RPC on standard input and output.
    Stdio,
    /// Streamable HTTP.
    StreamableHttp,
}

/// With `Stdio` only: how many processes. `PerClient` (the default): one for each client session, so that clients share
/// no state. `Shared`: one for all.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Sessions {
    /// One for all clients.
    Shared,
    /// One for each client session.
    PerClient,
}

/// One environment variable.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value, taken literally.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A server that runs elsewhere.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct Remote {
    /// URL of its MCP endpoint. https, or http to this machine. Callers' tokens are never sent there.
    /// Example: `https://mcp.example.com/mcp`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(SAFE_URL).message(SAFE_URL_MESSAGE))]
    pub url: String,
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
