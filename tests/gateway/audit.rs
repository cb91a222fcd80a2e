//! The audit log: one line for everything that is answered, with the status and the code that the caller got.

use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::client::{LEGACY, MODERN};
use crate::support::{Client, Folder, Hostile, Toolgate, eventually, http, until};

/// Sends bytes as they are, and gives what comes back until the connection ends.
async fn raw(toolgate: &Toolgate, bytes: &str) -> String {
    let authority = toolgate.base().trim_start_matches("http://").to_owned();
    let mut connection = tokio::net::TcpStream::connect(&authority).await.unwrap();
    connection.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = connection.read_to_string(&mut answer);
    tokio::time::timeout(http::PATIENCE, read).await.expect("the gateway closes").unwrap();
    answer
}

/// The new lines, once there are `count`. What would come too much is looked for after everything else.
async fn new_lines(toolgate: &Toolgate, before: usize, count: usize, what: &str) -> Vec<Value> {
    until(what, || Some(toolgate.audit().split_off(before)).filter(|lines| lines.len() >= count)).await
}

/// Status, and code of the error, as the caller got them.
fn got(answer: &http::Answer) -> (u16, Option<i64>) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status, body["error"]["code"].as_i64())
}

fn said(line: &Value) -> (u16, Option<i64>) {
    let status = line["http_status"].as_u64().and_then(|status| u16::try_from(status).ok());
    (status.unwrap_or_default(), line["error_code"].as_i64())
}

#[tokio::test]
async fn every_refusal_of_a_request_leaves_one_line_with_the_status_and_code_that_the_caller_got() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let (base, ada) = (toolgate.base(), toolgate.modern("h", "ada"));
    let metadata = format!("{base}/.well-known/oauth-protected-resource/servers/h/mcp");
    let with = |name: &'static str, value: &str| {
        let mut headers = ada.headers_for("tools/call", Some("ok"));
        headers.insert(name, value.parse().unwrap());
        headers
    };
    let anonymous = Client::modern(&ada.url, None);
    let call = ada.message("tools/call", json!({"name": "ok", "arguments": {}})).1;
    let large = "y".repeat(40 << 10);
    let absent = format!("{base}/servers/absent/mcp?token=secret");
    let cases: Vec<(&str, Method, &str, HeaderMap, u16, &str)> = vec![
        ("host", Method::POST, &ada.url, with("host", "evil.example"), 403, "/servers/h/mcp"),
        ("origin", Method::POST, &ada.url, with("origin", "https://evil.example"), 403, "/servers/h/mcp"),
        ("path", Method::POST, &base, ada.headers(), 404, "/"),
        ("server", Method::POST, &absent, ada.headers(), 404, "/servers/absent/mcp"),
        ("method", Method::PUT, &ada.url, ada.headers(), 405, "/servers/h/mcp"),
        ("head", Method::POST, &ada.url, with("x-large", &large), 431, "/servers/h/mcp"),
        (
            "metadata",
            Method::GET,
            &metadata,
            HeaderMap::new(),
            200,
            "/.well-known/oauth-protected-resource/servers/h/mcp",
        ),
        ("no token", Method::POST, &ada.url, anonymous.headers(), 401, ""),
        ("bad token", Method::POST, &ada.url, with("authorization", "Bearer x"), 401, ""),
        ("type", Method::POST, &ada.url, with("content-type", "text/plain"), 415, ""),
        ("header", Method::POST, &ada.url, with("mcp-name", "slow"), 400, "ok"),
        ("session", Method::GET, &ada.url, ada.headers(), 405, ""),
    ];
    let mut lines = toolgate.audit().len();
    for (what, method, url, headers, status, target) in cases {
        let answer = http::send(method.clone(), url, headers, call.clone()).await;
        assert_eq!(answer.status, status, "{what}: {answer}");

        let new = new_lines(&toolgate, lines, 1, what).await;
        assert_eq!(new.len(), 1, "{what}: {new:?}");
        assert_eq!(said(&new[0]), got(&answer), "{what}: {}", new[0]);
        assert_eq!(new[0]["event"], "request", "{what}");
        if status != 400 {
            assert_eq!(new[0]["target"].as_str().unwrap_or_default(), target, "{what}: {}", new[0]);
        }
        assert_eq!(
            new[0].get("subject").is_some(),
            ["type", "header", "session"].contains(&what),
            "{what}: {}",
            new[0]
        );
        lines += 1;
    }
    let host = toolgate.audited("the foreign host", |it| it["http_status"] == 403).await;
    assert!(host["reason"].as_str().is_some_and(|why| why.contains("host: evil.example")), "{host}");

    // What hyper refuses before it is a request.
    for (bytes, status) in [("hello\r\n\r\n".to_owned(), 400), (format!("GET /{large} HTTP/1.1\r\n"), 431)] {
        let answer = raw(&toolgate, &bytes).await;
        let new = new_lines(&toolgate, lines, 1, "no HTTP").await;
        assert_eq!(new.len(), 1, "{new:?}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", new[0]["http_status"])), "{answer} {}", new[0]);
        assert!([400, 414, status].contains(&said(&new[0]).0), "{}", new[0]);
        assert_eq!(new[0]["method"], "unreadable");
        lines += 1;
    }
    assert_eq!(toolgate.audit().len(), lines, "nothing left a second line");
    assert!(!toolgate.audit().iter().any(|line| line.to_string().contains("secret")), "a query is never written");
}

