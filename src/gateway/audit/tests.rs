//! The ring and its writer, against files, slow sinks and broken ones.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::super::limits;
use super::output::Output;
use super::*;

fn record(id: &str) -> Record<'_> {
    Record {
        event: Event::Request,
        request_id: id,
        issuer: Some("corp"),
        subject: Some("ada"),
        roles: &[],
        left_out: None,
        method: "tools/call",
        server_namespace: "default",
        server: "files",
        target: Some("write"),
        snapshot: "sha256:00",
        rule_role: Some("editor"),
        rule_index: Some(0),
        decision: "allow",
        reason: None,
        arguments: Some("{}"),
        outcome: Some(Outcome::Ok),
        error_code: None,
        http_status: Some(200),
        result_bytes: 1,
        duration: Duration::from_millis(1),
    }
}

fn intent(id: &str) -> Record<'_> {
    Record { event: Event::Intent, outcome: None, ..record(id) }
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "a broken line");
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn ids(bytes: &[u8]) -> Vec<String> {
    lines(bytes).iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect()
}

fn open(path: &Path) -> Audit {
    Audit::open(&Sink::File(path.to_owned())).unwrap()
}

/// A sink that can be broken: takes at most `step` bytes at a time.
#[derive(Clone)]
struct Fickle(Arc<Mutex<State>>);

struct State {
    bytes: Vec<u8>,
    broken: bool,
    step: usize,
    /// Writes until it breaks by itself.
    left: Option<usize>,
}

impl Fickle {
    fn new(step: usize) -> Self {
        Self(Arc::new(Mutex::new(State { bytes: Vec::new(), broken: false, step, left: None })))
    }

    fn audit(&self) -> Audit {
        Audit::start(Output::Stream(Box::new(self.clone()))).unwrap()
    }

    fn set_broken(&self, broken: bool) {
        let mut state = self.0.lock();
        (state.broken, state.left) = (broken, None);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }
}

impl Write for Fickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if let Some(left) = &mut state.left {
            *left = left.saturating_sub(1);
            state.broken = *left == 0;
        }
        if state.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(state.step);
        state.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reserves as soon as the log takes records again.
