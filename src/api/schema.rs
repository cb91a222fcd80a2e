//! The custom resource definitions: derived from the types, then brought to what Kubernetes expects.
//!
//! What is shipped, in `crds/`, is what [`definitions`] gave when it was written; a test holds the two together. Programs
//! use [`FILES`], so that none of them carries what derives.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use super::{McpGateway, McpRole, McpServer, McpTool};

/// Name and text of every file of `crds/`, in the order of their names.
pub const FILES: [(&str, &str); 4] = [
    ("toolgate.dev_mcpgateways.yaml", include_str!("../../crds/toolgate.dev_mcpgateways.yaml")),
    ("toolgate.dev_mcproles.yaml", include_str!("../../crds/toolgate.dev_mcproles.yaml")),
    ("toolgate.dev_mcpservers.yaml", include_str!("../../crds/toolgate.dev_mcpservers.yaml")),
    ("toolgate.dev_mcptools.yaml", include_str!("../../crds/toolgate.dev_mcptools.yaml")),
];

/// The definition of one kind.
#[derive(Clone, Debug)]
pub struct Definition {
    /// For example `McpServer`.
    pub kind: String,
    /// For example `mcpservers`.
    pub plural: String,
    /// The whole `CustomResourceDefinition`.
    pub crd: Value,
}

impl Definition {
    /// `openAPIV3Schema` of the version, over the whole object.
    pub fn schema(&self) -> &Value {
        self.crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap_or(&Value::Null)
    }
}

/// All kinds, in the order of their names, derived anew.
///
/// # Panics
/// Never: a derived definition serializes.
pub fn definitions() -> Vec<Definition> {
    [McpGateway::crd(), McpRole::crd(), McpServer::crd(), McpTool::crd()].into_iter().map(definition).collect()
}

#[allow(clippy::expect_used)]
fn definition(crd: CustomResourceDefinition) -> Definition {
    let (kind, plural) = (crd.spec.names.kind.clone(), crd.spec.names.plural.clone());
    let mut crd = serde_json::to_value(crd).expect("a definition holds only strings, numbers, booleans and lists");
    if let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        conform(schema);
    }
    Definition { kind, plural, crd }
}

/// Removes what the derive writes and Kubernetes discourages or does not need: `nullable` (an optional field is left
/// out, never null; null breaks merge patches), the formats of unsigned integers (unknown to the API server), titles
/// (names of Rust types), line breaks inside paragraphs, and the `.0` of bounds that are integers.
fn conform(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    if members.get("nullable").is_some_and(Value::is_boolean) {
        members.remove("nullable");
    }
    if members.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        members.remove("format");
    }
    if members.get("title").is_some_and(Value::is_string) {
        members.remove("title");
    }
    if let Some(Value::String(text)) = members.get_mut("description") {
        *text = text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n");
    }
    for bound in ["minimum", "maximum"] {
        if let Some(number) = members.get_mut(bound)
            && let Some(integer) = number.as_f64().and_then(whole)
        {
            *number = integer.into();
        }
    }
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        properties.values_mut().for_each(conform);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(schema) = members.get_mut(keyword) {
            conform(schema);
        }
    }
}

/// The integer that a float stands for, if it is one within the range that JSON numbers keep exact.
#[allow(clippy::cast_possible_truncation)] // The range is checked.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0).then_some(number as i64)
}
