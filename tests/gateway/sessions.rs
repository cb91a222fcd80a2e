//! Sessions and streams: whose they are, how many there may be, and who hears what.

use hyper::Method;
use serde_json::json;

use crate::support::folder::everything;
use crate::support::{Client, Folder, Hostile, Toolgate, http};

async fn start(hostile: &Hostile, spec: serde_json::Value) -> Toolgate {
    let mut all = json!({"registration": "Auto"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let folder = Folder::new()
        .remote_with("h", &hostile.server.url, all)
        .role("everything", "engineering", &everything())
        .role("everything-too", "sre", &everything());
    Toolgate::start(folder).await
}

#[tokio::test]
async fn a_session_of_another_principal_is_404_and_stays_open() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let ada = toolgate.legacy("h", "ada").await;
    let thief = Client { token: Some(toolgate.token("grace")), ..ada.clone() };

    thief.call("ok", json!({"stolen": true})).await.refused(404, -31006, "session");
    for method in [Method::GET, Method::DELETE] {
        http::send(method, &thief.url, thief.headers(), "").await.refused(404, -31006, "session");
    }

    assert!(!hostile.arrivals.contain("stolen"));
    assert_eq!(ada.call("ok", json!({})).await.text(), "ok {}");
}

#[tokio::test]
async fn an_unknown_or_ended_session_is_404() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let ada = toolgate.legacy("h", "ada").await;
    let guess = Client { session: Some("hostile-1".into()), ..ada.clone() };
    guess.call("ok", json!({})).await.refused(404, -31006, "initialize");

    assert!(http::send(Method::DELETE, &ada.url, ada.headers(), "").await.status < 300);

    ada.call("ok", json!({"ended": true})).await.refused(404, -31006, "initialize");
    assert!(!hostile.arrivals.contain("ended"));
}

#[tokio::test]
async fn the_servers_own_session_id_is_not_shown() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let session = toolgate.legacy("h", "ada").await.session.expect("a session");
    assert!(!session.contains("hostile"), "{session}");
    assert!(session.len() >= 22 && session.bytes().all(|byte| byte.is_ascii_graphic()), "{session}");
}

#[tokio::test]
async fn sessions_of_one_caller_are_limited_and_another_caller_is_not_hurt() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(toolgate.legacy("h", "ada").await);
    }

    let one_more = Client { session: None, ..open[0].clone() };
    let refused = one_more.initialize().await;
    refused.refused(429, -31002, "32 sessions");
    // Nobody uses them: the first ends when it was idle for half an hour, unless one is ended before.
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1700..=1830).contains(&seconds), "{refused}");

    toolgate.legacy("h", "grace").await;
    http::send(Method::DELETE, &open[0].url, open[0].headers(), "").await;
    toolgate.legacy("h", "ada").await;
}

#[tokio::test]
async fn streams_of_one_caller_are_limited() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let mut open = Vec::new();
    let mut ada = toolgate.legacy("h", "ada").await;
    for _ in 0..16 {
        // A session has one stream; the limit counts those of all sessions.
        ada = toolgate.legacy("h", "ada").await;
        let stream = http::open(Method::GET, &ada.url, ada.headers(), "").await;
        assert_eq!(stream.status, 200);
        open.push(stream);
    }
    ada = Client { session: toolgate.legacy("h", "ada").await.session, ..ada };

    let refused = http::send(Method::GET, &ada.url, ada.headers(), "").await;
    refused.refused(429, -31002, "16 streams");
    assert_eq!(refused.header("retry-after"), "", "no time frees a stream");

    drop(open);
    crate::support::eventually("a place is free again", async || {
        let again = http::open(Method::GET, &ada.url, ada.headers(), "").await;
        (again.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_servers_question_reaches_its_caller_and_the_answer_reaches_the_server() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let capabilities = json!({"elicitation": {}});
    let ada = Client::legacy_with(&toolgate.url("h"), Some(&toolgate.token("ada")), capabilities).await;
    let mut stream = ada.open("tools/call", json!({"name": "elicit", "arguments": {}})).await;
    let question = stream.next().await;
    assert_eq!(question["method"], "elicitation/create", "{question}");

    let answer =
        json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "A"}}});
    let grace = toolgate.legacy("h", "grace").await;
    grace.post(answer.to_string()).await.refused(400, -32600, "no request");
    assert_eq!(ada.post(answer.to_string()).await.status, 202);

    let result = stream.next().await;
    assert!(
        result["result"]["content"][0]["text"].as_str().is_some_and(|it| it.contains("\"name\":\"A\"")),
        "{result}"
    );
    // An answer counts once.
    ada.post(answer.to_string()).await.refused(400, -32600, "no request");
}

