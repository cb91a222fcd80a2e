//! The signed form of a snapshot: RFC 8785 JSON, compressed with zstd, in an envelope that says whose it is, how new,
//! and what it asks of a gateway.
//!
//! [`open`] looks at nothing before the signature holds, and decompresses no further than a snapshot may be long.

use std::io::Read as _;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::keys::{Signer, VerifyKey};
use super::proto;
use super::version::VersionError;
use crate::policy::load::SNAPSHOT_BYTES;
use crate::policy::snapshot::{Snapshot, Target};
use crate::policy::version::Version;

/// Largest compressed snapshot: a ConfigMap of 1 MiB must hold it.
pub const COMPRESSED_BYTES: usize = 900 << 10;
/// Largest sealed snapshot, in bytes: beside the snapshot there are only names and a signature.
pub const SEALED_BYTES: usize = COMPRESSED_BYTES + (64 << 10);
/// zstd's own default: a higher one costs more time than the bytes are worth.
const LEVEL: i32 = 3;

/// A snapshot, compressed: what stays the same when only its version moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// Whose.
    pub target: Target,
    /// `Snapshot::format`.
    pub format: u32,
    /// What a gateway must understand to enforce it, sorted.
    pub requires: Vec<String>,
    /// `Snapshot::hash`.
    pub hash: String,
    compressed: Bytes,
}

/// A sealed snapshot whose signature holds. Nothing is said about what is in it: [`crate::policy::Policy::from_json`]
/// does.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// Whose. A gateway takes its own alone.
    pub target: Target,
    /// How new.
    pub version: Version,
    /// The shape of `snapshot`.
    pub format: u32,
    /// What a gateway must understand to enforce it. Whoever does not know one of these refuses the snapshot.
    pub requires: Vec<String>,
    /// The RFC 8785 form of the snapshot.
    pub snapshot: Vec<u8>,
    /// `Snapshot::hash`: `sha256:` and hex, computed from `snapshot`.
    pub hash: String,
}

/// Why a snapshot cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// More bytes than a ConfigMap, or a gateway, takes.
    #[error(
        "the compiled policy of the server is too large: {size} bytes are more than {limit}; declare fewer tools, or \
         move rules and tools to a second McpServer"
    )]
    TooLarge {
        /// Bytes that it has.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// The compressor failed: memory, most likely.
    #[error("failed to compress the snapshot")]
    Compress(#[source] std::io::Error),
}

impl SealError {
    /// Reason of `Accepted=False`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "SnapshotTooLarge",
            Self::Compress(_) => "SnapshotRefused",
        }
    }
}

/// Why sealed bytes are refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// More bytes than any sealed snapshot has.
    #[error("the sealed snapshot is refused: {0} bytes are more than {SEALED_BYTES}")]
    TooLarge(usize),
    /// Not an envelope at all.
    #[error("the sealed snapshot is refused: it is not an envelope")]
    Malformed(#[source] prost::DecodeError),
    /// Signed by nobody, by another key, or changed since.
    #[error("the sealed snapshot is refused: its signature does not hold")]
    Signature,
    /// Without a server, or without a version.
    #[error("the sealed snapshot is refused: it does not say whose it is and how new")]
    Incomplete,
    /// A version that is none.
    #[error("the sealed snapshot is refused: its version is none")]
    Version(#[from] VersionError),
    /// Not zstd.
    #[error("the sealed snapshot is refused: it cannot be decompressed")]
    Decompress(#[source] std::io::Error),
    /// It would decompress to more than a snapshot may have.
    #[error("the sealed snapshot is refused: it holds more than {SNAPSHOT_BYTES} bytes")]
    Bomb,
}

/// Compresses and signs a snapshot.
pub fn seal(snapshot: &Snapshot, version: &Version, requires: &[String], signer: &Signer) -> Result<Bytes, SealError> {
    Ok(Packer::new()?.pack(snapshot, requires)?.seal(version, signer))
}

/// Compresses snapshots, one after the other: to set the compressor up costs as much as one of them.
pub struct Packer(zstd::bulk::Compressor<'static>);

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    /// Sets a compressor up.
    pub fn new() -> Result<Self, SealError> {
        zstd::bulk::Compressor::new(LEVEL).map(Self).map_err(SealError::Compress)
    }

    /// Compresses a snapshot. `requires` is what a gateway must understand to enforce it.
    pub fn pack(&mut self, snapshot: &Snapshot, requires: &[String]) -> Result<Packed, SealError> {
        let canonical = snapshot.canonical();
        fits(canonical.len(), SNAPSHOT_BYTES)?;
        let mut compressed = self.0.compress(&canonical).map_err(SealError::Compress)?;
        fits(compressed.len(), COMPRESSED_BYTES)?;
        compressed.shrink_to_fit(); // It was made with room for what cannot be compressed, and stays for long.
        let mut requires = requires.to_vec();
        requires.sort();
        requires.dedup();
        Ok(Packed {
            target: snapshot.target.clone(),
            format: snapshot.format,
            requires,
            hash: hash(&canonical),
            compressed: compressed.into(),
        })
    }
}

impl Packed {
    /// Signs the snapshot with the version that it is true at.
    pub fn seal(&self, version: &Version, signer: &Signer) -> Bytes {
        let envelope = proto::Envelope {
            namespace: self.target.namespace.clone(),
            server: self.target.server.clone(),
            version: Some(version.into()),
            format: self.format,
            requires: self.requires.clone(),
            snapshot: self.compressed.clone(),
        };
        let body = envelope.encode_to_vec();
        let signature = signer.sign(&body);
        proto::Signed { body: body.into(), signature: signature.into() }.encode_to_vec().into()
    }
}

/// Checks the signature, then reads what was signed. Total: any bytes open or give an error.
pub fn open(bytes: &[u8], key: &VerifyKey) -> Result<Opened, OpenError> {
    if bytes.len() > SEALED_BYTES {
        return Err(OpenError::TooLarge(bytes.len()));
    }
    let signed = proto::Signed::decode(bytes).map_err(OpenError::Malformed)?;
    if !key.verifies(&signed.body, &signed.signature) {
        return Err(OpenError::Signature);
    }
    let proto::Envelope { namespace, server, version, format, requires, snapshot } =
        proto::Envelope::decode(signed.body).map_err(OpenError::Malformed)?;
    if namespace.is_empty() || server.is_empty() {
        return Err(OpenError::Incomplete);
    }
    let version = version.ok_or(OpenError::Incomplete)?.try_into()?;
    let snapshot = decompress(&snapshot)?;
    let hash = hash(&snapshot);
    Ok(Opened { target: Target { namespace, server }, version, format, requires, snapshot, hash })
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>, OpenError> {
    // Reads one byte more than may be, so that too much is told from just enough. Its own window is bounded likewise.
    let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(OpenError::Decompress)?;
    decoder.window_log_max(SNAPSHOT_BYTES.ilog2()).map_err(OpenError::Decompress)?;
    let mut snapshot = Vec::new();
    decoder.take(SNAPSHOT_BYTES as u64 + 1).read_to_end(&mut snapshot).map_err(OpenError::Decompress)?;
    if snapshot.len() > SNAPSHOT_BYTES { Err(OpenError::Bomb) } else { Ok(snapshot) }
}

fn fits(size: usize, limit: usize) -> Result<(), SealError> {
    if size > limit { Err(SealError::TooLarge { size, limit }) } else { Ok(()) }
}

/// As [`Snapshot::hash`].
fn hash(canonical: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(canonical).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

#[cfg(test)]
mod tests;
