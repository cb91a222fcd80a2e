//! Whom a child serves.

use super::*;

#[tokio::test]
async fn sessions_have_children_of_their_own() {
    let upstream = per_client(&[]);
    let (one, other) = tokio::join!(Client::with_session(&upstream, "a"), Client::with_session(&upstream, "a"));

    assert_ne!(one.pid().await, other.pid().await);
    assert_eq!(upstream.children(), 2);
}

#[tokio::test]
async fn callers_without_a_session_have_one_child_each_started_once() {
    let upstream = per_client(&[]);
    let (a, b) = (Client::new(&upstream, "a"), Client::new(&upstream, "b"));

    let (first, second, other) = tokio::join!(a.pid(), a.pid(), b.pid());

    assert_eq!(first, second);
    assert_ne!(first, other);
    assert_eq!((upstream.children(), upstream.sessions()), (2, 0));
}

#[tokio::test]
async fn a_shared_child_repeats_its_greeting_in_the_clients_revision() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let (a, b) = tokio::join!(Client::with_session(&upstream, "a"), Client::with_session(&upstream, "b"));

    assert_eq!(a.pid().await, b.pid().await);
    assert_eq!((upstream.children(), upstream.sessions()), (1, 2));
    let Content::Json(answer) = a.post(INITIALIZE).await.unwrap().content else { panic!("no JSON") };
    let text = std::str::from_utf8(&answer).unwrap();
    assert!(text.starts_with(r#"{"jsonrpc":"2.0","id":"init","result":{"protocolVersion": "2025-06-18""#), "{text}");
    assert!(text.contains("12345678901234567890123"), "its bytes are kept: {text}");
    let answer: Value = serde_json::from_str(text).unwrap();
    assert_eq!(answer["result"]["serverInfo"]["asked"]["capabilities"], json!({}));
    assert_eq!(answer["result"]["serverInfo"]["asked"]["protocolVersion"], "2025-11-25");
}

#[tokio::test]
async fn equal_ids_of_two_sessions_do_not_meet_in_a_shared_child() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;
    let calls = (0..40).map(|at| {
        let client = if at % 2 == 0 { &a } else { &b };
        async move {
            let answer = client.messages("1", "notes", json!({})).await.unwrap();
            assert_eq!(answer.last().unwrap()["id"], 1);
            let echo = client.call("echo", json!({"at": at})).await.unwrap();
            assert!(echo["line"].as_str().unwrap().contains(&format!(r#"{{"at":{at}}}"#)));
            // Progress has a token of ours; log messages may belong to anybody.
            assert_eq!(answer[0]["params"]["progressToken"], "tok");
        }
    });

    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn a_shared_child_may_ask_only_while_one_caller_is_alone() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;

    let Content::Events(mut events) = a.post(&call("5", "ask", &json!({}))).await.unwrap().content else {
        panic!("no events")
    };
    let question = data(events.next().await.unwrap().unwrap());
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"action":"accept"}}}}"#, question["id"]);
    b.post(&answer).await.unwrap();
    a.post(&answer).await.unwrap();
    let last = data(events.next().await.unwrap().unwrap());
    assert_eq!(last["result"]["answered"], json!({"jsonrpc": "2.0", "id": "q1", "result": {"action": "accept"}}));

    let text = call("1", "hold", &json!({}));
    let mut held = Box::pin(b.post(&text));
    assert!(futures::poll!(&mut held).is_pending());
    let refused = a.call("ask", json!({})).await.unwrap();
    assert_eq!(refused["answered"]["error"]["code"], -32603);
}

#[tokio::test]
async fn changes_of_a_shared_child_reach_all_and_updates_who_subscribed() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"file:///watched"}}"#;
    a.post(subscribe).await.unwrap();
    let (mut for_a, mut for_b) = (a.get().await, b.get().await);

    a.call("change", json!({})).await.unwrap();
    b.call("change", json!({})).await.unwrap();

    let mut methods = Vec::new();
    for _ in 0..4 {
        methods.push(data(for_a.next().await.unwrap().unwrap())["method"].as_str().unwrap().to_owned());
    }
    assert_eq!(methods[1], "notifications/resources/updated");
    assert_eq!(methods[3], "notifications/resources/updated");
    for _ in 0..2 {
        assert_eq!(data(for_b.next().await.unwrap().unwrap())["method"], "notifications/tools/list_changed");
    }
    assert!(futures::poll!(for_b.next()).is_pending());
}

#[tokio::test]
async fn sessions_of_a_shared_child_are_bounded_and_end_alone() {
    let upstream = upstream(Sessions::Shared, &[], Bounds { sessions: 2, ..BOUNDS });
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;
    assert!(matches!(Client::new(&upstream, "c").post(INITIALIZE).await, Err(UpstreamError::Full { .. })));

    a.send(Verb::Delete).await.unwrap();

    assert!(matches!(a.call("echo", json!({})).await, Err(UpstreamError::NoSession)));
    b.pid().await;
    assert!(Client::new(&upstream, "c").post(INITIALIZE).await.is_ok());
}

fn about(method: &str, uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"{uri}"}}}}"#)
}

fn level(level: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#)
}

