//! Small policies for unit tests, written as the JSON of a snapshot with the usual rest filled in.
#![allow(clippy::needless_pass_by_value)] // So that tests can write `json!` in place.

use serde_json::{Map, Value, json};

use crate::policy::{Call, Decision, Identity, Item, Policy, Snapshot};

/// A snapshot with these tools and roles. A tool is a name, or an object laid over an active tool with cautious
/// annotations; a rule needs no `index`.
pub(crate) fn snapshot(tools: Value, roles: Value) -> Snapshot {
    let tools: Vec<Value> = tools.as_array().unwrap().iter().map(tool).collect();
    let mut roles = roles;
    for role in roles.as_array_mut().unwrap() {
        for (index, rule) in role.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            rule["index"] = json!(index);
        }
    }
    serde_json::from_value(json!({
        "format": 1, "target": {"namespace": "default", "server": "ops"}, "urls": ["http://127.0.0.1/mcp"],
        "registration": "Declared",
        "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
        "tools": tools, "roles": roles, "issuers": [], "inputs": [],
    }))
    .unwrap()
}

fn tool(tool: &Value) -> Value {
    let mut base = json!({
        "lifecycle": "Active",
        "annotations": {"readOnly": false, "destructive": true, "idempotent": false, "openWorld": true},
    });
    match tool {
        Value::String(name) => base["name"] = json!(name),
        other => base.as_object_mut().unwrap().extend(other.as_object().unwrap().clone()),
    }
    base
}

pub(crate) fn policy(tools: Value, roles: Value) -> Policy {
    Policy::load(snapshot(tools, roles)).unwrap()
}

/// One role `dev` of the group `eng` with these rules.
pub(crate) fn of_dev(tools: Value, rules: Value) -> Policy {
    policy(
        tools,
        json!([{"name": "dev", "subjects": [{"kind": "Group", "issuer": "corp", "name": "eng"}], "rules": rules}]),
    )
}

/// Ada of `corp`, in the group `eng`, with these claims.
pub(crate) fn ada(claims: Value) -> Identity {
    Identity {
        issuer: "corp".to_owned(),
        subject: "ada".to_owned(),
        groups: vec!["eng".to_owned()],
        scopes: vec!["mcp:read".to_owned()],
        claims: claims.as_object().cloned().unwrap_or_else(Map::new),
    }
}

/// What Ada gets, on a Monday morning.
pub(crate) fn decide(policy: &Policy, item: Item<'_>, arguments: Option<&str>) -> Decision {
    let view = policy.subject(Some(&ada(json!({"mfa": true}))));
    policy.decide(&view, &Call { item, arguments }, now())
}

pub(crate) fn visible(policy: &Policy, item: Item<'_>) -> bool {
    policy.visible(&policy.subject(Some(&ada(json!({"mfa": true})))), item, now())
}

pub(crate) fn now() -> jiff::Timestamp {
    "2026-01-05T09:30:00Z".parse().unwrap()
}
