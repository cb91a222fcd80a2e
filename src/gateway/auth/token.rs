//! One JSON Web Token: its parts, its claims, and what they must say.
//!
//! Nothing here is trusted before [`super::issuer::TrustedIssuer::verify_signature`] has accepted the token.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::policy::Identity;
use crate::policy::snapshot::Issuer;

use super::cache::expired;
use super::keys::Algorithm;
use super::{LEEWAY_SECONDS, Refused, Verified};

/// A parsed token.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) issuer: String,
    claims: Map<String, Value>,
    /// Header and payload as they were signed.
    pub(super) message: &'a [u8],
    pub(super) signature: &'a str,
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, Refused> {
        let token = std::str::from_utf8(token).map_err(|_| Refused::NotJwt)?;
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::NotJwt)?;
        let (header, payload) = message.split_once('.').ok_or(Refused::NotJwt)?;
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(Refused::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
        let algorithm = algorithm.ok_or(Refused::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(key_id)) => Some(key_id.clone()),
            Some(_) => return Err(Refused::NotJwt),
        };
        let claims = object(payload)?;
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Refused::UnknownIssuer)?.to_owned();
        Ok(Self { algorithm, key_id, issuer, claims, message: message.as_bytes(), signature })
    }

    /// Time, audience and binding.
    pub(super) fn check_claims(&self, audiences: &[String], now: Timestamp) -> Result<(), Refused> {
        let now = now.as_second();
        if self.claims.contains_key("cnf") {
            return Err(Refused::Bound);
        }
        if expired(self.expires()?, now) {
            return Err(Refused::Expired);
        }
        if let Some(not_before) = self.claims.get("nbf") {
            let not_before = seconds(not_before).ok_or(Refused::NotYetValid)?;
            if now.saturating_add(LEEWAY_SECONDS) < not_before {
                return Err(Refused::NotYetValid);
            }
        }
        let ours = |audience: &str| audiences.iter().any(|url| url == audience);
        let accepted = match self.claims.get("aud") {
            Some(Value::String(audience)) => ours(audience),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(ours),
            _ => false, // A token for anyone is a token for someone else (RFC 8725 §3.9).
        };
        if accepted {
            return Ok(());
        }
        Err(Refused::Audience(audiences.first().map_or("", String::as_str).into()))
    }

    fn expires(&self) -> Result<i64, Refused> {
        self.claims.get("exp").and_then(seconds).ok_or(Refused::NoExpiry)
    }

    /// The identity, read as the issuer's settings say.
    pub(super) fn into_verified(self, issuer: &Arc<Issuer>) -> Result<Verified, Refused> {
        let expires = self.expires()?;
        let subject = self
            .claims
            .get(&issuer.subject_claim)
            .and_then(Value::as_str)
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| Refused::NoSubject(issuer.subject_claim.as_str().into()))?;
        if issuer.subject_claim == "email" && self.claims.get("email_verified") != Some(&Value::Bool(true)) {
            return Err(Refused::EmailNotVerified); // Whoever may type any address must not become its owner.
        }
        let groups = self.claims.get(&issuer.groups_claim).map(strings).unwrap_or_default();
        let scopes = match (self.claims.get("scope"), self.claims.get("scp")) {
            (Some(Value::String(scope)), _) | (None, Some(Value::String(scope))) => {
                scope.split_ascii_whitespace().map(str::to_owned).collect()
            }
            (None, Some(scopes)) => strings(scopes),
            _ => Vec::new(),
        };
        // The length keeps ("a", "bc") and ("ab", "c") apart.
        let key: Arc<str> = format!("{}:{}{subject}", issuer.name.len(), issuer.name).into();
        let subject = subject.to_owned();
        let identity = Identity { issuer: issuer.name.clone(), subject, groups, scopes, claims: self.claims };
        Ok(Verified { identity, key, expires, issuer: Arc::clone(issuer) })
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::NotJwt)?;
    serde_json::from_slice(&bytes).map_err(|_| Refused::NotJwt)
}

/// A `NumericDate` (RFC 7519 §2), which may have a fraction, in whole seconds.
fn seconds(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    number.as_i64().or_else(|| {
        let seconds = number.as_f64()?;
        #[allow(clippy::cast_possible_truncation)] // Within the bounds checked before it.
        (seconds.abs() < 1e15).then(|| seconds.floor() as i64)
    })
}

/// A list of strings, or one string; anything else in it is left out.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