#[tokio::test]
async fn a_line_has_the_status_and_code_that_the_caller_got_also_for_what_the_server_answers() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let (modern, legacy) = (toolgate.modern("h", "ada"), toolgate.legacy("h", "ada").await);
    // What the call does, how the server answers it, and the status and code that come of it.
    let cases = [
        ("ok", json!({}), 200, None, "ok"),
        ("error", json!({}), 200, Some(-32050), "error"),
        ("error", json!({"stream": true}), 200, Some(-32050), "error"),
        ("status_500", json!({}), 502, Some(-31003), "unavailable"),
        ("status_401", json!({}), 502, Some(-31010), "unavailable"),
        ("die_in_answer", json!({"stream": true}), 200, Some(-31003), "unavailable"),
        ("garbage", json!({}), 502, Some(-31003), "unavailable"),
        ("sampling", json!({}), 200, None, "ok"),
        ("absent", json!({}), 200, Some(-32602), "error"),
    ];
    let mut calls: Vec<&str> = Vec::new();
    for client in [&modern, &legacy] {
        for (tool, arguments, status, code, outcome) in &cases {
            if *tool == "sampling" && client.version == MODERN {
                continue; // It has no requests from servers.
            }
            let answer = client.call(tool, arguments.clone()).await;
            let error = answer.response()["error"]["code"].as_i64();
            assert_eq!((answer.status, error), (*status, *code), "{tool}: {answer}");
            let of_tool = |line: &Value| line["event"] == "request" && line["target"] == **tool;
            let earlier = calls.iter().filter(|earlier| *earlier == tool).count();
            calls.push(*tool);
            let line = until(tool, || toolgate.audit().into_iter().filter(of_tool).nth(earlier)).await;
            assert_eq!(said(&line), (*status, *code), "{tool}: {line}");
            assert_eq!(line["outcome"], *outcome, "{tool}: {line}");
        }
    }
    let notice = legacy.post(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await;
    assert_eq!(notice.status, 202);
    let line = toolgate.audited("the notice", |it| it["method"] == "notifications/roots/list_changed").await;
    assert_eq!((said(&line), line["result_bytes"].as_u64()), ((202, None), Some(0)));
}

