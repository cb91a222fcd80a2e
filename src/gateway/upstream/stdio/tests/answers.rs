//! What a call gets back.

use super::*;

#[tokio::test]
async fn ids_come_back_as_they_were_sent() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;

    for id in ["7", r#""seven""#, "12345678901234567890123", r#""\u0041""#, "-3"] {
        let Content::Json(answer) = client.post(&call(id, "echo", &json!({}))).await.unwrap().content else {
            panic!("no JSON")
        };
        let text = std::str::from_utf8(&answer).unwrap();
        assert!(text.starts_with(&format!(r#"{{"jsonrpc": "2.0", "id": {id}, "result""#)), "{text}");
    }
}

#[tokio::test]
async fn initialize_passes_as_it_is_and_opens_a_session() {
    let upstream = per_client(&[]);

    let reply = Client::new(&upstream, "a").post(INITIALIZE).await.unwrap();

    assert_eq!(reply.session.as_ref().map(|id| id.len()), Some(32));
    let answer = collect(reply.content).await.unwrap().remove(0);
    assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), (&json!("init"), &json!("2025-06-18")));
    assert_eq!(answer["result"]["serverInfo"]["asked"]["capabilities"], json!({"elicitation": {}}));
    assert_eq!((upstream.sessions(), upstream.children()), (1, 1));
}

#[tokio::test]
async fn an_initialize_that_is_refused_opens_no_session() {
    let upstream = per_client(&["refuse"]);

    let reply = Client::new(&upstream, "a").post(INITIALIZE).await.unwrap();

    assert_eq!(reply.session, None);
    assert_eq!(collect(reply.content).await.unwrap()[0]["error"]["code"], -32022);
    assert_eq!(upstream.sessions(), 0);
    until("the child ends", || upstream.children() == 0).await;
}

#[tokio::test]
async fn a_pretty_printed_message_arrives_as_one_line() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    let text = "{\r\n \"jsonrpc\": \"2.0\",\n \"id\": 4,\n \"method\": \"tools/call\",\n \"params\": {\"name\":\"echo\",\"arguments\":{\"text\":\"a\\nb\"}}\n}\n";

    let answer = collect(client.post(text).await.unwrap().content).await.unwrap().remove(0);

    let line: Value = serde_json::from_str(answer["result"]["line"].as_str().unwrap()).unwrap();
    assert_eq!(line["params"]["arguments"]["text"], "a\nb");
    assert_eq!(answer["id"], 4);
}

#[tokio::test]
async fn notifications_of_a_call_come_on_its_stream_before_the_answer() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;

    let messages = client.messages("5", "notes", json!({})).await.unwrap();

    assert_eq!(messages[0]["params"], json!({"progressToken": "tok", "progress": 1}));
    assert_eq!(messages[1]["method"], "notifications/message");
    assert_eq!((&messages[2]["id"], &messages[2]["result"]), (&json!(5), &json!({"notes": true})));
    assert_eq!(messages.len(), 3);
}

#[tokio::test]
async fn a_server_asks_its_caller_and_gets_the_answer() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    let Content::Events(mut events) = client.post(&call("5", "ask", &json!({}))).await.unwrap().content else {
        panic!("no events")
    };

    let question = data(events.next().await.unwrap().unwrap());
    assert_eq!((&question["id"], &question["method"]), (&json!("q1"), &json!("elicitation/create")));
    let other = Client::with_session(&upstream, "b").await;
    let text = r#"{"jsonrpc":"2.0","id":"q1","result":{"action":"from b"}}"#;
    assert_eq!(other.post(text).await.unwrap().status, 202);
    let text = r#"{"jsonrpc":"2.0","id":"q1","result":{"action":"accept"}}"#;
    assert_eq!(client.post(text).await.unwrap().status, 202);

    let answer = data(events.next().await.unwrap().unwrap());
    assert_eq!(answer["result"]["answered"]["result"]["action"], "accept");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn changes_wait_for_the_sessions_own_stream() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    client.call("change", json!({})).await.unwrap();

    let mut events = client.get().await;
    assert_eq!(data(events.next().await.unwrap().unwrap())["method"], "notifications/tools/list_changed");
    assert_eq!(data(events.next().await.unwrap().unwrap())["method"], "notifications/resources/updated");

    client.call("change", json!({})).await.unwrap();
    assert_eq!(data(events.next().await.unwrap().unwrap())["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn lines_that_are_no_answers_are_skipped() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;

    assert_eq!(client.call("odd", json!({})).await.unwrap(), json!({"odd": true}));
}

#[tokio::test]
async fn a_line_beyond_the_limit_fails_the_calls_and_ends_the_child() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    assert!(client.call("large", json!({"bytes": 90_000})).await.is_ok());

    let error = client.call("large", json!({"bytes": 200_000})).await.unwrap_err();

    assert!(matches!(error, UpstreamError::TooLarge(100_000)), "{error:?}");
    assert!(matches!(
        client.call("echo", json!({})).await,
        Err(UpstreamError::Lost(Loss::Ended) | UpstreamError::Gone)
    ));
    until("the child ends", || upstream.children() == 0).await;
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_an_answer_is_gone_and_its_session_too() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;

    assert!(matches!(client.call("die", json!({})).await, Err(UpstreamError::Gone)));

    assert!(matches!(client.call("echo", json!({})).await, Err(UpstreamError::Lost(Loss::Ended))));
    assert_eq!(upstream.sessions(), 0);
}

