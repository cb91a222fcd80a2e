//! What is written, what is not, and what is said of it.

use super::*;

fn stdio() -> Value {
    json!({"source": {"container": {"image": "i:1", "transport": "Stdio", "command": ["/server"]}}})
}

/// A server `a` with a tool `t`, a role `r` and nothing left to write.
pub(super) async fn settled() -> (World, Process) {
    let world = World::new();
    world.put(SERVERS, "McpServer", "a", &stdio());
    world.put(TOOLS, "McpTool", "t", &json!({"serverRef": {"name": "a"}, "toolName": "read"}));
    world.put(ROLES, "McpRole", "r", &json!({}));
    world.pod("h1", &["read"]);
    world.judge("h1");
    let process = world.start();
    world.settle(&process).await.unwrap();
    (world, process)
}

fn object(world: &World, resource: &str, name: &str) -> Value {
    world.fake.all(resource).into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

fn condition(object: &Value, kind: &str) -> (String, String) {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_at_rest_not_even_by_another_process() {
    let (world, process) = settled().await;
    let written = world.fake.writes().len();

    world.settle(&process).await.unwrap();
    world.settle(&world.start()).await.unwrap();

    assert_eq!(world.fake.writes()[written..], [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_barrier_and_the_boot_snapshot_are_there_before_the_pods() {
    let (world, _) = settled().await;

    let writes = world.fake.writes();
    let position =
        |of: &str| writes.iter().position(|write| write.ends_with(of)).unwrap_or_else(|| panic!("{of}: {writes:?}"));
    let pods = position("deployments/agents/a");
    for before in
        ["networkpolicies/agents/a-toolgate", "configmaps/agents/a-toolgate-boot", "serviceaccounts/agents/a-toolgate"]
    {
        assert!(position(before) < pods, "{before}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_policy_shows_as_programmed_in_every_kind() {
    let (world, _) = settled().await;

    for (resource, name) in [(SERVERS, "a"), (TOOLS, "t"), (ROLES, "r")] {
        let programmed = condition(&object(&world, resource, name), "Programmed");
        assert_eq!(programmed, ("True".to_owned(), "Programmed".to_owned()), "{resource}");
    }
    assert_eq!(object(&world, SERVERS, "a")["status"]["selector"], "toolgate.dev/server=a");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_object_is_named_left_alone_and_keeps_new_pods_away() {
    let world = World::new();
    world.put(SERVERS, "McpServer", "a", &stdio());
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "agents", "name": "a"},
        "spec": {"selector": {"app": "theirs"}}});
    world.fake.put("api/v1/services", theirs);
    world.judge("h1");

    world.settle(&world.start()).await.unwrap();

    let server = object(&world, SERVERS, "a");
    assert_eq!(condition(&server, "Accepted"), ("False".to_owned(), "Conflicted".to_owned()));
    let message = server["status"]["conditions"].to_string();
    assert!(message.contains("Service `a`"), "{message}");
    assert_eq!(object(&world, "api/v1/services", "a")["spec"]["selector"], json!({"app": "theirs"}));
    assert_eq!(world.fake.all(DEPLOYMENTS), Vec::<Value>::new());
    // Policy still reaches what runs.
    assert!(world.fake.all(MAPS).iter().any(|map| map["metadata"]["name"] == "a-toolgate-boot"));
}

#[tokio::test(start_paused = true)]
async fn children_edited_or_deleted_by_hand_are_repaired() {
    let (world, process) = settled().await;
    let mut deployment = object(&world, DEPLOYMENTS, "a");
    deployment["spec"]["template"]["spec"]["initContainers"][1]["image"] = json!("mine:1");
    world.fake.put(DEPLOYMENTS, deployment);
    let mut boot = object(&world, MAPS, "a-toolgate-boot");
    boot["binaryData"]["snapshot"] = json!("Zm9yZ2Vk");
    world.fake.put(MAPS, boot);
    world.fake.remove("api/v1/serviceaccounts", "agents", "a-toolgate");
    world.fake.remove(POLICIES, "agents", "a-toolgate");

    world.settle(&process).await.unwrap();

    let deployment = object(&world, DEPLOYMENTS, "a");
    assert_eq!(deployment["spec"]["template"]["spec"]["initContainers"][1]["image"], "gateway:1");
    assert_eq!(object(&world, MAPS, "a-toolgate-boot")["binaryData"]["snapshot"], "aDE=");
    object(&world, "api/v1/serviceaccounts", "a-toolgate");
    object(&world, POLICIES, "a-toolgate");
}

#[tokio::test(start_paused = true)]
async fn a_new_version_of_the_gateway_waits_for_the_servers_next_rollout() {
    let (world, _) = settled().await;
    let mut newer = settings();
    newer.gateway_image = "gateway:2".to_owned();
    let image = |world: &World| {
        object(world, DEPLOYMENTS, "a")["spec"]["template"]["spec"]["initContainers"][1]["image"].clone()
    };

    let process = world.start_with(newer.clone());
    world.settle(&process).await.unwrap();
    assert_eq!(image(&world), "gateway:1");

    let mut changed = stdio();
    changed["source"]["container"]["image"] = json!("i:2");
    world.put(SERVERS, "McpServer", "a", &changed);
    world.judge("h2");
    world.settle(&process).await.unwrap();
    assert_eq!(image(&world), "gateway:2");

    let mut rolling = changed.clone();
    rolling["gatewayUpdate"] = json!("Rolling");
    world.put(SERVERS, "McpServer", "a", &rolling);
    world.judge("h3");
    newer.gateway_image = "gateway:3".to_owned();
    world.settle(&world.start_with(newer)).await.unwrap();
    assert_eq!(image(&world), "gateway:3");
}

#[tokio::test(start_paused = true)]
async fn a_scaled_deployment_is_not_reverted_and_gets_its_budget() {
    let (world, process) = settled().await;
    assert_eq!(world.fake.all(BUDGETS), Vec::<Value>::new());
    let mut scaled = object(&world, DEPLOYMENTS, "a");
    scaled["spec"]["replicas"] = json!(3);
    world.fake.put(DEPLOYMENTS, scaled);

    world.settle(&process).await.unwrap();

    assert_eq!(object(&world, DEPLOYMENTS, "a")["spec"]["replicas"], 3);
    assert_eq!(world.fake.all(BUDGETS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_template_that_touches_the_gateway_leaves_what_runs() {
    let (world, process) = settled().await;
    let before = object(&world, DEPLOYMENTS, "a")["spec"].clone();
    let mut broken = stdio();
    broken["podTemplate"] = json!({"spec": {"hostNetwork": true}});
    world.put(SERVERS, "McpServer", "a", &broken);
    world.judge("h1");

    world.settle(&process).await.unwrap();

    let server = object(&world, SERVERS, "a");
    assert_eq!(condition(&server, "Accepted"), ("False".to_owned(), "InvalidPodTemplate".to_owned()));
    assert_eq!(object(&world, DEPLOYMENTS, "a")["spec"], before);
}

#[tokio::test(start_paused = true)]
async fn the_boot_snapshot_is_written_at_most_every_two_seconds() {
    let (world, process) = settled().await;
    let key = ("agents".to_owned(), "a".to_owned());
    world.judge("h2");
    process.context.caches.read(&world.fake);
    process.servers.reconcile(&key).await.unwrap();
    world.judge("h3");
    process.context.caches.read(&world.fake);

    let next = process.servers.reconcile(&key).await.unwrap();

    assert!(matches!(next, Next::After(wait) if wait <= Duration::from_secs(2)), "{next:?}");
    assert_eq!(object(&world, MAPS, "a-toolgate-boot")["binaryData"]["snapshot"], "aDI=");
    world.settle(&process).await.unwrap();
    assert_eq!(object(&world, MAPS, "a-toolgate-boot")["binaryData"]["snapshot"], "aDM=");
}

#[tokio::test(start_paused = true)]
async fn a_server_keeps_what_it_told_until_its_turn() {
    let (world, process) = settled().await;
    let told = |world: &World| {
        let boot = object(world, MAPS, "a-toolgate-boot")["binaryData"]["snapshot"].clone();
        (object(world, SERVERS, "a")["status"]["enforcement"]["snapshot"].clone(), boot)
    };
    let key = ("agents".to_owned(), "a".to_owned());
    process.context.turns.wait(key.clone(), Instant::now());
    world.judge("h2");
    world.pod("h2", &["read"]);

    process.context.caches.read(&world.fake);
    process.servers.reconcile(&key).await.unwrap();
    assert_eq!(told(&world), (json!("h1"), json!("aDE=")));

    process.context.turns.set(Instant::now());
    world.settle(&process).await.unwrap();
    assert_eq!(told(&world), (json!("h2"), json!("aDI=")));
}
