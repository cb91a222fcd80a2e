//! Objects written by hand survive the way through the server and our types: nothing pruned, nothing lost.

use std::collections::BTreeSet;
use std::fmt::Debug;

use kube::api::Patch;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use toolgate::api::{McpGateway, McpRole, McpServer, McpTool};

use crate::harness::{Cluster, definition, resource_of, schema_of, strict, walk, within};

/// Specs that set, taken together, every field of their kind.
#[rustfmt::skip]
#[allow(clippy::too_many_lines)] // A table.
fn full(kind: &str) -> Vec<Value> {
    match kind {
        "McpGateway" => vec![
            json!({
                "url": "https://mcp.example.com",
                "issuers": [
                    {"name": "company", "oidc": {
                        "url": "https://login.example.com", "groupsClaim": "roles", "subjectClaim": "email",
                        "jwks": {"url": "https://login.example.com/keys"},
                    }},
                    {"name": "partner", "oidc": {
                        "url": "https://partner.example.com", "groupsClaim": "groups", "subjectClaim": "sub",
                        "jwks": {"inline": "{\"keys\": []}"},
                    }},
                    {"name": "lab", "oidc": {
                        "url": "https://lab.example.com", "groupsClaim": "groups", "subjectClaim": "sub",
                        "jwks": {"configMapRef": {"name": "lab-keys", "key": "jwks.json"}},
                    }},
                    {"name": "cluster", "serviceAccounts": {}},
                ],
                "anonymous": {"mode": "Role", "roleRef": {"name": "visitors"}},
            }),
        ],
        "McpRole" => vec![
            json!({
                "inherits": [{"name": "readers"}],
                "subjects": [
                    {"kind": "Group", "name": "engineering", "issuer": "company"},
                    {"kind": "ServiceAccount", "name": "build", "namespace": "ci", "issuer": "cluster"},
                    {"kind": "Claim", "claim": "department", "values": ["research", "operations"], "issuer": "company"},
                ],
                "rules": [{
                    "effect": "Allow",
                    "servers": ["deploy-*"],
                    "serverSelector": {"matchLabels": {"tier": "production"}},
                    "tools": ["list_*"],
                    "toolSelector": {
                        "matchLabels": {"team": "platform"},
                        "capabilities": ["issue-tracking"],
                        "annotations": {"readOnly": true, "destructive": false, "idempotent": true, "openWorld": false},
                    },
                    "prompts": ["*"],
                    "resources": ["repo://acme/*"],
                    "arguments": [
                        {"path": "/environment", "in": ["staging", 3]},
                        {"path": "/replicas", "minimum": -9_007_199_254_740_991_i64, "maximum": 9_007_199_254_740_991_i64},
                        {"path": "/file", "below": ["/srv/data"]},
                    ],
                    "timeWindow": {"days": ["Mon", "Fri"], "start": "22:00", "end": "06:00", "timeZone": "Europe/Berlin"},
                    "when": "identity.claims.mfa == true",
                }],
            }),
        ],
        "McpServer" => vec![
            json!({
                "source": {"container": {
                    "image": "registry.example.com/server:1.4.0", "transport": "Stdio", "command": ["/server"],
                    "args": ["--quiet", ""], "env": [{"name": "LEVEL", "value": ""}], "sessions": "Shared",
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1.5", "memory": "1Gi"}},
                }},
                "podTemplate": {"metadata": {"labels": {"team": "a"}}, "spec": {"nodeSelector": {"disk": "ssd"}, "priority": 7}},
                "replicas": 0,
                "gatewayRef": {"name": "trusted"},
                "registration": "Auto",
                "serverRequests": {"elicitation": "FormAndUrl", "sampling": "Allow", "roots": "Allow"},
                "onLoss": "NotFound",
                "sandbox": {
                    "filesystem": "Scratch", "runtimeClassName": "gvisor", "isolation": "NetworkPolicy",
                    "egress": [{"cidr": "140.82.112.0/20", "port": 443}, {"cidr": "2001:db8::/32"}],
                },
                "disconnectedPolicy": {"mode": "DenyAfter", "seconds": 300},
                "gatewayUpdate": "Rolling",
            }),
            json!({
                "source": {"container": {
                    "image": "registry.example.com/server:1.4.0", "transport": "StreamableHttp", "port": 8080, "path": "/mcp",
                }},
                "replicas": 1,
                "gatewayRef": {"name": "default"},
                "registration": "Declared",
                "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
                "onLoss": "Replay",
                "sandbox": {"egress": []},
                "gatewayUpdate": "OnRollout",
            }),
            json!({
                "source": {"remote": {
                    "url": "https://mcp.example.com/mcp", "caBundle": {"configMapRef": {"name": "corp-ca", "key": "ca.crt"}},
                }},
                "replicas": 1,
                "gatewayRef": {"name": "default"},
                "registration": "Declared",
                "serverRequests": {"elicitation": "Deny", "sampling": "Deny", "roots": "Deny"},
                "onLoss": "Replay",
                "disconnectedPolicy": {"mode": "KeepLastKnownGood"},
                "gatewayUpdate": "OnRollout",
            }),
            json!({
                "source": {"service": {"name": "legacy", "port": 8000, "path": "/v1/mcp"}},
                "replicas": 1,
                "gatewayRef": {"name": "default"},
                "registration": "Declared",
                "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
                "onLoss": "Replay",
                "gatewayUpdate": "OnRollout",
            }),
        ],
        "McpTool" => vec![
            json!({
                "serverRef": {"name": "files"}, "toolName": "read file", "exposedName": "read_file", "title": "Read",
                "description": "Reads.\nLine two: ü", "capabilities": ["reading"], "lifecycle": "Deprecated",
                "annotations": {"readOnly": true, "destructive": false, "idempotent": true, "openWorld": false},
                "deprecation": {"message": "Use the other.", "sunsetTime": "2027-03-01T00:00:00Z", "replacedBy": "files-read"},
            }),
        ],
        other => panic!("write an object of kind {other} here"),
    }
}

