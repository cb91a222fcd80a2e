//! Verified tokens, by the SHA-256 of the token, until they expire or their key is withdrawn: bounded in number and in
//! bytes.
//!
//! Every call passes here, so a hit is one digest, one short read lock and one reference count. Only tokens that
//! were verified get in: nobody can fill the cache with garbage.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;

use super::super::{limits, memory};
use super::keys::Key;
use super::{LEEWAY_SECONDS, Verified};

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];

const SHARDS: usize = 16;

/// A verified token.
pub(super) struct Entry {
    pub(super) verified: Arc<Verified>,
    pub(super) key: Arc<Key>,
    /// Position of the issuer.
    pub(super) issuer: usize,
    /// Length of the token: what is kept of it grows with that.
    pub(super) bytes: usize,
}

impl Entry {
    fn counts(&self, now: i64) -> bool {
        self.key.is_live() && !expired(self.verified.expires, now)
    }
}

/// Whether `exp` has passed, leeway included; both in Unix seconds.
pub(super) const fn expired(expires: i64, now: i64) -> bool {
    now >= expires.saturating_add(LEEWAY_SECONDS)
}

pub(super) struct Cache {
    shards: [RwLock<Shard>; SHARDS],
    /// Tokens in one shard.
    shard_capacity: usize,
    /// Bytes of tokens in one shard.
    shard_bytes: usize,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Digest, Entry>,
    bytes: usize,
}

impl Shard {
    fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|_, entry| {
            let kept = keep(entry);
            if !kept {
                *bytes = bytes.saturating_sub(entry.bytes);
            }
            kept
        });
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        let capacity = usize::try_from(limits::TOKENS).unwrap_or(usize::MAX) / SHARDS;
        Self::bounded(capacity.max(1), memory::budget().tokens() / SHARDS)
    }

    pub(super) fn bounded(shard_capacity: usize, shard_bytes: usize) -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()), shard_capacity, shard_bytes }
    }

    pub(super) fn digest(token: &[u8]) -> Digest {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        bytes
    }

    #[allow(clippy::indexing_slicing)] // The remainder is below the length of the array.
    fn shard(&self, digest: &Digest) -> &RwLock<Shard> {
        &self.shards[usize::from(digest[0]) % SHARDS]
    }

    /// The verified caller, and the position of the issuer.
    pub(super) fn get(&self, digest: &Digest, now: Timestamp) -> Option<(Arc<Verified>, usize)> {
        let shard = self.shard(digest).read();
        let entry = shard.entries.get(digest)?;
        entry.counts(now.as_second()).then(|| (Arc::clone(&entry.verified), entry.issuer))
    }

    pub(super) fn put(&self, digest: Digest, entry: Entry, now: Timestamp) {
        let mut shard = self.shard(&digest).write();
        let is_full = |shard: &Shard| {
            shard.entries.len() >= self.shard_capacity || shard.bytes.saturating_add(entry.bytes) > self.shard_bytes
        };
        if is_full(&shard) {
            shard.retain(|entry| entry.counts(now.as_second()));
        }
        while is_full(&shard) && !shard.entries.is_empty() {
            // Still full of tokens that count: drop every second one, so that the next sweep is far away. Whoever
            // is dropped is verified anew.
            let mut keep = true;
            shard.retain(|_| {
                keep = !keep;
                keep
            });
        }
        shard.bytes = shard.bytes.saturating_add(entry.bytes);
        if let Some(before) = shard.entries.insert(digest, entry) {
            shard.bytes = shard.bytes.saturating_sub(before.bytes);
        }
    }

    /// Forgets tokens that count no longer, and gives their memory back.
    pub(super) fn drop_expired(&self, now: Timestamp) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let before = shard.entries.len();
            shard.retain(|entry| entry.counts(now.as_second()));
            if shard.entries.len() < before / 2 {
                shard.entries.shrink_to_fit();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().entries.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }
}
