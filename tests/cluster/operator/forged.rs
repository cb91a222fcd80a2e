//! What does not come from the operator's key, or asks with another pod's name, gets nothing.

use k8s_openapi::api::core::v1::ConfigMap;
use tonic::Code;

use super::client::NO_POLICY;
use super::kubelet::Pod;
use super::process::Process;
use super::stream::follow;
use super::world::{Scene, Server, World, server};
use crate::harness::{eventually, within};

/// The same bytes but one, at each of some places: in the signature, in the policy, at the end.
#[tokio::test]
async fn a_forged_snapshot_is_not_booted_from() {
    let Scene { gateway, operator, server: _server, pod, caller, world } = Scene::start().await;
    operator.kill();
    gateway.kill();
    let good = std::fs::read(pod.boot_file()).expect("the boot volume holds a snapshot");
    let mut forged: Vec<Vec<u8>> = [good.len() / 3, good.len() / 2, good.len() - 1]
        .map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        })
        .into();
    forged.push(good[..good.len() / 2].to_vec());
    forged.push(Vec::new());
    for (number, bytes) in forged.into_iter().enumerate() {
        std::fs::write(pod.boot_file(), bytes).unwrap();
        pod.forget_state();
        let log = world.scratch.path().join(format!("forged-{number}.log"));
        let mut gateway = Process::start("the gateway", &mut pod.gateway(), &log);
        gateway.answers(pod.admin, "/healthz").await;
        // It has no certificate either: nothing is served to callers, or that nothing is in force.
        eventually("be refused", async || match caller.try_call("ok").await {
            Err(_) => gateway_has_no_policy(&pod).await.then_some(()),
            Ok(answer) => {
                assert_eq!(answer.refusal(), NO_POLICY, "forged snapshot {number}");
                Some(())
            }
        })
        .await;
        gateway.kill();
    }

    std::fs::write(pod.boot_file(), good).unwrap();
    pod.forget_state();
    let log = world.scratch.path().join("good.log");
    let mut gateway = Process::start("the gateway", &mut pod.gateway(), &log);
    gateway.answers(pod.admin, "/startupz").await;
}

/// The gateway has said that it has nothing to enforce, as opposed to not having looked yet.
async fn gateway_has_no_policy(pod: &Pod) -> bool {
    let answer = super::client::get(&format!("http://127.0.0.1:{}/startupz", pod.admin)).await;
    answer.is_ok_and(|answer| answer.status == 503)
}

#[tokio::test]
async fn a_pod_gets_the_policy_of_its_own_server_and_no_other() {
    let world = World::new().await;
    let _operator = world.operator().await;
    let (one, other) = (Server::start(&world, "tickets"), Server::start(&world, "other"));
    world.apply_tickets(one.port).await;
    let source = format!(
        "{{container: {{image: 'registry.example.com/other:1', transport: StreamableHttp, port: {}}}}}",
        other.port
    );
    world.apply(&server("other", &source)).await;
    let (pod, foreign) = (Pod::of(&world, "tickets").await, Pod::of(&world, "other").await);
    let account = |pod: &Pod| pod.object.spec.as_ref().unwrap().service_account_name.clone().unwrap();
    let maps = world.space.api::<ConfigMap>();
    let has = |map: Option<&ConfigMap>| map.and_then(|map| map.data.as_ref()?.get("ca.crt")).is_some();
    let map = crate::harness::holds(&maps, "toolgate-ca", "hold ca.crt", has).await.unwrap();
    let ca = &map.data.unwrap()["ca.crt"];
    let bound = |pod: &Pod| (pod.name(), pod.uid());
    let audience = "toolgate-policy";

    let (name, uid) = bound(&pod);
    let own = world.token(&account(&pod), audience, Some((&name, &uid))).await;
    // The positive control; the operator may not have seen the pod yet.
    eventually("be served", async || follow(&world, ca, "tickets", &own).await.ok()).await;
    let (name, uid) = bound(&foreign);
    let others = world.token(&account(&foreign), audience, Some((&name, &uid))).await;
    eventually("be served", async || follow(&world, ca, "other", &others).await.ok()).await;

    let refused = follow(&world, ca, "tickets", &others).await.expect_err("a token of another server's pod");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let unbound = world.token(&account(&pod), audience, None).await;
    let refused = follow(&world, ca, "tickets", &unbound).await.expect_err("a token of no pod");
    assert!([Code::PermissionDenied, Code::Unauthenticated].contains(&refused.code()), "{refused}");
    let (name, uid) = bound(&pod);
    let wrong = world.token(&account(&pod), "somebody-else", Some((&name, &uid))).await;
    let refused = follow(&world, ca, "tickets", &wrong).await.expect_err("a token for somebody else");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let refused = follow(&world, ca, "tickets", "nonsense").await.expect_err("no token at all");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");

    // The pod is gone, its token is not: the API server would say so, and so must whoever verifies without asking it.
    let pods = world.space.api::<k8s_openapi::api::core::v1::Pod>();
    within("delete a pod", pods.delete(&pod.name(), &kube::api::DeleteParams::default().grace_period(0)))
        .await
        .unwrap();
    eventually("be refused", async || {
        let refused = follow(&world, ca, "tickets", &own).await.err()?;
        // It might be a pod that this replica does not see yet.
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        Some(())
    })
    .await;
}
