//! What means nothing changes nothing: the last good policy stays, and status names the field.

use serde_json::json;

use super::world::{Scene, condition_of};
use crate::harness::{eventually, holds};

#[tokio::test]
async fn a_role_edited_into_nonsense_keeps_the_last_good_policy_and_its_status_names_the_field() {
    let scene = Scene::start().await;
    let world = &scene.world;
    assert!(scene.caller.call("ok").await.is_result());

    let rule = json!({
        "effect": "Allow", "serverSelector": {"matchLabels": {"tier": "gold"}}, "tools": ["*"], "when": "1 +",
    });
    let generation = world.patch("McpRole", "callers", json!({"spec": {"rules": [rule]}})).await;
    let accepted = world.condition("McpRole", "callers", "Accepted", "False").await;
    assert_eq!(accepted["observedGeneration"], generation);
    assert!(accepted["message"].as_str().unwrap().contains("/spec/rules/0/when"), "{accepted}");
    assert!(scene.caller.call("ok").await.is_result(), "the last good policy is in force");
    assert!(!scene.caller.call("secret").await.is_result(), "the nonsense is not");
    let ready =
        holds(&world.kind("McpRole"), "callers", "not be ready", |object: Option<&kube::api::DynamicObject>| {
            object.and_then(|object| condition_of(object, "Ready")).is_some_and(|ready| ready["status"] != "True")
        })
        .await;
    assert!(ready.is_some());

    // The way out is the way in.
    world.apply_role("callers", "caller", "secret").await;
    world.condition("McpRole", "callers", "Accepted", "True").await;
    eventually("have the repaired role in force", async || scene.caller.call("secret").await.is_result().then_some(()))
        .await;
}

/// One broken object never stalls the others.
#[tokio::test]
async fn a_broken_server_does_not_stall_its_neighbour() {
    let scene = Scene::start().await;
    scene
        .world
        .apply(
            r"
apiVersion: toolgate.dev/v1alpha1
kind: McpServer
metadata: {name: broken}
spec:
  gatewayRef: {name: nowhere}
  source: {container: {image: 'registry.example.com/broken:1', transport: StreamableHttp, port: 1}}
",
        )
        .await;
    let resolved = scene.world.condition("McpServer", "broken", "ResolvedRefs", "False").await;
    assert!(resolved["message"].as_str().unwrap().contains("nowhere"), "{resolved}");

    scene.world.apply_role("others", "caller", "secret").await;
    scene.world.condition("McpRole", "others", "Programmed", "True").await;
    assert!(scene.caller.call("secret").await.is_result());
}