#[tokio::test]
async fn what_a_server_wrote_before_it_exited_is_delivered() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;

    assert_eq!(client.call("exit", json!({})).await.unwrap(), json!({}));
}

#[tokio::test]
async fn a_call_without_an_answer_times_out_and_is_cancelled() {
    let upstream = upstream(Sessions::PerClient, &[], Bounds { idle: Duration::from_millis(300), ..BOUNDS });
    let client = Client::with_session(&upstream, "a").await;

    assert!(matches!(client.call("never", json!({})).await, Err(UpstreamError::Timeout)));

    // Our ids count from 1: initialize, then the call.
    assert_eq!(client.call("seen", json!({})).await.unwrap()["cancelled"], json!([2]));
}

#[tokio::test]
async fn a_dropped_call_is_no_cancellation_in_the_legacy_era() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    {
        let text = call("1", "hold", &json!({}));
        let mut pending = Box::pin(client.post(&text));
        assert!(futures::poll!(&mut pending).is_pending());
    }

    let seen = client.call("seen", json!({})).await.unwrap();

    assert_eq!((&seen["cancelled"], &seen["held"]), (&json!([]), &json!([2])));
    assert_eq!(client.call("release", json!({})).await.unwrap(), json!({}));
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_in_the_modern_era() {
    let upstream = per_client(&["modern"]);
    let client = Client { era: Era::Modern, ..Client::new(&upstream, "a") };
    client.call("echo", json!({})).await.unwrap();
    {
        let text = call("1", "hold", &json!({}));
        let mut pending = Box::pin(client.post(&text));
        assert!(futures::poll!(&mut pending).is_pending());
    }

    let seen = client.call("seen", json!({})).await.unwrap();

    assert_eq!(seen["cancelled"], seen["held"]);
    assert_eq!(seen["held"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_client_cancels_its_own_call_with_its_own_id() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine"}}"#;
    let text = call(r#""mine""#, "hold", &json!({}));
    let mut pending = Box::pin(client.post(&text));
    assert!(futures::poll!(&mut pending).is_pending());

    assert_eq!(client.post(cancel).await.unwrap().status, 202);

    assert_eq!(client.call("seen", json!({})).await.unwrap()["cancelled"], json!([2]));
    assert!(collect(pending.await.unwrap().content).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_modern_client_of_a_modern_server_needs_no_session() {
    let upstream = per_client(&["modern"]);
    let client = Client { era: Era::Modern, ..Client::new(&upstream, "a") };

    let messages = client.messages("8", "notes", json!({})).await.unwrap();
    assert_eq!(messages[0]["params"]["progressToken"], "tok");
    assert_eq!(messages[1]["id"], 8, "a log message comes only with a request that asked for its level");

    let listen = r#"{"jsonrpc":"2.0","id":"L","method":"subscriptions/listen","params":{"notifications":{}}}"#;
    let messages = collect(client.post(listen).await.unwrap().content).await.unwrap();
    let subscription =
        |at: usize, of: &str| messages[at][of]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    assert_eq!([subscription(0, "params"), subscription(1, "params"), subscription(2, "result")], ["L", "L", "L"]);
    assert_eq!(client.send(Verb::Get).await.unwrap().status, 405);
}

#[tokio::test]
async fn a_modern_client_of_a_legacy_server_is_told_to_initialize() {
    for flags in [&[][..], &["crash"]] {
        let upstream = per_client(flags);
        let client = Client { era: Era::Modern, ..Client::new(&upstream, "a") };

        for _ in 0..2 {
            assert!(matches!(client.call("echo", json!({})).await, Err(UpstreamError::LegacyOnly)), "{flags:?}");
        }
        assert!(Client::new(&upstream, "a").pid().await > 0);
    }
}

#[tokio::test]
async fn a_server_that_ignores_the_probe_is_asked_to_initialize() {
    let bounds = Bounds { probe: Duration::from_millis(10), start: Duration::from_millis(400), ..BOUNDS };
    let upstream = upstream(Sessions::PerClient, &["silent"], bounds);
    let client = Client { era: Era::Modern, ..Client::new(&upstream, "a") };

    let error = client.call("echo", json!({})).await.unwrap_err();

    assert!(matches!(error, UpstreamError::StartTimeout), "{error:?}"); // Silent to both: nothing is known of it.
}

#[tokio::test]
async fn a_child_that_does_not_read_blocks_nobody_for_ever() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    client.call("deaf", json!({})).await.unwrap();
    let text = call("1", "echo", &json!({"text": "x".repeat(80_000)}));

    let calls = futures::future::join_all((0..8).map(|_| client.post(&text))).await;

    let (partly, never) = (
        calls.iter().filter(|call| matches!(call, Err(UpstreamError::Gone))).count(),
        calls.iter().filter(|call| matches!(call, Err(UpstreamError::Unsent | UpstreamError::Lost(_)))).count(),
    );
    assert_eq!((partly, never), (1, 7), "the pipe takes a part of the first");
    until("the child ends", || upstream.children() == 0).await;
}

#[tokio::test]
async fn a_call_that_the_child_may_have_read_before_it_ended_says_maybe() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;

    let error = client.call("die", json!({})).await.unwrap_err();
    assert_eq!(error.reached_server(), Reached::Maybe, "{error:?}");

    let stateless = Client::new(&upstream, "b");
    let error = stateless.call("die", json!({})).await.unwrap_err();
    assert_eq!(error.reached_server(), Reached::Maybe, "{error:?}");
}
