//! Public keys of an issuer, from a JWK set (RFC 7517).
//!
//! A key is made for one algorithm, so a token can never choose how its signature is checked (RFC 8725 §3.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;

/// Keys of one issuer that are kept.
pub(super) const KEYS: usize = 100;

/// The signatures that are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 to 8192 bits.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// From the header's `alg`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// One public key.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    /// The decoded numbers: what makes two keys the same.
    material: Vec<Vec<u8>>,
    verifier: DecodingKey,
    withdrawn: AtomicBool,
}

impl Key {
    /// Whether the issuer still publishes it.
    pub(super) fn is_live(&self) -> bool {
        !self.withdrawn.load(Ordering::Acquire)
    }

    pub(super) fn has_signed(&self, token: &Token<'_>) -> bool {
        self.algorithm == token.algorithm
            && jsonwebtoken::crypto::verify(token.signature, token.message, &self.verifier, self.algorithm.of_library())
                .unwrap_or(false)
    }

    fn same_as(&self, other: &Self) -> bool {
        self.id == other.id && self.algorithm == other.algorithm && self.material == other.material
    }

    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig")
            || jwk.key_ops.as_ref().is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
        {
            return None;
        }
        let number = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let (algorithm, material, verifier) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (number(&jwk.n)?, number(&jwk.e)?);
                let key = DecodingKey::from_rsa_raw_components(&n, &e);
                (Algorithm::Rs256, vec![n, e], key)
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (number(&jwk.x)?, number(&jwk.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                let point = [&[4][..], &x, &y].concat(); // Uncompressed point, SEC 1 §2.3.3.
                (Algorithm::Es256, vec![x, y], DecodingKey::from_ec_der(&point))
            }
            ("OKP", Some("Ed25519")) => {
                let x = number(&jwk.x)?;
                if x.len() != 32 {
                    return None;
                }
                let key = DecodingKey::from_ed_der(&x);
                (Algorithm::EdDsa, vec![x], key)
            }
            _ => return None,
        };
        if jwk.alg.as_deref().is_some_and(|alg| alg != algorithm.name()) {
            return None;
        }
        Some(Self { id: jwk.kid.clone(), algorithm, material, verifier, withdrawn: AtomicBool::new(false) })
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// Why a document is no JWK set.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    /// Not JSON, or without `keys`.
    #[error("not a JWK set: {0}")]
    Json(#[from] serde_json::Error),
    /// More keys than [`KEYS`].
    #[error("a JWK set of {0} keys, more than {KEYS}")]
    TooMany(usize),
}

/// The keys of one issuer at one time.
#[derive(Default)]
pub(super) struct KeySet(Vec<Arc<Key>>);

/// Which key a token names.
pub(super) enum Found<'a> {
    One(&'a Arc<Key>),
    None,
    Several,
}

impl KeySet {
    /// Reads a JWK set. Keys of other types, for encryption, or that make no sense are left out: one broken key must
    /// not take the others with it.
    pub(super) fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        let set: JwkSet = serde_json::from_slice(document)?;
        if set.keys.len() > KEYS {
            return Err(KeySetError::TooMany(set.keys.len()));
        }
        let usable = |value| Key::from_jwk(&serde_json::from_value(value).ok()?).map(Arc::new);
        Ok(Self(set.keys.into_iter().filter_map(usable).collect()))
    }

    /// The set that follows this one: keys that stay keep their tokens, keys that are gone lose them.
    pub(super) fn succeed(&self, mut next: Self) -> Self {
        for key in &mut next.0 {
            if let Some(known) = self.0.iter().find(|known| known.same_as(key)) {
                *key = Arc::clone(known);
            }
        }
        for known in &self.0 {
            if !next.0.iter().any(|key| Arc::ptr_eq(key, known)) {
                known.withdrawn.store(true, Ordering::Release);
            }
        }
        next
    }

    /// By `kid`; without one, the only key that fits the algorithm.
    pub(super) fn find(&self, key_id: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        let fits = |key: &&Arc<Key>| {
            key.algorithm == algorithm && key_id.is_none_or(|key_id| key.id.as_deref() == Some(key_id))
        };
        let mut fitting = self.0.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (None, _) => Found::None,
            (Some(key), None) => Found::One(key),
            (Some(_), Some(_)) => Found::Several,
        }
    }

    /// Whether a key has this `kid`, whatever its algorithm.
    pub(super) fn names(&self, key_id: Option<&str>) -> bool {
        key_id.is_some() && self.0.iter().any(|key| key.id.as_deref() == key_id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
