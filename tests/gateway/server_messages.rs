//! What a server says is read as its clients read it, or it does not pass: repeated keys, event streams, ids.

use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::LEGACY;
use crate::support::{Client, Folder, Hostile, Toolgate, http};

/// The hostile server, where ada sees the tools `ok` and `replay` alone; over HTTP as `http`, over stdio as `stdio`.
struct Stage {
    hostile: Hostile,
    replay: std::path::PathBuf,
    toolgate: Toolgate,
}

impl Stage {
    async fn start() -> Self {
        let hostile = Hostile::start(&[]);
        let rules = json!([{"effect": "Allow", "servers": ["*"], "tools": ["ok", "replay", "never"]}]);
        let folder = Folder::new().remote("http", &hostile.server.url).role("some", "engineering", &rules);
        let replay = folder.scratch("replay");
        std::fs::create_dir(&replay).unwrap();
        let flags = ["--replay", replay.to_str().unwrap()];
        let folder = folder
            .hostile_stdio("stdio", &flags, json!({"registration": "Auto", "sessions": "PerClient"}))
            .overlay("stdio", "maxChildren", json!(32))
            .overlay("stdio", "childrenPerCaller", json!(16)); // Each case has a session of its own.
        Self { hostile, replay, toolgate: Toolgate::start(folder).await }
    }

    /// Has the server answer to `key` with these bytes, over either transport.
    fn answer(&self, key: &str, bytes: &str) {
        std::fs::write(self.hostile.replay.join(key), bytes).unwrap();
        std::fs::write(self.replay.join(key), format!("{bytes}\n")).unwrap();
    }

    async fn replayed(&self, client: &Client, bytes: &str) -> http::Answer {
        self.answer("case", bytes);
        client.call("replay", json!({"replay": "case"})).await
    }

    async fn clients(&self) -> [Client; 3] {
        [
            self.toolgate.modern("http", "ada"),
            self.toolgate.legacy("http", "ada").await,
            self.toolgate.legacy("stdio", "ada").await,
        ]
    }
}

fn event(message: &str) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// A request with an id of one's choice.
async fn with_id(client: &Client, id: &str, method: &str) -> http::Answer {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#);
    http::send(Method::POST, &client.url, client.headers_for(method, None), body).await
}

const OK: &str =
    r#"{"jsonrpc":"2.0","id":@ID@,"result":{"resultType":"complete","content":[{"type":"text","text":"fine"}]}}"#;

