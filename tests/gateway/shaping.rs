//! What policy changes on the way: names, lists, resources, who is let in without a token, what is counted.

use serde_json::{Value, json};

use crate::support::folder::object;
use crate::support::{Client, Folder, Hostile, Toolgate, eventually};

#[tokio::test]
async fn a_renamed_tool_is_called_by_its_exposed_name_only() {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new().remote_with("h", &hostile.server.url, json!({})).all_for_ada();
    folder.write("tool.yaml", &object("McpTool", "renamed", &json!({
        "serverRef": {"name": "h"}, "toolName": "ok", "exposedName": "fine", "description": "Says that all is fine.",
    })));
    let toolgate = Toolgate::start(folder).await;
    for ada in [toolgate.modern("h", "ada"), toolgate.legacy("h", "ada").await] {
        let listed = ada.request("tools/list", json!({})).await.result()["tools"].clone();
        assert_eq!((&listed[0]["name"], listed.as_array().map(Vec::len)), (&json!("fine"), Some(1)), "{listed}");
        assert_eq!(listed[0]["description"], "Says that all is fine.");
        assert_eq!(listed[0]["inputSchema"], json!({"type": "object"}), "the rest stays as the server sent it");

        assert_eq!(ada.call("fine", json!({"x": 1})).await.text(), r#"ok {"x":1}"#);
        ada.call("ok", json!({})).await.refused(200, -32602, "unknown tool");
    }
    for arrival in
        hostile.arrivals.all().iter().filter(|it| it["body"].as_str().is_some_and(|it| it.contains("tools/call")))
    {
        assert!(arrival["body"].as_str().unwrap().contains(r#""name":"ok""#), "{arrival}");
        assert!(arrival["headers"].get("mcp-name").is_none_or(|name| name == "ok"), "{arrival}");
    }
}

#[tokio::test]
async fn prompts_and_resources_are_filtered_and_refused_alike() {
    let hostile = Hostile::start(&[]);
    let rules = json!([{"effect": "Allow", "servers": ["h"], "prompts": ["rev*"], "resources": ["replay://*"]}]);
    let folder = Folder::new().remote("h", &hostile.server.url).role("reader", "engineering", &rules);
    let toolgate = Toolgate::start(folder).await;
    for (ada, missing) in [(toolgate.modern("h", "ada"), -32602), (toolgate.legacy("h", "ada").await, -32002)] {
        assert_eq!(ada.list("prompts").await, ["review"]);
        assert_eq!(ada.list("resources").await, ["replay://doc"]);
        assert_eq!(ada.list("tools").await, [""; 0]);

        assert_eq!(ada.request("prompts/get", json!({"name": "review"})).await.result()["messages"], json!([]));
        let read = ada.request("resources/read", json!({"uri": "replay://doc"})).await.result();
        assert_eq!(read["contents"][0]["text"], "read");
        ada.request("prompts/get", json!({"name": "secret_prompt"})).await.refused(200, -32602, "unknown prompt");
        for uri in ["secret://doc", "replay://../secret", "replay://..%2fsecret", "replay://a%00/secret"] {
            ada.request("resources/read", json!({"uri": uri})).await.refused(200, missing, "unknown resource");
        }
    }
    assert!(!hostile.arrivals.contain("secret"), "{:?}", hostile.arrivals.messages());
}

#[tokio::test]
async fn a_resource_is_decided_by_what_its_uri_names_and_read_by_its_bytes() {
    let hostile = Hostile::start(&[]);
    let rules = json!([
        {"effect": "Allow", "servers": ["h"], "resources": ["*"]},
        {"effect": "Deny", "servers": ["h"], "resources": ["https://h:443/key/*", "file://localhost/etc/*", "repo://acme/caf\u{e9}/*"]},
    ]);
    let folder = Folder::new().remote("h", &hostile.server.url).role("reader", "engineering", &rules);
    let toolgate = Toolgate::start(folder).await;
    let ada = toolgate.legacy("h", "ada").await;
    for uri in [
        "https://h/key/a",
        "HTTPS://h.:443/x/../key/a",
        "https://h/x%2F..%2Fkey/a",
        "file:///etc/passwd",
        "file:///etc//passwd",
        "repo://acme/caf%c3%a9/a",
        "repo://acme/caf\u{e9}/a",
        "repo://acme/%0a",
    ] {
        ada.request("resources/read", json!({"uri": uri})).await.refused(200, -32002, "unknown resource");
    }
    assert!(!hostile.arrivals.contain("resources/read"), "{:?}", hostile.arrivals.messages());
    for uri in [
        "repo://acme/a%2Fb",
        "REPO://acme/./a%2Eb",
        "https://H:443/a%5Cb",
        "repo://acme/100%25",
        "file://localhost/a b",
    ] {
        ada.request("resources/read", json!({"uri": uri})).await.result();
        assert!(hostile.arrivals.contain(&format!("\"{uri}\"")), "{uri}: {:?}", hostile.arrivals.messages());
    }
}

#[tokio::test]
async fn a_list_that_comes_as_events_is_filtered_too() {
    let hostile = Hostile::start(&[]);
    let rules = json!([{"effect": "Allow", "servers": ["h"], "tools": ["ok"]}]);
    let folder = Folder::new().remote("h", &hostile.server.url).role("some", "engineering", &rules);
    let toolgate = Toolgate::start(folder).await;
    let list = r#"{"jsonrpc":"2.0","id":@ID@,"result":{"tools":[{"name":"secret"},{"name":"ok", "x":1e2}]}}"#;
    std::fs::write(hostile.replay.join("tools_list"), format!("event: message\nid: 7\ndata: {list}\n\n")).unwrap();

    let answer = toolgate.legacy("h", "ada").await.request("tools/list", json!({})).await;

    assert!(String::from_utf8_lossy(&answer.body).contains(r#""tools":[{"name":"ok", "x":1e2}]"#), "{answer}");
    assert!(!answer.to_string().contains("secret"), "{answer}");
}

#[tokio::test]
async fn a_caller_without_a_token_has_the_anonymous_role_and_a_bad_token_still_counts_as_bad() {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new()
        .gateway(&json!({
            "url": "https://mcp.example.com/mcp",
            "issuers": [{"name": "corp", "oidc": {"url": "https://login.example.com"}}],
            "anonymous": {"mode": "Role", "roleRef": {"name": "public"}},
        }))
        .remote("h", &hostile.server.url)
        .all_for_ada();
    folder.write(
        "public.yaml",
        &object(
            "McpRole",
            "public",
            &json!({
                "rules": [{"effect": "Allow", "servers": ["h"], "tools": ["ok"]}],
            }),
        ),
    );
    let toolgate = Toolgate::start(folder).await;
    let nobody = Client::modern(&toolgate.url("h"), None);

    assert_eq!(nobody.list("tools").await, ["ok"]);
    assert_eq!(nobody.call("ok", json!({})).await.text(), "ok {}");
    nobody.call("secret", json!({})).await.refused(401, -31007, "a bearer token is required");
    Client { token: Some("bad".into()), ..nobody }.call("ok", json!({})).await.refused(401, -31007, "");
}

#[tokio::test]
async fn calls_are_counted_by_tool_status_and_role_and_never_by_caller() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let ada = toolgate.modern("h", "ada");
    ada.call("ok", json!({})).await.text();
    ada.call("error", json!({})).await;
    toolgate.modern("h", "guest").call("ok", json!({})).await.refused(200, -32602, "unknown tool");

    let metrics = eventually("the calls are counted", async || {
        let page = toolgate.metrics().await;
        let has = |words: &[&str]| page.lines().any(|line| words.iter().all(|word| line.contains(word)));
        let counted = has(&["mcp_tool_requests_total{", "status=\"ok\"", "user_role=\"everything\""])
            && has(&["mcp_tool_requests_total{", "status=\"error\""])
            && has(&["mcp_tool_requests_total{", "status=\"denied\"", "user_role=\"none\""]);
        counted.then_some(page)
    })
    .await;
    assert!(metrics.contains("mcp_tool_duration_seconds_bucket"), "{metrics}");
    assert!(!metrics.contains("ada@example.com"), "{metrics}");
}

#[tokio::test]
async fn an_intent_is_recorded_before_a_call_that_may_change_something() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let waiting =
        toolgate.modern("h", "ada").open("tools/call", json!({"name": "drip", "arguments": {"count": 100_000}})).await;

    let intent = toolgate.audited("the intent", |it| it["event"] == "intent").await;

    assert_eq!((&intent["target"], intent.get("outcome")), (&json!("drip"), None), "{intent}");
    let ended = |it: &Value| it["event"] == "request" && it["request_id"] == intent["request_id"];
    assert!(!toolgate.audit().iter().any(ended), "the call is still running");
    drop(waiting);
    let end = toolgate.audited("the end", ended).await;
    assert_eq!(end["outcome"], "cancelled", "{end}");
}
