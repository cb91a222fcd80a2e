//! What the quickstart shows, as tests.

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::support::folder::role;
use crate::support::{Client, Folder, Hostile, Toolgate, http};

/// Engineering may use `ok` below /drafts only, and `slow`; sre may use everything.
fn rules() -> Value {
    json!([
        {"effect": "Allow", "servers": ["h"], "tools": ["slow"]},
        {"effect": "Allow", "servers": ["h"], "tools": ["ok"], "arguments": [{"path": "/path", "in": ["/drafts/a", "/drafts/b"]}]},
    ])
}

async fn start() -> (Hostile, Toolgate) {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new()
        .remote_with("h", &hostile.server.url, json!({}))
        .tools("h", &["ok", "slow", "secret"])
        .role("engineer", "engineering", &rules())
        .role("operator", "sre", &json!([{"effect": "Allow", "servers": ["h"], "tools": ["*"]}]));
    (hostile, Toolgate::start(folder).await)
}

/// An answer without what may differ between two calls: their ids.
fn shape(answer: &http::Answer) -> Value {
    let mut response = answer.response();
    response["id"] = Value::Null;
    response["error"]["data"]["requestId"] = Value::Null;
    json!({"status": answer.status, "type": answer.header("content-type"), "body": response})
}

#[tokio::test]
async fn two_identities_list_different_tools() {
    let (_hostile, toolgate) = start().await;
    for era in ["modern", "legacy"] {
        let client = async |who| match era {
            "modern" => toolgate.modern("h", who),
            _ => toolgate.legacy("h", who).await,
        };
        assert_eq!(client("ada").await.list("tools").await, ["ok", "slow"], "{era}");
        // Undeclared tools exist for nobody, whatever the role says.
        assert_eq!(client("grace").await.list("tools").await, ["ok", "secret", "slow"].map(str::to_owned), "{era}");
    }
    assert_eq!(toolgate.modern("h", "guest").list("tools").await, [""; 0]);
    let guest = Client { version: "2025-11-25", ..toolgate.modern("h", "guest") };
    guest.initialize().await.refused(403, -31001, "nothing at this server");
}

#[tokio::test]
async fn an_allowed_call_succeeds_and_a_forbidden_argument_is_refused_with_its_path() {
    let (hostile, toolgate) = start().await;
    let ada = toolgate.modern("h", "ada");

    assert_eq!(ada.call("ok", json!({"path": "/drafts/a"})).await.text(), r#"ok {"path":"/drafts/a"}"#);

    let refused = ada.call("ok", json!({"path": "/etc/shadow"})).await.refused(200, -31001, "/path");
    assert_eq!(refused["data"]["path"], "/path");
    assert!(refused["data"]["permitted"].as_str().is_some_and(|it| it.contains("/drafts/b")), "{refused}");
    ada.call("ok", json!({})).await.refused(200, -31001, "/path");
    assert!(!hostile.arrivals.contain("shadow"), "a refused call never reaches the server");
}

#[tokio::test]
async fn an_invisible_tool_answers_as_one_that_does_not_exist_and_is_not_called() {
    let (hostile, toolgate) = start().await;
    for ada in [toolgate.modern("h", "ada"), toolgate.legacy("h", "ada").await] {
        // Declared and not hers; offered by the server and not declared; neither. Names of one length.
        let answers = [
            ada.call("secret", json!({"probe": 1})).await,
            ada.call("drip", json!({"probe": 1})).await,
            ada.call("absent", json!({"probe": 1})).await,
        ];
        let [secret, undeclared, absent] = answers.map(|answer| {
            answer.refused(200, -32602, "unknown tool");
            shape(&answer).to_string()
        });
        assert_eq!(secret.replace("secret", "absent"), absent);
        assert_eq!(undeclared.replace("drip", "absent"), absent);
    }
    assert!(!hostile.arrivals.contain("probe"), "{:?}", hostile.arrivals.messages());
}

#[tokio::test]
async fn without_a_token_there_is_401_and_metadata_that_names_the_endpoint() {
    let (hostile, toolgate) = start().await;
    let url = toolgate.url("h");
    for (client, method) in
        [(Client::modern(&url, None), "tools/list"), (Client::modern(&url, None), "server/discover")]
    {
        let answer = client.request(method, json!({})).await;
        answer.refused(401, -31007, "bearer token");
        let challenge = answer.header("www-authenticate").to_owned();
        let metadata = challenge.split("resource_metadata=\"").nth(1).and_then(|rest| rest.split('"').next());
        let metadata = metadata.unwrap_or_else(|| panic!("no metadata in {challenge:?}"));
        assert!(challenge.starts_with("Bearer "), "{challenge}");

        let document = http::get(metadata).await;
        assert_eq!(document.status, 200, "{document}");
        let document = http::parse(&document.body);
        assert_eq!(document["resource"], url);
        assert_eq!(document["authorization_servers"], json!(["https://login.example.com"]));
    }
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(http::send(method, &url, http::headers(&[]), "").await.status, 401);
    }
    assert!(!hostile.arrivals.contain("test"), "nobody without a token reaches the server");
}

