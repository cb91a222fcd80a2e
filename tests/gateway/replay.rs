//! Sessions that outlive their server's process, and processes that are shared fairly among callers.

use hyper::Method;
use serde_json::{Value, json};

use crate::support::folder::everything;
use crate::support::http::{self, Answer};
use crate::support::{Arrivals, Client, Folder, Hostile, Toolgate, eventually, tools, until};

/// The hostile server over stdio, for ada and grace, and what arrives at its processes.
async fn stdio(spec: Value, change: impl FnOnce(Folder) -> Folder) -> (Toolgate, Arrivals) {
    let folder = Folder::new();
    let log = folder.scratch("children.log");
    let mut all = json!({"registration": "Auto"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let folder = folder
        .hostile_stdio("s", &["--log", log.to_str().unwrap()], all)
        .role("everything", "engineering", &everything())
        .role("everything-too", "sre", &everything());
    (Toolgate::start(change(folder)).await, Arrivals::at(&log))
}

fn parsed(arrivals: &Arrivals) -> Vec<Value> {
    arrivals.messages().iter().map(|message| http::parse(message.as_bytes())).collect()
}

/// Ends the process in the middle of a call, which fails, and says whether it may have done something.
async fn crash(client: &Client) {
    let failed = client.call("exit", json!({})).await;
    failed.refused(502, -31003, "went away");
    assert_eq!(http::parse(&failed.body)["error"]["data"]["reachedServer"], "maybe", "{failed}");
}

#[tokio::test]
async fn a_session_outlives_its_servers_process() {
    for sessions in ["PerClient", "Shared"] {
        let (toolgate, arrivals) = stdio(json!({"sessions": sessions}), |folder| folder).await;
        let ada = toolgate.legacy("s", "ada").await;
        ada.request("logging/setLevel", json!({"level": "info"})).await;
        ada.request("resources/subscribe", json!({"uri": "mem:watched"})).await;
        let before = parsed(&arrivals).len();

        crash(&ada).await;
        assert_eq!(ada.call("ok", json!({"after": "the crash"})).await.text(), r#"ok {"after":"the crash"}"#);

        let after = parsed(&arrivals).split_off(before);
        let arrived: Vec<&str> = after.iter().filter_map(|message| message["method"].as_str()).collect();
        for method in ["initialize", "notifications/initialized", "tools/call"] {
            assert!(arrived.contains(&method), "{sessions}: {arrived:?}");
        }
        if sessions == "PerClient" {
            let of = |wanted: &str| after.iter().find(|message| message["method"] == wanted).expect("it is replayed");
            assert_eq!(of("initialize")["params"]["clientInfo"]["name"], "test", "as its client sent it");
            assert_eq!(of("logging/setLevel")["params"]["level"], "info");
            assert_eq!(of("resources/subscribe")["params"]["uri"], "mem:watched");
        }
        let line = toolgate.audited("the replay", |it| it["event"] == "session_replayed").await;
        assert_eq!((&line["reason"], &line["outcome"]), (&json!("ProcessEnded"), &json!("ok")), "{line}");
        assert_eq!((&line["subject"], &line["method"]), (&json!("ada@example.com"), &json!("initialize")), "{line}");
        assert!(toolgate.metrics().await.contains("toolgate_session_replays_total{"), "{sessions}");
    }
}

#[tokio::test]
async fn a_client_that_listens_hears_that_its_servers_state_is_lost() {
    let (toolgate, _) = stdio(json!({}), |folder| folder).await;
    let ada = toolgate.legacy("s", "ada").await;
    let mut stream = http::open(Method::GET, &ada.url, ada.headers(), "").await;

    crash(&ada).await;

    // Nothing more is asked: who listens waits for what happens.
    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
    let mut warning = stream.next().await;
    while warning["method"] != "notifications/message" {
        assert!(warning["method"].as_str().unwrap().ends_with("/list_changed"), "{warning}");
        warning = stream.next().await;
    }
    assert_eq!(warning["params"]["level"], "warning");
    assert!(warning["params"]["data"].as_str().is_some_and(|it| it.contains("lost")), "{warning}");
    // The stream is that of the new process, whose end it tells too; and the session's end is its end.
    crash(&ada).await;
    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
    while stream.next().await["method"] != "notifications/message" {}
    http::send(Method::DELETE, &ada.url, ada.headers(), "").await;
    assert_eq!(stream.next_or_end().await, None);
}

#[tokio::test]
async fn a_session_that_an_http_server_forgot_goes_on() {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new().remote("h", &hostile.server.url).all_for_ada();
    let toolgate = Toolgate::start(folder).await;
    let ada = toolgate.legacy("h", "ada").await;
    let mut stream = http::open(Method::GET, &ada.url, ada.headers(), "").await;
    ada.call("forget_session", json!({})).await;

    assert_eq!(ada.call("ok", json!({"n": 1})).await.text(), r#"ok {"n":1}"#);

    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
    let line = toolgate.audited("the replay", |it| it["event"] == "session_replayed").await;
    assert_eq!(line["reason"], "SessionForgotten", "{line}");
    assert_eq!(ada.call("ok", json!({"n": 2})).await.text(), r#"ok {"n":2}"#);
    let opened = hostile.arrivals.messages().iter().filter(|it| it.contains("\"test\"")).count();
    assert_eq!(opened, 2, "one replay, and no more");
}

#[tokio::test]
async fn a_server_that_forgets_every_session_is_not_asked_for_ever() {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new().remote("h", &hostile.server.url).all_for_ada();
    let toolgate = Toolgate::start(folder).await;
    let ada = toolgate.legacy("h", "ada").await;

    let mut refused = None;
    for _ in 0..50 {
        ada.call("forget_session", json!({})).await;
        let answer = ada.call("ok", json!({})).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }

    let refused = refused.expect("it is asked ever more rarely");
    refused.refused(429, -31002, "again and again");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=30).contains(&seconds)), "{refused}");
}

#[tokio::test]
async fn on_loss_not_found_ends_the_session() {
    let hostile = Hostile::start(&[]);
    let spec = json!({"registration": "Auto", "onLoss": "NotFound"});
    let (toolgate, _) =
        stdio(json!({"onLoss": "NotFound"}), |folder| folder.remote_with("h", &hostile.server.url, spec)).await;
    let ada = toolgate.legacy("s", "ada").await;
    let mut stream = http::open(Method::GET, &ada.url, ada.headers(), "").await;
    crash(&ada).await;
    assert_eq!(stream.next_or_end().await, None);
    ada.call("ok", json!({})).await.refused(404, -31006, "initialize");

    let ada = toolgate.legacy("h", "ada").await;
    ada.call("forget_session", json!({})).await;
    ada.call("ok", json!({})).await.refused(404, -31006, "initialize");
}

#[tokio::test]
async fn a_guest_with_many_sessions_keeps_nobody_out() {
    let (toolgate, _) = stdio(json!({}), |folder| folder).await;
    let guest = Client { session: None, version: "2025-11-25", ..toolgate.modern("s", "grace") };
    let mut answers: Vec<Answer> = Vec::new();
    for _ in 0..16 {
        answers.push(guest.initialize().await);
    }

    let opened = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(opened, 4, "its share");
    let refused = answers.pop().unwrap();
    refused.refused(429, -31002, "one caller");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|it| (1..=10).contains(&it)), "{refused}");
    assert_eq!(toolgate.legacy("s", "ada").await.call("ok", json!({})).await.text(), "ok {}");
}

