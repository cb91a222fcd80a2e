//! Tokens as issuers and attackers make them, against real keys and a loopback JWKS server.

mod keys;

use std::sync::Arc;

use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

use crate::policy::snapshot::Keys;

const URL: &str = "https://mcp.example.com/mcp";
const ISSUER: &str = "https://login.example.com";
const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

enum Pair {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(Box<aws_lc_rs::rsa::KeyPair>),
}

/// A signer with its key id.
struct Signer {
    pair: Pair,
    kid: &'static str,
}

impl Signer {
    fn ed(kid: &'static str) -> Self {
        Self { pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()), kid }
    }

    fn ec(kid: &'static str) -> Self {
        Self { pair: Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()), kid }
    }

    fn rsa(kid: &'static str) -> Self {
        Self { pair: Pair::Rsa(Box::new(aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap())), kid }
    }

    fn jwk(&self) -> Value {
        let kid = self.kid;
        match &self.pair {
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(pair.public_key())}),
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..])})
            }
            Pair::Rsa(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": b64(n), "e": b64(e)})
            }
        }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed(_) => "EdDSA",
            Pair::Ec(_) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = match &self.pair {
            Pair::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", b64(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": self.algorithm(), "kid": self.kid}), claims)
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": URL, "sub": "ada", "exp": NOW + 600, "groups": ["engineering"], "scope": "a b"})
}

#[allow(clippy::needless_pass_by_value)] // Reads better where it is called.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

fn issuer(url: &str, keys: Keys) -> Issuer {
    let (name, subject_claim, groups_claim) = ("corp".to_owned(), "sub".to_owned(), "groups".to_owned());
    Issuer { name, url: url.to_owned(), subject_claim, groups_claim, keys, service_accounts: false }
}

fn trusting(issuers: &[Issuer]) -> Authenticator {
    Authenticator::new(issuers, &[URL.to_owned(), "http://127.0.0.1:8080/servers/a/mcp".to_owned()], Fetcher::new(true))
}

fn inline(signers: &[&Signer]) -> Authenticator {
    trusting(&[issuer(ISSUER, Keys::Inline(set(signers)))])
}

async fn verify(authenticator: &Authenticator, token: &str) -> Result<Arc<Verified>, Refused> {
    authenticator.verify(format!("Bearer {token}").as_bytes(), now()).await
}

async fn refused(authenticator: &Authenticator, token: &str) -> Refused {
    verify(authenticator, token).await.unwrap_err()
}

#[tokio::test]
async fn each_accepted_algorithm_gives_the_identity() {
    for signer in [Signer::rsa("r"), Signer::ec("e"), Signer::ed("d")] {
        let verified = verify(&inline(&[&signer]), &signer.token(&claims())).await.unwrap();

        assert_eq!(verified.identity.issuer, "corp");
        assert_eq!(verified.identity.subject, "ada");
        assert_eq!(verified.identity.groups, ["engineering"]);
        assert_eq!(verified.identity.scopes, ["a", "b"]);
        assert_eq!(Value::Object(verified.identity.claims.clone()), claims());
        assert_eq!(verified.expires, NOW + 600);
    }
}

#[tokio::test]
async fn anything_but_one_bearer_token_is_malformed() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    let token = signer.token(&claims());
    for header in ["", "Bearer", "Bearer ", "Basic abc", &token, &format!("Bearer {token} {token}")] {
        let outcome = authenticator.verify(header.as_bytes(), now()).await;
        assert_eq!(outcome.unwrap_err(), Refused::Malformed, "{header}");
    }
    for scheme in ["bearer", "BEARER", "Bearer "] {
        assert!(authenticator.verify(format!("{scheme} {token}").as_bytes(), now()).await.is_ok(), "{scheme}");
    }
}

#[tokio::test]
async fn garbage_is_not_a_token() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    let list = signer.sign(&json!(["alg"]), &claims());
    let text = signer.sign(&json!({"alg": "EdDSA"}), &json!("claims"));
    let number = signer.sign(&json!({"alg": "EdDSA", "kid": 7}), &claims());
    for token in ["x", "a.b", "..", "....", "\u{e9}.a.b", "e30.e30", "!.!.!", &list, &text, &number] {
        assert_eq!(refused(&authenticator, token).await, Refused::NotJwt, "{token}");
    }
    assert_eq!(refused(&authenticator, &"a".repeat(TOKEN_BYTES + 1)).await, Refused::TooLong);
}

