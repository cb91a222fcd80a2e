//! Second layer: who calls. A token that is present but not accepted is 401, never anonymous.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{StatusCode, header};
use jiff::Timestamp;

use crate::gateway::audit::Outcome;
use crate::gateway::auth::metadata::{self, origin, parsed};
use crate::gateway::endpoint::{Caller, Force};
use crate::gateway::protocol::error::{Reject, UNAUTHENTICATED};
use crate::telemetry::metrics::Metrics;

/// The caller of a request.
pub(in crate::gateway) async fn caller(metrics: &Metrics, force: &Force, head: &Parts) -> Result<Caller, Reject> {
    let mut tokens = head.headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (tokens.next(), tokens.next());
    let Some(token) = first else {
        return match &force.anonymous {
            Some(view) => Ok(Caller { verified: None, view: view.clone() }),
            None => Err(challenge(force, head, None)),
        };
    };
    if second.is_some() {
        return Err(challenge(force, head, Some("the Authorization header is repeated".to_owned())));
    }
    match force.authenticator.verify(token.as_bytes(), Timestamp::now()).await {
        Ok(verified) => Ok(Caller { view: force.view(&verified), verified: Some(verified) }),
        Err(refused) => {
            metrics.auth_refused(refused.label());
            Err(challenge(force, head, Some(refused.to_string())))
        }
    }
}

fn challenge(force: &Force, head: &Parts, refused: Option<String>) -> Reject {
    let error = refused.as_deref().map(|description| ("invalid_token", description));
    let scopes = (!force.scopes.is_empty()).then(|| force.scopes.join(" "));
    let value = metadata::challenge(&metadata_url(force, head), error, scopes.as_deref());
    let message = refused.unwrap_or_else(|| "a bearer token is required".to_owned());
    Reject::new(StatusCode::UNAUTHORIZED, UNAUTHENTICATED, Outcome::Invalid, message)
        .with_header(header::WWW_AUTHENTICATE, value)
}

/// 401 in place of a refusal for a caller without a token who could log in: the answer is the same whether or not the
/// thing exists, and lets a client begin a login. `None` where nobody can log in, and for callers with a token.
pub(in crate::gateway) fn login(force: &Force, caller: &Caller, head: &Parts) -> Option<Reject> {
    (force.has_login && caller.verified.is_none())
        .then(|| Reject { outcome: Outcome::Denied, ..challenge(force, head, None) })
}

/// 403 for a caller whose token lacks scopes that a rule wants.
pub(in crate::gateway) fn insufficient_scope(force: &Force, head: &Parts, scopes: &[String]) -> Reject {
    let scope = scopes.join(" ");
    let error = Some(("insufficient_scope", "the token lacks a scope that this needs"));
    let value = metadata::challenge(&metadata_url(force, head), error, Some(&scope));
    Reject::new(
        StatusCode::FORBIDDEN,
        crate::gateway::protocol::error::DENIED,
        Outcome::Denied,
        format!("the token lacks the scope: {scope}"),
    )
    .with("scope", scope)
    .with_header(header::WWW_AUTHENTICATE, value)
}

/// The endpoint's URL as the client knows it: of its URLs the one with the `Host` that was asked, else the first.
fn resource<'a>(force: &'a Force, head: &Parts) -> &'a str {
    let urls = &force.policy.snapshot().urls;
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_asked = |url: &&String| host.is_some() && parsed(url).authority().map(Authority::as_str) == host;
    urls.iter().find(is_asked).or_else(|| urls.first()).map_or("", String::as_str)
}

/// Where the metadata of an endpoint lies: the well-known path comes before the endpoint's own (RFC 9728 section 3.1).
fn metadata_url(force: &Force, head: &Parts) -> String {
    let resource = parsed(resource(force, head));
    let (scheme, authority) = origin(&resource);
    let path = resource.path_and_query().map_or("", PathAndQuery::as_str);
    let path = if path == "/" { "" } else { path };
    format!("{scheme}://{authority}/.well-known/oauth-protected-resource{path}")
}

/// The protected resource metadata of an endpoint (RFC 9728). Issuers without a login are not in it.
pub(in crate::gateway) fn document(force: &Force, head: &Parts) -> String {
    let snapshot = force.policy.snapshot();
    let servers = metadata::authorization_servers(&snapshot.issuers, &snapshot.urls);
    metadata::metadata(resource(force, head), servers, &force.scopes)
}
