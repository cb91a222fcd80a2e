//! Servers that misbehave: the caller gets a clear error, other calls go on.

use serde_json::json;

use crate::support::client::LEGACY;
use crate::support::{Arrivals, Client, Folder, Hostile, Toolgate};

/// The hostile server over HTTP and over stdio, with ada's leave for everything.
async fn both() -> (Hostile, Toolgate) {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new()
        .remote("http", &hostile.server.url)
        .hostile_stdio("stdio", &[], json!({"registration": "Auto", "sessions": "Shared"}))
        .all_for_ada();
    (hostile, Toolgate::start(folder).await)
}

/// A session of ada's, once the server is there again; until then its absence is a clear error.
async fn restarted(toolgate: &Toolgate, server: &str) -> Client {
    let client = Client { version: LEGACY, ..toolgate.modern(server, "ada") };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let answer = client.initialize().await;
        if answer.status == 200 {
            return toolgate.legacy(server, "ada").await;
        }
        answer.refused(502, -31003, "next start in");
        assert!(tokio::time::Instant::now() < deadline, "{server} does not come back: {answer}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_an_answer_is_unavailable_and_comes_back() {
    let (_hostile, toolgate) = both().await;
    for (server, tool) in [("http", "die_in_answer"), ("http", "exit"), ("stdio", "die_in_answer"), ("stdio", "exit")] {
        let ada = toolgate.modern(server, "ada");
        let legacy = if server == "stdio" { toolgate.legacy(server, "ada").await } else { ada.clone() };
        let answer = legacy.call(tool, json!({})).await;
        // Before the head of an answer it is a status, after it an event.
        answer.refused(if (server, tool) == ("http", "exit") { 200 } else { 502 }, -31003, "went away");
        // Restarted, with backoff: soon there again.
        let again = restarted(&toolgate, server).await;
        assert_eq!(again.call("ok", json!({})).await.text(), "ok {}", "{server} {tool}");
    }
    let page = toolgate.metrics().await;
    for (name, count) in [("toolgate_children", 1), ("toolgate_child_restarts_total", 2)] {
        let line = format!("{name}{{server=\"stdio\",server_namespace=\"agents\"}} {count}");
        assert!(page.contains(&line), "{line} is missing:\n{page}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_for_its_call() {
    let (_hostile, toolgate) = both().await;
    let answer = toolgate.modern("http", "ada").call("die_in_answer", json!({"stream": true})).await;
    let error = answer.response()["error"].clone();
    assert_eq!((answer.status, error["code"].as_i64()), (200, Some(-31003)), "{answer}");
}

#[tokio::test]
async fn garbage_is_unavailable_and_is_not_passed_on() {
    let (_hostile, toolgate) = both().await;
    let ada = toolgate.modern("http", "ada");
    for tool in ["garbage", "invalid_utf8", "wrong_type", "no_id", "wrong_id"] {
        let answer = ada.call(tool, json!({})).await;
        let error = answer.response()["error"].clone();
        assert_eq!(error["code"].as_i64(), Some(-31003), "{tool}: {answer}");
        assert!(!answer.to_string().contains("this is not JSON"), "{answer}");
    }
    assert_eq!(ada.call("ok", json!({})).await.text(), "ok {}");
}

#[tokio::test]
async fn a_line_of_garbage_or_an_unknown_id_on_stdio_does_not_disturb_other_calls() {
    let (_hostile, toolgate) = both().await;
    let ada = toolgate.legacy("stdio", "ada").await;
    for tool in ["garbage", "wrong_id", "no_id", "never"] {
        // Nobody will answer this call; it goes on while others are served.
        let waiting = tokio::spawn({
            let ada = ada.clone();
            async move { ada.open("tools/call", json!({"name": tool, "arguments": {}})).await }
        });
        assert_eq!(ada.call("ok", json!({"during": tool})).await.text(), format!(r#"ok {{"during":"{tool}"}}"#));
        waiting.abort();
    }
}

#[tokio::test]
async fn ten_megabytes_pass_and_seventeen_are_refused() {
    let (_hostile, toolgate) = both().await;
    for server in ["http", "stdio"] {
        let ada = toolgate.legacy(server, "ada").await;
        let big = ada.call("big", json!({"bytes": 10 << 20})).await;
        assert_eq!(big.text().len(), 10 << 20, "{server}");
        let answer = ada.call("big", json!({"bytes": 17 << 20})).await;
        answer.refused(502, -31003, "larger than");
        let again = restarted(&toolgate, server).await;
        assert_eq!(again.call("ok", json!({})).await.text(), "ok {}", "{server}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (hostile, toolgate) = both().await;
    let answer = toolgate.modern("http", "ada").call("redirect", json!({})).await;
    assert_eq!(answer.response()["error"]["code"], -31003, "{answer}");
    assert!(answer.header("location").is_empty(), "{answer}");
    assert!(hostile.arrivals.all().iter().all(|it| it["path"] != "/stolen"));
}

#[tokio::test]
async fn a_servers_own_challenge_and_failure_text_stay_here() {
    let (_hostile, toolgate) = both().await;
    let ada = toolgate.modern("http", "ada");
    let challenged = ada.call("status_401", json!({})).await;
    assert_eq!(challenged.response()["error"]["code"], -31010, "{challenged}");
    assert!(challenged.header("www-authenticate").is_empty(), "a caller is never sent to a foreign login");
    let failed = ada.call("status_500", json!({})).await;
    assert_eq!(failed.response()["error"]["code"], -31003, "{failed}");
    assert!(!failed.to_string().contains("/etc/secret"), "{failed}");
}

#[tokio::test]
async fn forged_toolgate_keys_in_meta_are_removed_and_others_keep_their_bytes() {
    let (hostile, toolgate) = both().await;
    for server in ["http", "stdio"] {
        let ada = toolgate.legacy(server, "ada").await;
        let answer = ada.call("forge_meta", json!({})).await;
        assert!(!answer.to_string().contains("toolgate.dev/"), "{server}: {answer}");
        assert!(answer.to_string().contains(r#""example.com/kept":100.0"#), "{server}: {answer}");
    }
    // Nor can a caller forge them towards the server.
    let ada = toolgate.modern("http", "ada");
    let meta = json!({"toolgate.dev/role": "admin", "example.com/mine": 1});
    ada.request("tools/call", json!({"name": "ok", "arguments": {}, "_meta": meta})).await.text();
    assert!(hostile.arrivals.contain("example.com/mine") && !hostile.arrivals.contain("toolgate.dev/role"));
}

#[tokio::test]
async fn progress_and_unknown_notifications_reach_the_call_that_they_belong_to() {
    let (_hostile, toolgate) = both().await;
    for server in ["http", "stdio"] {
        let ada = toolgate.legacy(server, "ada").await;
        let meta = json!({"progressToken": "mine"});
        let answer = ada.request("tools/call", json!({"name": "progress", "arguments": {}, "_meta": meta})).await;
        let tokens: Vec<_> = answer
            .messages()
            .iter()
            .map(|it| crate::support::http::parse(it)["params"]["progressToken"].clone())
            .collect();
        assert_eq!(tokens[..3], [json!("mine"), json!("mine"), json!("mine")], "{server}: {answer}");
    }
    let foreign = toolgate.legacy("stdio", "ada").await.call("foreign_progress", json!({})).await;
    assert!(!foreign.to_string().contains("someone-else"), "{foreign}");
}

#[tokio::test]
async fn a_server_that_exits_in_a_loop_is_unavailable_and_does_not_hold_up_the_others() {
    let folder = Folder::new();
    let log = folder.scratch("starts.log");
    let log = log.to_str().unwrap().to_owned();
    let folder = folder
        .hostile_stdio("good", &[], json!({"registration": "Auto"}))
        .hostile_stdio("broken", &["--log", &log, "--crash-at-start"], json!({"registration": "Auto"}))
        .all_for_ada();
    let toolgate = Toolgate::start(folder).await;

    assert_eq!(toolgate.legacy("good", "ada").await.call("ok", json!({})).await.text(), "ok {}");
    let broken = Client { version: LEGACY, ..toolgate.modern("broken", "ada") };
    let answer = broken.initialize().await;
    answer.refused(502, -31003, "");
    assert!(toolgate.log().contains("crashing at start"), "what it said on stderr is in our log: {}", toolgate.log());

    // Backoff: many requests do not make many starts.
    let starts = || Arrivals::at(std::path::Path::new(&log)).all().len();
    let before = starts();
    for _ in 0..50 {
        broken.initialize().await.refused(502, -31003, "");
    }
    assert!(starts() - before <= 10, "{} starts for 50 requests", starts() - before);
}

#[tokio::test]
async fn strange_lists_neither_break_the_gateway_nor_leak() {
    for (kind, spec) in [("garbage", "Auto"), ("duplicates", "Auto"), ("huge", "Auto"), ("endless", "Auto")] {
        let hostile = Hostile::start(&["--list", kind]);
        let folder = Folder::new().remote_with("h", &hostile.server.url, json!({"registration": spec})).all_for_ada();
        let toolgate = Toolgate::start(folder).await;
        let ada = toolgate.modern("h", "ada");
        let listed = ada.request("tools/list", json!({})).await;
        match kind {
            "garbage" => assert_eq!(listed.response()["error"]["code"], -31003, "{listed}"),
            "huge" => assert!(listed.result()["tools"].as_array().unwrap().len() > 20_000),
            _ => assert!(!listed.result()["tools"].as_array().unwrap().is_empty()),
        }
        assert_eq!(ada.call("ok", json!({})).await.text(), "ok {}", "{kind}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_ends_what_the_server_does_for_it() {
    let (_hostile, toolgate) = both().await;
    let ada = toolgate.modern("http", "ada");
    let meta = json!({"progressToken": 1});
    let drip = json!({"name": "drip", "arguments": {"ms": 20, "count": 100_000}, "_meta": meta});
    drop(ada.open("tools/call", drip).await);
    let record = toolgate.audited("the cancellation is recorded", |it| it["outcome"] == "cancelled").await;
    assert_eq!(record["target"], "drip");
}
