//! One object against the schema of its kind, as an API server with strict field validation would.
//!
//! Owns the checks that the schema states: unknown fields, types and bounds, unique lists, CEL rules.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use kube_cel::CompiledSchema;
use serde_json::{Map, Value, json};

use super::wording::{self, escape};
use crate::api::pod_template;
use crate::api::schema::FILES;

/// Where a definition names its kind.
const KIND: &str = "/spec/names/kind";
/// Where it has the schema of its version, over the whole object.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// Where a definition leaves open what a pod template may hold, since the whole of it would be too large there.
const POD_TEMPLATE: &str = "/properties/spec/properties/podTemplate";

/// Something wrong at a place of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// JSON pointer.
    pub(super) pointer: String,
    /// What is wrong and what to do, without the place.
    pub(super) message: String,
}

impl Fault {
    fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// The schemas of all kinds, compiled once.
pub(super) struct Schemas {
    kinds: BTreeMap<String, Kind>,
    cel: kube_cel::Validator,
}

struct Kind {
    schema: Value,
    validator: Validator,
    rules: CompiledSchema,
}

impl Schemas {
    /// The schemas, compiled when first asked for.
    pub(super) fn shared() -> &'static Self {
        static SHARED: LazyLock<Schemas> = LazyLock::new(Schemas::new);
        &SHARED
    }

    /// # Panics
    /// Never: a test compiles the schema of every kind.
    #[allow(clippy::expect_used)]
    fn new() -> Self {
        let kinds = FILES.into_iter().map(|(_, text)| {
            let definition: Value = serde_saphyr::from_str(text).expect("our own definitions are YAML");
            let schema = definition.pointer(SCHEMA).unwrap_or(&Value::Null);
            let rules = kube_cel::compile_schema(schema);
            let mut schema = whole(schema);
            if let Some(template) = schema.pointer_mut(POD_TEMPLATE) {
                *template = serde_json::from_str(pod_template::SCHEMA).expect("our own schema is JSON");
            }
            let validator = jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .should_validate_formats(true)
                .build(&plain(&schema))
                .expect("our own schema compiles");
            let kind = definition.pointer(KIND).and_then(Value::as_str).unwrap_or_default();
            (kind.to_owned(), Kind { schema, validator, rules })
        });
        Self { kinds: kinds.collect(), cel: kube_cel::Validator::new() }
    }

    /// The kinds that exist.
    pub(super) fn names(&self) -> Vec<&str> {
        self.kinds.keys().map(String::as_str).collect()
    }

    /// Everything wrong with an object of this kind. CEL rules are judged only when every field is known and has the
    /// right type: what they say of a misspelt field would mislead.
    pub(super) fn check(&self, kind: &str, object: &Value) -> Vec<Fault> {
        let Some(kind) = self.kinds.get(kind) else { return Vec::new() };
        let mut faults = Vec::new();
        walk(&kind.schema, object, "", &mut faults);
        let invalid: Vec<Fault> = kind
            .validator
            .iter_errors(object)
            .map(|error| Fault::new(error.instance_path().to_string(), wording::of(&error)))
            .collect();
        if invalid.is_empty()
            && faults.is_empty()
            && let Err(errors) = self.cel.validate_compiled(&kind.rules, object, None)
        {
            faults.extend(errors.iter().map(|error| Fault::new(wording::pointer(&error.field_path), &error.message)));
        }
        faults.extend(invalid);
        faults
    }
}

/// The schema of a kind, and what every object has beside its spec.
fn whole(schema: &Value) -> Value {
    let name =
        json!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"});
    let namespace =
        json!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"});
    let any = json!({"x-kubernetes-preserve-unknown-fields": true});
    let mut metadata = json!({
        "name": name, "namespace": namespace,
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "uid": {"type": "string"}, "generation": {"type": "integer"},
        "creationTimestamp": {"type": "string", "format": "date-time"},
    });
    let managed = ["finalizers", "generateName", "managedFields", "ownerReferences", "resourceVersion", "selfLink"];
    if let Some(fields) = metadata.as_object_mut() {
        fields.extend(managed.map(|field| (field.to_owned(), any.clone())));
    }
    let mut schema = schema.clone();
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        let metadata = json!({"type": "object", "required": ["name"], "properties": metadata});
        properties.insert("metadata".to_owned(), metadata);
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
    }
    if let Some(required) = schema.pointer_mut("/required").and_then(Value::as_array_mut) {
        required.push("metadata".into());
    }
    schema
}