#[tokio::test]
async fn an_idle_session_makes_room_and_its_next_request_is_served() {
    let (toolgate, _) = stdio(json!({}), |folder| folder.overlay("s", "maxChildren", json!(1))).await;
    let ada = toolgate.legacy("s", "ada").await;
    let mut stream = http::open(Method::GET, &ada.url, ada.headers(), "").await;
    let grace = Client { session: None, version: "2025-11-25", ..toolgate.modern("s", "grace") };
    grace.initialize().await.refused(429, -31002, "all children that this server may have");

    let opened = eventually("ada's process makes room", async || {
        Some(grace.initialize().await).filter(|answer| answer.status == 200)
    })
    .await;

    let grace = Client { session: Some(opened.header("mcp-session-id").to_owned()), ..grace };
    http::send(Method::DELETE, &grace.url, grace.headers(), "").await;
    assert_eq!(ada.call("ok", json!({})).await.text(), "ok {}");
    assert_eq!(stream.next().await["method"], "notifications/tools/list_changed");
    let line = toolgate.audited("the replay", |it| it["event"] == "session_replayed").await;
    assert_eq!((&line["reason"], &line["subject"]), (&json!("ProcessParked"), &json!("ada@example.com")), "{line}");
}

#[tokio::test]
async fn a_caller_whom_nothing_could_be_allowed_starts_no_process() {
    let (toolgate, arrivals) = stdio(json!({}), |folder| folder).await;
    let guest = toolgate.modern("s", "guest");
    let legacy = Client { version: "2025-11-25", ..guest.clone() };
    let before = arrivals.all().len();

    legacy.initialize().await.refused(403, -31001, "nothing at this server");
    for (client, method) in [(&guest, "tools/list"), (&guest, "server/discover"), (&legacy, "tools/list")] {
        client.request(method, json!({})).await.refused(403, -31001, "nothing at this server");
    }
    // What is named is answered as ever: it does not exist.
    guest.call("ok", json!({})).await.refused(200, -32602, "unknown tool");
    guest.call("nowhere", json!({})).await.refused(200, -32602, "unknown tool");

    assert_eq!(arrivals.all().len(), before, "nothing reached a process");
    let line = toolgate.audited("the refusal", |it| it["method"] == "initialize" && it["decision"] == "deny").await;
    assert_eq!((&line["subject"], &line["http_status"]), (&json!("guest@example.com"), &json!(403)), "{line}");
}

