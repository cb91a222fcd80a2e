use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;

use super::*;
use crate::gateway::reach::Reach;
use crate::gateway::upstream::{Config, http, stdio};

fn names(list: &[Listed]) -> Vec<&str> {
    list.iter().map(|entry| entry.name.as_str()).collect()
}

fn scripted(sessions: stdio::Sessions, flags: &[&str]) -> Upstream {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/scripted.py");
    let mut command = vec!["python3".to_owned(), "-S".to_owned(), script.to_string_lossy().into_owned()];
    command.extend(flags.iter().map(|&flag| flag.to_owned()));
    let directory = std::env::temp_dir();
    let name = "scripted".to_owned();
    let run = stdio::Run::Command(stdio::Command { command, env: BTreeMap::new(), directory });
    Upstream::new(Config::Stdio(stdio::Config { name, run, sessions, children: stdio::Children::default() })).unwrap()
}

/// A server over HTTP that answers each message by a function: status, content type, headers and body. Returns what
/// it was sent as well.
async fn server<F>(answer: F) -> (Upstream, Arc<Mutex<Vec<String>>>)
where
    F: Fn(&HeaderMap, Option<&Value>) -> (u16, &'static str, Vec<(&'static str, &'static str)>, String)
        + Send
        + Sync
        + 'static,
{
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, answer) = (seen.clone(), Arc::new(answer));
    let handler = move |request: axum::extract::Request| {
        let (log, answer) = (log.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let message: Option<Value> = serde_json::from_slice(&body).ok();
            let method = message.as_ref().map(|message| message["method"].as_str().unwrap_or("response"));
            let header = |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().unwrap());
            log.lock().push(format!(
                "{} {} {} {}",
                method.unwrap_or(head.method.as_str()),
                header("mcp-session-id"),
                header("mcp-protocol-version"),
                header("mcp-method")
            ));
            let (status, media, headers, body) = answer(&head.headers, message.as_ref());
            let mut response = axum::response::Response::builder().status(status).header("content-type", media);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(axum::body::Body::from(body)).unwrap()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(handler)).into_future());
    (Upstream::new(Config::Http(http::Config { url, ca: None, reach: Reach::MACHINE })).unwrap(), seen)
}

fn result(message: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string()
}

fn refusal(message: &Value, code: i64, text: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": code, "message": text } }).to_string()
}

#[tokio::test]
async fn a_stdio_server_is_asked_for_every_page_and_left_without_a_session() {
    for sessions in [stdio::Sessions::PerClient, stdio::Sessions::Shared] {
        let upstream = scripted(sessions, &[]);

        let found = ask(&upstream, Digests::Skip).await.unwrap();

        assert_eq!((found.name.as_deref(), found.version.as_deref()), (Some("scripted"), Some("1.2.3")));
        assert_eq!(found.protocol_version, "2025-11-25");
        assert_eq!(names(&found.tools), ["echo", "env", "die", "never"]);
        assert_eq!(found.tools[0].description.as_deref(), Some("does echo"));
        let Upstream::Stdio(stdio) = &upstream else { panic!("stdio") };
        assert_eq!(stdio.sessions(), 0);
        upstream.stop().await;
        assert_eq!(stdio.children(), 0);
    }
}