#[tokio::test]
async fn a_list_that_can_be_read_in_two_ways_is_an_error_and_audited() {
    let stage = Stage::start().await;
    for result in [
        r#"{"tools":[],"tools":[{"name":"secret"}]}"#,
        r#"{"tools":[],"Tools":[{"name":"secret"}]}"#,
        r#"{"tools":[{"name":"ok","n\u0061me":"secret"}]}"#,
        r#"{"tools":[]},"result":{"tools":[{"name":"secret"}]}"#,
        r#"{"tools":[]},"error":{"code":1,"message":"secret"}"#,
        r#"{"tools":[]},"method":"secret""#,
    ] {
        let message = format!(r#"{{"jsonrpc":"2.0","id":@ID@,"result":{result}}}"#);
        for client in stage.clients().await {
            for bytes in [message.clone(), event(&message)] {
                if client.url.contains("stdio") && bytes.starts_with("event") {
                    continue;
                }
                stage.answer("tools_list", &bytes);
                let answer = client.request("tools/list", json!({})).await;

                assert_eq!(answer.response()["error"]["code"], -31003, "{result} {answer}");
                assert!(!answer.to_string().contains("secret"), "{answer}");
            }
        }
    }
    let line =
        stage.toolgate.audited("it is audited", |line| line["reason"].as_str().is_some_and(|it| it.contains("twice")));
    assert_eq!(line.await["error_code"], -31003);
}

#[tokio::test]
async fn a_request_whose_mode_or_method_stands_twice_is_refused_and_audited() {
    let stage = Stage::start().await;
    for (method, params) in [
        (r#""elicitation/create""#, r#"{"message":"?","mode":"form","mode":"url","url":"https://evil.example"}"#),
        (r#""elicitation/create""#, r#"{"message":"?","mode":"form","m\u006fde":"url"}"#),
        (r#""elicitation/create""#, r#"{"message":"?","Mode":"url"}"#),
        (r#""elicitation/create""#, r#"{"message":"?"},"params":{"mode":"url"}"#),
        (r#""elicitation/create","method":"sampling/createMessage""#, "{}"),
    ] {
        let asked = format!(r#"{{"jsonrpc":"2.0","id":"q","method":{method},"params":{params}}}"#);
        for server in ["http", "stdio"] {
            let ada = stage.toolgate.legacy(server, "ada").await;
            let bytes = if server == "http" { event(&asked) + &event(OK) } else { format!("{asked}\n{OK}") };
            let answer = stage.replayed(&ada, &bytes).await;

            assert!(
                !answer.to_string().contains("elicitation") && !answer.to_string().contains("sampling"),
                "{answer}"
            );
        }
    }
    let refused = |line: &Value| {
        line["event"] == "server_request"
            && line["decision"] == "deny"
            && line["reason"] == "it can be read in two ways"
    };
    stage.toolgate.audited("the refusal is audited", refused).await;
    assert!(stage.hostile.arrivals.contain("it can be read in two ways"), "the server is told");
}

#[tokio::test]
async fn what_an_answer_asks_is_checked_whatever_its_form() {
    let stage = Stage::start().await;
    let ada = stage.toolgate.modern("http", "ada");
    for (requests, code) in [
        (r#"[{"method":"sampling/createMessage"}]"#, -31003),
        (r#"{"a":{"method":"elicitation/create","method":"sampling/createMessage"}}"#, -31003),
        (r#"{},"inputRequests":{"a":{"method":"sampling/createMessage"}}"#, -31003),
        (r#"{"a":{"method":"sampling/createMessage"}}"#, -31001),
    ] {
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":@ID@,"result":{{"resultType":"input_required","inputRequests":{requests}}}}}"#
        );
        for bytes in [message.clone(), event(&message)] {
            let answer = stage.replayed(&ada, &bytes).await;
            assert_eq!(answer.response()["error"]["code"], code, "{answer}");
        }
    }
    let url = r#"{"jsonrpc":"2.0","id":@ID@,"error":{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","url":"https://evil.example"}]}}}"#;
    for client in stage.clients().await {
        let answer = stage.replayed(&client, url).await;
        assert_eq!(answer.response()["error"]["code"], -31001, "{answer}");
    }
    let task = r#"{"jsonrpc":"2.0","method":"notifications/tasks","params":{"taskId":"t","inputRequests":{"a":{"method":"sampling/createMessage"}}}}"#;
    let answer = stage.replayed(&ada, &(event(task) + &event(OK))).await;
    assert_eq!((answer.text().as_str(), answer.to_string().contains("sampling")), ("fine", false));
}

#[tokio::test]
async fn a_byte_order_mark_hides_nothing_from_policy() {
    let stage = Stage::start().await;
    let list = r#"{"jsonrpc":"2.0","id":@ID@,"result":{"tools":[{"name":"secret"},{"name":"ok"}]}}"#;
    for bytes in [format!("\u{feff}{}", event(list)), format!("\u{feff}data: {list}\r\r"), format!("\u{feff}{list}")] {
        stage.answer("tools_list", &bytes);
        for client in [stage.toolgate.modern("http", "ada"), stage.toolgate.legacy("http", "ada").await] {
            let answer = client.request("tools/list", json!({})).await;
            assert_eq!(answer.result()["tools"], json!([{"name": "ok"}]), "{bytes:?} {answer}");
            assert!(!answer.body.starts_with("\u{feff}".as_bytes()) && !answer.to_string().contains("secret"));
        }
    }
    let asked = r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{}}"#;
    let ada = stage.toolgate.legacy("http", "ada").await;
    let answer = stage.replayed(&ada, &format!("\u{feff}data: {asked}\n\n{}", event(OK))).await;
    assert_eq!((answer.text().as_str(), answer.to_string().contains("sampling")), ("fine", false));
    stage.toolgate.audited("it is audited", |line| line["method"] == "sampling/createMessage").await;
}

#[tokio::test]
async fn what_is_no_message_is_skipped_and_logged_once() {
    let stage = Stage::start().await;
    let foreign = "event: ping\ndata: 2026-12-01\n\nevent: ping\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n\
                   data: hello\n\ndata: {\"a\":1}\n\n: comment\n\n";
    for client in [stage.toolgate.modern("http", "ada"), stage.toolgate.legacy("http", "ada").await] {
        let answer = stage.replayed(&client, &format!("{foreign}{}", event(OK))).await;
        assert_eq!(answer.text(), "fine", "{answer}");
        assert_eq!(answer.messages().len(), 1, "{answer}");
        assert!(!answer.to_string().contains("ping") && !answer.to_string().contains("hello"), "{answer}");
    }
    assert_eq!(stage.toolgate.log().matches("holds what is no message").count(), 2, "once a stream");

    // Where the answer itself is no message, the caller hears of it.
    let answer = stage.replayed(&stage.toolgate.modern("http", "ada"), "data: nonsense\n\n").await;
    assert_eq!(answer.response()["error"]["code"], -31003, "{answer}");
}

#[tokio::test]
async fn an_id_that_is_still_unanswered_is_refused_in_its_session() {
    let stage = Stage::start().await;
    for server in ["http", "stdio"] {
        let ada = stage.toolgate.legacy(server, "ada").await;
        let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"never","arguments":{}}}"#;
        let (url, headers) = (ada.url.clone(), ada.headers());
        let waiting = tokio::spawn(async move { http::open(Method::POST, &url, headers, body).await });
        stage
            .toolgate
            .audited("the call is on its way", |line| line["target"] == "never" && line["server"] == server)
            .await;

        for id in ["7", "7.0", "\"7\""] {
            with_id(&ada, id, "ping").await.refused(400, -32600, "still unanswered");
        }
        assert_eq!(with_id(&ada, "8", "ping").await.status, 200);
        assert_eq!(with_id(&ada, "8", "ping").await.status, 200, "an answered one may come again");
        let other = stage.toolgate.legacy(server, "ada").await;
        assert_eq!(with_id(&other, "7", "ping").await.status, 200, "another session has ids of its own");
        waiting.abort();
    }
}

#[tokio::test]
async fn an_answer_whose_id_had_several_purposes_is_dropped() {
    let stage = Stage::start().await;
    let list = r#"{"jsonrpc":"2.0","id":ID,"result":{"tools":[{"name":"secret"}]}}"#;
    let ada = Client { version: LEGACY, ..stage.toolgate.legacy("http", "ada").await };
    with_id(&ada, "1", "tools/list").await;
    stage.answer("ping", ": the answer comes on another stream\n\n");
    for id in ["1", "2"] {
        assert_eq!(with_id(&ada, id, "ping").await.status, 200);
    }
    let pong = r#"{"jsonrpc":"2.0","id":2,"result":{}}"#;
    let events: Vec<String> = ["1", "1.0", "\"1\"", "2", "3"].iter().map(|id| event(&list.replace("ID", id))).collect();
    stage.answer("GET", &(events.concat() + &event(pong)));

    let rest = http::send(Method::GET, &ada.url, ada.headers(), "").await;

    assert!(!rest.to_string().contains("secret"), "{rest}");
}
