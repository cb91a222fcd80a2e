//! Declarations that cannot be carried out: each says so on its own object, and holds up nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::client::UNKNOWN_TOOL;
use super::kubelet::Pod;
use super::world::{Scene, Server, server};
use crate::harness::{eventually, within};

/// Calls that are allowed are answered, and what was not allowed is not.
async fn goes_on(scene: &Scene) {
    assert_eq!(scene.caller.call("ok").await.text(), "ok {}");
    assert_eq!(scene.caller.call("secret").await.refusal(), UNKNOWN_TOOL);
}

/// The older counts; in one second, which is as exact as Kubernetes tells ages, the first by name. This one is second
/// by either.
#[tokio::test]
async fn of_two_declarations_of_one_tool_one_counts_and_the_other_says_so() {
    let scene = Scene::start().await;
    scene
        .world
        .apply(
            r"
apiVersion: toolgate.dev/v1alpha1
kind: McpTool
metadata: {name: z-twin}
spec: {serverRef: {name: tickets}, toolName: ok, lifecycle: Disabled}
",
        )
        .await;
    let accepted = scene.world.condition("McpTool", "z-twin", "Accepted", "False").await;
    assert_eq!(accepted["reason"], "Conflicted", "{accepted}");
    assert!(accepted["message"].as_str().unwrap().contains("`tickets-ok` keeps it"), "{accepted}");
    scene.world.condition("McpTool", "tickets-ok", "Ready", "True").await;
    goes_on(&scene).await;

    // Without the first the other is the tool, and it is disabled.
    scene.world.delete("McpTool", "tickets-ok").await;
    scene.world.condition("McpTool", "z-twin", "Accepted", "True").await;
    eventually("follow", async || (!scene.caller.call("ok").await.is_result()).then_some(())).await;
}

#[tokio::test]
async fn a_server_with_the_name_of_a_foreign_service_leaves_it_alone_and_says_so() {
    let scene = Scene::start().await;
    let theirs = r"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8443}]}
";
    scene.world.apply(theirs).await;
    let source = "{container: {image: 'registry.example.com/web:1', transport: StreamableHttp, port: 8000}}";
    scene.world.apply(&server("web", source)).await;

    let accepted = scene.world.condition("McpServer", "web", "Accepted", "False").await;
    assert_eq!(accepted["reason"], "Conflicted", "{accepted}");
    assert!(accepted["message"].as_str().unwrap().contains("Service `web`"), "{accepted}");
    let service = within("read", scene.world.space.api::<Service>().get("web")).await.expect("it stays");
    assert_eq!(service.spec.unwrap().selector.unwrap()["app"], "web");
    let pods = within("read", scene.world.space.api::<Deployment>().get_opt("web")).await.unwrap();
    assert!(pods.is_none(), "pods without an endpoint of their own");
    goes_on(&scene).await;
}

/// The kubelet's words, for what only a node finds out.
#[tokio::test]
async fn an_image_that_does_not_exist_and_a_command_that_exits_are_told_in_kubernetes_words() {
    let scene = Scene::start().await;
    let pods = scene.world.space.api();
    scene.world.condition("McpServer", "tickets", "Ready", "True").await;
    for (word, message, reason) in [
        ("ImagePullBackOff", "Back-off pulling image registry.example.com/tickets:1", "ImagePullFailed"),
        ("CrashLoopBackOff", "back-off 10s restarting failed container=server", "CrashLooping"),
    ] {
        scene.pod.mark_waiting(&pods, word, message).await;
        for type_ in ["Available", "Ready"] {
            let is_so = |found: &Value| found["reason"] == reason;
            let found = scene.world.condition_where("McpServer", "tickets", type_, "False", is_so).await;
            assert!(found["message"].as_str().unwrap().contains(message), "{found}");
        }
    }
    scene.pod.mark(&pods, true).await;
    scene.world.condition("McpServer", "tickets", "Ready", "True").await;
    goes_on(&scene).await;
}

