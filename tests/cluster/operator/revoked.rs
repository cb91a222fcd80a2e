//! What is taken away is refused within a second, wherever it was taken from, and status says so.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval};

use super::client::UNKNOWN_TOOL;
use super::world::Scene;

/// From the API server's answer to the first refusal.
const PROMISED: Duration = Duration::from_secs(1);

/// Calls until a call is refused, and asserts that this took no longer than promised.
async fn is_revoked_in_time(scene: &Scene) {
    let revoked = Instant::now();
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        // Only a call that began after the promised time may not be answered.
        let began = revoked.elapsed();
        let answer = scene.caller.call("ok").await;
        if !answer.is_result() {
            assert_eq!(answer.refusal(), UNKNOWN_TOOL);
            return;
        }
        assert!(began < PROMISED, "still allowed {began:?} after the API server had answered");
    }
}

#[tokio::test]
async fn a_deleted_role_revokes_within_a_second_and_status_follows() {
    let scene = Scene::start().await;
    let before = scene.world.condition("McpServer", "tickets", "Programmed", "True").await;
    assert!(scene.caller.call("ok").await.is_result());

    scene.world.delete("McpRole", "callers").await;
    is_revoked_in_time(&scene).await;

    let server = scene.world.kind("McpServer");
    let enforced = |object: Option<&kube::api::DynamicObject>| {
        let status = object.map(|object| &object.data["status"]["enforcement"]);
        status.is_some_and(|now| now["acknowledged"] == 1 && now["snapshot"].is_string())
    };
    crate::harness::holds(&server, "tickets", "say what is enforced", enforced).await.expect("it stays");
    let after = scene.world.condition("McpServer", "tickets", "Programmed", "True").await;
    assert_eq!(after["lastTransitionTime"], before["lastTransitionTime"], "it was programmed all the time");
}

#[tokio::test]
async fn a_removed_subject_loses_its_calls_within_a_second() {
    let scene = Scene::start().await;
    assert!(scene.caller.call("ok").await.is_result());
    let namespace = scene.world.space.name();
    let subjects = json!([{"kind": "ServiceAccount", "name": "somebody-else", "namespace": namespace}]);
    let generation = scene.world.patch("McpRole", "callers", json!({"spec": {"subjects": subjects}})).await;
    is_revoked_in_time(&scene).await;
    let programmed = scene.world.condition("McpRole", "callers", "Programmed", "True").await;
    assert_eq!(programmed["observedGeneration"], generation);
}

/// A label changes no generation of anything: only what follows labels sees it.
#[tokio::test]
async fn a_removed_label_of_a_server_revokes_within_a_second() {
    let scene = Scene::start().await;
    assert!(scene.caller.call("ok").await.is_result());
    scene.world.patch("McpServer", "tickets", json!({"metadata": {"labels": {"tier": null}}})).await;
    is_revoked_in_time(&scene).await;
    scene.world.patch("McpServer", "tickets", json!({"metadata": {"labels": {"tier": "gold"}}})).await;
    crate::harness::eventually("be allowed again", async || scene.caller.call("ok").await.is_result().then_some(()))
        .await;
}
