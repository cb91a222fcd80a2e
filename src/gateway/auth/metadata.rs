//! What a caller without a valid token is told: protected resource metadata (RFC 9728) and challenges (RFC 6750).

use std::fmt::Write as _;

use http::uri::Authority;
use http::{HeaderValue, Uri};
use serde::Serialize;

use crate::policy::snapshot::Issuer;

#[derive(Serialize)]
struct Metadata<'a> {
    resource: &'a str,
    authorization_servers: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes_supported: &'a [String],
    bearer_methods_supported: [&'static str; 1],
}

/// Where callers of an endpoint can log in: issuers whose URL is http or https, in their order, each once. Not among
/// them are those that serve no login: a cluster's ServiceAccounts, and the laptop's own issuer, which lies at one of
/// the endpoint's own URLs.
pub fn authorization_servers<'a>(issuers: &'a [Issuer], own: &[String]) -> Vec<&'a str> {
    let own: Vec<Uri> = own.iter().map(|url| parsed(url)).collect();
    let mut servers: Vec<&str> = Vec::new();
    for issuer in issuers.iter().filter(|issuer| !issuer.service_accounts) {
        let url = parsed(&issuer.url);
        let is_web = matches!(url.scheme_str(), Some("http" | "https"));
        let is_own = own.iter().any(|own| origin(own) == origin(&url));
        if is_web && !is_own && !servers.contains(&issuer.url.as_str()) {
            servers.push(&issuer.url);
        }
    }
    servers
}

/// A URL in its parts; what is no URL has none.
pub fn parsed(url: &str) -> Uri {
    url.parse().unwrap_or_default()
}

/// Scheme and authority.
pub fn origin(url: &Uri) -> (&str, &str) {
    (url.scheme_str().unwrap_or_default(), url.authority().map_or("", Authority::as_str))
}

/// Protected resource metadata (RFC 9728 §2) of an endpoint, as JSON text. `resource` is the URL by which it was asked.
pub fn metadata(resource: &str, authorization_servers: Vec<&str>, scopes: &[String]) -> String {
    let metadata =
        Metadata { resource, authorization_servers, scopes_supported: scopes, bearer_methods_supported: ["header"] };
    serde_json::to_string(&metadata).unwrap_or_default() // Strings and lists of strings always serialize.
}

/// A `WWW-Authenticate` challenge (RFC 6750 §3, RFC 9728 §5.1). `error` is its code and description; `scope` names
/// what a wider token would need, separated by spaces.
pub fn challenge(metadata_url: &str, error: Option<(&str, &str)>, scope: Option<&str>) -> HeaderValue {
    let mut text = "Bearer".to_owned();
    let mut separator = " ";
    let mut parameter = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{name}=\"{}\"", quotable(value));
        separator = ", ";
    };
    parameter("resource_metadata", metadata_url);
    if let Some((code, description)) = error {
        parameter("error", code);
        parameter("error_description", description);
    }
    if let Some(scope) = scope {
        parameter("scope", scope);
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}

/// Only what RFC 6750 §3 permits inside the quotes: printable ASCII without `"` and `\`.
fn quotable(value: &str) -> String {
    value
        .chars()
        .map(|character| match character {
            '"' | '\\' => '\'',
            ' '..='~' => character,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::snapshot::Keys;

    fn issuer(url: &str) -> Issuer {
        Issuer {
            name: "corp".to_owned(),
            url: url.to_owned(),
            subject_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            service_accounts: false,
            keys: Keys::Discovery,
        }
    }

    #[test]
    fn metadata_names_resource_issuers_and_scopes() {
        let issuers = ["https://a.example", "local", "https://a.example", "http://127.0.0.1:9"].map(issuer);
        let servers = authorization_servers(&issuers, &["https://mcp.example.com/mcp".to_owned()]);

        let text = metadata("https://mcp.example.com/mcp", servers, &["mcp:deploy".to_owned()]);

        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "resource": "https://mcp.example.com/mcp",
                "authorization_servers": ["https://a.example", "http://127.0.0.1:9"],
                "scopes_supported": ["mcp:deploy"],
                "bearer_methods_supported": ["header"],
            })
        );
        assert!(!metadata("https://mcp.example.com/mcp", Vec::new(), &[]).contains("scopes_supported"));
    }

    #[test]
    fn nobody_is_sent_to_an_issuer_that_serves_no_login() {
        let accounts = Issuer { service_accounts: true, ..issuer("https://kubernetes.default.svc") };
        let own = issuer("http://127.0.0.1:8811/local-issuer/corp");
        let urls = ["http://localhost:8811/servers/a/mcp", "http://127.0.0.1:8811/servers/a/mcp"].map(str::to_owned);

        assert_eq!(authorization_servers(&[accounts, own], &urls), [""; 0]);
    }

    #[test]
    fn challenge_without_a_token_names_only_the_metadata() {
        let header = challenge("https://mcp.example.com/.well-known/oauth-protected-resource/mcp", None, None);
        assert_eq!(
            header,
            "Bearer resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\""
        );
    }

    #[test]
    fn challenge_names_error_and_scope() {
        let header = challenge("https://m", Some(("insufficient_scope", "needs more")), Some("mcp:read mcp:deploy"));
        assert_eq!(
            header,
            "Bearer resource_metadata=\"https://m\", error=\"insufficient_scope\", error_description=\"needs more\", \
             scope=\"mcp:read mcp:deploy\""
        );
    }

    #[test]
    fn nothing_breaks_out_of_the_quotes() {
        let header = challenge("https://m\", error=\"x", Some(("invalid_token", "a\r\nSet-Cookie: \\\"é\u{0}")), None);
        assert_eq!(
            header,
            "Bearer resource_metadata=\"https://m', error='x\", error=\"invalid_token\", \
             error_description=\"a??Set-Cookie: ''??\""
        );
    }
}