#[tokio::test]
async fn a_modern_server_is_asked_without_a_session() {
    for sessions in [stdio::Sessions::PerClient, stdio::Sessions::Shared] {
        let upstream = scripted(sessions, &["refuse", "modern"]);

        let found = ask(&upstream, Digests::Skip).await.unwrap();

        assert_eq!((found.name.as_deref(), found.version.as_deref()), (Some("scripted"), Some("2.0")));
        assert_eq!(found.protocol_version, "2026-07-28");
        assert_eq!(names(&found.tools), ["echo", "env", "die", "never"]);
        upstream.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_neither_era_says_why() {
    let upstream = scripted(stdio::Sessions::PerClient, &["refuse"]);

    let error = ask(&upstream, Digests::Skip).await.unwrap_err().to_string();

    assert!(error.contains("refused initialize: only 2026-07-28 (-32022)"), "{error}");
}

#[tokio::test]
async fn a_legacy_http_server_is_asked_with_its_session_and_revision() {
    let (upstream, seen) = server(|_, message| {
        let Some(message) = message else { return (200, "text/plain", vec![], String::new()) };
        match message["method"].as_str() {
            Some("initialize") => {
                let capabilities = json!({ "prompts": {}, "resources": {} });
                let greeting = json!({ "protocolVersion": "2024-11-05", "capabilities": capabilities, "serverInfo": {"name": "old"} });
                (200, "application/json", vec![("mcp-session-id", "s1")], result(message, &greeting))
            }
            Some("prompts/list") => {
                let ask = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
                let list = result(message, &json!({ "prompts": [{"name": "p"}] }));
                (200, "text/event-stream", vec![], format!(": hello\n\ndata: {ask}\n\ndata: {list}\n\n"))
            }
            Some("resources/list") => {
                let list = json!({ "resources": [{"uri": "file:///a", "name": "a", "description": "d"}] });
                (200, "application/json", vec![], result(message, &list))
            }
            Some("resources/templates/list") => (200, "application/json", vec![], refusal(message, -32601, "no")),
            _ => (202, "text/plain", vec![], String::new()),
        }
    })
    .await;

    let found = ask(&upstream, Digests::Skip).await.unwrap();

    assert_eq!((names(&found.prompts), names(&found.resources)), (vec!["p"], vec!["file:///a"]));
    assert_eq!(found.resources[0].description.as_deref(), Some("d"));
    assert_eq!((found.protocol_version.as_str(), found.tools.len(), found.templates.len()), ("2024-11-05", 0, 0));
    assert_eq!(
        *seen.lock(),
        [
            "initialize - - -",
            "notifications/initialized s1 2024-11-05 -",
            "prompts/list s1 2024-11-05 -",
            "response s1 2024-11-05 -",
            "resources/list s1 2024-11-05 -",
            "resources/templates/list s1 2024-11-05 -",
            "DELETE s1 2024-11-05 -",
        ]
    );
}

#[tokio::test]
async fn a_modern_http_server_is_asked_with_its_headers() {
    let (upstream, seen) = server(|_, message| {
        let message = message.unwrap();
        match message["method"].as_str() {
            Some("server/discover") => {
                let greeting = json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } });
                (200, "application/json", vec![], result(message, &greeting))
            }
            Some("tools/list") => {
                (200, "application/json", vec![], result(message, &json!({ "tools": [{"name": "t"}] })))
            }
            _ => (400, "application/json", vec![], refusal(message, -32022, "unsupported")),
        }
    })
    .await;

    let found = ask(&upstream, Digests::Skip).await.unwrap();

    assert_eq!((names(&found.tools), found.name), (vec!["t"], None));
    assert_eq!(
        *seen.lock(),
        ["initialize - - -", "server/discover - 2026-07-28 server/discover", "tools/list - 2026-07-28 tools/list",]
    );
}

#[tokio::test]
async fn a_list_without_end_or_without_sense_is_refused_and_the_session_ended() {
    for (page, why) in [
        (json!({ "tools": [], "nextCursor": "again" }), "more than 100 pages"),
        (json!({ "tools": vec![json!({"name": "t"}); 10_001] }), "more than 10000 entries"),
        (json!({ "tools": [{"title": "nameless"}] }), "has no \"name\""),
        (json!({ "tolls": [] }), "has no \"tools\""),
    ] {
        let (upstream, seen) = server(move |_, message| {
            let Some(message) = message else { return (200, "text/plain", vec![], String::new()) };
            match message["method"].as_str() {
                Some("initialize") => {
                    let greeting = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} } });
                    (200, "application/json", vec![("mcp-session-id", "s1")], result(message, &greeting))
                }
                Some("tools/list") => (200, "application/json", vec![], result(message, &page)),
                _ => (202, "text/plain", vec![], String::new()),
            }
        })
        .await;

        let error = ask(&upstream, Digests::Skip).await.unwrap_err();

        assert!(matches!(&error, UpstreamError::Garbage(text) if text.contains(why)), "{error}");
        assert!(seen.lock().last().unwrap().starts_with("DELETE s1"));
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_not_asked_twice() {
    let url = "http://127.0.0.1:1/mcp".to_owned();
    let upstream = Upstream::new(Config::Http(http::Config { url, ca: None, reach: Reach::MACHINE })).unwrap();

    assert!(matches!(ask(&upstream, Digests::Skip).await, Err(UpstreamError::Unreachable(_))));
}

#[tokio::test]
async fn a_server_that_wants_a_token_says_so() {
    let (upstream, _seen) = server(|_, _| (401, "text/plain", vec![], "no".to_owned())).await;

    let error = ask(&upstream, Digests::Skip).await.unwrap_err().to_string();

    assert!(error.contains("HTTP status 401"), "{error}");
}