#[tokio::test]
async fn who_lost_every_right_begins_no_process_anew() {
    let (toolgate, arrivals) = stdio(json!({}), |folder| folder).await;
    let grace = toolgate.legacy("s", "grace").await;
    crash(&grace).await;
    std::fs::remove_file(toolgate.folder.path().join("role-everything-too.yaml")).unwrap();
    until("the revocation is in force", || toolgate.log().contains("policy of s").then_some(())).await;
    let before = arrivals.all().len();

    grace.request("tools/list", json!({})).await.refused(403, -31001, "nothing at this server");

    assert_eq!(arrivals.all().len(), before);
}

#[tokio::test]
async fn a_session_whose_server_refuses_delete_is_forgotten_all_the_same() {
    let hostile = Hostile::start(&["--no-delete"]);
    let folder = Folder::new().remote("h", &hostile.server.url).all_for_ada();
    let toolgate = Toolgate::start(folder).await;
    let ada = toolgate.legacy("h", "ada").await;

    assert_eq!(http::send(Method::DELETE, &ada.url, ada.headers(), "").await.status, 200);

    ada.call("ok", json!({"afterwards": true})).await.refused(404, -31006, "initialize");
    assert!(!hostile.arrivals.contain("afterwards"));
}

#[tokio::test]
async fn the_python_sdk_survives_a_crash_of_its_server() {
    let (toolgate, _) = stdio(json!({}), |folder| folder).await;
    let mut command = tools::python("survive.py");
    command.args([&toolgate.url("s"), &toolgate.token("ada")]);

    let said: Value = serde_json::from_str(&tools::output(&mut command).await).expect("the script prints JSON");

    assert_eq!(said["before"], "ok {}");
    assert!(said["crash"].as_str().is_some_and(|error| error.contains("went away")), "{said}");
    assert_eq!(said["after"], "ok {}");
}
