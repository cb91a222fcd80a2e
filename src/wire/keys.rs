//! The key pair under which snapshots are signed: Ed25519, with a prefix of its own.
//!
//! The prefix keeps a signature of something else, made with the same key, from passing for a snapshot.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Comes before what is signed.
const PREFIX: &[u8] = b"toolgate.dev snapshot envelope, version 1\0";
/// Length of a public key, in bytes.
const KEY_BYTES: usize = 32;

/// Signs snapshots.
pub struct Signer(Ed25519KeyPair);

/// Tells whether a snapshot was signed by the [`Signer`] of this key. Written as base64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VerifyKey([u8; KEY_BYTES]);

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not base64 of 32 bytes.
    #[error("the verification key is not the base64 of {KEY_BYTES} bytes")]
    Malformed,
    /// The library refused the seed.
    #[error("failed to make a signing key")]
    Seed,
}

impl Signer {
    /// The key pair of a secret seed: the same seed, the same pair.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| KeyError::Seed)
    }

    /// What gateways verify with.
    pub fn verify_key(&self) -> Result<VerifyKey, KeyError> {
        self.0.public_key().as_ref().try_into().map(VerifyKey).map_err(|_| KeyError::Malformed)
    }

    pub(super) fn sign(&self, body: &[u8]) -> Vec<u8> {
        self.0.sign(&prefixed(body)).as_ref().to_vec()
    }
}

impl VerifyKey {
    pub(super) fn verifies(&self, body: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&prefixed(body), signature).is_ok()
    }
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    [PREFIX, body].concat()
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer") // Nothing of the key.
    }
}

impl std::fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl std::str::FromStr for VerifyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError::Malformed)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Malformed)
    }
}
