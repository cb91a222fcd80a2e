use serde_json::{Value, json};

use super::*;
use crate::kubernetes::fake::Fake;

const LEASES: &str = "apis/coordination.k8s.io/v1/leases";

fn election(fake: &Fake, identity: &str) -> Election {
    let settings = Settings {
        namespace: "system".to_owned(),
        name: "toolgate-operator".to_owned(),
        identity: identity.to_owned(),
        ttl: Duration::from_secs(15),
    };
    Election::new(&fake.client(), settings)
}

fn lease(fake: &Fake) -> Value {
    fake.all(LEASES).pop().unwrap()["spec"].clone()
}

#[tokio::test(start_paused = true)]
async fn the_first_makes_the_lease_and_the_second_waits() {
    let fake = Fake::default();
    let (mut a, mut b) = (election(&fake, "a"), election(&fake, "b"));

    assert!(a.claim().await.unwrap());
    assert!(!b.claim().await.unwrap());

    assert_eq!(lease(&fake)["holderIdentity"], "a");
    assert_eq!(lease(&fake)["leaseDurationSeconds"], 15);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_renews_is_left_alone_however_old_its_clock_is() {
    let fake = Fake::default();
    let (mut a, mut b) = (election(&fake, "a"), election(&fake, "b"));
    assert!(a.claim().await.unwrap());

    for _ in 0..6 {
        assert!(!b.claim().await.unwrap());
        tokio::time::advance(Duration::from_secs(10)).await;
        // A clock that is a year behind: only the change of the record counts.
        let mut object = fake.all(LEASES).pop().unwrap();
        object["spec"]["renewTime"] = json!("2025-01-01T00:00:00.000000Z");
        fake.put(LEASES, object);
    }
    assert_eq!(lease(&fake)["holderIdentity"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_is_replaced_after_the_time_that_it_asked_for_and_not_before() {
    let fake = Fake::default();
    let (mut a, mut b) = (election(&fake, "a"), election(&fake, "b"));
    assert!(a.claim().await.unwrap());
    assert!(!b.claim().await.unwrap());

    tokio::time::advance(Duration::from_secs(15)).await;
    assert!(!b.claim().await.unwrap());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(b.claim().await.unwrap());

    assert_eq!((&lease(&fake)["holderIdentity"], &lease(&fake)["leaseTransitions"]), (&json!("b"), &json!(2)));
    assert!(!a.claim().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn of_two_who_write_at_once_one_wins() {
    let fake = Fake::default();
    let (mut a, b) = (election(&fake, "a"), election(&fake, "b"));
    let read = b.api.get_opt("toolgate-operator").await.unwrap();
    assert!(a.claim().await.unwrap());
    assert!(!b.write(read, LeaseSpec::default()).await.unwrap());

    let stale = b.api.get_opt("toolgate-operator").await.unwrap();
    assert!(a.claim().await.unwrap());
    assert!(!b.write(stale, LeaseSpec::default()).await.unwrap());
    assert_eq!(lease(&fake)["holderIdentity"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_frees_the_lease_and_the_next_leader_need_not_wait() {
    let fake = Fake::default();
    let (stop, leads) = (CancellationToken::new(), watch::Sender::new(false));
    let mut led = leads.subscribe();
    let (own, told) = (stop.clone(), leads.clone());
    let first = election(&fake, "a");
    let run =
        tokio::spawn(async move { hold(first, &own, &told, |token| async move { token.cancelled().await }).await });
    led.wait_for(|leads| *leads).await.unwrap();

    stop.cancel();

    assert_eq!(run.await.unwrap(), Outcome::Stopped);
    assert!(!*leads.borrow());
    assert_eq!(lease(&fake)["holderIdentity"], "");
    assert!(election(&fake, "b").claim().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn work_ends_before_anybody_else_may_begin_when_the_api_server_is_gone() {
    let fake = Fake::default();
    let (stop, leads) = (CancellationToken::new(), watch::Sender::new(false));
    let mut led = leads.subscribe();
    let (own, told) = (stop.clone(), leads.clone());
    let first = election(&fake, "a");
    let work = |_| async { std::future::pending::<()>().await };
    let run = tokio::spawn(async move { hold(first, &own, &told, work).await });
    led.wait_for(|leads| *leads).await.unwrap();
    let begun = Instant::now();

    fake.stop_after(Some(0));

    assert_eq!(run.await.unwrap(), Outcome::Lost);
    // The last renewal may have been as late as this; 15 s after it another may lead.
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_took_is_lost_at_once_and_is_not_freed() {
    let fake = Fake::default();
    let (stop, leads) = (CancellationToken::new(), watch::Sender::new(false));
    let mut led = leads.subscribe();
    let (own, told) = (stop.clone(), leads.clone());
    let first = election(&fake, "a");
    let work = |_| async { std::future::pending::<()>().await };
    let run = tokio::spawn(async move { hold(first, &own, &told, work).await });
    led.wait_for(|leads| *leads).await.unwrap();

    let mut object = fake.all(LEASES).pop().unwrap();
    object["spec"]["holderIdentity"] = json!("b");
    fake.put(LEASES, object);

    assert_eq!(run.await.unwrap(), Outcome::Lost);
    assert_eq!(lease(&fake)["holderIdentity"], "b");
}
