//! Verified tokens, by the SHA-256 of the token, until they expire or their key is withdrawn.
//!
//! Every call passes here, so a hit is one digest, one short read lock and one reference count. Only tokens that
//! were verified get in: nobody can fill the cache with garbage.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;

use super::super::limits;
use super::keys::Key;
use super::{LEEWAY_SECONDS, Verified};

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];

const SHARDS: usize = 16;

struct Entry {
    verified: Arc<Verified>,
    key: Arc<Key>,
    issuer: usize,
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
    shards: [RwLock<HashMap<Digest, Entry>>; SHARDS],
    shard_capacity: usize,
}

impl Cache {
    pub(super) fn new() -> Self {
        let capacity = usize::try_from(limits::TOKENS).unwrap_or(usize::MAX) / SHARDS;
        Self { shards: std::array::from_fn(|_| RwLock::default()), shard_capacity: capacity.max(1) }
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
    fn shard(&self, digest: &Digest) -> &RwLock<HashMap<Digest, Entry>> {
        &self.shards[usize::from(digest[0]) % SHARDS]
    }

    /// The verified caller, and the position of the issuer.
    pub(super) fn get(&self, digest: &Digest, now: Timestamp) -> Option<(Arc<Verified>, usize)> {
        let shard = self.shard(digest).read();
        let entry = shard.get(digest)?;
        entry.counts(now.as_second()).then(|| (Arc::clone(&entry.verified), entry.issuer))
    }

    pub(super) fn put(&self, digest: Digest, verified: Arc<Verified>, key: Arc<Key>, issuer: usize, now: Timestamp) {
        let mut shard = self.shard(&digest).write();
        if shard.len() >= self.shard_capacity {
            shard.retain(|_, entry| entry.counts(now.as_second()));
        }
        if shard.len() >= self.shard_capacity {
            // Still full of tokens that count: drop every second one, so that the next sweep is far away. Whoever
            // is dropped is verified anew.
            let mut keep = false;
            shard.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        shard.insert(digest, Entry { verified, key, issuer });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}