/// The schema without what only Kubernetes understands.
fn plain(schema: &Value) -> Value {
    let Value::Object(members) = schema else { return schema.clone() };
    let mut plain = Map::new();
    for (keyword, value) in members {
        let value = match (keyword.as_str(), value) {
            ("x-kubernetes-int-or-string", _) => {
                plain.insert("type".to_owned(), json!(["integer", "string"]));
                continue;
            }
            ("properties", Value::Object(properties)) => {
                properties.iter().map(|(name, schema)| (name.clone(), self::plain(schema))).collect()
            }
            ("items" | "additionalProperties", schema) => self::plain(schema),
            (keyword, _) if keyword.starts_with("x-kubernetes-") => continue,
            (_, value) => value.clone(),
        };
        plain.insert(keyword.clone(), value);
    }
    Value::Object(plain)
}

/// What JSON Schema does not say: unknown fields, and lists that are sets or maps.
fn walk(schema: &Value, value: &Value, pointer: &str, faults: &mut Vec<Fault>) {
    match value {
        Value::Object(members) => {
            let none = Map::new();
            let properties = match schema.get("properties").and_then(Value::as_object) {
                Some(properties) => properties,
                // A map, or what is not ours to know. An object that says neither has no member at all.
                None if schema.get("type").is_none_or(|kind| kind != "object")
                    || schema.get("additionalProperties").is_some()
                    || schema.get("x-kubernetes-preserve-unknown-fields").is_some() =>
                {
                    return;
                }
                None => &none,
            };
            for (name, member) in members {
                let pointer = format!("{pointer}/{}", escape(name));
                match properties.get(name) {
                    Some(schema) => walk(schema, member, &pointer, faults),
                    None => faults.push(Fault::new(pointer, wording::unknown_field(name, properties))),
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items").map(|items| (schema, items)) else { return };
            let (list, items_schema) = schema;
            unique(list, items, pointer, faults);
            for (index, item) in items.iter().enumerate() {
                walk(items_schema, item, &format!("{pointer}/{index}"), faults);
            }
        }
        _ => {}
    }
}

/// `x-kubernetes-list-type`: the items of a set, and the keys of a map, are unique.
fn unique(list: &Value, items: &[Value], pointer: &str, faults: &mut Vec<Fault>) {
    let key = match list.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => None,
        // All of our maps have one key.
        Some("map") => list.pointer("/x-kubernetes-list-map-keys/0").and_then(Value::as_str),
        _ => return,
    };
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(identity) = key.map_or(Some(item), |key| item.get(key)) else { continue };
        if seen.contains(&identity) {
            let what = wording::short(&identity.to_string());
            faults.push(Fault::new(format!("{pointer}/{index}"), format!("{what} stands here twice: remove one")));
        }
        seen.push(identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(kind: &str, spec: &Value) -> Vec<String> {
        let object =
            json!({"apiVersion": "toolgate.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        Schemas::shared().check(kind, &object).into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn an_object_without_members_has_none() {
        let issuers = |accounts: Value| json!({"issuers": [{"name": "a", "serviceAccounts": accounts}]});
        assert_eq!(faults("McpGateway", &issuers(json!({}))), Vec::<String>::new());
        assert_eq!(faults("McpGateway", &issuers(json!({"x": 1}))), ["/spec/issuers/0/serviceAccounts"]);
    }

    #[test]
    fn what_is_not_ours_to_know_is_left_alone() {
        let metadata =
            json!({"name": "a", "managedFields": [{"manager": "kubectl"}], "ownerReferences": [{"uid": "b"}]});
        let spec = json!({"source": {"remote": {"url": "https://a"}}});
        let object =
            json!({"apiVersion": "toolgate.dev/v1alpha1", "kind": "McpServer", "metadata": metadata, "spec": spec});
        assert_eq!(Schemas::shared().check("McpServer", &object), Vec::new());
    }

    #[test]
    fn pod_templates_are_judged_with_their_own_schema() {
        let server = |template: Value| json!({"source": {"remote": {"url": "https://a"}}, "podTemplate": template});
        let right = json!({"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "server", "livenessProbe": {"httpGet": {"port": 80}}}]}});
        assert_eq!(faults("McpServer", &server(right)), Vec::<String>::new());
        let wrong = json!({"spec": {"containers": [{"name": "server", "tty": "yes"}], "nodeSelecter": {}}});
        assert_eq!(
            faults("McpServer", &server(wrong)),
            ["/spec/podTemplate/spec/nodeSelecter", "/spec/podTemplate/spec/containers/0/tty"]
        );
    }
}
