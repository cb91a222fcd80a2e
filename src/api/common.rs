//! What several kinds share: references, scalars, annotations, and the rule for URLs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// CEL: a URL to which secrets or trust may be given. Plain http only where no network lies between.
pub(super) const SAFE_URL: &str = r"self.matches('^https://[^/@\\s]+(/\\S*)?$') || self.matches('^http://(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]{1,5})?(/\\S*)?$')";
/// What [`SAFE_URL`] says to those who break it.
pub(super) const SAFE_URL_MESSAGE: &str =
    "must be an https URL without credentials; http only to localhost, 127.0.0.1 or [::1]";

/// Name of another object in the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct Reference {
    /// `metadata.name` of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

impl Reference {
    /// The McpGateway that a server uses unless it says otherwise.
    pub(super) fn default_gateway() -> Self {
        Self { name: "default".to_owned() }
    }
}

/// One key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct ConfigMapKey {
    /// `metadata.name` of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in its `data`. Example: `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A string or an integer, compared without conversion: `1` and `"1"` differ.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StringOrInteger {
    /// An integer.
    Integer(i64),
    /// A string.
    String(String),
}

impl JsonSchema for StringOrInteger {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StringOrInteger".into()
    }

    // The one union that a structural schema accepts.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 1024})
    }
}

/// What is believed about a tool. In an McpTool this is your own statement: hints that the server sends are never
/// trusted. In a `toolSelector` every value that is set must agree.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
#[x_kube(validation = Rule::new("!(has(self.readOnly) && self.readOnly && has(self.destructive) && self.destructive)")
    .message("a tool that is readOnly cannot be destructive: set one of them to false"))]
pub struct ToolAnnotations {
    /// The tool changes nothing. A tool that does not say so counts as changing things (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// The tool may delete or overwrite. A tool that does not say so counts as destructive (true), unless it is
    /// `readOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive: Option<bool>,
    /// Calling the tool again with the same arguments changes nothing more. A tool that does not say so counts as
    /// not idempotent (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// The tool reaches beyond its server, for example into the web. A tool that does not say so counts as doing so
    /// (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world: Option<bool>,
}

/// What every object says of itself, whatever its kind.
pub trait Object {
    /// For example `McpRole`.
    fn kind() -> String;
    /// `metadata.namespace`; `default` where a manifest names none.
    fn namespace(&self) -> &str;
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `metadata.uid`, empty outside of a cluster.
    fn uid(&self) -> &str;
    /// `metadata.generation`, 0 outside of a cluster.
    fn generation(&self) -> i64;
    /// `metadata.creationTimestamp` as seconds since the epoch, unset outside of a cluster.
    fn created(&self) -> Option<i64>;
    /// `metadata.labels`.
    fn labels(&self) -> BTreeMap<String, String>;
}

impl<K: kube::Resource<DynamicType = ()>> Object for K {
    fn kind() -> String {
        K::kind(&()).into_owned()
    }

    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or("default")
    }

    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    fn generation(&self) -> i64 {
        self.meta().generation.unwrap_or_default()
    }

    fn created(&self) -> Option<i64> {
        self.meta().creation_timestamp.as_ref().map(|time| time.0.as_second())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.meta().labels.clone().unwrap_or_default()
    }
}
