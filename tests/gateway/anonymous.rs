//! Callers without a token: where they are let in, and how a login begins.

use serde_json::{Value, json};

use crate::support::folder::object;
use crate::support::http::Answer;
use crate::support::{Client, Folder, Hostile, Toolgate};

/// Two servers `h` and `g` behind a gateway with this issuer, whose anonymous role may use one tool of `h`.
async fn open_at_h(hostile: &Hostile, issuer: Value) -> Toolgate {
    let folder = Folder::new()
        .gateway(&json!({
            "url": "https://mcp.example.com/mcp",
            "issuers": [issuer],
            "anonymous": {"mode": "Role", "roleRef": {"name": "public"}},
        }))
        .remote("h", &hostile.server.url)
        .remote("g", &hostile.server.url);
    let rules = json!({"rules": [{"effect": "Allow", "servers": ["h"], "tools": ["ok"]}]});
    folder.write("public.yaml", &object("McpRole", "public", &rules));
    Toolgate::start(folder).await
}

fn oidc() -> Value {
    json!({"name": "corp", "oidc": {"url": "https://login.example.com"}})
}

/// The challenge of an answer, and its error without what differs from request to request.
fn challenge(answer: &Answer) -> (String, Value) {
    let mut error = answer.refused(401, -31007, "a bearer token is required");
    error["data"]["requestId"] = Value::Null;
    let header = answer.header("www-authenticate");
    assert!(header.starts_with("Bearer resource_metadata=\"http://"), "{header}");
    (header.to_owned(), error)
}

#[tokio::test]
async fn anonymous_opens_only_the_servers_where_its_role_could_allow_something() {
    let hostile = Hostile::start(&[]);
    let toolgate = open_at_h(&hostile, oidc()).await;

    assert_eq!(Client::modern(&toolgate.url("h"), None).list("tools").await, ["ok"]);
    let closed = Client::modern(&toolgate.url("g"), None);
    challenge(&closed.request("tools/list", json!({})).await);
    challenge(&Client { version: crate::support::client::LEGACY, ..closed }.initialize().await);
}

#[tokio::test]
async fn what_anonymous_may_not_use_begins_a_login_whether_or_not_it_exists() {
    let hostile = Hostile::start(&[]);
    let toolgate = open_at_h(&hostile, oidc()).await;
    let nobody = Client::modern(&toolgate.url("h"), None);
    let expected = challenge(&nobody.call("secret", json!({})).await);

    for (method, params) in [
        ("tools/call", json!({"name": "there_is_no_such_tool", "arguments": {}})),
        ("prompts/get", json!({"name": "review"})),
        ("prompts/get", json!({"name": "there_is_no_such_prompt"})),
        ("resources/read", json!({"uri": "replay://doc"})),
        ("resources/read", json!({"uri": "replay://there_is_none"})),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "review"}, "argument": {}})),
    ] {
        assert_eq!(challenge(&nobody.request(method, params).await), expected, "{method}");
    }
    assert_eq!(nobody.call("ok", json!({})).await.text(), "ok {}");
    assert!(!hostile.arrivals.contain("review"), "{:?}", hostile.arrivals.messages());
    let denied = toolgate.audited("the refusal", |it| it["target"] == "secret").await;
    assert_eq!((&denied["outcome"], &denied["http_status"]), (&json!("denied"), &json!(401)), "{denied}");
}

#[tokio::test]
async fn where_nobody_can_log_in_a_refused_thing_looks_unknown() {
    let hostile = Hostile::start(&[]);
    let toolgate = open_at_h(&hostile, json!({"name": "cluster", "serviceAccounts": {}})).await;
    let nobody = Client::modern(&toolgate.url("h"), None);

    nobody.call("secret", json!({})).await.refused(200, -32602, "unknown tool");
}