#[tokio::test]
async fn a_policy_edit_is_in_force_within_a_second() {
    let (_hostile, toolgate) = start().await;
    let (modern, legacy) = (toolgate.modern("h", "ada"), toolgate.legacy("h", "ada").await);
    let grant = json!([{"effect": "Allow", "servers": ["h"], "tools": ["secret"]}]);

    for (rules, works) in [(&grant, true), (&rules(), false)] {
        let saved = Instant::now();
        toolgate.folder.write("role-engineer.yaml", &role("engineer", "engineering", rules));
        // The same sessions and tokens go on; each message is decided by the policy of its moment.
        for client in [&modern, &legacy] {
            loop {
                let answer = client.call("secret", json!({})).await;
                if answer.response().get("result").is_some() == works {
                    break;
                }
                assert!(saved.elapsed() < Duration::from_secs(1), "still the old policy after a second: {answer}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(saved.elapsed() < Duration::from_secs(1), "{:?}", saved.elapsed());
    }
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_policy_and_says_why() {
    let (_hostile, toolgate) = start().await;
    let ada = toolgate.modern("h", "ada");

    toolgate
        .folder
        .write("role-engineer.yaml", "apiVersion: toolgate.dev/v1alpha1\nkind: McpRole\nmetadata: {name: engi");

    crate::support::until("the problem is reported", || toolgate.log().contains("role-engineer.yaml").then_some(()))
        .await;
    assert_eq!(ada.list("tools").await, ["ok", "slow"]);
    assert_eq!(ada.call("ok", json!({"path": "/drafts/a"})).await.status, 200);
    ada.call("ok", json!({"path": "/etc"})).await.refused(200, -31001, "/path");
}

#[tokio::test]
async fn every_call_has_its_audit_record_without_its_arguments() {
    let (_hostile, toolgate) = start().await;
    let ada = toolgate.modern("h", "ada");

    let refused = ada.call("ok", json!({"path": "hunter2"})).await.refused(200, -31001, "/path");
    let id = refused["data"]["requestId"].clone();
    ada.call("ok", json!({"path": "/drafts/a"})).await.text();
    ada.call("secret", json!({})).await.refused(200, -32602, "unknown tool");

    let record = toolgate.audited("the refusal is recorded", |it| it["request_id"] == id).await;
    assert_eq!((&record["subject"], &record["issuer"]), (&json!("ada@example.com"), &json!("corp")), "{record}");
    assert_eq!((&record["server"], &record["decision"]), (&json!("h"), &json!("deny")), "{record}");
    let allowed =
        toolgate.audited("the call is recorded", |it| it["decision"] == "allow" && it["outcome"] == "ok").await;
    assert_eq!(allowed["target"], "ok", "{allowed}");
    toolgate
        .audited("the unknown tool is recorded", |it| it["decision"] == "unknown" && it["target"] == "secret")
        .await;
    assert!(
        toolgate.audit().iter().all(|record| !record.to_string().contains("hunter2")),
        "arguments are not recorded"
    );
}
