//! What others do to what the operator made: repaired, and removed with its owner.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::world::{Scene, World};
use crate::harness::{eventually, holds, within};

#[tokio::test]
async fn a_snapshot_that_was_edited_by_hand_is_repaired() {
    let scene = Scene::start().await;
    let maps = scene.world.space.api::<ConfigMap>();
    let name = "tickets-toolgate-boot";
    let snapshot = |map: Option<&ConfigMap>| map.and_then(|map| map.binary_data.clone()?.remove("snapshot"));
    let good = snapshot(Some(&within("read", maps.get(name)).await.unwrap())).expect("a snapshot");

    let edit = json!({"binaryData": {"snapshot": ByteString(b"nonsense".to_vec())}});
    let edited = within("edit", maps.patch(name, &PatchParams::default(), &Patch::Merge(edit))).await.unwrap();
    assert_ne!(snapshot(Some(&edited)), Some(good), "the edit counted");
    let nonsense = ByteString(b"nonsense".to_vec());
    let is_repaired = |map: Option<&ConfigMap>| snapshot(map).is_some_and(|found| found != nonsense);
    holds(&maps, name, "be repaired", is_repaired).await.expect("it stays");
    assert!(scene.caller.call("ok").await.is_result());
}

/// Signed, and of this very server: only its age is wrong.
#[tokio::test]
async fn an_old_snapshot_that_is_put_back_is_repaired_and_brings_nothing_back() {
    let scene = Scene::start().await;
    let maps = scene.world.space.api::<ConfigMap>();
    let name = "tickets-toolgate-boot";
    let snapshot = |map: Option<&ConfigMap>| map.and_then(|map| map.binary_data.clone()?.remove("snapshot"));
    let old = snapshot(Some(&within("read", maps.get(name)).await.unwrap())).expect("a snapshot");
    let is_another = |map: Option<&ConfigMap>| snapshot(map).is_some_and(|found| found != old);

    scene.world.delete("McpRole", "callers").await;
    holds(&maps, name, "hold the newest policy", is_another).await.expect("it stays");
    let edit = json!({"binaryData": {"snapshot": old}});
    let edited = within("edit", maps.patch(name, &PatchParams::default(), &Patch::Merge(edit))).await.unwrap();
    assert!(!is_another(Some(&edited)), "the edit counted");
    holds(&maps, name, "be repaired", is_another).await.expect("it stays");
    assert!(!scene.caller.call("ok").await.is_result());
}

#[tokio::test]
async fn children_that_were_deleted_or_changed_come_back() {
    let scene = Scene::start().await;
    let space = &scene.world.space;
    let account = scene.pod.object.spec.as_ref().unwrap().service_account_name.clone().unwrap();
    let gone = DeleteParams::default();
    let uid = |object: &ServiceAccount| object.uid();
    let accounts = space.api::<ServiceAccount>();
    let before = within("read", accounts.get(&account)).await.unwrap();
    within("delete", accounts.delete(&account, &gone)).await.unwrap();
    within("delete", space.api::<Service>().delete("tickets", &gone)).await.unwrap();
    within("delete", space.api::<NetworkPolicy>().delete("tickets-toolgate", &gone)).await.unwrap();
    let opened =
        json!({"spec": {"template": {"spec": {"serviceAccountName": "caller", "automountServiceAccountToken": true}}}});
    let deployments = space.api::<Deployment>();
    within("edit", deployments.patch("tickets", &PatchParams::default(), &Patch::Merge(opened))).await.unwrap();

    let is_new = |object: Option<&ServiceAccount>| object.is_some_and(|object| uid(object) != uid(&before));
    holds(&accounts, &account, "be there again", is_new).await;
    holds(&space.api::<Service>(), "tickets", "be there again", |object: Option<&Service>| object.is_some()).await;
    let there = |object: Option<&NetworkPolicy>| object.is_some();
    holds(&space.api::<NetworkPolicy>(), "tickets-toolgate", "be there again", there).await;
    let is_closed = |object: Option<&Deployment>| {
        let pod = object.and_then(|object| object.spec.as_ref()?.template.spec.as_ref());
        pod.is_some_and(|pod| {
            pod.automount_service_account_token == Some(false) && pod.service_account_name.as_ref() == Some(&account)
        })
    };
    holds(&deployments, "tickets", "be without rights", is_closed).await;
}

/// Everything of a namespace, but what the cluster itself puts there and Events.
async fn everything(world: &World) -> BTreeSet<String> {
    let client = world.cluster.client().await;
    let discovery = within("ask what there is", Discovery::new(client.clone()).run()).await.unwrap();
    let mut found = BTreeSet::new();
    for (resource, capabilities) in discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources) {
        let skipped = capabilities.scope != Scope::Namespaced || resource.kind == "Event";
        if skipped || !capabilities.supports_operation(verbs::LIST) {
            continue;
        }
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), world.space.name(), &resource);
        let list = within("list", api.list(&ListParams::default())).await;
        let list = list.unwrap_or_else(|error| panic!("{}: {error}", resource.plural));
        found.extend(list.items.iter().map(|object| format!("{}/{}", resource.plural, object.name_any())));
    }
    found
}

#[tokio::test]
async fn a_deleted_server_leaves_nothing_behind() {
    let scene = Scene::start().await;
    let world = &scene.world;
    let declared = ["mcptools/tickets-ok", "mcptools/tickets-secret"];
    assert!(everything(world).await.iter().any(|object| object.starts_with("deployments/")), "there was something");
    world.delete("McpServer", "tickets").await;
    eventually("have nothing of the server left", async || {
        let left = everything(world).await;
        let foreign = |object: &&String| {
            let of_server = object.split_once('/').is_some_and(|(_, name)| name.starts_with("tickets"));
            of_server && !declared.contains(&object.as_str())
        };
        left.iter().find(foreign).is_none().then_some(())
    })
    .await;
    // What users wrote stays, and says that its server is gone.
    let resolved = world.condition("McpTool", "tickets-ok", "ResolvedRefs", "False").await;
    assert!(resolved["message"].as_str().unwrap().contains("tickets"), "{resolved}");
}

/// Deletions that nobody saw are no reason to leave something behind: owners are in the objects.
#[tokio::test]
async fn a_server_deleted_while_the_operator_is_away_leaves_nothing_behind() {
    let Scene { gateway, operator, server: _server, pod: _pod, caller: _caller, world } = Scene::start().await;
    operator.kill();
    gateway.kill();
    world.delete("McpServer", "tickets").await;
    let _operator = world.operator().await;
    eventually("have nothing of the server left", async || {
        let left = everything(&world).await;
        let mut children = left.iter().filter(|object| !object.starts_with("mcptools/"));
        children.all(|object| !object.contains("/tickets")).then_some(())
    })
    .await;
}
