//! When children start and end, and what is left of them.

use super::*;

#[tokio::test]
async fn the_environment_is_clean() {
    let upstream = per_client(&[]);
    let answer = Client::new(&upstream, "a").call("env", json!({})).await.unwrap();
    let env = answer["env"].as_object().unwrap();

    // CARGO_MANIFEST_DIR and many others are set for this test.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    // What python3 itself, or a launcher in front of it, adds to its own environment.
    let added = |name: &str| ["LC_CTYPE", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name) || name.contains("PYENV");
    for name in env.keys().filter(|name| !added(name)) {
        assert!(name == "DECLARED" || spawned::INHERITED.contains(&name.as_str()), "{name} leaks");
    }
    assert_eq!(env["DECLARED"], "yes");
    assert_eq!(Path::new(answer["directory"].as_str().unwrap()), std::env::temp_dir().canonicalize().unwrap());
}

#[tokio::test]
async fn stop_leaves_no_process_not_even_grandchildren_or_zombies() {
    let upstream = per_client(&["family"]);
    let mut leaders = Vec::new();
    for caller in ["a", "b"] {
        let pid = Client::with_session(&upstream, caller).await.pid().await;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        leaders.push(stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap().parse::<i64>().unwrap());
    }
    assert!(leaders.iter().all(|leader| group_of(*leader).len() >= 3));

    upstream.stop().await;

    for leader in leaders {
        let left = group_of(leader);
        // An orphan that was killed is the init process's to reap, which may be slow: a zombie of its, not of ours.
        let of_ours = left.iter().filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse::<u32>().ok()));
            state.is_some_and(|state| !state.is_empty()) && (state != Some("Z") || parent == Some(std::process::id()))
        });
        assert_eq!(of_ours.count(), 0, "{left:?}");
    }
    assert_eq!((upstream.children(), upstream.sessions()), (0, 0));
    let error = Client::new(&upstream, "a").call("echo", json!({})).await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Unreachable(why) if why.contains("stopping")), "{error:?}");
}

#[tokio::test]
async fn a_child_that_ignores_every_request_to_end_is_killed() {
    let upstream = per_client(&["stubborn"]);
    let pid = Client::with_session(&upstream, "a").await.pid().await;

    let start = Instant::now();
    upstream.stop().await;

    assert!(!exists(pid));
    assert!(start.elapsed() >= BOUNDS.grace * 2, "it was asked before");
}

#[tokio::test]
async fn an_upstream_that_is_dropped_takes_its_children_with_it() {
    let upstream = per_client(&[]);
    let pid = Client::with_session(&upstream, "a").await.pid().await;

    drop(upstream);

    until("the child ends", || !exists(pid)).await;
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_child_and_only_its_caller_may_end_it() {
    let upstream = per_client(&[]);
    let client = Client::with_session(&upstream, "a").await;
    let pid = client.pid().await;
    let thief = Client { caller: Some("b".into()), ..client.clone() };

    assert!(matches!(thief.send(Verb::Delete).await, Err(UpstreamError::NoSession)));
    assert!(matches!(thief.call("echo", json!({})).await, Err(UpstreamError::NoSession)));
    assert_eq!(client.pid().await, pid);

    assert_eq!(client.send(Verb::Delete).await.unwrap().status, 200);

    assert!(matches!(client.call("echo", json!({})).await, Err(UpstreamError::NoSession)));
    until("the child ends", || !exists(pid)).await;
}

#[tokio::test]
async fn a_server_that_exits_in_a_loop_is_started_ever_later() {
    let folder = tempfile::tempdir().unwrap();
    let starts = || std::fs::read_to_string(folder.path().join("starts")).unwrap_or_default().len();
    let command = ["sh", "-c", "printf x >> starts; exit 1"].map(ToOwned::to_owned).to_vec();
    let directory = folder.path().to_owned();
    let run = Run::Command(Command { command, env: BTreeMap::new(), directory });
    let config = Config { run, ..config(Sessions::PerClient, &[]) };
    let upstream = StdioUpstream::bounded(config, BOUNDS).unwrap();
    let client = Client::new(&upstream, "a");

    let start = Instant::now();
    while starts() < 3 {
        let error = client.post(INITIALIZE).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("the server exited with status 1; next start in"), "{error}");
        sleep(Duration::from_millis(5)).await;
    }

    assert!(start.elapsed() >= Duration::from_millis(250 + 500));
    // Who did not cause the failures need not wait for them.
    assert!(Client::new(&upstream, "b").post(INITIALIZE).await.is_err());
    assert_eq!(starts(), 4);
}