#[tokio::test]
async fn unsigned_and_hmac_tokens_are_refused() {
    let signer = Signer::rsa("r");
    let authenticator = inline(&[&signer]);

    let unsigned = format!("{}.{}.", b64(json!({"alg": "none"}).to_string()), b64(claims().to_string()));
    assert_eq!(refused(&authenticator, &unsigned).await, Refused::Algorithm);

    // The public key is known to everyone; as an HMAC secret it would let everyone sign.
    let header = json!({"alg": "HS256", "kid": "r"}).to_string();
    let message = format!("{}.{}", b64(header), b64(claims().to_string()));
    let public = signer.jwk()["n"].as_str().unwrap().to_owned();
    let tag =
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(public).unwrap()), message.as_bytes());
    assert_eq!(refused(&authenticator, &format!("{message}.{}", b64(tag))).await, Refused::Algorithm);

    for algorithm in ["", "rs256", "RS512", "ES384", "PS256", "NONE"] {
        let token = signer.sign(&json!({"alg": algorithm, "kid": "r"}), &claims());
        assert_eq!(refused(&authenticator, &token).await, Refused::Algorithm, "{algorithm}");
    }
}

#[tokio::test]
async fn a_key_is_used_only_as_its_type_says() {
    let (ec, ed) = (Signer::ec("e"), Signer::ed("d"));
    let authenticator = inline(&[&ec, &ed]);
    let token = ed.sign(&json!({"alg": "EdDSA", "kid": "e"}), &claims());
    assert_eq!(refused(&authenticator, &token).await, Refused::Algorithm);
}

#[tokio::test]
async fn critical_extensions_are_refused() {
    let signer = Signer::ed("d");
    for critical in [json!(["b64"]), json!([]), Value::Null] {
        let token = signer.sign(&json!({"alg": "EdDSA", "kid": "d", "crit": critical}), &claims());
        assert_eq!(refused(&inline(&[&signer]), &token).await, Refused::Critical);
    }
}

#[tokio::test]
async fn a_changed_token_has_a_wrong_signature() {
    let signer = Signer::ec("e");
    let authenticator = inline(&[&signer]);
    let token = signer.token(&claims());
    verify(&authenticator, &token).await.unwrap();

    let parts: Vec<_> = token.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], b64(with(json!({"sub": "root"})).to_string()), parts[2]);
    assert_eq!(refused(&authenticator, &forged).await, Refused::Signature);
    assert_eq!(refused(&authenticator, &format!("{}.{}.", parts[0], parts[1])).await, Refused::Signature);
}

#[tokio::test]
async fn an_issuer_cannot_sign_for_another() {
    let (ours, theirs) = (Signer::ed("k"), Signer::ed("k"));
    let other = "https://other.example.com";
    let authenticator =
        trusting(&[issuer(ISSUER, Keys::Inline(set(&[&ours]))), issuer(other, Keys::Inline(set(&[&theirs])))]);

    assert_eq!(refused(&authenticator, &theirs.token(&claims())).await, Refused::Signature);
    assert!(verify(&authenticator, &theirs.token(&with(json!({"iss": other})))).await.is_ok());
}

#[tokio::test]
async fn an_unknown_issuer_is_refused() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    for claims in [with(json!({"iss": format!("{ISSUER}/")})), with(json!({"iss": 7})), without("iss")] {
        assert_eq!(refused(&authenticator, &signer.token(&claims)).await, Refused::UnknownIssuer);
    }
}

#[tokio::test]
async fn the_audience_must_be_one_of_the_endpoints_urls() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    for audience in [json!("https://mcp.example.com/mcp/"), json!(["x"]), json!([]), json!({}), Value::Null] {
        let refused = refused(&authenticator, &signer.token(&with(json!({"aud": audience})))).await;
        assert_eq!(refused, Refused::Audience(URL.into()));
        assert!(refused.to_string().contains(URL));
    }
    assert_eq!(refused(&authenticator, &signer.token(&without("aud"))).await, Refused::Audience(URL.into()));
    let several = with(json!({"aud": ["x", "http://127.0.0.1:8080/servers/a/mcp"]}));
    assert!(verify(&authenticator, &signer.token(&several)).await.is_ok());
}

