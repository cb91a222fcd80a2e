//! Every reason why a token is not accepted, in words for the caller and as a label for metrics.

use std::sync::Arc;

/// Why a token is not accepted. The response is 401; the text goes to `error_description` and names no secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The `Authorization` header is not `Bearer` with one token.
    #[error("the Authorization header must be: Bearer TOKEN")]
    Malformed,
    /// The token is longer than [`super::TOKEN_BYTES`].
    #[error("the token is longer than 8192 bytes")]
    TooLong,
    /// Not a signed JWT in compact form, or its parts are not JSON objects.
    #[error("the token is not a signed JSON Web Token")]
    NotJwt,
    /// `alg` is not one of the accepted ones, or does not fit the key: `none` and HMAC are never accepted.
    #[error("the token's algorithm is not accepted: use RS256, ES256 or EdDSA")]
    Algorithm,
    /// The header has `crit`: extensions that must be understood, and none is.
    #[error("the token has critical extensions (crit), which are not supported")]
    Critical,
    /// `iss` is missing or names nobody that is trusted.
    #[error("the token's issuer is not trusted by this endpoint")]
    UnknownIssuer,
    /// The issuer has no key with this `kid`, or none that fits `alg`.
    #[error("the token was signed with a key that its issuer does not publish")]
    UnknownKey,
    /// No `kid`, and several keys of the issuer could have signed.
    #[error("the token does not say which key signed it (kid), and its issuer has several")]
    AmbiguousKey,
    /// The issuer's keys could not be fetched, so nothing can be said about the token.
    #[error("the keys of the token's issuer cannot be fetched at the moment")]
    KeysUnavailable,
    /// The signature does not belong to this token and key.
    #[error("the token's signature is not valid")]
    Signature,
    /// `exp` is missing or not a number.
    #[error("the token has no expiry (exp)")]
    NoExpiry,
    /// Past `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before `nbf`, or `nbf` is not a number.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `aud` names none of the endpoint's URLs. Holds the canonical one.
    #[error("the token is for another audience: its aud must hold {0}")]
    Audience(Arc<str>),
    /// `cnf`: the token is bound to a key that its bearer would have to prove (RFC 7800), which is not checked here.
    #[error("the token is bound to a key (cnf), which is not supported")]
    Bound,
    /// The issuer's subject claim is missing, empty or not a string.
    #[error("the token has no usable subject: the claim {0} must be a string")]
    NoSubject(Arc<str>),
    /// The subject is an e-mail address that the issuer did not verify.
    #[error("the token's e-mail address is not verified (email_verified)")]
    EmailNotVerified,
}

impl Refused {
    /// Label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::NotJwt => "not_jwt",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::AmbiguousKey => "ambiguous_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Signature => "signature",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience(_) => "audience",
            Self::Bound => "bound",
            Self::NoSubject(_) => "no_subject",
            Self::EmailNotVerified => "email_not_verified",
        }
    }
}
