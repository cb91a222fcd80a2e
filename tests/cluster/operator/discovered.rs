//! What servers offer, however much and whatever it is called: bounded in the cluster, and registered on demand.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;

use super::client::UNKNOWN_TOOL;
use super::kubelet::Pod;
use super::process::Process;
use super::world::{Server, World, declared};
use crate::harness::{eventually, holds, within};

/// Most that an object may hold: etcd takes 1.5 MiB, a ConfigMap 1 MiB.
const MAP_BYTES: usize = 1 << 20;
/// A status is read by every watcher: 5,000 tools must not be in it.
const STATUS_BYTES: usize = 32 << 10;

async fn offering(list: &str, registration: &str) -> (World, Server, Process, Pod, Process) {
    let world = World::new().await;
    let server = Server::listing(&world, "tickets", list);
    let operator = world.operator().await;
    let source = format!(
        "{{container: {{image: 'registry.example.com/tickets:1', transport: StreamableHttp, port: {}}}}}",
        server.port
    );
    let spec = format!("{{source: {source}, registration: {registration}, sandbox: {{isolation: NetworkPolicy}}}}");
    world.apply(&declared("tickets", &spec)).await;
    let pod = Pod::of(&world, "tickets").await;
    let gateway = pod.run_gateway(&world).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    (world, server, operator, pod, gateway)
}

#[tokio::test]
async fn five_thousand_tools_are_counted_and_listed_within_bounds() {
    let (world, _server, _operator, pod, _gateway) = offering("many", "Declared").await;
    let is_counted = |object: Option<&DynamicObject>| {
        object.is_some_and(|object| object.data["status"]["tools"]["discovered"] == 5_000)
    };
    let object = holds(&world.kind("McpServer"), "tickets", "count its tools", is_counted).await.expect("it stays");
    let status = &object.data["status"];
    assert_eq!(status["undeclaredTools"].as_array().map(Vec::len), Some(64));
    assert_eq!(status["undeclaredTools"][0]["name"], "Tool_0000");
    assert!(status.to_string().len() < STATUS_BYTES, "{} bytes", status.to_string().len());
    world.condition("McpServer", "tickets", "Discovered", "True").await;

    let maps = world.space.api::<ConfigMap>();
    let there = |map: Option<&ConfigMap>| map.is_some();
    let map = holds(&maps, "tickets-toolgate-catalogue", "exist", there).await.expect("it stays");
    let text = &map.data.expect("it holds the catalogue")["catalogue.json"];
    let catalogue: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(catalogue["tools"].as_array().map(Vec::len), Some(5_000));
    assert_eq!(catalogue["isComplete"], true);
    assert!(text.len() < MAP_BYTES, "{} bytes", text.len());

    // Nobody declares them, so nobody may use them, whatever a role says.
    world.apply_role("callers", "caller", "*").await;
    world.condition("McpRole", "callers", "Programmed", "True").await;
    let caller = world.caller("caller", "tickets", pod.port).await;
    assert_eq!(caller.call("Tool_0000").await.refusal(), UNKNOWN_TOOL);
}

#[tokio::test]
async fn tools_with_strange_names_are_registered_by_themselves_and_governed_by_their_own_names() {
    let (world, server, _operator, pod, _gateway) = offering("names", "Auto").await;
    let registered = ListParams::default().labels("toolgate.dev/registered-by=discovery");
    let tools = eventually("have the tools registered", async || {
        let tools = within("list", world.kind("McpTool").list(&registered)).await.unwrap().items;
        (tools.len() >= 5).then_some(tools)
    })
    .await;
    let mut names: Vec<&str> = tools.iter().filter_map(|tool| tool.data["spec"]["toolName"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Read_File", "UPPER", "___", "read-file", "読む"]);
    for tool in &tools {
        world.condition("McpTool", tool.metadata.name.as_deref().unwrap(), "Ready", "True").await;
    }

    world.apply_role("callers", "caller", "Read_File").await;
    world.condition("McpRole", "callers", "Programmed", "True").await;
    let caller = world.caller("caller", "tickets", pod.port).await;
    caller.call("Read_File").await;
    for other in ["read-file", "read_file", "UPPER", "___"] {
        assert_eq!(caller.call(other).await.refusal(), UNKNOWN_TOOL, "{other}");
        assert_eq!(server.calls(other), 0, "{other}");
    }
    assert_eq!(server.calls("Read_File"), 1, "what is allowed reaches the server by its own name");
}
