//! At rest nothing is written, but the Lease: counted where it counts, in the API server's audit log.

use std::time::Duration;

use serde_json::Value;

use super::world::{Scene, World};
use crate::harness::Cluster;

/// How often everything is looked at again: three times in the window.
const RESYNC: &str = "5";
/// How long is watched.
const WINDOW: Duration = Duration::from_secs(16);

/// A server of its own, so that only this test's requests are in its log.
#[tokio::test]
async fn an_operator_at_rest_writes_nothing_but_its_lease() {
    let cluster = Cluster::own().await;
    let scene = Scene::of(World::of(cluster.clone()).await, &["--resync", RESYNC]).await;
    for kind in [("McpGateway", "default"), ("McpTool", "tickets-ok"), ("McpRole", "callers"), ("McpServer", "tickets")]
    {
        scene.world.condition(kind.0, kind.1, "Ready", "True").await;
    }
    let writes = |from: usize| -> Vec<String> {
        let lines = cluster.server().audit();
        let ours = lines.iter().skip(from).filter(|line| {
            let verb = line["verb"].as_str().unwrap_or_default();
            ["create", "update", "patch", "delete", "deletecollection"].contains(&verb)
                && line["user"]["username"] == "kubernetes-admin"
        });
        ours.map(describe).collect()
    };
    // The control: before the rest there were writes, of the operator as well as of this test.
    assert!(writes(0).iter().any(|write| write.contains("deployments/tickets")), "{:?}", writes(0));

    // What follows upon the last condition is done when a whole resync has passed without a write.
    crate::harness::eventually("come to rest", async || {
        let from = cluster.server().audit().len();
        tokio::time::sleep(Duration::from_secs(6)).await;
        writes(from).iter().all(|write| write.contains("leases/")).then_some(())
    })
    .await;
    let from = cluster.server().audit().len();
    tokio::time::sleep(WINDOW).await; // What is measured is what happens in this time.
    let (leases, others): (Vec<_>, Vec<_>) = writes(from).into_iter().partition(|write| write.contains("leases/"));
    assert!(others.is_empty(), "written at rest: {others:#?}");
    assert!(!leases.is_empty(), "the operator is not even alive");
    assert!(leases.len() <= 32, "the Lease is renewed too often: {} times", leases.len());
}

fn describe(line: &Value) -> String {
    let object = &line["objectRef"];
    let part = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}/{} {}", line["verb"], part("resource"), part("name"), part("subresource"))
}