#[tokio::test]
async fn a_server_may_ask_for_sampling_roots_and_urls_only_with_leave() {
    let hostile = Hostile::start(&[]);
    let strict = start(&hostile, json!({})).await;
    let capabilities = json!({"elicitation": {"url": {}, "form": {}}, "sampling": {}, "roots": {}});
    let client = async |toolgate: &Toolgate| {
        Client::legacy_with(&toolgate.url("h"), Some(&toolgate.token("ada")), capabilities.clone()).await
    };
    let ada = client(&strict).await;
    for tool in ["sampling", "roots", "elicit_url"] {
        let answer = ada.call(tool, json!({})).await;
        assert!(!answer.to_string().contains("\"method\""), "the request reached the caller: {answer}");
        assert!(answer.text().contains("-32601"), "the server is told: {answer}");
    }

    let lenient = json!({"serverRequests": {"sampling": "Allow", "roots": "Allow", "elicitation": "Deny"}});
    let lenient = start(&hostile, lenient).await;
    let ada = client(&lenient).await;
    let question = ada.open("tools/call", json!({"name": "sampling", "arguments": {}})).await.next().await;
    assert_eq!(question["method"], "sampling/createMessage");
    let refused = ada.call("elicit", json!({})).await;
    assert!(refused.text().contains("-32601"), "{refused}");
}

#[tokio::test]
async fn a_request_on_the_stream_of_a_session_reaches_only_its_own_caller() {
    let hostile = Hostile::start(&[]);
    let toolgate = start(&hostile, json!({})).await;
    let client = async |who| {
        Client::legacy_with(&toolgate.url("h"), Some(&toolgate.token(who)), json!({"elicitation": {}})).await
    };
    let (ada, grace) = (client("ada").await, client("grace").await);
    let mut own = http::open(Method::GET, &ada.url, ada.headers(), "").await;
    let mut foreign = http::open(Method::GET, &grace.url, grace.headers(), "").await;

    assert_eq!(ada.call("wrong_stream", json!({})).await.text(), "done");

    let question = own.next().await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}).to_string();
    grace.post(answer.clone()).await.refused(400, -32600, "no request");
    assert_eq!(ada.post(answer).await.status, 202);
    http::send(Method::DELETE, &grace.url, grace.headers(), "").await;
    assert_eq!(foreign.next_or_end().await, None, "nothing came for the other caller");
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_server_and_only_by_its_own_caller() {
    let folder = Folder::new();
    let log = folder.scratch("child.log");
    let flags = ["--log".to_owned(), log.to_str().unwrap().to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = folder
        .hostile_stdio("s", &flags, json!({"registration": "Auto", "sessions": "Shared"}))
        .role("everything", "engineering", &everything())
        .role("everything-too", "sre", &everything());
    let toolgate = Toolgate::start(folder).await;
    let arrivals = crate::support::Arrivals::at(&log);
    let (ada, grace) = (toolgate.legacy("s", "ada").await, toolgate.legacy("s", "grace").await);
    let call = r#"{"jsonrpc":"2.0","id":"mine","method":"tools/call","params":{"name":"never","arguments":{}}}"#;
    let waiting = tokio::spawn({
        let ada = ada.clone();
        async move { ada.post(call).await }
    });
    let arrived = crate::support::until("the call arrives", || {
        arrivals.messages().into_iter().find(|message| message.contains("\"never\""))
    });
    let id = http::parse(arrived.await.as_bytes())["id"].clone();
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine","reason":"bored"}}"#;

    grace.post(cancel).await;
    assert_eq!(grace.call("ok", json!({"after": "the foreign cancellation"})).await.status, 200);
    let cancelled = || {
        let parsed = arrivals.messages().into_iter().map(|message| http::parse(message.as_bytes()));
        parsed.filter(|it| it["method"] == "notifications/cancelled" && it["params"]["requestId"] == id).count()
    };
    assert_eq!(cancelled(), 0, "a foreign cancellation does not touch the call");

    assert_eq!(ada.post(cancel).await.status, 202);
    crate::support::until("the server is told", || (cancelled() == 1).then_some(())).await;
    waiting.abort();
}
