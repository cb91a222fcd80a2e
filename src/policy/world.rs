//! What the declared objects say, parsed: the input of `compile`, in policy's own words.
//!
//! Everything in a [`World`] is valid by itself; what was not is left out and told as a [`Finding`]. References
//! between objects are resolved (or refused) here too, so `compile` is total.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entries;
use super::snapshot::{Input, Issuer, OnLoss, Registration, Rule, ServerRequests, Subject, Tool};

/// Every object that policy reads, keyed by (namespace, name).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct World {
    /// Every McpServer.
    #[serde(with = "entries")]
    pub servers: BTreeMap<Key, Server>,
    /// Every McpTool, by (namespace, name of the McpTool).
    #[serde(with = "entries")]
    pub tools: BTreeMap<Key, DeclaredTool>,
    /// Every McpRole.
    #[serde(with = "entries")]
    pub roles: BTreeMap<Key, DeclaredRole>,
    /// Every McpGateway.
    #[serde(with = "entries")]
    pub gateways: BTreeMap<Key, Gateway>,
}

/// Issuer of subjects that name none in a namespace whose gateways list none: that of the identities which
/// `toolgate local` makes up. In a cluster nobody has such tokens.
pub const UNNAMED_ISSUER: &str = "local";

/// (namespace, name).
pub type Key = (String, String);

/// An McpServer, as far as policy reads it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Server {
    /// Name of the McpGateway in the same namespace whose issuers are trusted; it may not exist.
    pub gateway: String,
    /// See [`Registration`].
    pub registration: Registration,
    /// See [`ServerRequests`].
    pub server_requests: ServerRequests,
    /// See `Snapshot::deny_after_seconds`.
    #[serde(default)]
    pub deny_after_seconds: Option<u32>,
    /// See [`OnLoss`].
    #[serde(default)]
    pub on_loss: OnLoss,
    /// `metadata.labels`, for `serverSelector`.
    pub labels: BTreeMap<String, String>,
    /// Origin of the object.
    pub input: Input,
}

/// An McpTool.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeclaredTool {
    /// Name of the McpServer in the same namespace.
    pub server: String,
    /// The declaration.
    pub tool: Tool,
    /// Origin of the object.
    pub input: Input,
}

/// An McpRole.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeclaredRole {
    /// Inherited roles of the same namespace: they exist and form no cycle.
    pub inherits: Vec<String>,
    /// Who has the role.
    pub subjects: Vec<Subject>,
    /// Rules with the servers that they are about.
    pub rules: Vec<ServerRule>,
    /// Origin of the object.
    pub input: Input,
}

/// A rule and the servers that it is about: the union of both lists. A rule with neither is about no server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerRule {
    /// Globs over McpServer names.
    pub servers: Vec<String>,
    /// Labels that an McpServer must all have; an empty map selects every server.
    pub server_selector: Option<BTreeMap<String, String>>,
    /// The rule.
    pub rule: Rule,
}

/// An McpGateway, as far as policy reads it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Gateway {
    /// `spec.url`.
    pub url: Option<String>,
    /// Trusted issuers.
    pub issuers: Vec<Issuer>,
    /// Role of callers without a token.
    pub anonymous: Option<String>,
    /// Origin of the object.
    pub input: Input,
}

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectRef {
    /// For example `McpRole`.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One thing wrong, or doubtful, about one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The object that must change.
    pub object: ObjectRef,
    /// JSON pointer (RFC 6901) to the field, empty for the whole object.
    pub pointer: String,
    /// Whether the object, or a part of it, is out of force.
    pub severity: Severity,
    /// CamelCase reason, as a condition would carry it: `InvalidExpression`, `ServerNotFound`, `Conflicted`, …
    pub reason: &'static str,
    /// Lower case, says what is wrong and what to do.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Severity {
    /// In force, but probably not what was meant.
    Warning,
    /// Not in force.
    Error,
}
