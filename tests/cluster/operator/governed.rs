//! From manifests to a governed server: what is made, what is allowed, what status says.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::client::UNKNOWN_TOOL;
use super::kubelet::Pod;
use super::process::fixture;
use super::world::{Scene, World, server};
use crate::harness::within;

/// The namespace enforces restricted pods, so that a pod exists at all shows that its spec is.
#[tokio::test]
async fn applied_manifests_become_a_server_that_lets_through_what_roles_allow() {
    let scene = Scene::start().await;
    let space = &scene.world.space;
    within("read", space.api::<Deployment>().get("tickets")).await.expect("a Deployment");
    within("read", space.api::<Service>().get("tickets")).await.expect("a Service");
    within("read", space.api::<NetworkPolicy>().get("tickets-toolgate")).await.expect("a NetworkPolicy");
    within("read", space.api::<ConfigMap>().get("tickets-toolgate-boot")).await.expect("a snapshot to boot from");
    let account = scene.pod.object.spec.as_ref().unwrap().service_account_name.clone().unwrap();
    within("read", space.api::<ServiceAccount>().get(&account)).await.expect("a ServiceAccount");

    assert_eq!(scene.caller.call("ok").await.text(), "ok {}");
    assert_eq!(scene.caller.call("secret").await.refusal(), UNKNOWN_TOOL);
    let stranger = scene.world.token("default", &scene.caller.url, None).await;
    assert_eq!(scene.caller.with_token(stranger).call("ok").await.refusal(), UNKNOWN_TOOL);
    let elsewhere = scene.world.token("caller", "https://elsewhere.example.com/mcp", None).await;
    assert_eq!(scene.caller.with_token(elsewhere).call("ok").await.refusal(), (401, -31007), "another audience");
    assert_eq!((scene.server.calls("ok"), scene.server.calls("secret")), (1, 0), "what was refused never arrived");

    for (kind, name) in [("McpGateway", "default"), ("McpTool", "tickets-ok"), ("McpRole", "callers")] {
        scene.world.condition(kind, name, "Ready", "True").await;
    }
    scene.world.condition("McpServer", "tickets", "Discovered", "True").await;
    scene.world.condition("McpServer", "tickets", "Isolated", "True").await;
    scene.world.condition("McpServer", "tickets", "Ready", "True").await;
    let status = within("read", scene.world.kind("McpServer").get("tickets")).await.unwrap().data["status"].clone();
    assert_eq!(status["address"]["url"], scene.caller.url.as_str(), "{status}");
    assert_eq!(status["enforcement"]["acknowledged"], 1, "{status}");
    assert_eq!(status["enforcement"]["ready"], 1, "{status}");
    assert_eq!(status["serverInfo"]["name"], "fixture-hostile", "{status}");
    assert_eq!(status["tools"]["declared"], 2, "{status}");
}

/// Through the shim: its socket is all that gateway and server share.
#[tokio::test]
async fn a_stdio_server_is_governed_as_well() {
    let world = World::new().await;
    let _operator = world.operator().await;
    let program = fixture("fixture-hostile");
    let command = json!([program, "--stdio"]);
    let source =
        format!("{{container: {{image: 'registry.example.com/tickets:1', transport: Stdio, command: {command}}}}}");
    world.apply(&server("tickets", &source)).await;
    world.apply_role("callers", "caller", "ok").await;
    let pod = Pod::of(&world, "tickets").await;
    pod.mount(&world).await;
    let _server = pod.start_server(&world);
    let _gateway = pod.run_gateway(&world).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;

    let caller = world.caller("caller", "tickets", pod.port).await;
    assert_eq!(caller.call("ok").await.text(), "ok {}");
    assert_eq!(caller.call("secret").await.refusal(), UNKNOWN_TOOL);
    world.condition("McpServer", "tickets", "Ready", "True").await;
}

/// The gateway looks at every socket of its pod, which is here this machine.
#[tokio::test]
async fn a_server_that_answers_on_the_pods_address_is_not_ready_unless_the_network_keeps_callers_away() {
    let scene = Scene::start().await;
    scene.world.condition("McpServer", "tickets", "Ready", "True").await;

    let _listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let isolation = |kind: &str| json!({"spec": {"sandbox": {"isolation": kind}}});
    scene.world.patch("McpServer", "tickets", isolation("Process")).await;
    for type_ in ["Isolated", "Ready"] {
        let found = scene.world.condition("McpServer", "tickets", type_, "False").await;
        assert_eq!(found["reason"], "ReachableAroundGateway", "{found}");
    }
    scene.world.patch("McpServer", "tickets", isolation("NetworkPolicy")).await;
    let isolated = scene.world.condition("McpServer", "tickets", "Isolated", "True").await;
    assert_eq!(isolated["reason"], "ByNetworkPolicy", "{isolated}");
    scene.world.condition("McpServer", "tickets", "Ready", "True").await;
}

#[tokio::test]
async fn a_pod_that_is_ready_but_not_connected_makes_the_server_not_programmed() {
    let scene = Scene::start().await;
    scene.gateway.kill();
    let condition = scene.world.condition("McpServer", "tickets", "Programmed", "Unknown").await;
    assert_eq!(condition["reason"], "GatewayDisconnected", "{condition}");

    scene.pod.mark(&scene.world.space.api(), false).await;
    scene
        .world
        .condition_where("McpServer", "tickets", "Programmed", "Unknown", |found| found["reason"] == "NoGateways")
        .await;
    let _gateway = scene.pod.run_gateway(&scene.world).await;
    scene.world.condition("McpServer", "tickets", "Programmed", "True").await;
}
