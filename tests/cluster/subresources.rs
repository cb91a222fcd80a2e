//! The status and scale subresources: each writes its own half, what is written survives, autoscalers find their way.

use std::collections::BTreeSet;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use toolgate::api::{McpGateway, McpRole, McpServer, McpTool};

use crate::harness::{Cluster, definition, resource_of, schema_of, strict, walk, within};
use crate::objects::set;

/// The smallest spec of a kind.
fn spec(kind: &str) -> Value {
    match kind {
        "McpServer" => json!({"source": {"remote": {"url": "https://a"}}}),
        "McpTool" => json!({"serverRef": {"name": "a"}, "toolName": "b"}),
        _ => json!({}),
    }
}

/// A status that sets every field of its kind.
fn status(kind: &str) -> Value {
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "PodsNotReady", "message": "0 of 2 pods are Ready",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-24T12:00:00Z",
    });
    let own = match kind {
        "McpGateway" => json!({"servers": {"referring": 12}}),
        "McpRole" => json!({"effective": {"tools": 14, "servers": 3}}),
        "McpServer" => json!({
            "replicas": 2, "selector": "app.kubernetes.io/instance=a", "address": {"url": "https://a.b.svc:8443/mcp"},
            "serverInfo": {"name": "a", "version": "1.4.0", "protocolVersions": ["2025-11-25"]},
            "tools": {"declared": 12, "discovered": 40},
            "undeclaredTools": [{"name": "delete", "definitionDigest": "sha256:00"}],
            "enforcement": {"generation": 1, "snapshot": "sha256:00", "ready": 2, "acknowledged": 2},
        }),
        "McpTool" => json!({"observedDigest": "sha256:00"}),
        other => panic!("write a status of kind {other} here"),
    };
    let mut status = json!({"observedGeneration": 1, "conditions": [condition]});
    status.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    status
}

const KINDS: [&str; 4] = ["McpGateway", "McpRole", "McpServer", "McpTool"];

fn object(kind: &str, members: &Value) -> Value {
    let mut object = json!({"apiVersion": "toolgate.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}});
    object.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    object
}

#[tokio::test]
async fn a_status_survives_and_neither_half_writes_the_other() {
    let space = Cluster::shared().await.namespace().await;
    for kind in KINDS {
        let api = space.dynamic(&resource_of(&definition(kind)));
        let whole = object(kind, &json!({"spec": spec(kind), "status": {"observedGeneration": 7}}));
        let made = within("apply", api.patch("a", &strict(), &Patch::Apply(&whole))).await.unwrap();
        assert!(made.data["status"].is_null(), "{kind}: an author writes no status: {}", made.data["status"]);

        let params = PatchParams::apply("toolgate-test/status").force().validation_strict();
        let written = object(kind, &json!({"status": status(kind)}));
        let held = within("apply a status", api.patch_status("a", &params, &Patch::Apply(&written))).await;
        let held = held.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(held.data["status"], status(kind), "{kind}: the server holds something else");
        assert_eq!(held.metadata.generation, made.metadata.generation, "{kind}: a status is no new generation");
        assert_eq!(held.data["spec"], made.data["spec"], "{kind}");

        let typed = match kind {
            "McpGateway" => serde_json::to_value(within("read", space.api::<McpGateway>().get("a")).await.unwrap()),
            "McpRole" => serde_json::to_value(within("read", space.api::<McpRole>().get("a")).await.unwrap()),
            "McpServer" => serde_json::to_value(within("read", space.api::<McpServer>().get("a")).await.unwrap()),
            _ => serde_json::to_value(within("read", space.api::<McpTool>().get("a")).await.unwrap()),
        };
        assert_eq!(typed.unwrap()["status"], status(kind), "{kind}: the type holds something else");

        let again = within("apply", api.patch("a", &strict(), &Patch::Apply(&whole))).await.unwrap();
        assert_eq!(again.data["status"], status(kind), "{kind}: an author wrote the status");
    }
}

/// A field that no status above sets would not be seen to survive.
#[test]
fn every_field_is_set_by_a_status_above() {
    for kind in KINDS {
        let schema = &schema_of(&definition(kind))["properties"]["status"];
        let mut covered = BTreeSet::new();
        set(&status(kind), schema, kind, &mut covered);
        walk(schema, kind, &mut |path, _| assert!(covered.contains(path), "no status sets {path}"));
    }
}

/// What `kubectl scale` and an autoscaler do.
#[tokio::test]
async fn a_server_is_scaled_through_its_scale() {
    let space = Cluster::shared().await.namespace().await;
    let api = space.api::<McpServer>();
    let written = object("McpServer", &json!({"spec": spec("McpServer")}));
    within("apply", api.patch("a", &strict(), &Patch::Apply(&written))).await.unwrap();
    let params = PatchParams::apply("toolgate-test/status").force();
    let seen = object("McpServer", &json!({"status": status("McpServer")}));
    within("apply a status", api.patch_status("a", &params, &Patch::Apply(&seen))).await.unwrap();

    let scale = within("read the scale", api.get_scale("a")).await.unwrap();
    let state = scale.status.expect("a scale has a status");
    assert_eq!((state.replicas, state.selector.as_deref()), (2, Some("app.kubernetes.io/instance=a")));

    let wanted = json!({"spec": {"replicas": 3}});
    within("scale", api.patch_scale("a", &PatchParams::default(), &Patch::Merge(&wanted))).await.unwrap();
    assert_eq!(within("read", api.get("a")).await.unwrap().spec.replicas, Some(3));
    // Its author never set the field, so applying the same again leaves it to whoever scales.
    within("apply", api.patch("a", &strict(), &Patch::Apply(&written))).await.unwrap();
    assert_eq!(within("read", api.get("a")).await.unwrap().spec.replicas, Some(3));

    let wanted = json!({"spec": {"replicas": 1001}});
    let refused = within("scale", api.patch_scale("a", &PatchParams::default(), &Patch::Merge(&wanted))).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422), "{refused:?}");
}
