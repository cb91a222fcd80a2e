use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::*;

fn key(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_key_is_queued_once() {
    let mut state = State::default();

    state.add(key("a"));
    state.add(key("b"));
    state.add(key("a"));

    let now = Instant::now();
    assert_eq!([state.take(now), state.take(now), state.take(now)], [Some(key("a")), Some(key("b")), None]);
}

#[tokio::test]
async fn a_key_that_changes_while_it_is_worked_on_comes_again_afterwards_and_not_before() {
    let mut state = State::default();
    let now = Instant::now();
    state.add(key("a"));
    assert_eq!(state.take(now), Some(key("a")));

    state.add(key("a"));

    assert_eq!(state.take(now), None);
    state.done(&key("a"), Next::Wait, now);
    assert_eq!(state.take(now), Some(key("a")));
    state.done(&key("a"), Next::Wait, now);
    assert_eq!(state.take(after(3600)), None);
}

#[tokio::test]
async fn failures_wait_longer_each_time_until_one_look_succeeds() {
    let mut state = State::default();
    let now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..12 {
        state.add(key("a"));
        state.take(now);
        state.done(&key("a"), Next::Failed, now);
        waits.push(state.due[&key("a")] - now);
    }
    for (failures, wait) in (1..).zip(&waits) {
        assert!(*wait <= backoff(failures) && *wait >= backoff(failures) / 2, "{failures}: {wait:?}");
    }
    assert_eq!((backoff(1), backoff(2), backoff(12), backoff(99)), (FIRST, FIRST * 2, LONGEST, LONGEST));

    state.add(key("a"));
    state.take(now);
    state.done(&key("a"), Next::Wait, now);
    state.add(key("a"));
    state.take(now);
    state.done(&key("a"), Next::Failed, now);
    assert!(state.due[&key("a")] - now <= FIRST);
}

#[tokio::test]
async fn a_change_ends_every_wait_and_the_sooner_of_two_waits_counts() {
    let mut state = State::default();
    let now = Instant::now();
    state.add_at(key("a"), after(60));
    state.add_at(key("a"), after(30));
    state.add_at(key("a"), after(90));
    assert_eq!(state.later.len(), 1);
    assert_eq!(state.take(now), None);
    assert_eq!(state.take(after(31)), Some(key("a")));
    state.done(&key("a"), Next::After(Duration::from_mins(1)), now);

    state.add(key("a"));

    assert_eq!(state.take(now), Some(key("a")));
    assert!(state.later.is_empty() && state.due.is_empty());
}

/// A look that tells when it begins, and ends when it is told to.
struct Gate {
    begun: mpsc::UnboundedReceiver<Key>,
    let_go: Arc<tokio::sync::Semaphore>,
    at_once: Arc<AtomicUsize>,
}

fn gated(queue: Arc<Queue>, stop: CancellationToken, concurrency: usize) -> (Gate, tokio::task::JoinHandle<()>) {
    let (send, begun) = mpsc::unbounded_channel();
    let let_go = Arc::new(tokio::sync::Semaphore::new(0));
    let at_once = Arc::new(AtomicUsize::new(0));
    let gate = Gate { begun, let_go: let_go.clone(), at_once: at_once.clone() };
    let look = move |key: Key| {
        let (send, let_go, at_once) = (send.clone(), let_go.clone(), at_once.clone());
        async move {
            at_once.fetch_add(1, Ordering::SeqCst);
            send.send(key).unwrap();
            let_go.acquire().await.unwrap().forget();
            at_once.fetch_sub(1, Ordering::SeqCst);
            Next::Wait
        }
    };
    let run = tokio::spawn(async move { queue.run(concurrency, &stop, look).await });
    (gate, run)
}

#[tokio::test(start_paused = true)]
async fn no_more_looks_than_allowed_run_at_once_and_a_stop_waits_for_them() {
    let (queue, stop) = (Arc::new(Queue::default()), CancellationToken::new());
    for name in ["a", "b", "c"] {
        queue.add(key(name));
    }
    let (mut gate, run) = gated(queue.clone(), stop.clone(), 2);
    gate.begun.recv().await.unwrap();
    gate.begun.recv().await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(gate.at_once.load(Ordering::SeqCst), 2);
    assert!(gate.begun.try_recv().is_err());

    gate.let_go.add_permits(1);
    assert_eq!(gate.begun.recv().await, Some(key("c")));

    stop.cancel();
    tokio::task::yield_now().await;
    assert!(!run.is_finished());
    gate.let_go.add_permits(2);
    run.await.unwrap();
    assert_eq!(gate.at_once.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_panics_stalls_no_other_key_and_is_tried_again() {
    let (queue, stop) = (Arc::new(Queue::default()), CancellationToken::new());
    queue.add(key("broken"));
    queue.add(key("sound"));
    let (send, mut looks) = mpsc::unbounded_channel();
    let look = move |key: Key| {
        let send = send.clone();
        async move {
            let is_broken = key.1 == "broken";
            send.send(key).unwrap();
            assert!(!is_broken, "as told");
            Next::Wait
        }
    };
    let (own, own_stop) = (queue.clone(), stop.clone());
    let run = tokio::spawn(async move { own.run(1, &own_stop, look).await });

    let first = [looks.recv().await.unwrap().1, looks.recv().await.unwrap().1, looks.recv().await.unwrap().1];

    assert_eq!(first, ["broken", "sound", "broken"]);
    stop.cancel();
    run.await.unwrap();
}
