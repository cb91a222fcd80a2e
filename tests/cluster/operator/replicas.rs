//! Several operators: one leads, all serve, and nothing that is said to one is lost to the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::client::{Caller, UNKNOWN_TOOL};
use super::kubelet::Pod;
use super::process::{Process, free_port};
use super::service::{Service, at};
use super::world::{Server, World, condition_of, server};
use crate::harness::eventually;

/// Seconds for which a silent leader is respected, as in an installation.
const LEASE: &str = "15";
/// From the death of a leader to the next one.
const SUCCESSION: Duration = Duration::from_secs(20);
/// From a leader's notice that it ends to the next one.
const HANDOVER: Duration = Duration::from_secs(3);

/// Ports of so many operators, and the flags by which each knows all.
fn replicas(count: usize) -> (Vec<u16>, Vec<String>) {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let flags = ports.iter().flat_map(|port| ["--policy-replica".to_owned(), at(*port)]).collect();
    (ports, flags)
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Calls one tool again and again.
struct Calls {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Vec<Result<String, String>>>,
}

impl Calls {
    fn of(caller: &Caller, tool: &'static str) -> Self {
        let (caller, is_over) = (caller.clone(), Arc::new(AtomicBool::new(false)));
        let flag = is_over.clone();
        let task = tokio::spawn(async move {
            let mut outcomes = Vec::new();
            let mut ticks = interval(Duration::from_millis(50));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !flag.load(Ordering::Relaxed) {
                ticks.tick().await;
                let answer = caller.try_call(tool).await;
                outcomes.push(answer.and_then(|answer| {
                    if answer.is_result() { Ok(answer.text()) } else { Err(format!("{answer:?}")) }
                }));
            }
            outcomes
        });
        Self { is_over, task }
    }

    /// What came of each call.
    async fn end(self) -> Vec<Result<String, String>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("no call panics")
    }
}

