//! Whoever scales a server has the last word: not the operator, nor a manifest that leaves the number out.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::process::Process;
use super::world::World;
use crate::harness::{holds, within};

/// `tickets`, with one pod wanted.
async fn tickets() -> (World, Process) {
    let world = World::new().await;
    let operator = world.operator().await;
    world.apply_tickets(8000).await;
    wants(&world, 1).await;
    (world, operator)
}

/// Waits until that many pods are wanted.
async fn wants(world: &World, number: i32) {
    let wanted = |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(number))
    };
    holds(&world.space.api(), "tickets", &format!("want {number} pods"), wanted).await.expect("it stays");
}

/// Neither the manifest, applied again, nor an edit that the operator has acted on changes the number.
async fn stays(world: &World, number: i32) {
    world.apply_tickets(8000).await;
    world.patch("McpServer", "tickets", json!({"spec": {"sandbox": {"filesystem": "Scratch"}}})).await;
    let scratch = |deployment: Option<&Deployment>| {
        deployment
            .is_some_and(|one| serde_json::to_string(&one.spec).is_ok_and(|spec| spec.contains("toolgate-scratch")))
    };
    let acted = holds(&world.space.api::<Deployment>(), "tickets", "be edited", scratch).await.expect("it stays");
    assert_eq!(acted.spec.unwrap().replicas, Some(number));
    let server = within("read", world.kind("McpServer").get("tickets")).await.unwrap();
    assert_eq!(server.data["spec"]["replicas"], number);
}

#[tokio::test]
async fn a_scaled_server_is_not_reverted() {
    let (world, _operator) = tickets().await;
    // What `kubectl scale` does.
    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let servers = world.kind("McpServer");
    within("scale", servers.patch_scale("tickets", &PatchParams::default(), &scale)).await.expect("it can be scaled");

    wants(&world, 2).await;
    stays(&world, 2).await;
}

/// No metrics are needed to raise a number below the minimum.
#[tokio::test]
async fn an_autoscaler_raises_a_server_to_its_minimum_and_is_not_reverted() {
    let (world, _operator) = tickets().await;
    let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "tickets"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "toolgate.dev/v1alpha1", "kind": "McpServer", "name": "tickets"},
            "minReplicas": 2, "maxReplicas": 3,
        },
    }))
    .unwrap();
    let autoscalers: Api<HorizontalPodAutoscaler> = world.space.api();
    within("create", autoscalers.create(&PostParams::default(), &autoscaler)).await.expect("it is valid");
    // Kubernetes looks for kinds that it has not met every 30 s.
    let knows_it = |one: Option<&HorizontalPodAutoscaler>| {
        let status = one.and_then(|one| one.status.as_ref());
        let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "AbleToScale" && condition.status == "True")
    };
    holds(&autoscalers, "tickets", "be able to scale", knows_it).await.expect("it stays");

    wants(&world, 2).await;
    stays(&world, 2).await;
}
