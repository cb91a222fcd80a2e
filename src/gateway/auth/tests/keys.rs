//! Issuers' keys: fetched, rotated, withdrawn, and out of reach.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::super::limits;
use super::*;

/// A JWKS server whose documents can be changed, and that counts what it is asked.
#[derive(Clone)]
struct Publisher {
    url: String,
    documents: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let publisher = Self { url, documents: Arc::default(), asked: Arc::default() };
        let served = publisher.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let document = served.documents.lock().get(head.split(' ').nth(1).unwrap()).cloned();
                served.asked.fetch_add(1, Ordering::SeqCst);
                let status = if document.is_some() { "200 OK" } else { "503 Service Unavailable" };
                let body = document.unwrap_or_default();
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        publisher
    }

    fn publish(&self, path: &str, document: impl Into<String>) {
        self.documents.lock().insert(path.to_owned(), document.into());
    }

    fn go_down(&self) {
        self.documents.lock().clear();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn trusted(&self) -> Authenticator {
        trusting(&[issuer(ISSUER, Keys::Url(format!("{}/jwks", self.url)))])
    }
}

/// Moves the clock without running timers of what waits for sockets.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn without_a_key_id_the_only_fitting_key_counts() {
    let (one, two, ec) = (Signer::ed("1"), Signer::ed("2"), Signer::ec("3"));
    let token = one.sign(&json!({"alg": "EdDSA"}), &claims());

    assert!(verify(&inline(&[&one, &ec]), &token).await.is_ok());
    assert_eq!(refused(&inline(&[&one, &two]), &token).await, Refused::AmbiguousKey);
    assert_eq!(refused(&inline(&[&ec]), &token).await, Refused::UnknownKey);
}

#[tokio::test]
async fn an_unknown_key_costs_one_fetch_and_then_none_until_the_next_interval() {
    let (known, unknown) = (Signer::ed("known"), Signer::ed("unknown"));
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&known]));
    let authenticator = publisher.trusted();

    verify(&authenticator, &known.token(&claims())).await.unwrap();
    assert_eq!(publisher.asked(), 1, "the first use");
    for _ in 0..5 {
        assert_eq!(refused(&authenticator, &unknown.token(&claims())).await, Refused::UnknownKey);
    }
    assert_eq!(publisher.asked(), 1, "negative cache");
    pass(limits::JWKS_REFRESH).await;
    for _ in 0..5 {
        assert_eq!(refused(&authenticator, &unknown.token(&claims())).await, Refused::UnknownKey);
    }
    assert_eq!(publisher.asked(), 2, "one refresh");
    assert!(verify(&authenticator, &known.token(&claims())).await.is_ok());
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_fetch() {
    let signer = Signer::ed("k");
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&signer]));
    let authenticator = publisher.trusted();

    let tokens: Vec<_> = (0..20).map(|n| signer.token(&with(json!({"sub": format!("u{n}")})))).collect();
    let outcomes = futures::future::join_all(tokens.iter().map(|token| verify(&authenticator, token))).await;

    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_end_the_fetch() {
    let signer = Signer::ed("k");
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&signer]));
    let authenticator = publisher.trusted();
    let token = signer.token(&claims());

    assert!(futures::future::FutureExt::now_or_never(verify(&authenticator, &token)).is_none());

    assert!(verify(&authenticator, &token).await.is_ok());
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn known_keys_go_on_when_the_issuer_is_down() {
    let (known, unknown) = (Signer::ed("known"), Signer::ed("unknown"));
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&known]));
    let authenticator = publisher.trusted();
    verify(&authenticator, &known.token(&claims())).await.unwrap();

    publisher.go_down();
    pass(issuer::KEYS_FRESH).await;

    assert!(verify(&authenticator, &known.token(&with(json!({"sub": "new"})))).await.is_ok());
    assert_eq!(refused(&authenticator, &unknown.token(&claims())).await, Refused::KeysUnavailable);
    assert!(verify(&authenticator, &known.token(&with(json!({"sub": "newer"})))).await.is_ok());
}

#[tokio::test]
async fn garbage_from_the_issuer_counts_as_an_outage() {
    let (known, unknown) = (Signer::ed("known"), Signer::ed("unknown"));
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&known]));
    let authenticator = publisher.trusted();
    verify(&authenticator, &known.token(&claims())).await.unwrap();

    for document in ["<html>", "{}", &json!({"keys": vec![known.jwk(); super::super::keys::KEYS + 1]}).to_string()] {
        publisher.publish("/jwks", document);
        pass(limits::JWKS_REFRESH).await;
        assert_eq!(refused(&authenticator, &unknown.token(&claims())).await, Refused::KeysUnavailable);
        assert!(verify(&authenticator, &known.token(&claims())).await.is_ok());
    }
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_at_all_say_so() {
    let publisher = Publisher::start().await;
    let token = Signer::ed("k").token(&claims());
    assert_eq!(refused(&publisher.trusted(), &token).await, Refused::KeysUnavailable);
    let broken = trusting(&[issuer(ISSUER, Keys::Inline("no JSON".to_owned()))]);
    assert_eq!(refused(&broken, &token).await, Refused::KeysUnavailable);
}

