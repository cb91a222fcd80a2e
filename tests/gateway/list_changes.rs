//! A caller on an open stream is told when policy shows it other names than it listed.

use hyper::Method;
use serde_json::{Value, json};
use toolgate::policy::Snapshot;

use crate::support::folder::role;
use crate::support::http::Stream;
use crate::support::policy::PolicyServer;
use crate::support::sidecar::{Pod, ready, version};
use crate::support::{Client, Folder, Hostile, Server, Toolgate, eventually, http};

/// Gives ada's group these rules at every server from now on.
fn rules(toolgate: &Toolgate, mut allowed: Value) {
    allowed["effect"] = json!("Allow");
    allowed["servers"] = json!(["*"]);
    toolgate.folder.write("role-everything.yaml", &role("everything", "engineering", &json!([allowed])));
}

async fn stream_of(client: &Client) -> Stream {
    let stream = http::open(Method::GET, &client.url, client.headers(), "").await;
    assert_eq!(stream.status, 200);
    stream
}

#[tokio::test]
async fn a_revocation_tells_the_stream_of_a_session_which_lists_changed() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let ada = toolgate.legacy("h", "ada").await;
    let mut stream = stream_of(&ada).await;
    for list in ["tools", "prompts", "resources"] {
        assert!(!ada.list(list).await.is_empty());
    }
    // A change that shows ada nothing else is no news to her.
    toolgate
        .folder
        .write("other.yaml", &role("other", "sre", &json!([{"effect": "Allow", "servers": ["*"], "tools": ["ok"]}])));
    eventually("the other role is enforced", async || {
        (toolgate.modern("h", "grace").list("tools").await == ["ok"]).then_some(())
    })
    .await;

    rules(&toolgate, json!({"tools": ["*"], "prompts": ["none"], "resources": ["*"]}));
    assert_eq!(stream.next().await, json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}));
    assert_eq!(ada.list("prompts").await, [""; 0]);

    rules(&toolgate, json!({"tools": ["ok"], "prompts": ["none"], "resources": ["*"]}));
    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
    assert_eq!(ada.list("tools").await, ["ok"]);
    rules(&toolgate, json!({"tools": ["ok"], "prompts": ["none"], "resources": ["replay://*"]}));
    assert_eq!(stream.next().await["method"], "notifications/resources/list_changed");
}

#[tokio::test]
async fn a_change_while_no_stream_was_open_is_told_to_the_next_one() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let ada = toolgate.legacy("h", "ada").await;
    ada.list("tools").await;
    rules(&toolgate, json!({"tools": ["ok"]}));
    eventually("the change is enforced", async || {
        ada.call("secret", json!({})).await.response().get("error").map(drop)
    })
    .await;

    assert_eq!(stream_of(&ada).await.next().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_listen_stream_is_told_of_the_lists_that_it_asked_for_with_its_subscription() {
    let server = Server::start("fixture-conformance", &[]);
    let toolgate = Toolgate::start(Folder::new().remote("c", &server.url).all_for_ada()).await;
    let ada = toolgate.modern("c", "ada");
    let mut stream = ada.open("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await;
    let acknowledged = stream.next().await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    assert_eq!(acknowledged["params"]["notifications"], json!({"toolsListChanged": true}));
    let subscription = &acknowledged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert!(!ada.list("tools").await.is_empty() && !ada.list("prompts").await.is_empty());

    rules(&toolgate, json!({"tools": ["test_*"], "prompts": ["none"]}));

    let told = stream.next().await;
    assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
    assert_eq!(&told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], subscription, "{told}");
    // Prompts changed too, but were not asked for.
    rules(&toolgate, json!({"tools": ["none"], "prompts": ["*"]}));
    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn lists_are_declared_to_change_whatever_the_server_says() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let changes = json!({"listChanged": true});
    let expected = json!({
        "tools": changes, "prompts": changes, "resources": {"subscribe": true, "listChanged": true}, "logging": {},
    });
    let legacy = Client { version: crate::support::client::LEGACY, ..toolgate.modern("h", "ada") };

    assert_eq!(legacy.initialize().await.result()["capabilities"], expected);
    let discovered = toolgate.modern("h", "ada").request("server/discover", json!({})).await.result();
    assert_eq!(discovered["capabilities"], expected);
}

#[tokio::test]
async fn a_server_without_a_stream_of_its_own_keeps_no_change_from_its_callers() {
    let hostile = Hostile::start(&["--no-stream"]);
    let toolgate = hostile.behind_gateway().await;
    let ada = toolgate.legacy("h", "ada").await;
    let mut stream = stream_of(&ada).await;
    ada.list("tools").await;

    rules(&toolgate, json!({"tools": ["ok"]}));

    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_stream_ends_when_the_issuer_of_its_token_is_not_trusted_any_more() {
    let server = Server::start("fixture-hostile", &[]);
    let (pod, policy) = (Pod::new("untrusted", ["--upstream", server.url.as_str()]), PolicyServer::start().await);
    let (trusting, token) = pod.allowing_ada(&["ok"]);
    policy.publish(policy.seal(&trusting, &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let client = Client::legacy(&gateway.url, Some(&token)).await;
    let mut stream = stream_of(&client).await;

    policy.publish(policy.seal(&Snapshot { issuers: Vec::new(), ..trusting }, &version(2))).await;

    assert_eq!(stream.next_or_end().await, None);
}
