//! How a cache keeps its objects: as they are, or packed.
//!
//! What is read only when its server is looked at is packed, for there is one of each kind for every server: as JSON,
//! which takes a fifth of the room of a Rust value, compressed with the first few of its kind as the dictionary. Objects
//! that the same program wrote for different servers differ in little more than names.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::bulk::{Compressor, Decompressor};

/// What is learned from, in bytes: the objects of a few servers.
const DICTIONARY: usize = 16 << 10;
/// With such a dictionary a higher level finds nothing more, and needs four times the memory.
const LEVEL: i32 = 1;

/// How a cache keeps objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// As they are: read often.
    Whole,
    /// Packed: each read makes the object anew.
    Packed,
}

/// An object in a cache.
#[derive(Debug)]
pub(super) enum Kept<K> {
    Whole(Arc<K>),
    /// JSON.
    Plain(Box<[u8]>),
    /// JSON of this length, compressed.
    Compressed(Box<[u8]>, usize),
}

impl<K> Kept<K> {
    /// The object, where that costs nothing.
    pub(super) fn whole(&self) -> Option<&Arc<K>> {
        match self {
            Self::Whole(object) => Some(object),
            Self::Plain(_) | Self::Compressed(..) => None,
        }
    }
}

/// Packs the objects of one cache, and unpacks them.
pub(super) struct Packer {
    how: Keep,
    learned: Mutex<Learned>,
}

/// What objects of this kind say.
enum Learned {
    /// Not enough yet: the JSON of those so far, which stay as they are.
    Samples(Vec<u8>),
    /// Both with what was learned; never learned anew, since whatever is packed needs it.
    Dictionary(Compressor<'static>, Decompressor<'static>),
}

impl Packer {
    pub(super) fn new(how: Keep) -> Self {
        Self { how, learned: Mutex::new(Learned::Samples(Vec::new())) }
    }

    /// Takes an object in.
    pub(super) fn pack<K: Serialize>(&self, object: K) -> Kept<K> {
        let json = (self.how == Keep::Packed).then(|| serde_json::to_vec(&object).ok()).flatten();
        let Some(json) = json else { return Kept::Whole(Arc::new(object)) };
        let compressed = self.learned.lock().compress(&json);
        match compressed {
            Some(compressed) => Kept::Compressed(compressed, json.len()),
            None => Kept::Plain(json.into()),
        }
    }

    /// The object. `None`: what was packed does not read as what it was, which no kind's type lets happen; who writes the
    /// object asks the API server for it then.
    pub(super) fn object<K: DeserializeOwned>(&self, kept: &Kept<K>) -> Option<Arc<K>> {
        match kept {
            Kept::Whole(object) => Some(Arc::clone(object)),
            Kept::Plain(json) => serde_json::from_slice(json).ok().map(Arc::new),
            Kept::Compressed(packed, length) => {
                let json = self.learned.lock().decompress(packed, *length)?;
                serde_json::from_slice(&json).ok().map(Arc::new)
            }
        }
    }
}

impl Learned {
    /// `None` while it still learns, or where there is no memory for it.
    fn compress(&mut self, json: &[u8]) -> Option<Box<[u8]>> {
        match self {
            Self::Samples(samples) => {
                let room = DICTIONARY - samples.len();
                samples.extend(json.iter().take(room));
                if samples.len() == DICTIONARY {
                    let learned = Compressor::with_dictionary(LEVEL, samples)
                        .and_then(|compressor| Ok((compressor, Decompressor::with_dictionary(samples)?)));
                    match learned {
                        Ok((compressor, decompressor)) => *self = Self::Dictionary(compressor, decompressor),
                        Err(_) => samples.clear(), // Tried again with the next ones.
                    }
                }
                None
            }
            Self::Dictionary(compressor, _) => compressor.compress(json).ok().map(|packed| packed.as_slice().into()),
        }
    }

    fn decompress(&mut self, packed: &[u8], length: usize) -> Option<Vec<u8>> {
        match self {
            Self::Samples(_) => None, // Nothing was compressed yet.
            Self::Dictionary(_, decompressor) => decompressor.decompress(packed, length).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    fn deployment(n: usize) -> Deployment {
        let variables: Vec<_> = (0..20).map(|v| json!({"name": format!("VARIABLE_{v}"), "value": "x"})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": format!("d-{n}"), "namespace": "n", "resourceVersion": n.to_string(),
                "labels": {"a": "b"}},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": "i",
                "env": variables, "resources": {"limits": {"memory": "1Gi"}}}],
                "volumes": [{"name": "v", "emptyDir": {}}]}}},
            "status": {"replicas": 1},
        }))
        .unwrap()
    }

    /// How many bytes are kept.
    fn size<K>(kept: &Kept<K>) -> usize {
        match kept {
            Kept::Whole(_) => panic!("it is not packed"),
            Kept::Plain(json) => json.len(),
            Kept::Compressed(packed, _) => packed.len(),
        }
    }

    #[test]
    fn a_packed_object_is_what_it_was_before_and_after_there_is_a_dictionary() {
        let packer = Packer::new(Keep::Packed);
        let kept: Vec<_> = (0..100).map(|n| packer.pack(deployment(n))).collect();

        assert!(matches!((&kept[0], &kept[99]), (Kept::Plain(_), Kept::Compressed(..))));
        for (n, kept) in kept.iter().enumerate() {
            assert_eq!(*packer.object(kept).unwrap(), deployment(n));
        }
    }

    #[test]
    fn objects_that_say_mostly_the_same_take_little_room() {
        let packer = Packer::new(Keep::Packed);
        let kept: Vec<_> = (0..100).map(|n| packer.pack(deployment(n))).collect();

        assert!(size(&kept[0]) < size_of::<Deployment>(), "{} bytes", size(&kept[0]));
        assert!(size(&kept[99]) * 8 < size(&kept[0]), "{} of {} bytes", size(&kept[99]), size(&kept[0]));
    }

    #[test]
    fn an_object_larger_than_the_dictionary_is_kept_in_full() {
        let packer = Packer::new(Keep::Packed);
        let mut large = deployment(0);
        large.metadata.annotations = Some([("a".to_owned(), "b".repeat(DICTIONARY * 3))].into());

        let kept = [packer.pack(large.clone()), packer.pack(large.clone())];

        assert!(kept.iter().all(|kept| *packer.object(kept).unwrap() == large));
    }
}
