//! A handful of tokens through HTTP; all kinds are tested beside the verifier.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use crate::support::{Client, Hostile, Toolgate};

fn parts(token: &str) -> [Value; 2] {
    let mut parts =
        token.split('.').map(|part| serde_json::from_slice(&B64.decode(part).unwrap_or_default()).unwrap_or_default());
    [parts.next().unwrap_or_default(), parts.next().unwrap_or_default()]
}

fn encode(header: &Value, claims: &Value, signature: &str) -> String {
    format!("{}.{}.{signature}", B64.encode(header.to_string()), B64.encode(claims.to_string()))
}

async fn start() -> (Hostile, Toolgate) {
    let hostile = Hostile::start(&[]);
    let toolgate = hostile.behind_gateway().await;
    (hostile, toolgate)
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_401_and_never_anonymous() {
    let (hostile, toolgate) = start().await;
    let good = toolgate.token("ada");
    let [header, claims] = parts(&good);
    let signature = good.rsplit('.').next().unwrap();
    let with = |key: &str, value: Value| {
        let mut claims = claims.clone();
        claims[key] = value;
        encode(&header, &claims, signature)
    };
    let cases = [
        ("alg none", encode(&json!({"alg": "none"}), &claims, "")),
        ("HS256", encode(&json!({"alg": "HS256", "kid": header["kid"]}), &claims, signature)),
        ("another subject", with("sub", json!("root"))),
        ("another audience", with("aud", json!("https://elsewhere.example/mcp"))),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("later expiry", with("exp", json!(9_999_999_999_u64))),
        ("unknown key", encode(&json!({"alg": header["alg"], "kid": "absent"}), &claims, signature)),
        ("no token at all", "garbage".to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in cases {
        let answer = Client::modern(&toolgate.url("h"), Some(&token)).call("ok", json!({"forged": what})).await;
        answer.refused(401, -31007, "");
        let challenge = answer.header("www-authenticate").to_owned();
        assert!(
            challenge.contains("error=\"invalid_token\"") && challenge.contains("resource_metadata="),
            "{what}: {challenge}"
        );
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
    assert!(!hostile.arrivals.contain("forged"));
}

#[tokio::test]
async fn the_callers_token_never_reaches_the_server() {
    let (hostile, toolgate) = start().await;
    toolgate.modern("h", "ada").call("ok", json!({})).await.text();
    toolgate.legacy("h", "ada").await.call("ok", json!({})).await.text();
    let token = toolgate.token("ada");
    let arrivals = hostile.arrivals.all();
    assert!(!arrivals.is_empty());
    for arrival in arrivals {
        assert!(arrival["headers"].get("authorization").is_none(), "{arrival}");
        assert!(!arrival.to_string().contains(&token));
    }
}

#[tokio::test]
async fn a_token_in_the_query_counts_for_nothing() {
    let (_hostile, toolgate) = start().await;
    let url = format!("{}?access_token={}", toolgate.url("h"), toolgate.token("ada"));
    Client::modern(&url, None).call("ok", json!({})).await.refused(401, -31007, "bearer token");
}

#[tokio::test]
async fn a_token_for_another_server_of_the_same_gateway_is_accepted_only_where_its_audience_says_so() {
    let (_hostile, toolgate) = start().await;
    let [_, claims] = parts(&toolgate.token("ada"));
    assert_eq!(claims["aud"], json!([toolgate.url("h")]), "the printed token names the endpoints that it is for");
}
