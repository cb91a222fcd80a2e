//! The gateway of one server in a cluster: where its policy comes from, what it never takes back, what it reports.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use toolgate::policy::Snapshot;
use toolgate::wire::proto::from_gateway::Message as Said;
use toolgate::wire::{Signer, seal};

use crate::support::http;
use crate::support::policy::PolicyServer;
use crate::support::process::fixture;
use crate::support::shim::Shim;
use crate::support::sidecar::{Pod, Sidecar, acked, ready, version};
use crate::support::{Arrivals, Client, Server, eventually, tls, until};

/// A pod in front of the hostile fixture, and that fixture.
fn pod(name: &str) -> (Pod, Server) {
    let server = Server::start("fixture-hostile", &[]);
    (Pod::new(name, ["--upstream", server.url.as_str()]), server)
}

/// Waits until a policy is in force.
async fn started(gateway: &Sidecar) {
    eventually("a policy is in force", async || (gateway.status("/startupz").await == 200).then_some(())).await;
}

/// Waits until something that was said after `from` is refused, and gives the reason.
async fn refused(policy: &PolicyServer, from: usize) -> String {
    until("the policy is refused", || {
        policy.find(from, |said| match said {
            Said::Nack(nack) => Some(nack.error.clone()),
            _ => None,
        })
    })
    .await
}

/// Publishes, and waits for the refusal.
async fn publish_refused(policy: &PolicyServer, sealed: bytes::Bytes) -> String {
    let from = policy.heard().len();
    policy.publish(sealed).await;
    refused(policy, from).await
}

#[tokio::test]
async fn it_boots_from_its_file_and_follows_a_policy_server_that_comes_later() {
    let ((pod, _server), mut policy) = (pod("boots"), PolicyServer::absent().await);
    pod.boot(&policy.seal(&pod.allowing(&["ok"]), &version(1)));
    let gateway = pod.start(&policy).await;
    assert_eq!((gateway.status("/startupz").await, gateway.status("/readyz").await), (503, 503));
    gateway.client().call("ok", json!({})).await.refused(503, -31005, "no policy is in force");

    started(&gateway).await;
    assert!(gateway.allows("ok").await && !gateway.allows("secret").await);
    assert_eq!(gateway.figure("toolgate_policy_stream_connected").await, Some(0.0));
    let answer = http::get(&format!("{}/readyz", gateway.admin)).await;
    assert_eq!(answer.status, 503, "nobody who checks certificates could call it");
    assert!(String::from_utf8_lossy(&answer.body).contains("cannot verify the certificate"), "{answer}");
    policy.publish(policy.seal(&pod.allowing(&["secret"]), &version(2))).await;
    policy.listen().await;

    acked(&policy, &version(2)).await;
    ready(&gateway).await;
    assert!(gateway.allows("secret").await && !gateway.allows("ok").await);
    assert_eq!(gateway.figure("toolgate_policy_stream_connected").await, Some(1.0));
    assert_eq!(gateway.figure("toolgate_policy_version").await, Some(2.0));
    let hello = policy.find(0, |said| match said {
        Said::Hello(hello) => Some(hello.clone()),
        _ => None,
    });
    let hello = hello.unwrap();
    assert_eq!((hello.server.as_str(), hello.version.unwrap().seen["McpRole"]), ("boots", 1));
}