/// Watches every McpServer, and notes each state in which its one gateway does not count.
fn doubts(world: &World) -> JoinHandle<()> {
    let servers = world.kind("McpServer");
    tokio::spawn(async move {
        let states = watcher(servers, watcher::Config::default()).default_backoff().applied_objects();
        pin_mut!(states);
        while let Some(state) = states.next().await {
            let Ok(object) = state else { continue };
            let enforcement = &object.data["status"]["enforcement"];
            let programmed = condition_of(&object, "Programmed").unwrap_or_default();
            assert!(
                enforcement["ready"] == 1 && enforcement["acknowledged"] == 1 && programmed["status"] == "True",
                "a false count: {enforcement} {programmed}"
            );
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_operators_the_leader_may_stop_or_die_and_no_call_fails_and_no_count_lies() {
    let mut world = World::new().await;
    world.lease = LEASE;
    let (ports, flags) = replicas(3);
    let _service = Service::start(world.policy, &ports.iter().copied().map(at).collect::<Vec<_>>()).await;
    let mut operators: Vec<Option<Process>> = Vec::new();
    for port in &ports {
        operators.push(Some(world.replica(*port, &words(&flags)).await));
    }
    let mut operator = |identity: &str| {
        let number: usize = identity.rsplit('-').next().unwrap().parse().unwrap();
        operators[number].take().expect("it runs")
    };

    // Each connection goes to the next replica, so that there is a gateway at each.
    let mut held = Vec::new();
    let mut calls = Vec::new();
    let mut callers = Vec::new();
    for name in ["tickets", "others", "third"] {
        let server_process = Server::start(&world, name);
        let image = "registry.example.com/any:1";
        let source =
            format!("{{container: {{image: '{image}', transport: StreamableHttp, port: {}}}}}", server_process.port);
        world.apply(&server(name, &source)).await;
        world.apply_role("callers", "caller", "ok").await;
        let pod = Pod::of(&world, name).await;
        let gateway = pod.run_gateway(&world).await;
        world.condition("McpServer", name, "Programmed", "True").await;
        let caller = world.caller("caller", name, pod.port).await;
        eventually("be allowed", async || caller.call("ok").await.is_result().then_some(())).await;
        calls.push(Calls::of(&caller, "ok"));
        callers.push(caller);
        held.push((server_process, pod, gateway));
    }
    world.condition("McpRole", "callers", "Programmed", "True").await;
    let doubts = doubts(&world);

    let first = world.leader_but(&[]).await;
    let told = Instant::now();
    let others = [first.as_str()];
    let (ended, second) = tokio::join!(operator(&first).terminate(), world.leader_but(&others));
    let handover = told.elapsed();
    assert_eq!(ended, Some(0));
    assert!(handover < HANDOVER, "{second} leads {handover:?} after {first} was told to end");
    // Only a leader writes a status.
    world.apply_role("more", "caller", "secret").await;
    world.condition("McpRole", "more", "Programmed", "True").await;

    let died = Instant::now();
    operator(&second).kill();
    let third = world.leader_but(&[&first, &second]).await;
    let succession = died.elapsed();
    assert!(succession < SUCCESSION, "{third} leads {succession:?} after {second} died");
    world.delete("McpRole", "more").await;
    for caller in &callers {
        eventually("be revoked", async || (!caller.call("secret").await.is_result()).then_some(())).await;
    }
    world.apply_role("again", "caller", "secret").await;
    world.condition("McpRole", "again", "Programmed", "True").await;

    for (calls, caller) in calls.into_iter().zip(&callers) {
        let outcomes = calls.end().await;
        let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.as_deref() != Ok("ok {}")).collect();
        assert!(failed.is_empty() && outcomes.len() > 50, "{} of {}: {failed:?}", failed.len(), outcomes.len());
        assert!(caller.call("secret").await.is_result());
    }
    assert!(!doubts.is_finished(), "{:?}", doubts.await);
    doubts.abort();
    println!("the next leader after {handover:?} where the last one stopped, {succession:?} where it died");
}

/// The lagging replica is there and serves; only what it knows of the cluster is old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_comes_to_a_replica_that_lags_never_gets_a_revoked_rule_back() {
    let mut world = World::new().await;
    world.lease = LEASE;
    let (ports, flags) = replicas(2);
    let [up_to_date, lagging] = [at(ports[0]), at(ports[1])];
    let policy = Service::start(world.policy, std::slice::from_ref(&lagging)).await;
    let way = free_port();
    let api = Service::start(way, &[world.cluster.address()]).await;
    let _leader = world.replica(ports[0], &words(&flags)).await;
    world.leader_but(&[]).await;
    let _lagging = world.replica_by(&world.kubeconfig_by(way), ports[1], &words(&flags)).await;

    // It is the lagging one from which the gateway has what will be revoked.
    let tickets = Server::start(&world, "tickets");
    world.apply_tickets(tickets.port).await;
    let pod = Pod::of(&world, "tickets").await;
    let gateway = pod.run_gateway(&world).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    let caller = world.caller("caller", "tickets", pod.port).await;
    assert!(caller.call("ok").await.is_result());

    policy.move_to(std::slice::from_ref(&up_to_date));
    api.hold(true);
    world.delete("McpRole", "callers").await;
    eventually("be revoked", async || (!caller.call("ok").await.is_result()).then_some(())).await;
    let calls = Calls::of(&caller, "ok");

    policy.move_to(std::slice::from_ref(&lagging));
    world.apply_role("more", "caller", "secret").await;
    // The leader hears from the lagging replica what its gateway enforces: not the newest.
    let waits = |found: &serde_json::Value| found["reason"] == "NotAcknowledged";
    world.condition_where("McpRole", "more", "Programmed", "False", waits).await;
    assert_eq!(caller.call("secret").await.refusal(), UNKNOWN_TOOL);
    // Nor where it begins anew there, and has nothing but its disk.
    gateway.kill();
    let log = world.scratch.path().join("restarted.log");
    let mut gateway = Process::start("the gateway", &mut pod.gateway(), &log);
    gateway.answers(pod.admin, "/readyz").await;
    assert_eq!(caller.call("ok").await.refusal(), UNKNOWN_TOOL);

    api.hold(false);
    world.condition("McpRole", "more", "Programmed", "True").await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    assert!(caller.call("secret").await.is_result(), "all is in step");
    let outcomes = calls.end().await;
    let allowed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(allowed == 0 && outcomes.len() > 20, "a revoked rule came back in {allowed} of {} calls", outcomes.len());
}

/// Stopped in the middle of everything, as a process is that gets no processor: what it does first when it goes on is
/// from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stood_still_brings_nothing_back_when_it_goes_on() {
    let mut world = World::new().await;
    world.lease = LEASE;
    let (ports, flags) = replicas(2);
    let [up_to_date, stopped] = [at(ports[0]), at(ports[1])];
    let policy = Service::start(world.policy, std::slice::from_ref(&up_to_date)).await;
    let _leader = world.replica(ports[0], &words(&flags)).await;
    world.leader_but(&[]).await;
    let replica = world.replica(ports[1], &words(&flags)).await;
    let tickets = Server::start(&world, "tickets");
    world.apply_tickets(tickets.port).await;
    let pod = Pod::of(&world, "tickets").await;
    let _gateway = pod.run_gateway(&world).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    let caller = world.caller("caller", "tickets", pod.port).await;
    assert!(caller.call("ok").await.is_result());

    replica.signal("STOP");
    world.delete("McpRole", "callers").await;
    eventually("be revoked", async || (!caller.call("ok").await.is_result()).then_some(())).await;
    let calls = Calls::of(&caller, "ok");
    policy.move_to(std::slice::from_ref(&stopped));
    world.apply_role("more", "caller", "secret").await;
    replica.signal("CONT");

    world.condition("McpRole", "more", "Programmed", "True").await;
    assert!(caller.call("secret").await.is_result());
    let outcomes = calls.end().await;
    let allowed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(allowed, 0, "a revoked rule came back in {allowed} of {} calls", outcomes.len());
}