#[tokio::test]
async fn time_is_judged_with_leeway() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    let cases = [
        (json!({"exp": NOW - LEEWAY_SECONDS}), Some(Refused::Expired)),
        (json!({"exp": NOW - LEEWAY_SECONDS + 1}), None),
        (json!({"exp": 1.5}), Some(Refused::Expired)),
        (json!({"exp": "never"}), Some(Refused::NoExpiry)),
        (json!({"exp": 1e300}), Some(Refused::NoExpiry)),
        (json!({"nbf": NOW + LEEWAY_SECONDS + 1}), Some(Refused::NotYetValid)),
        (json!({"nbf": NOW + LEEWAY_SECONDS}), None),
        (json!({"nbf": "now"}), Some(Refused::NotYetValid)),
    ];
    for (changes, expected) in cases {
        let outcome = verify(&authenticator, &signer.token(&with(changes.clone()))).await;
        assert_eq!(outcome.err(), expected, "{changes}");
    }
    assert_eq!(refused(&authenticator, &signer.token(&without("exp"))).await, Refused::NoExpiry);
}

#[tokio::test]
async fn a_cached_token_expires() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    let header = format!("Bearer {}", signer.token(&claims()));
    let first = authenticator.verify(header.as_bytes(), now()).await.unwrap();
    let again = authenticator.verify(header.as_bytes(), now()).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "verified twice");

    let later = Timestamp::from_second(NOW + 600 + LEEWAY_SECONDS).unwrap();
    assert_eq!(authenticator.verify(header.as_bytes(), later).await.unwrap_err(), Refused::Expired);
}

#[tokio::test]
async fn bound_tokens_are_refused() {
    let signer = Signer::ed("d");
    let token = signer.token(&with(json!({"cnf": {"jkt": "x"}})));
    assert_eq!(refused(&inline(&[&signer]), &token).await, Refused::Bound);
}

#[tokio::test]
async fn only_a_verified_email_is_a_subject() {
    let signer = Signer::ed("d");
    let mut settings = issuer(ISSUER, Keys::Inline(set(&[&signer])));
    settings.subject_claim = "email".to_owned();
    let authenticator = trusting(&[settings]);

    for verified in [json!(false), json!("true"), Value::Null] {
        let token = signer.token(&with(json!({"email": "ada@example.com", "email_verified": verified})));
        assert_eq!(refused(&authenticator, &token).await, Refused::EmailNotVerified);
    }
    assert_eq!(refused(&authenticator, &signer.token(&claims())).await, Refused::NoSubject("email".into()));
    let token = signer.token(&with(json!({"email": "ada@example.com", "email_verified": true})));
    assert_eq!(verify(&authenticator, &token).await.unwrap().identity.subject, "ada@example.com");
}

#[tokio::test]
async fn a_subject_is_a_string_that_says_something() {
    let signer = Signer::ed("d");
    for subject in [json!(""), json!(7), json!(["ada"]), Value::Null] {
        let token = signer.token(&with(json!({"sub": subject})));
        assert_eq!(refused(&inline(&[&signer]), &token).await, Refused::NoSubject("sub".into()));
    }
}

#[tokio::test]
async fn groups_and_scopes_come_as_lists_or_strings() {
    let signer = Signer::ed("d");
    let authenticator = inline(&[&signer]);
    let token = with(json!({"groups": "one", "scope": null, "scp": ["x", 7, "y"]}));
    let verified = verify(&authenticator, &signer.token(&token)).await.unwrap();
    assert_eq!(verified.identity.groups, ["one"]);
    assert!(verified.identity.scopes.is_empty(), "a scope that is no string is not replaced by another claim");

    let mut list = without("scope");
    list["scp"] = json!(["x", 7, "y"]);
    assert_eq!(verify(&authenticator, &signer.token(&list)).await.unwrap().identity.scopes, ["x", "y"]);
}

#[tokio::test]
async fn subjects_of_two_issuers_never_share_a_key() {
    let signer = Signer::ed("d");
    let mut one = issuer(ISSUER, Keys::Inline(set(&[&signer])));
    let mut two = issuer("https://two.example.com", Keys::Inline(set(&[&signer])));
    (one.name, two.name) = ("a".to_owned(), "ab".to_owned());
    let authenticator = trusting(&[one, two]);

    let first = verify(&authenticator, &signer.token(&with(json!({"sub": "bc"})))).await.unwrap();
    let claims = with(json!({"iss": "https://two.example.com", "sub": "c"}));
    let second = verify(&authenticator, &signer.token(&claims)).await.unwrap();
    assert_ne!(first.key, second.key);
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let signer = Signer::ed("k");
    let authenticator = inline(&[&signer]);
    let verified = verify(&authenticator, &signer.token(&claims())).await.unwrap();
    let trusted = &authenticator.issuers[0];
    let token = signer.token(&claims());
    let key = trusted.verify_signature(&Token::parse(token.as_bytes()).unwrap()).await.unwrap();
    for n in 0..30_000_u32 {
        let digest = Cache::digest(&n.to_be_bytes());
        let entry = Entry { verified: Arc::clone(&verified), key: Arc::clone(&key), issuer: 0, bytes: 100 };
        authenticator.cache.put(digest, entry, now());
        assert!(authenticator.cache.get(&digest, now()).is_some(), "the newest is always there");
    }
    let len = authenticator.cache.len();
    assert!((4_000..=10_000).contains(&len), "{len}");
}

