//! Several operators: one leads, all serve, and nothing that is said to one is lost to the other.

use super::kubelet::Pod;
use super::process::free_port;
use super::service;
use super::world::{Server, World, server};
use crate::harness::holds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_no_call_stops_and_its_successor_knows_every_gateway() {
    let world = World::new().await;
    let (one, two) = (free_port(), free_port());
    service::serve(world.policy, &[one, two]).await;
    let addresses = [one, two].map(|port| format!("127.0.0.1:{port}"));
    let replicas = ["--policy-replica", &addresses[0], "--policy-replica", &addresses[1]];
    let leader = world.replica(one, &replicas).await;
    let _successor = world.replica(two, &replicas).await;

    // Two servers, so that there is a gateway at each replica.
    let (tickets, other) = (Server::start(&world, "tickets"), Server::start(&world, "other"));
    world.apply_tickets(tickets.port).await;
    let source = "{container: {image: 'registry.example.com/other:1', transport: StreamableHttp, port: PORT}}";
    world.apply(&server("other", &source.replace("PORT", &other.port.to_string()))).await;
    let pods = [Pod::of(&world, "tickets").await, Pod::of(&world, "other").await];
    let _gateways = [pods[0].run_gateway(&world).await, pods[1].run_gateway(&world).await];
    let mut before = Vec::new();
    for name in ["tickets", "other"] {
        before.push(world.condition("McpServer", name, "Programmed", "True").await);
    }
    let callers =
        [world.caller("caller", "tickets", pods[0].port).await, world.caller("caller", "other", pods[1].port).await];

    leader.kill();
    for caller in &callers {
        assert_eq!(caller.call("ok").await.text(), "ok {}");
    }
    // Only a leader writes a status.
    world.apply_role("others", "caller", "secret").await;
    world.condition("McpRole", "others", "Programmed", "True").await;
    for (number, name) in ["tickets", "other"].into_iter().enumerate() {
        let all = |object: Option<&kube::api::DynamicObject>| {
            let enforcement = object.map(|object| &object.data["status"]["enforcement"]);
            enforcement.is_some_and(|now| now["ready"] == 1 && now["acknowledged"] == 1)
        };
        holds(&world.kind("McpServer"), name, "be enforced by its gateway", all).await.expect("it stays");
        let after = world.condition("McpServer", name, "Programmed", "True").await;
        let times = (&after["lastTransitionTime"], &before[number]["lastTransitionTime"]);
        assert_eq!(times.0, times.1, "{name} was programmed all the time");
        assert!(callers[number].call("secret").await.is_result());
    }
}
