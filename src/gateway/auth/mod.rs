//! Who calls: bearer tokens to identities, and the challenges for those who bring none.
//!
//! Owns JWT verification, issuers' keys and the cache of verified tokens. Decides nothing about tools.

use std::sync::Arc;

use crate::policy::Identity;
use crate::policy::snapshot::Issuer;

use super::fetch::Fetcher;

/// A caller whose token was verified.
#[derive(Debug)]
pub struct Verified {
    /// Who it is.
    pub identity: Identity,
    /// One string for (issuer, subject): keys sessions, children and limits. Never shown.
    pub key: Arc<str>,
    /// Expiry of the token, Unix seconds.
    pub expires: i64,
}

/// Why a token is not accepted. The response is 401; the text goes to `error_description` and names no secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The `Authorization` header is not `Bearer` with one token.
    #[error("the Authorization header must be: Bearer TOKEN")]
    Malformed,
}

/// Verifies tokens for one endpoint.
pub struct Authenticator {}

impl Authenticator {
    /// `audiences` are the endpoint's own URLs; a token must name one of them.
    pub fn new(issuers: &[Issuer], audiences: &[String], fetcher: Fetcher) -> Self {
        let _ = (issuers, audiences, fetcher);
        Self {}
    }

    /// Verifies the bearer token of an `Authorization` header's value.
    pub async fn verify(&self, authorization: &[u8], now: jiff::Timestamp) -> Result<Arc<Verified>, Refused> {
        let _ = (authorization, now);
        Err(Refused::Malformed)
    }
}
