//! Where an McpServer comes from: an image, a Service, or a URL.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::common::{ConfigMapKey, SAFE_URL, SAFE_URL_MESSAGE};

/// Where a server comes from.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("[has(self.container), has(self.service), has(self.remote)].filter(x, x).size() == 1")
    .message("exactly one of container, service and remote must be set"))]
pub struct Source {
    /// An image that Toolgate runs. On a laptop the overlay `toolgate.local.yaml` names the command instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// A Service of this namespace that somebody else runs. The gateway stands in front of it as a Deployment of its
    /// own; whoever reaches the Service directly goes around it, so admit only the gateway's pods there. On a laptop
    /// the overlay `toolgate.local.yaml` says where it is instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
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
    /// CPU and memory of the server's container. Unset: no request and no limit. No effect on a laptop.
    /// Example: `{requests: {cpu: 50m}, limits: {memory: 256Mi}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,
}

impl Container {
    /// `sessions`, or what unset means.
    pub fn sessions(&self) -> Sessions {
        self.sessions.unwrap_or(Sessions::PerClient)
    }

    /// `path`, or what unset means.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(DEFAULT_PATH)
    }
}

/// The path of an MCP endpoint unless one is set.
const DEFAULT_PATH: &str = "/mcp";

// Kubernetes' own schema bounds nothing, and takes numbers that its types here do not read.
fn resources(_: &mut SchemaGenerator) -> Schema {
    let quantities = |description: &str| {
        json!({
            "description": description,
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": {
                "type": "string",
                "maxLength": 64,
                "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?$",
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "limits": quantities("The most that the container gets, as quoted quantities. Example: `{memory: 256Mi}`."),
            "requests": quantities("What is set aside for the container, as quoted quantities. Example: `{cpu: \"1\"}`."),
        },
    })
}

/// A Service that somebody else runs.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct Service {
    /// `metadata.name` of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its port, where an MCP server speaks streamable HTTP without TLS.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The path of the MCP endpoint. Unset means `/mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: Option<String>,
}

impl Service {
    /// `path`, or what unset means.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(DEFAULT_PATH)
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
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caBundle) || self.url.startsWith('https://')")
    .message("caBundle has a meaning only with an https URL: remove it"))]
pub struct Remote {
    /// URL of its MCP endpoint. https, or on a laptop http to this machine. In a cluster it may lead to public and
    /// private addresses, and never to loopback, link-local and multicast ones or the metadata services of clouds,
    /// whatever DNS says. Callers' tokens are never sent there. Example: `https://mcp.example.com/mcp`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(SAFE_URL).message(SAFE_URL_MESSAGE))]
    pub url: String,
    /// The certificate authorities that its certificate may come from. Unset: the public ones. Not read on a laptop,
    /// where the public ones count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
}

/// Certificate authorities.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// A ConfigMap of this namespace that holds certificates as PEM. These count instead of the public ones. The pods
    /// wait until it exists. A change of it is in force within minutes, without a restart.
    pub config_map_ref: ConfigMapKey,
}