#[tokio::test]
async fn expired_tokens_leave_the_cache_without_anybody_asking_for_them() {
    let signer = Signer::ed("k");
    let authenticator = inline(&[&signer]);
    let verified = verify(&authenticator, &signer.token(&claims())).await.unwrap();
    let at = |seconds: i64| jiff::Timestamp::from_second(verified.expires + LEEWAY_SECONDS + seconds).unwrap();

    authenticator.drop_expired(at(-1));
    assert_eq!(authenticator.cache.len(), 1);
    authenticator.drop_expired(at(0));

    assert_eq!(
        (authenticator.cache.len(), verified.has_expired(at(-1)), verified.has_expired(at(0))),
        (0, false, true)
    );
}

#[tokio::test]
async fn long_tokens_are_kept_within_a_bound_in_bytes() {
    let signer = Signer::ed("k");
    let authenticator = inline(&[&signer]);
    let verified = verify(&authenticator, &signer.token(&claims())).await.unwrap();
    let token = signer.token(&claims());
    let key = authenticator.issuers[0].verify_signature(&Token::parse(token.as_bytes()).unwrap()).await.unwrap();
    let cache = Cache::bounded(1_000, 10 * TOKEN_BYTES);
    for n in 0..1_000_u32 {
        let digest = Cache::digest(&n.to_be_bytes());
        let entry = Entry { verified: Arc::clone(&verified), key: Arc::clone(&key), issuer: 0, bytes: TOKEN_BYTES };
        cache.put(digest, entry, now());
        assert!(cache.get(&digest, now()).is_some(), "the newest is always there");
    }

    assert!((16..=160).contains(&cache.len()), "{}", cache.len());
    assert_eq!(cache.bytes(), cache.len() * TOKEN_BYTES);
}

#[test]
fn an_authenticator_is_kept_while_issuers_and_urls_stay() {
    let issuers = [issuer(ISSUER, Keys::Discovery)];
    let urls = [URL.to_owned()];
    let authenticator = Authenticator::new(&issuers, &urls, Fetcher::new(false));
    assert!(authenticator.serves(&issuers, &urls));
    assert!(!authenticator.serves(&issuers, &[]));
    assert!(!authenticator.serves(&[], &urls));
    assert!(!authenticator.serves(&[issuer(ISSUER, Keys::Url("https://x".to_owned()))], &urls));
}

#[test]
fn no_refusal_breaks_a_challenge() {
    let audience = Refused::Audience("https://x/\"".into()).to_string();
    let header = challenge("https://m", Some(("invalid_token", &audience)), None);
    assert!(header.to_str().unwrap().ends_with("its aud must hold https://x/'\""));
}

proptest::proptest! {
    /// Whatever comes in the header, and whatever an issuer would sign.
    #[test]
    fn nothing_makes_verification_panic(header in ".{0,80}", claims in ".{0,80}", raw: Vec<u8>) {
        let signer = Signer::ed("k");
        let authenticator = inline(&[&signer]);
        let message = format!("{}.{}", b64(&header), b64(&claims));
        let Pair::Ed(pair) = &signer.pair else { unreachable!() };
        let token = format!("{message}.{}", b64(pair.sign(message.as_bytes())));
        let odd_claims = signer.token(&json!({"iss": ISSUER, "aud": claims, "exp": header.len()}));
        let attempts = [raw, [b"Bearer ", token.as_bytes()].concat(), [b"Bearer ", odd_claims.as_bytes()].concat()];
        for attempt in attempts {
            let outcome = futures::executor::block_on(authenticator.verify(&attempt, now()));
            proptest::prop_assert!(outcome.is_err());
        }
    }
}
