//! Another version of the operator, and of the kinds: no pod is replaced for it, and nothing that one version wrote holds
//! another up.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;

use super::kubelet::Pod;
use super::world::{GATEWAY_IMAGE, Scene, World};
use crate::harness::{Cluster, eventually, holds, within};

const NEXT_IMAGE: &str = "registry.example.com/toolgate-gateway:next";

/// Whether the pods of a Deployment have a gateway of this image.
fn has_gateway(image: &'static str) -> impl Fn(Option<&Deployment>) -> bool {
    move |deployment| {
        let spec = deployment.and_then(|deployment| deployment.spec.as_ref()?.template.spec.as_ref());
        let gateways = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
        gateways.filter(|one| one.name == "toolgate-gateway").all(|one| one.image.as_deref() == Some(image))
            && spec.is_some()
    }
}

#[tokio::test]
async fn another_gateway_image_rolls_no_pod_until_rolling_asks_for_it() {
    let Scene { gateway: _gateway, operator, server: _server, pod, caller, mut world } = Scene::start().await;
    let deployments = world.space.api::<Deployment>();
    let before = within("read", deployments.get("tickets")).await.unwrap();
    assert!(has_gateway(GATEWAY_IMAGE)(Some(&before)));
    let says = |found: &serde_json::Value| found["message"].as_str().is_some_and(|text| text.contains("gatewayUpdate"));

    operator.kill();
    world.gateway_image = NEXT_IMAGE;
    let newer = world.operator().await;
    world.condition_where("McpServer", "tickets", "Available", "True", says).await;
    world.apply_role("others", "caller", "secret").await;
    world.condition("McpRole", "others", "Programmed", "True").await;
    assert!(caller.call("secret").await.is_result(), "the old gateway enforces what the newer operator says");
    let after = within("read", deployments.get("tickets")).await.unwrap();
    assert_eq!(after.metadata.generation, before.metadata.generation, "not a byte of it was asked to change");
    assert_eq!(Pod::of(&world, "tickets").await.uid(), pod.uid(), "no pod was replaced");

    // A rollback meets what the newer one wrote.
    newer.kill();
    world.gateway_image = GATEWAY_IMAGE;
    let older = world.operator().await;
    world.condition_where("McpServer", "tickets", "Available", "True", |found| !says(found)).await;
    older.kill();
    world.gateway_image = NEXT_IMAGE;
    let _newer = world.operator().await;
    world.patch("McpServer", "tickets", json!({"spec": {"gatewayUpdate": "Rolling"}})).await;
    holds(&deployments, "tickets", "roll", has_gateway(NEXT_IMAGE)).await.expect("it stays");
}

/// A newer version's field, in definitions and objects, under an operator that does not know it.
#[tokio::test]
async fn a_field_of_a_newer_version_stalls_nobody_and_stays() {
    let cluster = Cluster::own().await;
    let scene = Scene::of(World::of(cluster).await, &["--resync", "5"]).await;
    let world = &scene.world;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.cluster.client().await);
    for plural in ["mcpservers", "mcproles"] {
        let place = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/tomorrow";
        let field = json!([{"op": "add", "path": place, "value": {
            "type": "object", "properties": {"since": {"type": "string"}},
        }}]);
        let patch = Patch::Json::<()>(serde_json::from_value(field).unwrap());
        let name = format!("{plural}.toolgate.dev");
        within("patch a definition", definitions.patch(&name, &PatchParams::default(), &patch)).await.unwrap();
    }
    let tomorrow = json!({"spec": {"tomorrow": {"since": "2"}}});
    for (kind, name) in [("McpServer", "tickets"), ("McpRole", "callers")] {
        // The definition is served anew a moment later.
        eventually("have the field", async || {
            world.patch(kind, name, tomorrow.clone()).await;
            let object = within("read", world.kind(kind).get(name)).await.unwrap();
            object.data["spec"].get("tomorrow").map(drop)
        })
        .await;
    }

    for (kind, name) in [("McpServer", "tickets"), ("McpRole", "callers")] {
        world.condition(kind, name, "Ready", "True").await;
        world.condition(kind, name, "Programmed", "True").await;
    }
    world.apply_role("others", "caller", "secret").await;
    world.condition("McpRole", "others", "Programmed", "True").await;
    assert!(scene.caller.call("ok").await.is_result() && scene.caller.call("secret").await.is_result());
    world.delete("McpRole", "callers").await;
    eventually("be revoked", async || (!scene.caller.call("ok").await.is_result()).then_some(())).await;
    let kept: DynamicObject = within("read", world.kind("McpServer").get("tickets")).await.unwrap();
    assert_eq!(kept.data["spec"]["tomorrow"]["since"], "2", "what the operator does not know it leaves alone");
}