#[tokio::test]
async fn a_server_that_refuses_the_gateway_is_no_server_that_cannot_be_reached() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let ada = toolgate.modern("h", "ada");

    let answer = ada.call("status_401", json!({})).await;

    let error = answer.refused(502, -31010, "refused the gateway with HTTP 401");
    assert_eq!(error["data"]["reachedServer"], "yes");
    assert!(answer.headers.get("www-authenticate").is_none(), "the server's challenge leads to a foreign login");
    let page = toolgate.metrics().await;
    assert!(page.contains(r#"reason="refused""#) && !page.contains(r#"reason="unreachable""#), "{page}");
}

#[tokio::test]
async fn an_error_says_whether_the_server_may_have_seen_the_request() {
    let hostile = Hostile::start(&[]);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", nobody.local_addr().unwrap());
    drop(nobody);
    let folder = Folder::new().remote("h", &hostile.server.url).remote("gone", &url).all_for_ada();
    let toolgate = Toolgate::start(folder).await;
    let reached = |answer: http::Answer| answer.response()["error"]["data"]["reachedServer"].clone();

    assert_eq!(reached(toolgate.modern("gone", "ada").call("ok", json!({})).await), "no");
    let ada = toolgate.modern("h", "ada");
    assert_eq!(reached(ada.call("die_in_answer", json!({})).await), "maybe");
    assert_eq!(reached(ada.call("die_in_answer", json!({"stream": true})).await), "yes");
    assert_eq!(reached(ada.call("wrong_id", json!({})).await), "yes");
}

#[tokio::test]
async fn a_flood_without_tokens_is_counted_and_leaves_callers_their_lines() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let (ada, anonymous) = (toolgate.modern("h", "ada"), Client::modern(&toolgate.url("h"), None));
    let flood = futures::future::join_all((0..8).map(|_| async {
        for _ in 0..100 {
            assert_eq!(anonymous.request("tools/list", json!({})).await.status, 401);
        }
    }));
    let calls = async {
        for at in 0..20 {
            assert_eq!(ada.call("ok", json!({"at": at})).await.status, 200);
        }
    };
    tokio::join!(flood, calls);

    let complete = |lines: &[Value], sent: u64| {
        let refused = lines.iter().filter(|line| line["http_status"] == 401);
        let counted: u64 = refused.map(|line| 1 + line["left_out"].as_u64().unwrap_or(0)).sum();
        let calls = lines.iter().filter(|line| line["event"] == "request" && line["target"] == "ok").count();
        (counted, calls) == (sent, 20)
    };
    // The first line of a later second says what is missing.
    let mut sent = 800;
    eventually("every request is a line or counted", async || {
        assert_eq!(anonymous.request("tools/list", json!({})).await.status, 401);
        sent += 1;
        let there = until("the lines are complete", || complete(&toolgate.audit(), sent).then_some(()));
        tokio::time::timeout(Duration::from_millis(300), there).await.ok()
    })
    .await;
    let lines = toolgate.audit();
    let refused = lines.iter().filter(|line| line["http_status"] == 401).count();
    assert!(refused < 800, "{refused} of 800 were written");
    assert!(
        toolgate
            .audit()
            .iter()
            .filter(|line| line["subject"] == "ada@example.com")
            .all(|it| it.get("left_out").is_none())
    );
}

