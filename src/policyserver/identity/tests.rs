use serde_json::json;

use super::*;
use crate::policyserver::fixture::{TokenKey, caches, pod, target};

fn identities(key: &TokenKey) -> (Identities, Cache<Pod>) {
    let caches = caches(key);
    (Identities::new(caches.cluster, caches.pods.clone()), caches.pods)
}

#[tokio::test]
async fn a_gateway_is_the_server_of_its_pod() {
    let key = TokenKey::new("1");
    let (identities, _) = identities(&key);

    let caller = identities.authenticate(&key.token("github-1", "uid-github")).await.unwrap();

    assert_eq!(caller.target, target("github"));
    assert_eq!(caller.uid, "uid-github");
    assert!(identities.is_current(&caller));
}

#[tokio::test]
async fn a_pod_of_another_uid_or_without_a_server_is_refused() {
    let key = TokenKey::new("1");
    let (identities, _) = identities(&key);

    let of = async |pod: &str, uid: &str| identities.authenticate(&key.token(pod, uid)).await.unwrap_err();

    assert!(matches!(of("github-1", "uid-before").await, Refused::UnknownPod));
    assert!(matches!(of("github-9", "uid-github").await, Refused::UnknownPod));
    assert!(matches!(of("other-1", "uid-other").await, Refused::NoGateway));
}

#[tokio::test]
async fn a_caller_whose_pod_goes_is_no_longer_current() {
    let key = TokenKey::new("1");
    let (identities, pods) = identities(&key);
    let caller = identities.authenticate(&key.token("github-1", "uid-github")).await.unwrap();

    pods.apply(101, pod("github-1", "uid-github", Some("gitlab")));
    assert!(!identities.is_current(&caller), "the pod is another server's by now");
    pods.apply(102, pod("github-1", "uid-github", Some("github")));
    assert!(identities.is_current(&caller));
    pods.delete(103, "agents", "github-1");

    assert!(!identities.is_current(&caller));
}

/// Whatever is not exactly a token of this cluster, in force, for this audience and bound to a pod.
#[tokio::test(start_paused = true)]
async fn any_other_token_is_refused() {
    let (key, other) = (TokenKey::new("1"), TokenKey::new("1"));
    let (identities, _) = identities(&key);
    let whole = TokenKey::claims("github-1", "uid-github");
    let with = |path: &str, value: serde_json::Value| {
        let mut claims = whole.clone();
        claims[path] = value;
        key.sign(&claims)
    };
    let past = jiff::Timestamp::now().as_second() - 3600;

    for (why, token) in [
        ("another audience", with("aud", json!(["https://kubernetes.default.svc"]))),
        ("another issuer", with("iss", json!("https://evil.example.com"))),
        ("expired", with("exp", json!(past))),
        ("not yet valid", with("nbf", json!(past + 7200))),
        ("not bound", with("kubernetes.io", json!({"namespace": "agents"}))),
        ("no ServiceAccount", with("kubernetes.io", json!(null))),
        ("forged", other.sign(&whole)),
        ("another key", TokenKey::new("2").sign(&whole)),
        ("no token", "no.token.at-all".to_owned()),
        ("empty", String::new()),
        ("too long", "x".repeat(TOKEN_BYTES + 1)),
    ] {
        assert!(identities.authenticate(&token).await.is_err(), "{why}");
    }
    assert!(identities.authenticate(&key.sign(&whole)).await.is_ok());
}

/// The public key must not be taken for a shared secret.
#[tokio::test]
async fn a_token_signed_with_a_shared_secret_is_refused() {
    let key = TokenKey::new("1");
    let (identities, _) = identities(&key);
    let header = jsonwebtoken::Header { kid: Some("1".to_owned()), ..jsonwebtoken::Header::new(Algorithm::HS256) };
    let secret = jsonwebtoken::EncodingKey::from_secret(key.issuer().jwks.as_bytes());
    let token = jsonwebtoken::encode(&header, &TokenKey::claims("github-1", "uid-github"), &secret).unwrap();

    assert!(matches!(identities.authenticate(&token).await, Err(Refused::Token(_))));
}
