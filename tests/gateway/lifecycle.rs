//! Processes: none is left behind, and the end is orderly.

use serde_json::json;

use crate::support::{Arrivals, Folder, Toolgate, until};

/// Process ids that a fixture wrote to its log.
fn children(log: &str) -> Vec<u64> {
    let mut all: Vec<u64> =
        Arrivals::at(std::path::Path::new(log)).all().iter().filter_map(|entry| entry["pid"].as_u64()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether a process is there, zombies included.
fn exists(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn with_children(sessions: &str) -> (Toolgate, String) {
    let folder = Folder::new();
    let log = folder.scratch("children.log").to_str().unwrap().to_owned();
    let spec = json!({"registration": "Auto", "sessions": sessions});
    let toolgate = Toolgate::start(folder.hostile_stdio("s", &["--log", &log], spec).all_for_ada()).await;
    for _ in 0..3 {
        assert_eq!(toolgate.legacy("s", "ada").await.call("ok", json!({})).await.text(), "ok {}");
    }
    (toolgate, log)
}

#[tokio::test]
async fn each_session_has_its_own_child_or_all_share_one() {
    let (_shared, log) = with_children("Shared").await;
    assert_eq!(children(&log).len(), 1);
    let (_own, log) = with_children("PerClient").await;
    assert!(children(&log).len() >= 3, "{:?}", children(&log));
}

#[tokio::test]
async fn signals_end_the_gateway_and_all_its_children() {
    for signal in ["TERM", "INT"] {
        let (mut toolgate, log) = with_children("PerClient").await;
        // One child is in the middle of a call that never ends.
        let busy = toolgate.legacy("s", "ada").await;
        let waiting = tokio::spawn(async move { busy.call("never", json!({})).await });
        until("the call has arrived", || Arrivals::at(std::path::Path::new(&log)).contain("\"never\"").then_some(()))
            .await;
        let all = children(&log);
        assert!(all.len() >= 4, "{all:?}");

        toolgate.process.signal(signal);

        assert_eq!(toolgate.process.ended().await, Some(0), "{signal}: {}", toolgate.log());
        until("no child is left", || all.iter().all(|pid| !exists(*pid)).then_some(())).await;
        waiting.abort();
    }
}

#[tokio::test]
async fn a_session_that_ends_ends_its_child_and_leaves_no_zombie() {
    let (toolgate, log) = with_children("PerClient").await;
    let before = children(&log);
    let session = toolgate.legacy("s", "ada").await;
    session.call("ok", json!({})).await.text();
    let own: Vec<u64> = children(&log).into_iter().filter(|pid| !before.contains(pid)).collect();
    assert_eq!(own.len(), 1, "{own:?}");

    let ended = crate::support::http::send(hyper::Method::DELETE, &session.url, session.headers(), "").await;

    assert!(ended.status < 300, "{ended}");
    until("its child is gone", || (!exists(own[0])).then_some(())).await;
    assert!(before.iter().any(|pid| exists(*pid)), "other sessions go on");
}

#[tokio::test]
async fn a_server_that_is_removed_is_unknown_and_its_child_ends() {
    let (toolgate, log) = with_children("Shared").await;
    let client = toolgate.modern("s", "ada");
    let all = children(&log);

    std::fs::remove_file(toolgate.folder.path().join("server-s.yaml")).unwrap();

    until("its child is gone", || all.iter().all(|pid| !exists(*pid)).then_some(())).await;
    let answer = client.call("ok", json!({})).await;
    assert_eq!(answer.status, 404, "{answer}");
}

#[tokio::test]
async fn a_child_gets_a_clean_environment() {
    let folder = Folder::new();
    let log = folder.scratch("environment").to_str().unwrap().to_owned();
    // The child prints its environment on stderr, which is in our log, and ends.
    let script = format!("env > {log}; exit 1");
    let folder = folder.stdio("s", &["/bin/sh", "-c", &script]).all_for_ada();
    let _toolgate = Toolgate::start(folder).await;
    let environment =
        until("the child has run", || std::fs::read_to_string(&log).ok().filter(|it| !it.is_empty())).await;
    for secret in ["CARGO", "RUST"] {
        assert!(!environment.lines().any(|line| line.starts_with(secret)), "{environment}");
    }
    assert!(environment.contains("PATH="), "{environment}");
}

#[tokio::test]
async fn the_ready_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let toolgate =
        Toolgate::start(Folder::new().hostile_stdio("s", &[], json!({"registration": "Auto"})).all_for_ada()).await;
    let mode = std::fs::metadata(toolgate.ready_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
