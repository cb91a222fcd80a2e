//! A real OAuth client, from 401 through metadata to a call, against an authorization server of the test.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::extract::{Form, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Folder, Hostile, Toolgate, tools};

type Fields = HashMap<String, String>;

/// An authorization server that approves everyone as ada (RFC 8414, RFC 7591, RFC 7636, RFC 8707).
#[derive(Clone)]
struct Issuer {
    url: String,
    key: Arc<EncodingKey>,
    public: String,
    /// Authorization requests by code; a code is good for one exchange.
    codes: Arc<Mutex<HashMap<String, Fields>>>,
    /// Which endpoints were asked, in order.
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pair = Ed25519KeyPair::generate().unwrap();
        let issuer = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            key: Arc::new(EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref())),
            public: B64.encode(pair.public_key().as_ref()),
            codes: Arc::default(),
            asked: Arc::default(),
        };
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/register", post(register))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn saw(&self, what: &'static str) {
        self.asked.lock().push(what);
    }

    /// An access token for a resource.
    fn mint(&self, audience: &str, expires_in: i64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": self.url, "sub": "ada@example.com", "aud": audience, "groups": ["engineering"],
            "iat": now, "exp": now + expires_in,
        });
        let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

async fn metadata(State(issuer): State<Issuer>) -> Json<Value> {
    issuer.saw("metadata");
    let at = |path: &str| format!("{}{path}", issuer.url);
    Json(json!({
        "issuer": issuer.url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "registration_endpoint": at("/register"), "jwks_uri": at("/keys"),
        "response_types_supported": ["code"], "grant_types_supported": ["authorization_code"],
        "code_challenge_methods_supported": ["S256"], "token_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true,
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["EdDSA"],
    }))
}

async fn keys(State(issuer): State<Issuer>) -> Json<Value> {
    Json(
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "one", "x": issuer.public}]}),
    )
}

async fn register(State(issuer): State<Issuer>, Json(mut client): Json<Value>) -> Response {
    issuer.saw("register");
    client["client_id"] = json!("client-1");
    client["token_endpoint_auth_method"] = json!("none");
    (StatusCode::CREATED, Json(client)).into_response()
}

async fn authorize(State(issuer): State<Issuer>, Query(fields): Query<Fields>) -> Response {
    issuer.saw("authorize");
    if fields.get("code_challenge_method").map(String::as_str) != Some("S256") || !fields.contains_key("resource") {
        return (StatusCode::BAD_REQUEST, "PKCE with S256 and a resource are required").into_response();
    }
    let mut codes = issuer.codes.lock();
    let code = format!("code-{}", codes.len());
    let mut back = url_with(&fields["redirect_uri"], &[("code", &code), ("iss", &issuer.url)]);
    if let Some(state) = fields.get("state") {
        back = url_with(&back, &[("state", state)]);
    }
    codes.insert(code, fields);
    (StatusCode::FOUND, [(header::LOCATION, back)]).into_response()
}

fn url_with(url: &str, pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02X}"));
    pairs.iter().fold(url.to_owned(), |url, (key, value)| {
        format!("{url}{}{key}={}", if url.contains('?') { '&' } else { '?' }, escape(value))
    })
}

async fn token(State(issuer): State<Issuer>, Form(fields): Form<Fields>) -> Response {
    issuer.saw("token");
    let asked = fields.get("code").and_then(|code| issuer.codes.lock().remove(code));
    let verifier = fields.get("code_verifier").cloned().unwrap_or_default();
    let challenge = B64.encode(Sha256::digest(verifier));
    match asked {
        Some(asked) if asked["code_challenge"] == challenge && asked.get("resource") == fields.get("resource") => {
            let token = issuer.mint(&fields["resource"], 3600);
            Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600})).into_response()
        }
        _ => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response(),
    }
}

async fn start() -> (Issuer, Hostile, Toolgate) {
    let (issuer, hostile) = (Issuer::start().await, Hostile::start(&[]));
    let folder = Folder::new()
        .gateway(&json!({
            "url": "https://mcp.example.com/mcp",
            "issuers": [{"name": "corp", "oidc": {"url": issuer.url}}],
        }))
        .remote("h", &hostile.server.url)
        .all_for_ada();
    let toolgate = Toolgate::start(folder).await;
    (issuer, hostile, toolgate)
}

#[tokio::test]
async fn a_client_logs_in_from_401_through_metadata_to_a_call() {
    let (issuer, _hostile, toolgate) = start().await;
    let mut command = tools::python("login_and_call.py");
    command.args([&toolgate.url("h"), "ok", r#"{"logged":"in"}"#]);

    let printed: Value = serde_json::from_str(&tools::output(&mut command).await).unwrap();

    assert_eq!(printed["text"], r#"ok {"logged":"in"}"#);
    let asked = issuer.asked.lock().clone();
    assert!(["metadata", "register", "authorize", "token"].iter().all(|it| asked.contains(it)), "{asked:?}");
    toolgate.audited("the call is recorded", |it| it["subject"] == "ada@example.com" && it["target"] == "ok").await;
}

#[tokio::test]
async fn a_token_of_the_issuer_counts_only_for_its_audience_and_until_it_expires() {
    let (issuer, hostile, toolgate) = start().await;
    let url = toolgate.url("h");
    let client = |token: String| crate::support::Client::modern(&url, Some(&token));

    assert_eq!(client(issuer.mint(&url, 60)).call("ok", json!({})).await.text(), "ok {}");
    let other = client(issuer.mint("https://elsewhere.example/mcp", 60));
    other.call("ok", json!({"wrong": 1})).await.refused(401, -31007, "");
    client(issuer.mint(&url, -3600)).call("ok", json!({"wrong": 1})).await.refused(401, -31007, "");
    assert!(!hostile.arrivals.contain("wrong"));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_ends_when_its_token_expires() {
    let (issuer, _hostile, toolgate) = start().await;
    let url = toolgate.url("h");
    let client = crate::support::Client::modern(&url, Some(&issuer.mint(&url, 4)));
    let flood = json!({"name": "drip", "arguments": {"ms": 0, "count": 1_000_000}, "_meta": {"progressToken": 1}});

    let unread = client.open("tools/call", flood).await;

    // Long before the deadline for a write that makes no progress.
    let record = toolgate.audited("the end is recorded", |it| it["target"] == "drip" && it["outcome"].is_string());
    let record = tokio::time::timeout(std::time::Duration::from_secs(20), record).await.unwrap();
    assert_eq!(record["outcome"], "invalid", "{record}");
    assert_eq!(unread.status, 200);
}