/// What a shared server was told that concerns all of its clients, once that is `expected`.
async fn told(client: &Client<'_>, expected: Value) {
    let start = Instant::now();
    loop {
        let said = client.call("seen", json!({})).await.unwrap()["said"].take();
        if said == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{said} instead of {expected}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The answer to one request.
async fn ask(client: &Client<'_>, message: &str) -> Value {
    collect(client.post(message).await.unwrap().content).await.unwrap().pop().unwrap()
}

async fn next_method(events: &mut EventStream) -> String {
    data(events.next().await.unwrap().unwrap())["method"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_callers_unsubscribe_silences_nobody_else() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;
    for client in [&a, &b] {
        assert_eq!(ask(client, &about("subscribe", "file:///watched")).await["result"], json!({}));
    }
    let mut for_b = b.get().await;

    assert_eq!(ask(&a, &about("unsubscribe", "file:///watched")).await["result"], json!({}));
    a.call("change", json!({})).await.unwrap();

    assert_eq!(next_method(&mut for_b).await, "notifications/tools/list_changed");
    assert_eq!(next_method(&mut for_b).await, "notifications/resources/updated");
    told(&a, json!([["subscribe", "file:///watched"]])).await;
    ask(&b, &about("unsubscribe", "file:///watched")).await;
    told(&a, json!([["subscribe", "file:///watched"], ["unsubscribe", "file:///watched"]])).await;
}

#[tokio::test]
async fn a_session_that_ends_takes_its_subscriptions_and_its_log_level_with_it() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;
    ask(&a, &about("subscribe", "file:///one")).await;
    ask(&a, &level("debug")).await;
    ask(&b, &level("error")).await;
    let before = json!([["subscribe", "file:///one"], ["setLevel", "debug"]]);
    told(&b, before.clone()).await;

    a.send(Verb::Delete).await.unwrap();

    let mut after = before;
    after.as_array_mut().unwrap().extend([json!(["unsubscribe", "file:///one"]), json!(["setLevel", "error"])]);
    told(&b, after).await;
}

#[tokio::test]
async fn a_session_that_vanishes_takes_its_subscriptions_with_it() {
    let bounds = Bounds { session_idle: Duration::from_millis(200), ..BOUNDS };
    let upstream = upstream(Sessions::Shared, &[], bounds);
    let a = Client::with_session(&upstream, "a").await;
    ask(&a, &about("subscribe", "file:///one")).await;
    let b = Client::with_session(&upstream, "b").await;

    told(&b, json!([["subscribe", "file:///one"], ["unsubscribe", "file:///one"]])).await;
}

#[tokio::test]
async fn each_session_of_a_shared_child_gets_the_log_level_that_it_asked_for() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let a = Client::with_session(&upstream, "a").await;
    let b = Client::with_session(&upstream, "b").await;
    let quiet = Client::with_session(&upstream, "c").await;
    let logged = async |client: &Client<'_>| -> Vec<String> {
        let mut messages = client.messages("1", "log", json!({})).await.unwrap();
        messages.pop();
        messages.iter().map(|message| message["params"]["level"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(logged(&quiet).await, ["debug", "info", "warning", "emergency"], "nobody asked: the server decides");

    ask(&a, &level("warning")).await;
    told(&a, json!([["setLevel", "info"]])).await; // Two have asked for nothing: it must not silence them.
    ask(&b, &level("debug")).await;
    told(&a, json!([["setLevel", "info"], ["setLevel", "debug"]])).await;

    assert_eq!(logged(&a).await, ["warning", "emergency"]);
    assert_eq!(logged(&b).await, ["debug", "info", "warning", "emergency"]);
    assert_eq!(logged(&quiet).await, ["info", "warning", "emergency"]);
    b.send(Verb::Delete).await.unwrap();
    told(&a, json!([["setLevel", "info"], ["setLevel", "debug"], ["setLevel", "info"]])).await;
}

#[tokio::test]
async fn what_would_change_a_shared_server_for_all_is_refused_where_it_could_not_be_taken_back() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let stateless = Client::new(&upstream, "a");
    for message in [about("subscribe", "file:///a"), about("unsubscribe", "file:///a"), level("debug")] {
        assert_eq!(ask(&stateless, &message).await["error"]["code"], -32600, "{message}");
    }
    let client = Client::with_session(&upstream, "a").await;
    assert_eq!(ask(&client, &level("verbose")).await["error"]["code"], -32602);
    let refused = ask(&client, &about("subscribe", "file:///refused")).await;
    assert_eq!(refused["error"]["message"], "no such resource", "the server's own word");
    told(&client, json!([["subscribe", "file:///refused"]])).await;

    client.send(Verb::Delete).await.unwrap();
    told(&stateless, json!([["subscribe", "file:///refused"]])).await;
}

#[tokio::test]
async fn a_cancellation_reaches_only_the_child_where_its_callers_request_runs() {
    for sessions in [Sessions::Shared, Sessions::PerClient] {
        let upstream = upstream(sessions, &[], BOUNDS);
        let a = Client::with_session(&upstream, "a").await;
        let b = Client::with_session(&upstream, "b").await;
        let text = call("7", "hold", &json!({}));
        let mut held = Box::pin(a.post(&text));
        assert!(futures::poll!(&mut held).is_pending());
        let cancel = |id: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
        };
        let seen = async |client: &Client<'_>| client.call("seen", json!({})).await.unwrap()["cancelled"].take();

        b.post(&cancel("7")).await.unwrap(); // Another caller's.
        a.post(&cancel("8")).await.unwrap(); // Nobody's.
        a.post(&cancel("1")).await.unwrap(); // At the child it is the id of something else, perhaps.
        assert_eq!((seen(&a).await, seen(&b).await), (json!([]), json!([])));

        a.post(&cancel("7")).await.unwrap();
        let there = seen(&a).await;
        assert_eq!(there.as_array().unwrap().len(), 1, "{there}");
        assert_eq!(seen(&b).await == there, sessions == Sessions::Shared, "only a shared child is b's as well");
    }
}
