use kube::Client;
use serde_json::json;

use super::*;
use crate::kubernetes::fake::Fake;
use crate::policyserver::fixture::{TokenKey, caches, role, target};
use crate::policyserver::keys::{Keys, SECRET};

/// Long enough for everything that this file does with paused time.
const LATER: Duration = Duration::from_hours(1);

struct Replica {
    epochs: Arc<Epochs>,
    caches: Caches,
    secret: SecretAt,
    shutdown: CancellationToken,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Replica {
    async fn start(client: Client) -> Self {
        let secret = SecretAt::new(client, "toolgate", SECRET);
        Keys::load(&secret).await.unwrap();
        let epochs = Arc::new(Epochs::load(secret.clone()).await.unwrap());
        let caches = caches(&TokenKey::new("1"));
        let shutdown = CancellationToken::new();
        tokio::spawn(caches.servers.clone().answer_doubts());
        tokio::spawn(caches.tools.clone().answer_doubts());
        tokio::spawn(caches.gateways.clone().answer_doubts());
        tokio::spawn(caches.config_maps.clone().answer_doubts());
        tokio::spawn(Arc::clone(&epochs).keep(caches.clone(), shutdown.clone()));
        Self { epochs, caches, secret, shutdown }
    }

    /// From now on roles are listed when they are doubted, and nothing is new in them.
    fn lists_roles(&self) {
        tokio::spawn(self.caches.roles.clone().answer_doubts());
    }

    fn sees_a_rewind(&self) {
        self.caches.roles.rewind(90);
        self.epochs.rewound();
    }

    fn claims(&self, epoch: u64, role: u64) {
        let version = Version { epoch, seen: BTreeMap::from([("McpRole".to_owned(), role)]) };
        self.epochs.claim(&target("github"), &version);
    }

    async fn reaches(&self, epoch: u64) {
        let mut now = self.epochs.now();
        timeout(LATER, now.wait_for(|now| *now >= epoch)).await.expect("the epoch was not reached").unwrap();
    }

    async fn stored(&self) -> u64 {
        epoch_of(&self.secret.get().await.unwrap().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_is_in_the_first_epoch() {
    let replica = Replica::start(Fake::default().client()).await;

    assert_eq!((*replica.epochs.now().borrow(), replica.stored().await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_new_list_explains_begins_no_epoch() {
    let replica = Replica::start(Fake::default().client()).await;

    replica.claims(1, 150);
    replica.caches.roles.doubted().await;
    replica.caches.roles.relist(150, vec![role("developer", 1, &["x"])]);
    tokio::time::sleep(LATER).await;

    assert_eq!((*replica.epochs.now().borrow(), replica.stored().await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_no_list_explains_begins_an_epoch_that_other_replicas_adopt() {
    let fake = Fake::default();
    let (one, other) = (Replica::start(fake.client()).await, Replica::start(fake.client()).await);
    let keys = Keys::of(&one.secret.get().await.unwrap().unwrap().data).unwrap();

    one.lists_roles();
    other.lists_roles();
    one.claims(1, 150);
    one.reaches(2).await;
    other.claims(2, 1);
    other.reaches(2).await;

    assert_eq!(one.stored().await, 2);
    let after = Keys::of(&one.secret.get().await.unwrap().unwrap().data).unwrap();
    assert_eq!(keys.verify_key(), after.verify_key(), "the keys stay");
}

/// Whoever can lie about a version must not make every gateway load everything again and again.
#[tokio::test(start_paused = true)]
async fn lies_do_not_begin_one_epoch_after_the_other() {
    let replica = Replica::start(Fake::default().client()).await;
    let lists = replica.caches.roles.clone();
    let listing = tokio::spawn(async move {
        loop {
            lists.doubted().await;
            lists.relist(120, Vec::new());
        }
    });

    replica.claims(1, 150);
    replica.reaches(2).await;
    for _ in 0..100 {
        replica.claims(2, 150);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    assert_eq!(replica.stored().await, 2);
    listing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_claim_while_the_api_server_is_away_begins_no_epoch() {
    let replica = Replica::start(Fake::default().client()).await;

    replica.claims(1, 150); // Nothing answers the list.
    tokio::time::sleep(LATER).await;

    assert_eq!(*replica.epochs.now().borrow(), 1);
}

/// Two restores of one backup: the second takes the epoch of the first away, and the process that knew it is gone too.
#[tokio::test(start_paused = true)]
async fn an_epoch_that_the_secret_lost_is_not_used_again() {
    let replica = Replica::start(Fake::default().client()).await;

    replica.lists_roles();
    replica.claims(2, 150);
    replica.reaches(3).await;

    assert_eq!(replica.stored().await, 3);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_cannot_have_been_is_a_lie() {
    let replica = Replica::start(Fake::default().client()).await;

    for epoch in [1 + LOST + 1, u64::MAX] {
        replica.claims(epoch, 150);
        tokio::time::sleep(LATER).await;
    }

    assert_eq!(replica.stored().await, 1);
}

/// A gateway that waits for a newer policy says nothing twice.
#[tokio::test(start_paused = true)]
async fn a_claim_is_looked_into_once_the_api_server_is_back() {
    let replica = Replica::start(Fake::default().client()).await;

    replica.claims(1, 150); // Nothing answers the list.
    tokio::time::sleep(LATER).await;
    assert_eq!(*replica.epochs.now().borrow(), 1);

    replica.lists_roles();
    replica.reaches(2).await;
}

/// Else what this process has not seen yet would go back within the new epoch.
#[tokio::test(start_paused = true)]
async fn an_epoch_is_entered_when_every_kind_was_listed_in_it() {
    let replica = Replica::start(Fake::default().client()).await;

    replica.sees_a_rewind();
    tokio::time::sleep(LATER).await; // Roles are not listed.
    assert_eq!((*replica.epochs.now().borrow(), replica.stored().await), (1, 2));

    replica.lists_roles();
    replica.reaches(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_history_that_went_back_begins_an_epoch() {
    let replica = Replica::start(Fake::default().client()).await;

    replica.sees_a_rewind();
    // Another cache sees the same a moment later, at the latest when everything is listed anew.
    tokio::time::sleep(Duration::from_secs(1)).await;
    replica.caches.tools.rewind(90);
    replica.lists_roles();
    replica.reaches(2).await;
    tokio::time::sleep(LATER).await;

    assert_eq!(replica.stored().await, 2, "one restore begins one epoch");
}

#[tokio::test(start_paused = true)]
async fn replicas_that_start_at_once_share_one_secret() {
    let fake = Fake::default();
    let (one, other) = tokio::join!(Replica::start(fake.client()), Replica::start(fake.client()));
    let keys =
        async |replica: &Replica| *Keys::of(&replica.secret.get().await.unwrap().unwrap().data).unwrap().verify_key();

    assert_eq!(keys(&one).await, keys(&other).await);
    let found = one.secret.get().await.unwrap().unwrap();
    fake.put(
        "api/v1/secrets",
        json!({"metadata": {"name": SECRET, "namespace": "toolgate"}, "data": {"root": "AAAA"}}),
    );
    assert!(one.secret.replace(&found, found.data.clone()).await.unwrap().is_none(), "somebody was faster");
    assert!(matches!(Keys::load(&one.secret).await, Err(crate::policyserver::keys::KeysError::Damaged(_))));
}
