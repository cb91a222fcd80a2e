//! The operator may stop after any single write: the next one comes to the same end.

use std::collections::BTreeMap;

use super::*;

fn server(image: &str, replicas: i32, registration: &str) -> Value {
    json!({
        "replicas": replicas, "registration": registration,
        "source": {"container": {"image": image, "transport": "Stdio", "command": ["/server"]}},
    })
}

fn created() -> World {
    let world = World::new();
    world.put(SERVERS, "McpServer", "a", &server("i:1", 2, "Auto"));
    world.put(ROLES, "McpRole", "r", &json!({}));
    world.pod("h1", &["read", "write"]);
    world.judge("h1");
    world
}

async fn updated() -> World {
    let world = created();
    world.settle(&world.start()).await.unwrap();
    world.put(SERVERS, "McpServer", "a", &server("i:2", 1, "Auto"));
    // A person declares one of the tools that were registered.
    world.put(TOOLS, "McpTool", "mine", &json!({"serverRef": {"name": "a"}, "toolName": "read"}));
    world.pod("h2", &["read", "write", "more"]);
    world.judge("h2");
    world
}

async fn deleted() -> World {
    let world = created();
    world.settle(&world.start()).await.unwrap();
    world.fake.remove(SERVERS, "agents", "a");
    world.judge("h2");
    world
}

type End = BTreeMap<String, Value>;

/// The end state without a stop, and after a stop at each write.
async fn ends<F: Future<Output = World>>(world: impl Fn() -> F) -> (End, Vec<End>) {
    let whole = world().await;
    let before = whole.fake.writes().len();
    whole.settle(&whole.start()).await.unwrap();
    let writes = whole.fake.writes().len() - before;
    assert!(writes > 4, "{:?}", whole.fake.writes());
    let mut stopped = Vec::new();
    for stop in 0..=writes {
        let world = world().await;
        world.fake.stop_after(Some(stop));
        let ended = world.settle(&world.start()).await;
        assert!(ended.is_err() || stop >= writes, "it did not stop after {stop} of {writes} writes");
        world.fake.stop_after(None);
        world.settle(&world.start()).await.unwrap();
        stopped.push(world.fake.end_state());
    }
    (whole.fake.end_state(), stopped)
}

fn assert_alike(whole: &End, stopped: &[End]) {
    for (stop, end) in stopped.iter().enumerate() {
        assert_eq!(end.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "stopped after {stop} writes");
        for (place, object) in whole {
            assert_eq!(&end[place], object, "{place}, stopped after {stop} writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_any_write_of_a_creation_comes_to_the_same_end() {
    let (whole, stopped) = ends(|| async { created() }).await;

    for place in [
        "apis/apps/v1/deployments/agents/a",
        "api/v1/services/agents/a",
        "api/v1/serviceaccounts/agents/a-toolgate",
        "api/v1/configmaps/agents/toolgate-ca",
        "api/v1/configmaps/agents/a-toolgate-boot",
        "api/v1/configmaps/agents/a-toolgate-catalogue",
        "apis/networking.k8s.io/v1/networkpolicies/agents/a-toolgate",
        "apis/policy/v1/poddisruptionbudgets/agents/a-toolgate",
    ] {
        assert!(whole.contains_key(place), "{place}: {:?}", whole.keys());
    }
    assert_eq!(whole.keys().filter(|place| place.starts_with(TOOLS)).count(), 2);
    assert_alike(&whole, &stopped);
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_any_write_of_an_update_comes_to_the_same_end() {
    let (whole, stopped) = ends(updated).await;

    let deployment = &whole["apis/apps/v1/deployments/agents/a"];
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], "i:2");
    assert!(!whole.contains_key("apis/policy/v1/poddisruptionbudgets/agents/a-toolgate"));
    let tools: Vec<&str> =
        whole.keys().filter_map(|place| place.strip_prefix("apis/toolgate.dev/v1alpha1/mcptools/agents/")).collect();
    assert!(
        tools.len() == 3 && tools.contains(&"mine") && !tools.iter().any(|tool| tool.starts_with("a-read-")),
        "{tools:?}"
    );
    assert_alike(&whole, &stopped);
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_any_write_of_a_deletion_orphans_nothing() {
    let (whole, stopped) = ends(deleted).await;

    let left: Vec<&String> =
        whole.keys().filter(|place| !place.starts_with(PODS) && !place.starts_with(ROLES)).collect();
    assert_eq!(left, Vec::<&String>::new());
    assert_alike(&whole, &stopped);
}

#[tokio::test(start_paused = true)]
async fn what_kubernetes_collects_first_is_no_obstacle() {
    let world = deleted().await;
    world.fake.collect();

    world.settle(&world.start()).await.unwrap();

    let left = world.fake.end_state();
    assert!(!left.keys().any(|place| place.starts_with("api/v1/configmaps")), "{:?}", left.keys());
}
