//! The operator is away, or the API server: gateways go on, boot from what the cluster holds, and miss nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::client::UNKNOWN_TOOL;
use super::world::{Scene, World};
use crate::harness::{Cluster, eventually};

#[tokio::test]
async fn without_an_operator_calls_go_on_and_its_return_puts_in_force_what_was_edited_meanwhile() {
    let Scene { gateway, operator, server, pod, caller, world } = Scene::start().await;
    assert!(caller.call("ok").await.is_result());

    operator.kill();
    assert_eq!(caller.call("ok").await.text(), "ok {}");
    assert_eq!(caller.call("secret").await.refusal(), UNKNOWN_TOOL);

    // Restarted in its pod: it has its certificate, and nothing but the cluster's ConfigMap says what is allowed.
    gateway.kill();
    pod.forget_policy();
    let _gateway = pod.run_gateway(&world).await;
    assert_eq!(caller.call("ok").await.text(), "ok {}", "it boots from the ConfigMap");
    assert_eq!(caller.call("secret").await.refusal(), UNKNOWN_TOOL);

    world.delete("McpRole", "callers").await;
    world.apply_role("others", "caller", "secret").await;
    assert!(caller.call("ok").await.is_result(), "nobody is there to tell the gateway");

    let _operator = world.operator().await;
    eventually("have the edit in force", async || caller.call("secret").await.is_result().then_some(())).await;
    assert_eq!(caller.call("ok").await.refusal(), UNKNOWN_TOOL);
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    world.condition("McpRole", "others", "Programmed", "True").await;
    assert_eq!(super::kubelet::Pod::of(&world, "tickets").await.uid(), pod.uid(), "no pod was replaced");
    assert_eq!(server.calls("secret"), 1);
}

/// Last known good on disk, and no policy server: what was in force before the restart is in force after it.
#[tokio::test]
async fn a_gateway_that_restarts_alone_keeps_the_newer_of_disk_and_config_map() {
    let Scene { gateway, operator, server: _server, pod, caller, world } = Scene::start().await;
    let old = std::fs::read(pod.boot_file()).expect("the boot volume holds a snapshot");
    world.delete("McpRole", "callers").await;
    eventually("be revoked", async || (!caller.call("ok").await.is_result()).then_some(())).await;
    operator.kill();
    gateway.kill();

    std::fs::write(pod.boot_file(), old).unwrap();
    let mut gateway =
        super::process::Process::start("the gateway", &mut pod.gateway(), &world.scratch.path().join("restarted.log"));
    gateway.answers(pod.admin, "/readyz").await;
    assert_eq!(caller.call("ok").await.refusal(), UNKNOWN_TOOL, "a role that was revoked came back");
}

#[tokio::test]
async fn a_leader_that_stops_by_itself_hands_over_at_once() {
    let Scene { gateway: _gateway, operator, server: _server, pod, caller, world } = Scene::start().await;
    assert_eq!(operator.terminate().await, Some(0));
    assert!(caller.call("ok").await.is_result());

    let _operator = world.operator().await;
    world.apply_role("others", "caller", "secret").await;
    world.condition("McpRole", "others", "Programmed", "True").await;
    assert!(caller.call("secret").await.is_result());
    assert_eq!(super::kubelet::Pod::of(&world, "tickets").await.uid(), pod.uid(), "no pod was replaced");
}

/// Nobody can be asked, so nobody may conclude anything: no call stops, and no condition changes.
#[tokio::test]
async fn an_api_server_that_is_away_stops_no_call_and_changes_no_condition() {
    let cluster = Cluster::own().await;
    let mut scene = Scene::of(World::of(cluster.clone()).await, &["--resync", "5"]).await;
    let before = scene.world.condition("McpServer", "tickets", "Ready", "True").await;

    cluster.server().stop("kube-apiserver");
    // Longer than a resync, so that the operator has looked at everything while nothing could be asked, and longer than
    // the Lease lives, so that the leader has stopped and is a candidate again.
    let away = Instant::now() + Duration::from_secs(12);
    while Instant::now() < away {
        assert_eq!(scene.caller.call("ok").await.text(), "ok {}");
        assert_eq!(scene.caller.call("secret").await.refusal(), UNKNOWN_TOOL);
    }
    cluster.server().resume("kube-apiserver");

    scene.world.apply_role("others", "caller", "secret").await;
    scene.world.condition("McpRole", "others", "Programmed", "True").await;
    assert!(scene.caller.call("secret").await.is_result(), "what is edited afterwards is in force");
    let after = scene.world.condition("McpServer", "tickets", "Ready", "True").await;
    assert_eq!(after["lastTransitionTime"], before["lastTransitionTime"], "it was ready all the time: {after}");
    assert!(scene.operator.is_running() && scene.gateway.is_running(), "nothing had to be started again");
}