/// Applies each spec, reads it back as the server holds it and as our type holds it, and compares all three.
async fn round_trip<K>()
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let space = Cluster::shared().await.namespace().await;
    let kind = K::kind(&());
    for (number, spec) in full(&kind).into_iter().enumerate() {
        let name = format!("a{number}");
        let written = json!({
            "apiVersion": K::api_version(&()), "kind": kind, "metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec,
        });
        let raw = space.dynamic(&resource_of(&definition(&kind)));
        let held = within("apply an object", raw.patch(&name, &strict(), &Patch::Apply(&written))).await;
        let held = held.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        assert_eq!(held.data["spec"], spec, "{kind} {name}: the server holds something else");

        let typed = within("read an object", space.api::<K>().get(&name)).await.unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap()["spec"], spec, "{kind} {name}: the type holds something else");

        // What our type writes is what was there: the server sees no change.
        let mut again = typed.clone();
        again.meta_mut().managed_fields = None;
        again.meta_mut().resource_version = None;
        again.meta_mut().creation_timestamp = None;
        again.meta_mut().generation = None;
        again.meta_mut().uid = None;
        let applied = within("apply an object", space.api::<K>().patch(&name, &strict(), &Patch::Apply(&again))).await;
        assert_eq!(applied.unwrap().resource_version(), typed.resource_version(), "{kind} {name}");
    }
}

#[tokio::test]
async fn gateways_survive_a_round_trip() {
    round_trip::<McpGateway>().await;
}

#[tokio::test]
async fn roles_survive_a_round_trip() {
    round_trip::<McpRole>().await;
}

#[tokio::test]
async fn servers_survive_a_round_trip() {
    round_trip::<McpServer>().await;
}

#[tokio::test]
async fn tools_survive_a_round_trip() {
    round_trip::<McpTool>().await;
}

/// Paths of the fields that a value sets, written as [`walk`] writes them.
pub(crate) fn set(value: &Value, schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    into.insert(path.to_owned());
    for (name, member) in value.as_object().into_iter().flatten() {
        match schema.get("additionalProperties") {
            Some(values) => set(member, values, &format!("{path}{{}}"), into),
            None => set(member, &schema["properties"][name], &format!("{path}.{name}"), into),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        set(item, &schema["items"], &format!("{path}[]"), into);
    }
}

/// A field that no object above sets would not be seen to survive.
#[test]
fn every_field_is_set_by_an_object_above() {
    for kind in ["McpGateway", "McpRole", "McpServer", "McpTool"] {
        let schema = &schema_of(&definition(kind))["properties"]["spec"];
        let mut covered = BTreeSet::new();
        for spec in full(kind) {
            set(&spec, schema, kind, &mut covered);
        }
        walk(schema, kind, &mut |path, _| assert!(covered.contains(path), "no object sets {path}"));
    }
}

/// Defaults are written by the server, so that a reader sees what holds.
#[tokio::test]
async fn defaults_are_visible_on_reading() {
    let space = Cluster::shared().await.namespace().await;
    let raw = space.dynamic(&resource_of(&definition("McpServer")));
    let source = json!({"container": {"image": "x:1", "transport": "Stdio", "command": ["/x"]}});
    let written = json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": "McpServer", "metadata": {"name": "a"}, "spec": {"source": source},
    });
    let held = within("apply an object", raw.patch("a", &strict(), &Patch::Apply(&written))).await.unwrap();
    let expected = json!({
        "source": source,
        "replicas": 1,
        "gatewayRef": {"name": "default"},
        "registration": "Declared",
        "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
        "onLoss": "Replay",
        "gatewayUpdate": "OnRollout",
    });
    assert_eq!(held.data["spec"], expected);
}