async fn recovered(audit: &Audit) -> Slot {
    let wait = async {
        loop {
            match audit.reserve().await {
                Ok(slot) => return slot,
                Err(Busy) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the log does not recover")
}

#[tokio::test]
async fn an_intent_is_in_the_file_when_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = open(&path);

    let slot = audit.reserve().await.unwrap();
    slot.intent(&intent("a")).await.unwrap();

    let written = lines(&std::fs::read(&path).unwrap());
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["event"], "intent");
    assert!(written[0].get("duration_us").is_none());
    assert_eq!(audit.stats().taken, 1, "the slot stays reserved");
    slot.finish(&record("a"));
    audit.close().await;
    assert_eq!(ids(&std::fs::read(&path).unwrap()), ["a", "a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_give_one_sequence_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = open(&path);

    let callers = (0..50).map(|caller| {
        let audit = audit.clone();
        tokio::spawn(async move {
            for call in 0..40 {
                let id = format!("{caller}-{call}");
                let slot = audit.reserve().await.unwrap();
                if call % 4 == 0 {
                    slot.intent(&intent(&id)).await.unwrap();
                }
                slot.finish(&record(&id));
            }
        })
    });
    futures::future::join_all(callers).await.into_iter().for_each(Result::unwrap);
    audit.close().await;

    let written = lines(&std::fs::read(&path).unwrap());
    let sequence: Vec<_> = written.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (1..=2500).collect::<Vec<_>>());
    assert_eq!((audit.stats().taken, audit.stats().written, audit.stats().dropped), (0, 2500, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_ring_refuses_after_the_wait() {
    let audit = Fickle::new(4096).audit();
    let mut slots = Vec::new();
    for _ in 0..limits::AUDIT_RING {
        slots.push(audit.reserve().await.unwrap());
    }

    let start = tokio::time::Instant::now();
    assert!(audit.reserve().await.is_err());
    assert!(start.elapsed() >= limits::AUDIT_WAIT);
    assert_eq!(audit.stats().refused, 1);

    drop(slots.pop());
    assert!(audit.reserve().await.is_ok(), "a slot that is dropped unused is free again");
}

#[tokio::test(start_paused = true)]
async fn a_flood_without_tokens_takes_no_place_from_those_who_have_one() {
    let audit = Fickle::new(4096).audit();
    let mut guests = Vec::new();
    for _ in 0..limits::AUDIT_GUESTS {
        guests.push(audit.reserve_in(Share::Guests).await.unwrap());
    }
    assert!(audit.reserve_in(Share::Guests).await.is_err());

    let mut callers = Vec::new();
    for _ in 0..limits::AUDIT_RING {
        callers.push(audit.reserve().await.unwrap());
    }
    assert!(audit.reserve().await.is_err());
    assert_eq!(audit.stats().taken, limits::AUDIT_RING + limits::AUDIT_GUESTS);
    guests.pop();
    assert!(audit.reserve().await.is_err(), "and the other way round");
    assert!(audit.reserve_in(Share::Guests).await.is_ok());
}

#[tokio::test]
async fn a_flood_of_refusals_is_sampled_and_every_one_is_counted() {
    let sink = Fickle::new(4096);
    let audit = sink.audit();
    let refusal = || Record { http_status: Some(401), ..record("guest") };
    let places: Vec<_> = std::iter::from_fn(|| audit.try_reserve_in(Share::Guests)).collect();
    audit.note(&refusal());
    drop(places);

    for _ in 0..limits::AUDIT_GUEST_LINES + 100 {
        audit.note(&refusal());
    }
    audit.note(&Record { http_status: Some(404), ..record("other") });
    assert_eq!(audit.stats().left_out, 102, "one had no place, and took one of the second's lines");
    audit.close().await;

    let written = lines(&sink.bytes());
    assert_eq!(written.len(), limits::AUDIT_GUEST_LINES as usize);
    assert_eq!(written[0]["left_out"], 1);
    assert!(written[1..].iter().all(|line| line.get("left_out").is_none()));
    assert_eq!(written.last().unwrap()["http_status"], 404, "another kind has a rate of its own");
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_calls_and_loses_nothing() {
    let sink = Fickle::new(4096);
    let audit = sink.audit();
    let (first, second) = (audit.reserve().await.unwrap(), audit.reserve().await.unwrap());

    sink.set_broken(true);
    assert!(first.intent(&intent("first")).await.is_err(), "announced without being written");
    assert!(audit.reserve().await.is_err());
    assert!(audit.stats().failing);
    second.finish(&record("second"));
    first.finish(&record("first"));

    sink.set_broken(false);
    recovered(&audit).await.finish(&record("third"));
    audit.close().await;
    assert_eq!(ids(&sink.bytes()), ["first", "second", "first", "third"]);
    assert!(!audit.stats().failing);
}

#[tokio::test]
async fn a_line_that_was_cut_goes_on_where_it_ended() {
    let sink = Fickle::new(7);
    let audit = sink.audit();
    let slot = audit.reserve().await.unwrap();
    sink.0.lock().left = Some(20);

    assert!(slot.intent(&intent("a")).await.is_err());
    slot.finish(&record("a"));
    sink.set_broken(false);
    recovered(&audit).await;
    audit.close().await;

    assert_eq!(ids(&sink.bytes()), ["a", "a"]);
}

#[tokio::test]
async fn a_rotated_file_is_left_for_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1"));
    let audit = open(&path);
    audit.reserve().await.unwrap().intent(&intent("before")).await.unwrap();

    std::fs::rename(&path, &rotated).unwrap();
    let follow = async {
        while !path.exists() {
            audit.reserve().await.unwrap().intent(&intent("after")).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), follow).await.expect("the log does not follow a rotation");
    audit.close().await;

    let (old, new) = (lines(&std::fs::read(&rotated).unwrap()), lines(&std::fs::read(&path).unwrap()));
    assert_eq!(old[0]["request_id"], "before");
    assert_eq!(new[0]["sequence"].as_u64().unwrap(), u64::try_from(old.len()).unwrap() + 1, "a line was lost");
}

#[tokio::test]
async fn the_file_is_private_and_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for id in ["first", "second"] {
        let audit = open(&path);
        audit.reserve().await.unwrap().finish(&record(id));
        audit.close().await;
    }
    assert_eq!(ids(&std::fs::read(&path).unwrap()), ["first", "second"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Audit::open(&Sink::File(folder.path().join("logs/audit.jsonl"))).unwrap_err().to_string();
    assert!(error.contains("logs does not exist: create it"), "{error}");
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_takes_no_more() {
    let sink = Fickle::new(4096);
    let audit = sink.audit();
    for _ in 0..100 {
        audit.reserve().await.unwrap().finish(&record("a"));
    }
    let late = audit.reserve().await.unwrap();
    let (closed, ()) = tokio::join!(audit.close(), async {
        assert!(audit.reserve().await.is_err(), "closed");
        late.finish(&record("late"));
    });
    let () = closed;

    let ids = ids(&sink.bytes());
    assert_eq!((ids.len(), ids.last().map(String::as_str)), (101, Some("late")));
}

#[tokio::test]
async fn a_line_after_the_end_is_counted_as_lost() {
    let audit = Fickle::new(4096).audit();
    let slot = audit.reserve().await.unwrap();
    audit.close().await;
    slot.finish(&record("too late"));
    assert_eq!(audit.stats().dropped, 1);
}

#[tokio::test]
async fn the_last_clone_ends_the_writer() {
    let sink = Fickle::new(4096);
    let audit = sink.audit();
    audit.reserve().await.unwrap().finish(&record("a"));
    drop(audit);
    let ended = async {
        while Arc::strong_count(&sink.0) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the writer goes on");
    assert_eq!(ids(&sink.bytes()), ["a"]);
}
