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
    assert!(matches!(Client::new(&upstream, "c").post(INITIALIZE).await, Err(UpstreamError::Exhausted(_))));

    a.send(Verb::Delete).await.unwrap();

    assert!(matches!(a.call("echo", json!({})).await, Err(UpstreamError::NoSession)));
    b.pid().await;
    assert!(Client::new(&upstream, "c").post(INITIALIZE).await.is_ok());
}
