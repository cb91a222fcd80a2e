//! Gateways of other versions under this operator: they stay connected, keep their pods, and enforce every rule that they
//! can. What they cannot is refused, and status says so and what to do.
//!
//! What the first version reads and writes is recorded and tested in `tests/gateway/versions.rs`.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use toolgate::wire::proto::{self, Hello, from_gateway, to_gateway};
use toolgate::wire::{Opened, VerifyKey, open};

use super::kubelet::Pod;
use super::process::Process;
use super::stream::Follower;
use super::world::World;
use crate::harness::{eventually, holds, within};

/// The format of the first version. Whoever writes a newer one goes on writing this for gateways that ask for it.
const FIRST_FORMAT: u32 = 1;

/// A gateway that does what another version did: reads one format, knows some requirements, refuses everything else.
struct Stub {
    stream: Follower,
    key: VerifyKey,
    understands: &'static [&'static str],
}

impl Stub {
    /// In the pod of a server: Ready, connected.
    async fn in_pod(world: &World, pod: &Pod, format: u32, understands: &'static [&'static str]) -> Self {
        pod.mark(&world.space.api(), true).await;
        let account = pod.object.spec.as_ref().unwrap().service_account_name.clone().unwrap();
        let token = world.token(&account, "toolgate-policy", Some((&pod.name(), &pod.uid()))).await;
        let hello = Hello {
            program: "0.0.1".to_owned(),
            format,
            understands: understands.iter().map(|&name| name.to_owned()).collect(),
            ..Hello::default()
        };
        // The operator may not have seen the pod yet.
        let ca = pod.variable("TOOLGATE_POLICY_CA");
        let connect = async || Follower::connect(world, &ca, "tickets", &token, hello.clone()).await.ok();
        let stream = eventually("be served", connect).await;
        Self { stream, key: pod.variable("TOOLGATE_VERIFY_KEY").parse().unwrap(), understands }
    }

    /// Takes snapshots, or refuses them in the words of the first version, until one is as it must be. What was true in
    /// between may be told or not.
    async fn until(&mut self, what: &str, is_it: impl Fn(&Opened, &Value) -> bool) {
        for _ in 0..16 {
            let message = self.stream.next().await.unwrap_or_else(|status| panic!("{what}: {status}"));
            let Some(to_gateway::Message::Snapshot(sealed)) = message.message else { continue };
            let opened = open(&prost::Message::encode_to_vec(&sealed), &self.key).expect("it is signed");
            let version: Option<proto::Version> = Some((&opened.version).into());
            let refusal = self.refusal(&opened);
            self.stream
                .say(Some(match &refusal {
                    None => from_gateway::Message::Ack(proto::Ack { version, hash: opened.hash.clone() }),
                    Some(error) => from_gateway::Message::Nack(proto::Nack { version, error: error.clone() }),
                }))
                .await;
            if is_it(&opened, &serde_json::from_slice(&opened.snapshot).unwrap()) {
                return;
            }
        }
        panic!("{what}: nothing of it was said");
    }

    fn refusal(&self, opened: &Opened) -> Option<String> {
        if opened.format != FIRST_FORMAT {
            let format = opened.format;
            return Some(format!("the snapshot has format {format}, and this gateway reads {FIRST_FORMAT}"));
        }
        let unknown = opened.requires.iter().find(|required| !self.understands.contains(&required.as_str()))?;
        Some(format!("the snapshot requires {unknown:?}, which this gateway does not know: update the gateway"))
    }
}

/// Whether a snapshot lets anybody use a tool.
fn allows(snapshot: &Value, tool: &str) -> bool {
    let grants = |rule: &Value| rule["effect"] == "Allow" && rule["tools"].to_string().contains(&format!("\"{tool}\""));
    let roles = snapshot["roles"].as_array().unwrap();
    roles.iter().any(|role| role["rules"].as_array().into_iter().flatten().any(grants))
}

/// `tickets`, and the pod that waits for its gateway.
async fn tickets() -> (World, Process, Pod) {
    let world = World::new().await;
    let operator = world.operator().await;
    world.apply_tickets(8000).await;
    let pod = Pod::of(&world, "tickets").await;
    (world, operator, pod)
}

#[tokio::test]
async fn a_gateway_one_format_back_keeps_its_rules() {
    let (world, _operator, pod) = tickets().await;
    let mut gateway = Stub::in_pod(&world, &pod, FIRST_FORMAT, &[]).await;
    gateway.until("the rules of the start", |_, snapshot| allows(snapshot, "ok")).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    let deployments = world.space.api::<Deployment>();
    let generation = || async { within("read", deployments.get("tickets")).await.unwrap().metadata.generation };
    let before = generation().await;

    world.delete("McpRole", "callers").await;
    gateway.until("a revocation", |_, snapshot| !allows(snapshot, "ok")).await;
    world.apply_role("callers", "caller", "ok").await;
    gateway.until("a grant", |_, snapshot| allows(snapshot, "ok")).await;
    let acknowledged = |object: Option<&DynamicObject>| {
        object.is_some_and(|object| object.data["status"]["enforcement"]["acknowledged"] == 1)
    };
    holds(&world.kind("McpServer"), "tickets", "be enforced", acknowledged).await.expect("it stays");
    world.condition("McpRole", "callers", "Programmed", "True").await;

    // What it cannot enforce it does not pretend to.
    let deny_after = json!({"spec": {"disconnectedPolicy": {"mode": "DenyAfter", "seconds": 60}}});
    world.patch("McpServer", "tickets", deny_after).await;
    gateway.until("a restriction that it does not know", |opened, _| !opened.requires.is_empty()).await;
    let refused = world.condition("McpServer", "tickets", "Programmed", "False").await;
    assert_eq!(refused["reason"], "GatewayRefused", "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("keeps the last good policy") && message.contains("update the gateway"), "{message}");
    assert!(message.contains(&pod.uid()) && message.contains("disconnected-deny"), "{message}");
    world.condition("McpServer", "tickets", "Ready", "False").await;

    // It is still there, and follows as soon as it can again.
    world.patch("McpServer", "tickets", json!({"spec": {"disconnectedPolicy": null}})).await;
    gateway.until("what it knows", |opened, snapshot| opened.requires.is_empty() && allows(snapshot, "ok")).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    assert_eq!(Pod::of(&world, "tickets").await.uid(), pod.uid(), "no pod was replaced");
    assert_eq!(generation().await, before, "nor asked to be");
}

/// After a rollback of the operator gateways are newer than it.
#[tokio::test]
async fn a_gateway_of_a_newer_version_is_served_what_this_one_writes() {
    let (world, _operator, pod) = tickets().await;
    let mut gateway = Stub::in_pod(&world, &pod, FIRST_FORMAT + 1, &["disconnected-deny", "of-tomorrow"]).await;
    gateway.stream.say(None).await; // A message that this version does not know reads like an empty one.

    gateway.until("the rules of the start", |_, snapshot| allows(snapshot, "ok")).await;
    let deny_after = json!({"spec": {"disconnectedPolicy": {"mode": "DenyAfter", "seconds": 60}}});
    world.patch("McpServer", "tickets", deny_after).await;
    gateway.until("a restriction", |opened, _| opened.requires == ["disconnected-deny"]).await;

    world.condition("McpServer", "tickets", "Programmed", "True").await;
}
