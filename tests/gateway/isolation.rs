//! Callers that use up what all share (memory, descriptors, connections) and keep nobody else from being served.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{Folder, Hostile, Toolgate, until};

const MIB: usize = 1 << 20;

/// A figure of /proc/PID/status, in bytes.
fn status(process: u32, name: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Time on a processor so far.
fn cpu(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn address(toolgate: &Toolgate) -> String {
    toolgate.base().trim_start_matches("http://").to_owned()
}

/// The head of a POST of so many bytes to server `h`.
fn post(address: &str, token: &str, bytes: usize) -> String {
    format!(
        "POST /servers/h/mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         content-length: {bytes}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_held_back_and_a_list_of_16_mib_leave_others_served_within_the_memory_limit() {
    const LIMIT: usize = 128 * MIB;
    let (hostile, large) = (Hostile::start(&[]), Hostile::start(&["--list", "largest"]));
    let folder = Folder::new().remote("h", &hostile.server.url).remote("large", &large.server.url).all_for_ada();
    let toolgate = Toolgate::start_with(folder, &["--memory-limit", "128Mi"]).await;
    let (address, guest) = (address(&toolgate), toolgate.token("guest"));
    let process = toolgate.process.id();
    // Memory that belongs to the process alone: pages of the program's file are not counted against it.
    let peak = tokio::spawn(async move {
        let mut peak = 0;
        for _ in 0..800 {
            peak = peak.max(status(process, "RssAnon"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        peak
    });

    let held: Vec<_> = (0..200)
        .map(|_| {
            let (address, head) = (address.clone(), post(&address, &guest, 4 * MIB));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                let _ = stream.write_all(&vec![b' '; 4 * MIB - 1]).await; // It may have been refused by now.
                let mut answer = Vec::new();
                let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
                String::from_utf8_lossy(&answer).into_owned()
            })
        })
        .collect();
    let (ada, begun) = (toolgate.modern("h", "ada"), Instant::now());
    for round in 0..20 {
        assert_eq!(ada.call("ok", json!({"round": round})).await.text(), format!(r#"ok {{"round":{round}}}"#));
    }
    let big = "x".repeat(MIB);
    assert_eq!(ada.call("ok", json!({"big": big})).await.text().len(), MIB + r#"ok {"big":""}"#.len());
    let listed = toolgate.modern("large", "ada").request("tools/list", json!({})).await;
    assert!(listed.body.len() > 15 * MIB, "{}", listed.body.len());
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());

    let mut answers = Vec::new();
    for answer in held {
        answers.push(answer.await.unwrap());
    }
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503") && answer.contains("-31002"));
    assert!(refused.clone().count() > 100, "{answers:?}");
    assert!(refused.clone().all(|answer| answer.contains("retry-after: ")), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 408")), "some were waited for: {answers:?}");
    let peak = peak.await.unwrap();
    assert!(peak < LIMIT, "{} MiB", peak / MIB);
    // All of it is given back.
    until("nothing is held any more", || (status(process, "RssAnon") < LIMIT).then_some(())).await;
    assert!(toolgate.metrics().await.contains("toolgate_held_bytes 0"));
    assert_eq!(ada.call("ok", json!({})).await.text(), "ok {}");
}

#[tokio::test]
async fn without_descriptors_it_rests_warns_once_a_second_and_serves_again() {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    let process = toolgate.process.id();
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let few = Rlimit { current: Some(open as u64 + 8), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Pid::from_raw(process.try_into().unwrap()), Resource::Nofile, few).unwrap();
    let address = address(&toolgate);
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(TcpStream::connect(&address).await.unwrap());
    }
    let warnings = || toolgate.log().matches("failed to accept a connection").count();
    until("descriptors have run out", || (warnings() > 0).then_some(())).await;

    let (cpu_before, before, begun) = (cpu(process), warnings(), Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await; // What it does meanwhile is what is measured.

    let used = cpu(process).saturating_sub(cpu_before);
    assert!(used < begun.elapsed() / 4, "{used:?} of a processor in {:?}", begun.elapsed());
    let warned = (warnings() - before) as u64;
    assert!((1..=begun.elapsed().as_secs() + 1).contains(&warned), "{warned} warnings in {:?}", begun.elapsed());
    drop(connections);
    assert_eq!(toolgate.modern("h", "ada").call("ok", json!({})).await.text(), "ok {}");
}