#[tokio::test]
async fn a_pod_template_that_takes_the_gateway_away_changes_nothing_and_its_status_names_the_field() {
    let scene = Scene::start().await;
    let deployments = scene.world.space.api::<Deployment>();
    let template = async || within("read", deployments.get("tickets")).await.unwrap().spec.unwrap().template;
    let before = template().await;
    let init = |members: Value| json!({"spec": {"initContainers": [members]}});
    for (patch, field) in [
        (init(json!({"name": "toolgate-gateway", "$patch": "delete"})), "initContainers"),
        (init(json!({"name": "toolgate-gateway", "image": "mine"})), "initContainers"),
        (json!({"spec": {"hostNetwork": true}}), "hostNetwork"),
        (json!({"spec": {"hostPID": true}}), "hostPID"),
        (json!({"spec": {"shareProcessNamespace": true}}), "shareProcessNamespace"),
    ] {
        let pointer = format!("/spec/podTemplate/spec/{field}");
        // Replaced, not merged with the one before.
        scene.world.patch("McpServer", "tickets", json!({"spec": {"podTemplate": null}})).await;
        scene.world.condition("McpServer", "tickets", "Accepted", "True").await;
        scene.world.patch("McpServer", "tickets", json!({"spec": {"podTemplate": patch}})).await;
        let accepted = scene.world.condition("McpServer", "tickets", "Accepted", "False").await;
        assert_eq!(accepted["reason"], "InvalidPodTemplate", "{accepted}");
        assert!(accepted["message"].as_str().unwrap().contains(&pointer), "{pointer}: {accepted}");
        assert_eq!(template().await, before, "{pointer}");
        goes_on(&scene).await;
    }
}

/// A role of `caller` whose rules are about that server, and that nothing can compress.
fn huge(name: &str, target: &str, namespace: &str) -> String {
    let text = |length: usize| {
        let mut bytes = vec![0; length];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let rule = || {
        let tools: Vec<String> = (0..40).map(|_| text(180)).collect();
        json!({"effect": "Allow", "servers": [target], "tools": tools})
    };
    let rules: Vec<Value> = (0..64).map(|_| rule()).collect();
    json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": "McpRole", "metadata": {"name": name},
        "spec": {"subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": namespace}], "rules": rules},
    })
    .to_string()
}

#[tokio::test]
async fn a_policy_above_the_limit_is_told_the_last_good_one_stays_and_other_servers_go_on() {
    let scene = Scene::start().await;
    let world = &scene.world;
    let neighbour = Server::start(world, "neighbour");
    let source = "{container: {image: 'registry.example.com/any:1', transport: StreamableHttp, port: PORT}}";
    world.apply(&server("neighbour", &source.replace("PORT", &neighbour.port.to_string()))).await;
    let pod = Pod::of(world, "neighbour").await;
    let _gateway = pod.run_gateway(world).await;
    world.condition("McpServer", "neighbour", "Programmed", "True").await;
    let next_door = world.caller("caller", "neighbour", pod.port).await;
    eventually("be allowed", async || next_door.call("ok").await.is_result().then_some(())).await;

    let roles = ["huge-1", "huge-2", "huge-3"];
    for name in roles {
        world.apply(&huge(name, "tickets", world.space.name())).await;
    }
    for type_ in ["Accepted", "Programmed"] {
        let found = world.condition("McpServer", "tickets", type_, "False").await;
        assert_eq!(found["reason"], "SnapshotTooLarge", "{found}");
    }
    goes_on(&scene).await;
    // A right that is given now is in force at the neighbour, and nowhere else.
    world.apply_role("others", "caller", "secret").await;
    eventually("be allowed", async || next_door.call("secret").await.is_result().then_some(())).await;
    world.condition("McpServer", "neighbour", "Programmed", "True").await;
    world.condition("McpRole", "others", "Programmed", "False").await;
    goes_on(&scene).await;

    for name in roles {
        world.delete("McpRole", name).await;
    }
    eventually("be allowed", async || scene.caller.call("secret").await.is_result().then_some(())).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    world.condition("McpRole", "others", "Programmed", "True").await;
}