#[tokio::test]
async fn a_revocation_is_in_force_when_it_is_acknowledged() {
    let ((pod, _server), policy) = (pod("revokes"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok", "secret"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    assert!(gateway.allows("secret").await);

    for round in 1..10 {
        let tools: &[&str] = if round % 2 == 1 { &["ok"] } else { &["ok", "secret"] };
        policy.publish(policy.seal(&pod.allowing(tools), &version(1 + round))).await;
        acked(&policy, &version(1 + round)).await;
        assert_eq!(gateway.allows("secret").await, round % 2 == 0, "round {round}");
    }
}

#[tokio::test]
async fn nothing_older_comes_into_force_not_even_after_a_restart() {
    let ((pod, _server), policy) = (pod("forward"), PolicyServer::start().await);
    let old = policy.seal(&pod.allowing(&["ok", "secret"]), &version(1));
    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(2))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    acked(&policy, &version(2)).await;

    assert!(publish_refused(&policy, old.clone()).await.contains("older"));
    assert!(!gateway.allows("secret").await);
    // An older boot file is put back, and a replica that lags behind is all that answers.
    drop(gateway);
    pod.boot(&old);
    let from = policy.heard().len();
    let gateway = pod.start(&policy).await;

    assert!(refused(&policy, from).await.contains("older"));
    // It says so when it comes, so that a replica that can help itself lists anew instead of being refused.
    let hello = policy.find(from, |said| match said {
        Said::Hello(hello) => Some((hello.version.clone()?.seen["McpRole"], hello.hash.clone())),
        _ => None,
    });
    assert_eq!(hello, Some((2, String::new())), "known, and not in force yet");
    ready(&gateway).await; // From what it had in force last.
    assert!(gateway.allows("ok").await && !gateway.allows("secret").await);
}

#[tokio::test]
async fn what_is_still_true_at_a_newer_version_leaves_older_ones_behind() {
    let ((pod, _server), policy) = (pod("still"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(2))).await;
    let gateway = pod.start(&policy).await;
    acked(&policy, &version(2)).await;

    policy.still(&version(5)).await;

    assert!(publish_refused(&policy, policy.seal(&pod.allowing(&["secret"]), &version(4))).await.contains("older"));
    assert!(gateway.allows("ok").await && !gateway.allows("secret").await);
    assert_eq!(gateway.figure("toolgate_policy_version").await, Some(5.0));
}

#[tokio::test]
async fn a_forged_boot_file_is_refused_and_a_true_one_is_read_when_it_comes() {
    let ((pod, _server), policy) = (pod("forged"), PolicyServer::absent().await);
    let (everything, forger) = (pod.allowing(&["*"]), Signer::from_seed(&[8; 32]).unwrap());
    pod.boot(&seal(&everything, &version(9), &[], &forger).unwrap());
    let gateway = pod.start(&policy).await;

    until("it gave up waiting", || gateway.log().contains("every call is refused").then_some(())).await;
    assert!(gateway.log().contains("its signature does not hold"), "{}", gateway.log());
    assert_eq!((gateway.status("/startupz").await, gateway.status("/readyz").await), (503, 503));
    gateway.client().call("ok", json!({})).await.refused(503, -31005, "no policy is in force");
    let lines = until("the refusal is recorded", || {
        let text = std::fs::read_to_string(pod.path("audit")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        (!lines.is_empty()).then_some(lines)
    })
    .await;
    let said = |line: &Value| [line["http_status"].clone(), line["error_code"].clone(), line["server"].clone()];
    assert_eq!(lines.iter().map(said).collect::<Vec<_>>(), [[json!(503), json!(-31005), json!("forged")]]);

    pod.boot(&policy.seal(&pod.allowing(&["ok"]), &version(1)));
    started(&gateway).await;
    assert!(gateway.allows("ok").await && !gateway.allows("secret").await);
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_and_the_old_policy_stays() {
    let ((pod, _server), policy) = (pod("refuses"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    acked(&policy, &version(1)).await;
    let wide = pod.allowing(&["*"]);
    let mut broken: Snapshot = wide.clone();
    broken.roles[0].rules[0].when = Some("1 +".to_owned());
    let mut foreign = wide.clone();
    foreign.target.server = "another".to_owned();

    let reason = publish_refused(&policy, policy.seal(&broken, &version(2))).await;
    assert!(reason.contains("rule 0 of role \"all\""), "{reason}");
    let demanding = seal(&wide, &version(3), &["obey".to_owned()], &policy.signer).unwrap();
    let reason = publish_refused(&policy, demanding).await;
    assert!(reason.contains("requires \"obey\""), "{reason}");
    let reason = publish_refused(&policy, policy.seal(&foreign, &version(4))).await;
    assert!(reason.contains("for agents/another"), "{reason}");
    let forger = Signer::from_seed(&[8; 32]).unwrap();
    let reason = publish_refused(&policy, seal(&wide, &version(5), &[], &forger).unwrap()).await;
    assert!(reason.contains("signature does not hold"), "{reason}");

    assert!(gateway.allows("ok").await && !gateway.allows("secret").await);
    policy.publish(policy.seal(&wide, &version(2))).await;
    acked(&policy, &version(2)).await;
    assert!(gateway.allows("secret").await, "what was refused left no trace");
}

#[tokio::test]
async fn without_word_for_too_long_a_server_is_denied_if_its_policy_says_so() {
    let ((pod, _server), mut policy) = (pod("stale"), PolicyServer::start().await);
    let sealed = policy.seal(&Snapshot { deny_after_seconds: Some(2), ..pod.allowing(&["ok"]) }, &version(1));
    policy.publish(sealed).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    assert!(gateway.allows("ok").await);

    policy.vanish().await;
    let lost = Instant::now();

    let denied = eventually("calls are denied", async || {
        let answer = gateway.client().call("ok", json!({})).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(lost.elapsed() >= Duration::from_millis(1900), "{:?}", lost.elapsed());
    denied.refused(503, -31009, "may be out of date");
    assert!(gateway.figure("toolgate_policy_staleness_seconds").await.unwrap() >= 2.0);
    assert_eq!(gateway.figure("toolgate_policy_stream_connected").await, Some(0.0));
    policy.listen().await;
    eventually("calls are allowed again", async || gateway.allows("ok").await.then_some(())).await;
}

#[tokio::test]
async fn a_restart_is_no_news_from_the_policy_server() {
    let ((pod, _server), mut policy) = (pod("again"), PolicyServer::start().await);
    let sealed = policy.seal(&Snapshot { deny_after_seconds: Some(600), ..pod.allowing(&["ok"]) }, &version(1));
    policy.publish(sealed).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let contact = pod.path("state").join("contact");
    let noted = || std::fs::read_to_string(&contact).ok()?.parse::<i64>().ok();
    let at = until("the contact is noted", noted).await;
    drop(gateway);
    policy.vanish().await;

    std::fs::write(&contact, (at - 700).to_string()).unwrap(); // It was that long ago.
    let gateway = pod.start(&policy).await;

    started(&gateway).await;
    gateway.client().call("ok", json!({})).await.refused(503, -31009, "may be out of date");
    policy.listen().await;
    eventually("calls are allowed again", async || gateway.allows("ok").await.then_some(())).await;
    until("the contact is noted", || noted().filter(|noted| *noted >= at)).await;
}

#[tokio::test]
async fn its_certificate_is_signed_over_the_stream_and_survives_a_restart() {
    let ((pod, _server), mut policy) = (pod("vouched"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    let authority = "vouched.agents.svc:8443";
    let is_vouched_for = async || tls::is_vouched_for(authority, policy.ca_pem()).await.then_some(());

    eventually("the policy server's authority vouches for it", is_vouched_for).await;
    assert!(gateway.log().contains("of the gateway's own making"), "{}", gateway.log());
    drop(gateway);
    policy.vanish().await;

    let gateway = pod.start(&policy).await;
    assert!(tls::is_vouched_for(authority, policy.ca_pem()).await, "{}", gateway.log());
    ready(&gateway).await;
}

#[tokio::test]
async fn it_reports_what_its_server_offers_and_does_so_again_on_each_connection() {
    let ((pod, server), policy) = (pod("reports"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(1))).await;
    let _gateway = pod.start(&policy).await;
    let offered = async |from: usize| {
        until("the offer is heard", || {
            policy.find(from, |said| match said {
                Said::Offer(offer) if offer.last && offer.error.is_empty() => Some(offer.clone()),
                _ => None,
            })
        })
        .await
    };
    let first = offered(0).await;
    let digest =
        |name: &str| first.tools.iter().find(|tool| tool.name == name).map(|tool| tool.digest.clone()).unwrap();
    assert!(digest("ok").starts_with("sha256:") && digest("ok") != digest("secret"), "{first:?}");
    let isolation = until("isolation is heard", || {
        policy.find(0, |said| match said {
            Said::Isolation(isolation) => Some(isolation.clone()),
            _ => None,
        })
    })
    .await;
    let port = server.url.rsplit(':').next().unwrap().trim_end_matches("/mcp").to_owned();
    assert!(!isolation.found.contains(&format!(":{port}")), "it listens on loopback alone: {isolation:?}");

    pod.write("token", b"another-token\n");
    let from = policy.heard().len();
    policy.hang_up();

    assert_eq!(offered(from).await.tools, first.tools);
    let tokens = policy.tokens();
    assert_eq!((tokens[0].as_str(), tokens[1].as_str()), ("Bearer the-token-of-the-pod", "Bearer another-token"));
}

#[tokio::test]
async fn one_server_has_one_path_and_the_names_of_its_service() {
    let ((pod, _server), policy) = (pod("paths"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let base = gateway.url.trim_end_matches("/mcp").to_owned();

    let metadata = http::get(&format!("{base}/.well-known/oauth-protected-resource/mcp")).await;
    assert_eq!(http::parse(&metadata.body)["resource"], "https://paths.agents.svc:8443/mcp", "{metadata}");
    assert_eq!(http::get(&format!("{base}/servers/paths/mcp")).await.status, 404);
    for (host, status) in [
        ("paths:8443", 200),
        ("paths.agents", 200),
        ("paths.agents.svc.cluster.local:8443", 200),
        ("others.agents.svc:8443", 403),
        ("evil.example", 403),
    ] {
        let client = gateway.client();
        let (mut headers, body) = client.message("tools/call", json!({"name": "ok", "arguments": {}}));
        headers.insert("host", host.parse().unwrap());
        assert_eq!(http::send(hyper::Method::POST, &client.url, headers, body).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn a_drain_is_not_ready_at_once_and_waits_for_what_runs() {
    let ((pod, _server), policy) = (pod("drains"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let mut gateway = pod.start(&policy).await;
    ready(&gateway).await;

    let draining = tokio::spawn(gateway.drain());
    eventually("it is not ready", async || (gateway.status("/readyz").await == 503).then_some(())).await;
    let during = gateway.client().call("ok", json!({})).await;
    assert_eq!((during.status, during.header("connection")), (200, "close"), "{during}");
    assert!(!draining.is_finished(), "others are still being told");

    assert_eq!(draining.await.unwrap(), "drained\n");
    assert_eq!((gateway.status("/healthz").await, gateway.status("/startupz").await), (200, 200));
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await, Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn a_remote_server_is_not_looked_for_on_the_gateways_own_machine() {
    let server = Server::start("fixture-hostile", &[]);
    let policy = PolicyServer::start().await;
    let pod = Pod::new("far", ["--upstream", server.url.as_str(), "--upstream-is-remote"]);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;

    gateway.client().call("ok", json!({})).await.refused(502, -31003, "never connected to (loopback)");
    let offer = until("it is told why", || {
        policy.find(0, |said| match said {
            Said::Offer(offer) if offer.last => Some(offer.clone()),
            _ => None,
        })
    })
    .await;
    assert!(offer.error.contains("never connected to (loopback)"), "{offer:?}");
}

/// A gateway in front of the hostile fixture behind a shim.
async fn over_a_shim(name: &str, sessions: &str) -> (Pod, Shim, PolicyServer, Sidecar) {
    let shim = Shim::serve([fixture("fixture-hostile").as_os_str(), "--stdio".as_ref()]).await;
    let socket = shim.socket();
    let flags = ["--stdio-socket".into(), socket.into_os_string(), "--sessions".into(), sessions.into()];
    let (pod, policy) = (Pod::new::<[std::ffi::OsString; 4]>(name, flags), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    (pod, shim, policy, gateway)
}

#[tokio::test]
async fn each_session_has_a_process_behind_the_shim_and_none_is_left() {
    let (_pod, shim, _policy, mut gateway) = over_a_shim("sessions", "PerClient").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let client = Client::legacy(&gateway.url, None).await;
        assert_eq!(client.call("ok", json!({})).await.text(), "ok {}");
        sessions.push(client);
    }
    assert!(shim.children().len() >= 4, "{:?}", shim.children());

    // One is in the middle of a call that never ends.
    let busy = sessions.pop().unwrap();
    let waiting = tokio::spawn(async move { busy.call("never", json!({})).await });
    let before = shim.children().len();
    let ended = http::send(hyper::Method::DELETE, &gateway.url, sessions[0].headers(), "").await;
    assert!(ended.status < 300, "{ended}");
    until("the process of the ended session is gone", || (shim.children().len() < before).then_some(())).await;
    assert_eq!(sessions[1].call("ok", json!({})).await.text(), "ok {}", "others go on");

    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await, Some(0), "{}", gateway.log());
    until("nothing is left", || shim.children().is_empty().then_some(())).await;
    waiting.abort();
}

#[tokio::test]
async fn a_drain_ends_streams_that_have_no_end_of_their_own() {
    let (_pod, _shim, _policy, gateway) = over_a_shim("streams", "PerClient").await;
    let client = Client::legacy(&gateway.url, None).await;
    let mut stream = http::open(hyper::Method::GET, &client.url, client.headers(), "").await;
    assert_eq!(stream.status, 200);
    let begun = Instant::now();

    let draining = tokio::spawn(gateway.drain());

    assert_eq!(stream.next_or_end().await, None);
    assert_eq!(draining.await.unwrap(), "drained\n");
    assert!(begun.elapsed() < Duration::from_secs(15), "nothing was waited for: {:?}", begun.elapsed());
}

/// A client that uses it later would find a gateway whose server is gone.
#[tokio::test]
async fn a_drain_closes_a_connection_that_waits_for_its_next_call() {
    let ((pod, _server), policy) = (pod("idle"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let mut connection = tls::connect(&gateway.url.parse().unwrap()).await;
    let head = "GET /.well-known/oauth-protected-resource/mcp HTTP/1.1\r\nHost: idle.agents.svc:8443\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut seen = [0; 1024];
    let count = connection.read(&mut seen).await.unwrap();
    assert!(seen[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&seen[..count]));
    let begun = Instant::now();

    let draining = tokio::spawn(gateway.drain());

    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await.unwrap();
    // An idle connection ends by itself after 15 s.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(draining.await.unwrap(), "drained\n");
    assert!(gateway.allows("ok").await, "whoever comes late is served all the same");
}

/// The admin port can be reached by the server beside the gateway, and by whoever makes that fetch a URL.
#[tokio::test]
async fn no_port_drains() {
    let ((pod, _server), policy) = (pod("ports"), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;

    for base in [gateway.admin.as_str(), gateway.url.trim_end_matches("/mcp")] {
        assert_eq!(http::get(&format!("{base}/drain")).await.status, 404, "{base}");
    }
    assert_eq!(gateway.status("/readyz").await, 200);
}

/// Callers are sent to a pod that is ready: a rollout must not replace one that serves by one that does not yet.
#[tokio::test]
async fn it_is_not_ready_before_its_server_takes_connections() {
    // Nobody else gets this port while the test runs: it is not among those that the kernel gives out again soon.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (pod, policy) =
        (Pod::new("starts", ["--upstream", &format!("http://{address}/mcp")]), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    acked(&policy, &version(1)).await;
    assert_eq!((gateway.status("/startupz").await, gateway.status("/readyz").await), (200, 503));

    let _server = Server::start("fixture-hostile", &["--port", &address.port().to_string()]);

    ready(&gateway).await;
    assert!(gateway.allows("ok").await);
}

#[tokio::test]
async fn a_process_behind_the_shim_that_exits_fails_its_calls_and_starts_again() {
    let (_pod, shim, _policy, gateway) = over_a_shim("exits", "Shared").await;
    let client = gateway.client();
    assert!(gateway.allows("ok").await);

    client.call("exit", json!({})).await.refused(502, -31003, "went away");

    eventually("it has started again", async || gateway.allows("ok").await.then_some(())).await;
    // Killed from outside, as the kernel does for want of memory.
    let victims = shim.children();
    for victim in &victims {
        let _ = std::process::Command::new("kill").args(["-s", "KILL", &victim.to_string()]).status();
    }
    eventually("it has started once more", async || {
        (gateway.allows("ok").await && shim.children().iter().all(|child| !victims.contains(child))).then_some(())
    })
    .await;
    assert!(shim.log().contains("was ended by signal 9"), "{}", shim.log());
}

#[tokio::test]
async fn a_shim_that_is_not_there_yet_is_reached_when_it_comes() {
    let scratch = tempfile::TempDir::new().unwrap();
    let socket = scratch.path().join("socket");
    let flags = ["--stdio-socket".into(), socket.clone().into_os_string()];
    let (pod, policy) = (Pod::new::<[std::ffi::OsString; 2]>("late", flags), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    acked(&policy, &version(1)).await;
    assert_eq!((gateway.status("/startupz").await, gateway.status("/readyz").await), (200, 503));
    gateway.client().call("ok", json!({})).await.refused(502, -31003, "the server's container does not answer");

    let shim = Shim::serve([fixture("fixture-hostile").as_os_str(), "--stdio".as_ref()]).await;
    std::os::unix::fs::symlink(shim.socket(), &socket).unwrap();

    ready(&gateway).await;
    eventually("calls are answered", async || gateway.allows("ok").await.then_some(())).await;
}

#[tokio::test]
async fn a_server_that_says_that_its_tools_changed_is_asked_again() {
    let scratch = tempfile::TempDir::new().unwrap();
    let (log, replay) = (scratch.path().join("log"), scratch.path().join("replay"));
    std::fs::create_dir(&replay).unwrap();
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let result = r#"{"jsonrpc":"2.0","id":@ID@,"result":{"content":[{"type":"text","text":"done"}]}}"#;
    std::fs::write(replay.join("change"), format!("{changed}\n{result}\n")).unwrap();
    let fixture = fixture("fixture-hostile");
    let flags = [fixture.as_os_str(), "--stdio".as_ref(), "--log".as_ref(), log.as_os_str()];
    let shim = Shim::serve(flags.into_iter().chain(["--replay".as_ref(), replay.as_os_str()])).await;
    let (pod, policy) = (
        Pod::new::<[std::ffi::OsString; 2]>("changes", ["--stdio-socket".into(), shim.socket().into_os_string()]),
        PolicyServer::start().await,
    );
    policy.publish(policy.seal(&pod.allowing(&["*"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let asked = || Arrivals::at(&log).messages().iter().filter(|line| line.contains("tools/list")).count();
    // At start, and because the policy server is connected.
    until("it was asked twice", || (asked() == 2).then_some(())).await;

    let client = Client::legacy(&gateway.url, None).await; // It opens no stream that would be told.

    assert_eq!(client.call("replay", json!({"replay": "change"})).await.text(), "done");

    until("it is asked again", || (asked() == 3).then_some(())).await;
}