#[tokio::test]
async fn rotation_lets_the_new_key_in_and_drops_the_old_ones_tokens() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&old]));
    let authenticator = publisher.trusted();
    let old_token = old.token(&claims());
    verify(&authenticator, &old_token).await.unwrap();

    publisher.publish("/jwks", set(&[&old, &new]));
    pass(limits::JWKS_REFRESH).await;
    verify(&authenticator, &new.token(&claims())).await.unwrap();
    verify(&authenticator, &old_token).await.unwrap();

    publisher.publish("/jwks", set(&[&new]));
    pass(issuer::KEYS_FRESH).await;
    verify(&authenticator, &old_token).await.unwrap(); // Starts the refresh, which nobody waits for.
    let dropped = async {
        while verify(&authenticator, &old_token).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dropped).await.expect("the withdrawn key still counts");
    assert_eq!(publisher.asked(), 3);
    assert_eq!(refused(&authenticator, &old_token).await, Refused::UnknownKey);
    verify(&authenticator, &new.token(&claims())).await.unwrap();
}

#[tokio::test]
async fn a_key_replaced_under_the_same_id_takes_its_tokens_along() {
    let (old, new, other) = (Signer::ed("k"), Signer::ed("k"), Signer::ed("other"));
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&old]));
    let authenticator = publisher.trusted();
    let old_token = old.token(&claims());
    verify(&authenticator, &old_token).await.unwrap();

    publisher.publish("/jwks", set(&[&new]));
    pass(limits::JWKS_REFRESH).await;
    assert_eq!(refused(&authenticator, &other.token(&claims())).await, Refused::UnknownKey);

    assert_eq!(refused(&authenticator, &old_token).await, Refused::Signature);
    verify(&authenticator, &new.token(&claims())).await.unwrap();
}

#[tokio::test]
async fn a_rotated_key_without_an_id_is_noticed() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let publisher = Publisher::start().await;
    publisher.publish("/jwks", set(&[&old]));
    let authenticator = publisher.trusted();
    verify(&authenticator, &old.token(&claims())).await.unwrap();

    publisher.publish("/jwks", set(&[&new]));
    pass(limits::JWKS_REFRESH).await;
    let token = new.sign(&json!({"alg": "EdDSA"}), &claims());
    assert!(verify(&authenticator, &token).await.is_ok());
}

#[tokio::test]
async fn discovery_takes_metadata_of_the_issuer_itself_only() {
    let signer = Signer::ed("k");
    let publisher = Publisher::start().await;
    let url = format!("{}/tenant", publisher.url);
    let document = |issuer: &str| json!({"issuer": issuer, "jwks_uri": format!("{}/jwks", publisher.url)}).to_string();
    let token = signer.token(&with(json!({"iss": url})));
    publisher.publish("/jwks", set(&[&signer]));

    publisher.publish("/tenant/.well-known/openid-configuration", document("https://evil.example.com"));
    let authenticator = trusting(&[issuer(&url, Keys::Discovery)]);
    assert_eq!(refused(&authenticator, &token).await, Refused::KeysUnavailable);

    publisher.publish("/.well-known/oauth-authorization-server/tenant", document(&url));
    pass(limits::JWKS_REFRESH).await;
    assert!(verify(&authenticator, &token).await.is_ok());
}

#[tokio::test]
async fn keys_for_other_uses_are_left_out() {
    let signer = Signer::ed("k");
    let token = signer.token(&claims());
    for (name, value) in [
        ("use", json!("enc")),
        ("alg", json!("ES256")),
        ("key_ops", json!(["sign"])),
        ("x", json!("AA")),
        ("kty", json!(7)),
    ] {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        let other = Signer::ed("other");
        let keys = json!({"keys": [jwk, {"kty": "oct", "k": "AA"}, null, other.jwk()]}).to_string();
        let authenticator = trusting(&[issuer(ISSUER, Keys::Inline(keys))]);
        assert_eq!(refused(&authenticator, &token).await, Refused::UnknownKey, "{name}");
        assert!(verify(&authenticator, &other.token(&claims())).await.is_ok(), "{name}");
    }
}
