//! etcd is put back to a backup: what was written since has never been, and versions begin again where they were.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::client::UNKNOWN_TOOL;
use super::world::{Scene, World};
use crate::harness::{Cluster, MANAGER, eventually, holds, within};

/// Writes that a restore undoes: more than a cluster makes by itself while it starts, so that its versions are behind
/// what everybody has seen when they come back.
const LOST: usize = 1500;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp can be run");
    assert!(copied.success(), "{} was not copied to {}", from.display(), to.display());
}

/// The epoch that gateways are told.
async fn epoch(world: &World) -> u64 {
    let secret = within("read", world.home.api::<Secret>().get("toolgate-keys")).await.expect("the keys are there");
    let data = secret.data.unwrap_or_default();
    data.get("epoch").map_or(1, |epoch| String::from_utf8_lossy(&epoch.0).parse().expect("a number"))
}

/// Makes versions rise.
async fn write_much(world: &World) {
    let maps = world.home.api::<ConfigMap>();
    let write = async |number: usize| {
        let data = json!({"n": number.to_string()});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "much"}, "data": data});
        let params = PatchParams::apply(MANAGER).force();
        within("write", maps.patch("much", &params, &Patch::Apply(map))).await.expect("it is written");
    };
    for number in 0..LOST {
        write(number).await;
    }
}

/// From `callers`, who may use `ok`, to `others`, who may use `secret`.
async fn edit(scene: &Scene) {
    scene.world.delete("McpRole", "callers").await;
    scene.world.apply_role("others", "caller", "secret").await;
    eventually("have the edit in force", async || scene.caller.call("secret").await.is_result().then_some(())).await;
    assert_eq!(scene.caller.call("ok").await.refusal(), UNKNOWN_TOOL);
    scene.world.condition("McpRole", "others", "Programmed", "True").await;
}

/// The policy of the backup is in force, status says so, and edits work as ever.
async fn is_as_restored(scene: &Scene, epochs: u64) {
    let world = &scene.world;
    eventually("have the restored policy in force", async || {
        (scene.caller.call("ok").await.is_result() && !scene.caller.call("secret").await.is_result()).then_some(())
    })
    .await;
    assert_eq!(epoch(world).await, epochs);
    world.condition("McpRole", "callers", "Programmed", "True").await;
    let enforced = |object: Option<&kube::api::DynamicObject>| {
        object.is_some_and(|object| object.data["status"]["enforcement"]["acknowledged"] == 1)
    };
    holds(&world.kind("McpServer"), "tickets", "be enforced", enforced).await.expect("it stays");
    world.condition("McpServer", "tickets", "Programmed", "True").await;

    world.apply_role("later", "caller", "secret").await;
    world.condition("McpRole", "later", "Programmed", "True").await;
    assert!(scene.caller.call("secret").await.is_result());
    // The controllers do not wait for what they wrote in the history that is no more.
    let services = world.space.api::<Service>();
    let before = within("read", services.get("tickets")).await.expect("it was restored").uid();
    within("delete", services.delete("tickets", &DeleteParams::default())).await.unwrap();
    let is_new = |object: Option<&Service>| object.is_some_and(|object| object.uid() != before);
    holds(&services, "tickets", "be there again", is_new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_of_etcd_gateways_take_the_restored_policy_and_nothing_sticks() {
    let cluster = Cluster::own().await;
    let mut world = World::of(cluster.clone()).await;
    world.lease = "5";
    let mut scene = Scene::of(world, &["--resync", "20"]).await;
    let backup = scene.world.scratch.path().join("backup");
    cluster.server().offline(|data| copy(data, &backup));
    let restore = || {
        cluster.server().offline(|data| {
            std::fs::remove_dir_all(data).unwrap();
            copy(&backup, data);
        });
    };

    edit(&scene).await;
    write_much(&scene.world).await;
    restore();
    is_as_restored(&scene, 2).await;
    assert!(scene.operator.is_running() && scene.gateway.is_running(), "nothing had to be started again");

    // Once more, and whoever knew the epoch is gone: only gateways remember it.
    let Scene { gateway, operator, server, pod, caller, world } = scene;
    operator.kill();
    restore();
    let operator = world.operator().await;
    is_as_restored(&Scene { gateway, operator, server, pod, caller, world }, 3).await;
}