#[tokio::test]
async fn questions_inside_a_result_and_their_answers_have_their_lines() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let ada = Client { capabilities: json!({"elicitation": {}}), ..toolgate.modern("h", "ada") };
    let asks = |methods: &[&str]| {
        let requests: serde_json::Map<_, _> =
            methods.iter().map(|method| ((*method).to_owned(), json!({"method": method, "params": {}}))).collect();
        let result = json!({"resultType": "input_required", "inputRequests": requests, "requestState": "s"});
        format!(r#"{{"jsonrpc":"2.0","id":@ID@,"result":{result}}}"#)
    };
    std::fs::write(hostile.replay.join("form"), asks(&["elicitation/create"])).unwrap();
    std::fs::write(hostile.replay.join("model"), asks(&["elicitation/create", "sampling/createMessage"])).unwrap();
    let of = async |answer: &http::Answer, id: &str, count: usize| -> Vec<(String, String)> {
        assert_eq!(answer.status, 200, "{answer}");
        until("the lines are there", || {
            let lines: Vec<_> = toolgate
                .audit()
                .into_iter()
                .filter(|line| line["event"] == "server_request" && line["request_id"] == id)
                .map(|line| {
                    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                    (text("method"), [text("decision"), text("target"), text("reason")].join("|"))
                })
                .collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    };
    let calls = || {
        let all = toolgate.audit().into_iter();
        all.filter(|line| line["event"] == "request" && line["method"] == "tools/call").collect::<Vec<_>>()
    };
    let request_id = async |nth: usize| {
        let line = until("the call is recorded", || calls().into_iter().nth(nth)).await;
        line["request_id"].as_str().unwrap().to_owned()
    };

    let asked = ada.call("replay", json!({"replay": "form"})).await;
    assert_eq!(asked.result()["resultType"], "input_required");
    let id = request_id(0).await;
    assert_eq!(of(&asked, &id, 1).await, [("elicitation/create".to_owned(), "allow||".to_owned())]);

    let params = json!({"name": "ok", "arguments": {}, "requestState": "s",
        "inputResponses": {"elicitation/create": {"action": "decline"}}});
    let answered = ada.request("tools/call", params).await;
    let id = request_id(1).await;
    let line = ("elicitation/create".to_owned(), "allow|elicitation/create|answered: decline".to_owned());
    assert_eq!(of(&answered, &id, 1).await, [line]);

    let refused = ada.call("replay", json!({"replay": "model"})).await;
    refused.refused(200, -31001, "sampling/createMessage");
    let id = request_id(2).await;
    let lines = of(&refused, &id, 2).await;
    assert!(lines.iter().all(|(_, rest)| rest.starts_with("deny|")), "nothing of it reached the caller: {lines:?}");
}

#[tokio::test]
async fn a_cancellation_reaches_a_server_over_http_only_for_ones_own_running_request() {
    let hostile = Hostile::start(&["--sessionless"]);
    let folder = Folder::new().remote("h", &hostile.server.url).all_for_ada().role(
        "other",
        "sre",
        &crate::support::folder::everything(),
    );
    let toolgate = Toolgate::start(folder).await;
    let stateless = |who: &str| Client { version: LEGACY, ..toolgate.modern("h", who) };
    let (ada, grace) = (stateless("ada"), stateless("grace"));
    let call =
        r#"{"jsonrpc":"2.0","id":"mine","method":"tools/call","params":{"name":"slow","arguments":{"ms":60000}}}"#;
    let cancel =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"{id}"}}}}"#);
    let running = http::open(Method::POST, &ada.url, ada.headers(), call).await;
    assert_eq!(running.status, 200);

    assert_eq!(grace.post(cancel("mine")).await.status, 202);
    assert_eq!(ada.post(cancel("other")).await.status, 202);
    assert!(!hostile.arrivals.contain("notifications/cancelled"), "{:?}", hostile.arrivals.messages());

    assert_eq!(ada.post(cancel("mine")).await.status, 202);
    until("it arrives", || hostile.arrivals.contain("notifications/cancelled").then_some(())).await;
    drop(running);
}

#[tokio::test]
async fn what_a_task_asks_has_its_line_and_another_callers_task_is_not_told() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let capabilities = json!({"elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
    let ada = Client { capabilities, ..toolgate.modern("h", "ada") };
    let task = json!({"resultType": "task", "taskId": "mine", "status": "working", "ttlMs": null,
        "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z"});
    std::fs::write(hostile.replay.join("task"), format!(r#"{{"jsonrpc":"2.0","id":@ID@,"result":{task}}}"#)).unwrap();
    ada.call("replay", json!({"replay": "task"})).await.result();
    let meta = r#""_meta":{"io.modelcontextprotocol/subscriptionId":@ID@}"#;
    let told = |task: &str, method: &str| {
        format!(
            r#"data: {{"jsonrpc":"2.0","method":"notifications/tasks","params":{{{meta},"taskId":"{task}","status":"input_required","inputRequests":{{"a":{{"method":"{method}","params":{{}}}}}}}}}}"#
        )
    };
    let events = [
        format!(
            r#"data: {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{{meta},"notifications":{{"taskIds":["mine"]}}}}}}"#
        ),
        told("another", "elicitation/create"),
        told("mine", "sampling/createMessage"),
        told("mine", "elicitation/create"),
        format!(r#"data: {{"jsonrpc":"2.0","id":@ID@,"result":{{"resultType":"complete",{meta}}}}}"#),
    ];
    std::fs::write(hostile.replay.join("subscriptions_listen"), events.map(|event| event + "\n\n").concat()).unwrap();

    let answer = ada.request("subscriptions/listen", json!({"notifications": {"taskIds": ["mine"]}})).await;

    let text = answer.to_string();
    assert!(text.contains(r#""taskId":"mine""#) && !text.contains("another") && !text.contains("sampling"), "{text}");
    let lines = until("both questions are recorded", || {
        let lines = toolgate.audit().into_iter().filter(|line| line["event"] == "server_request");
        let said = |line: Value| [line["method"].clone(), line["decision"].clone()];
        let lines: Vec<_> = lines.map(said).collect();
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    assert_eq!(
        lines,
        [[json!("sampling/createMessage"), json!("deny")], [json!("elicitation/create"), json!("allow")]]
    );
}