#[tokio::test]
async fn a_child_that_exits_later_is_started_again_after_a_while() {
    let upstream = upstream(Sessions::Shared, &[], BOUNDS);
    let client = Client::new(&upstream, "a");
    let pid = client.pid().await;
    client.call("exit", json!({"status": 7})).await.unwrap();
    until("the child ends", || upstream.children() == 0).await;

    let mut refusals = Vec::new();
    let start = Instant::now();
    let next = loop {
        match client.call("echo", json!({})).await {
            Ok(answer) => break answer["pid"].as_i64().unwrap(),
            Err(error) => refusals.push(error.to_string()),
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{refusals:?}");
        sleep(Duration::from_millis(5)).await;
    };

    assert_ne!(next, pid);
    assert!(refusals.iter().any(|why| why.contains("the server exited with status 7; next start in")), "{refusals:?}");
}

#[tokio::test]
async fn a_command_that_does_not_exist_says_so() {
    let run = |command| Run::Command(Command { command, env: BTreeMap::new(), directory: std::env::temp_dir() });
    let config = Config { run: run(vec!["/nowhere/at-all".to_owned()]), ..config(Sessions::PerClient, &[]) };
    let upstream = StdioUpstream::new(config.clone()).unwrap();

    let error = Client::new(&upstream, "a").call("echo", json!({})).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("/nowhere/at-all") && text.contains("No such file"), "{text}");
    assert!(StdioUpstream::new(Config { run: run(Vec::new()), ..config }).is_err());
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_fails_the_start_and_ends() {
    let bounds = Bounds { start: Duration::from_millis(300), ..BOUNDS };
    for sessions in [Sessions::PerClient, Sessions::Shared] {
        let upstream = upstream(sessions, &["silent"], bounds);

        let Err(error) = Client::new(&upstream, "a").post(INITIALIZE).await else { panic!("it cannot answer") };
        // The message itself goes to a child of its own; a shared one was never ready for it.
        let expected = if sessions == Sessions::Shared { Reached::No } else { Reached::Maybe };
        assert!(matches!(error, UpstreamError::Timeout | UpstreamError::StartTimeout), "{error:?}");
        assert_eq!(error.reached_server(), expected);

        let Err(error) = Client::new(&upstream, "a").post(INITIALIZE).await else { panic!("it cannot answer") };
        assert!(error.to_string().contains("did not answer initialize in time; next start in"), "{error}");
        until("the child ends", || upstream.children() == 0).await;
    }
}

#[tokio::test]
async fn children_are_bounded_and_idle_stateless_ones_make_room() {
    let upstream = per_client(&[]);
    let idle = Client::new(&upstream, "stateless");
    let pid = idle.pid().await;
    let mut sessions = Vec::new();
    for caller in ["a", "b", "c"] {
        sessions.push(Client::with_session(&upstream, caller).await);
    }

    until("the idle child ends", || !exists(pid)).await;
    assert!(matches!(Client::new(&upstream, "d").post(INITIALIZE).await, Err(UpstreamError::Full { .. })));
    assert_eq!(upstream.children(), 3);

    sessions[0].send(Verb::Delete).await.unwrap();
    until("a child ends", || upstream.children() == 2).await;
    assert!(Client::new(&upstream, "d").post(INITIALIZE).await.is_ok());
}

#[tokio::test]
async fn idle_children_and_sessions_end_but_not_one_that_listens() {
    let bounds = Bounds { child_idle: Duration::from_millis(100), session_idle: Duration::from_millis(100), ..BOUNDS };
    let upstream = upstream(Sessions::PerClient, &[], bounds);
    let listening = Client::with_session(&upstream, "a").await;
    let stream = listening.get().await;
    let _stateless = Client::new(&upstream, "b").pid().await;
    let _session = Client::with_session(&upstream, "c").await;

    until("two children end", || upstream.children() == 1).await;

    assert_eq!(upstream.sessions(), 1);
    listening.pid().await;
    drop(stream);
    until("the last one ends", || upstream.children() == 0).await;
}
