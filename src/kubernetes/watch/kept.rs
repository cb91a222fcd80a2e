//! How a cache keeps an object: as it is, or as JSON. What is read only when its server is looked at is kept as JSON: a
//! Deployment as a Rust value takes five times the room of its text, and there is one for each server.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How a cache keeps objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// As they are: read often.
    Whole,
    /// As JSON: each read makes the object anew.
    Packed,
}

/// An object in a cache.
#[derive(Debug)]
pub(super) enum Kept<K> {
    Whole(Arc<K>),
    Packed(Box<[u8]>),
}

impl<K: Serialize + DeserializeOwned> Kept<K> {
    pub(super) fn new(object: K, keep: Keep) -> Self {
        let packed = (keep == Keep::Packed).then(|| serde_json::to_vec(&object).ok()).flatten();
        packed.map_or_else(|| Self::Whole(Arc::new(object)), |packed| Self::Packed(packed.into()))
    }

    /// The object. `None`: what was written as JSON does not read as what it was, which no kind's type lets happen; who
    /// writes the object asks the API server for it then.
    pub(super) fn object(&self) -> Option<Arc<K>> {
        match self {
            Self::Whole(object) => Some(object.clone()),
            Self::Packed(packed) => serde_json::from_slice(packed).ok().map(Arc::new),
        }
    }

    /// The object, where that costs nothing.
    pub(super) fn whole(&self) -> Option<&Arc<K>> {
        match self {
            Self::Whole(object) => Some(object),
            Self::Packed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_packed_object_is_what_it_was_and_takes_less_room() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": "i",
                "resources": {"limits": {"memory": "1Gi"}}}], "volumes": [{"name": "v", "emptyDir": {}}]}}},
            "status": {"replicas": 1},
        }))
        .unwrap();

        let kept = Kept::new(deployment.clone(), Keep::Packed);

        assert_eq!(*kept.object().unwrap(), deployment);
        let Kept::Packed(packed) = kept else { panic!("it is not packed") };
        assert!(packed.len() < size_of::<Deployment>(), "{} bytes", packed.len());
    }
}
