//! Who calls: bearer tokens to identities, and the challenges for those who bring none.
//!
//! Owns JWT verification (RFC 7519, RFC 8725), issuers' keys and the cache of verified tokens. Decides nothing about
//! tools. One [`Authenticator`] serves one endpoint; make a new one when its issuers or URLs change (see
//! [`Authenticator::serves`]), which drops everything that was verified before.
//!
//! ```text
//! Authorization -> [cache: SHA-256 -> Verified] -> token (parse, claims) -> issuer by `iss` -> key by `kid`
//! ```

mod cache;
mod issuer;
mod keys;
pub mod metadata;
mod refused;
mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::Identity;
use crate::policy::snapshot::Issuer;

use super::fetch::Fetcher;
use cache::{Cache, Entry};
use issuer::TrustedIssuer;
use token::Token;

pub use metadata::{authorization_servers, challenge, metadata};
pub use refused::Refused;

/// Difference between our clock and an issuer's that is tolerated for `exp` and `nbf`, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;
/// Longest token, in bytes.
pub const TOKEN_BYTES: usize = 8 << 10;

/// A caller whose token was verified.
#[derive(Debug)]
pub struct Verified {
    /// Who it is.
    pub identity: Identity,
    /// One string for (issuer, subject): keys sessions, children and limits. Never shown.
    pub key: Arc<str>,
    /// Expiry of the token, Unix seconds.
    pub expires: i64,
    /// Who signed the token, as it was configured then.
    pub issuer: Arc<Issuer>,
}

impl Verified {
    /// Whether the token counts no longer.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        cache::expired(self.expires, now.as_second())
    }
}

/// Verifies tokens for one endpoint.
pub struct Authenticator {
    issuers: Vec<TrustedIssuer>,
    audiences: Vec<String>,
    cache: Cache,
}

impl Authenticator {
    /// `audiences` are the endpoint's own URLs, the canonical one first; a token must name one of them. Of several
    /// issuers with one URL the first counts.
    #[allow(clippy::needless_pass_by_value)] // Every issuer keeps a copy.
    pub fn new(issuers: &[Issuer], audiences: &[String], fetcher: Fetcher) -> Self {
        let issuers = issuers.iter().map(|issuer| TrustedIssuer::new(issuer.clone(), fetcher.clone())).collect();
        Self { issuers, audiences: audiences.to_vec(), cache: Cache::new() }
    }

    /// Whether this one was made for exactly these issuers and URLs, so that a new policy can keep it with its keys
    /// and verified tokens.
    pub fn serves(&self, issuers: &[Issuer], audiences: &[String]) -> bool {
        self.audiences == audiences && self.issuers.iter().map(|trusted| &*trusted.settings).eq(issuers)
    }

    /// Whether a token that another authenticator verified would surely be accepted here too: its issuer is configured
    /// as it was. Which audience it named is not kept, so other URLs may mean that it is not.
    pub fn trusts(&self, verified: &Verified, by: &Self) -> bool {
        self.audiences == by.audiences && self.issuers.iter().any(|trusted| trusted.settings == verified.issuer)
    }

    /// Forgets tokens that count no longer.
    pub fn drop_expired(&self, now: Timestamp) {
        self.cache.drop_expired(now);
    }

    /// Verifies the bearer token of an `Authorization` header's value.
    pub async fn verify(&self, authorization: &[u8], now: Timestamp) -> Result<Arc<Verified>, Refused> {
        let token = bearer(authorization)?;
        let digest = Cache::digest(token);
        if let Some((verified, issuer)) = self.cache.get(&digest, now) {
            if let Some(issuer) = self.issuers.get(issuer) {
                issuer.refresh_if_old();
            }
            return Ok(verified);
        }
        // Boxed, so that the many calls with a known token do not carry the state of this one.
        Box::pin(self.verify_new(token, digest, now)).await
    }

    async fn verify_new(&self, token: &[u8], digest: cache::Digest, now: Timestamp) -> Result<Arc<Verified>, Refused> {
        let bytes = token.len();
        let token = Token::parse(token)?;
        let (index, issuer) = self
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| issuer.settings.url == token.issuer)
            .ok_or(Refused::UnknownIssuer)?;
        let key = issuer.verify_signature(&token).await?;
        // Only claims that the issuer signed are looked at from here on.
        token.check_claims(&self.audiences, now)?;
        let verified = Arc::new(token.into_verified(&issuer.settings)?);
        let entry = Entry { verified: Arc::clone(&verified), key, issuer: index, bytes };
        self.cache.put(digest, entry, now);
        Ok(verified)
    }
}

/// The token of `Bearer TOKEN`; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(authorization: &[u8]) -> Result<&[u8], Refused> {
    let (scheme, token) = authorization.split_at_checked(7).ok_or(Refused::Malformed)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refused::Malformed);
    }
    let token = token.trim_ascii();
    if token.len() > TOKEN_BYTES {
        return Err(Refused::TooLong);
    }
    if token.is_empty() || token.contains(&b' ') {
        return Err(Refused::Malformed);
    }
    Ok(token)
}
