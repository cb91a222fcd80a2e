//! Key sets that come from ConfigMaps.

use super::Objects;
use crate::api::ConfigMapKey;

/// Why a key of a ConfigMap cannot be read.
pub(super) enum Missing {
    /// This is a laptop.
    Laptop,
    /// What is wrong, and what to do.
    Cluster(String),
}

/// The text of one key.
pub(super) fn find<'a>(objects: &'a Objects, namespace: &str, wanted: &ConfigMapKey) -> Result<&'a str, Missing> {
    let ConfigMapKey { name, key } = wanted;
    match objects.config_maps.get(&(namespace.to_owned(), name.clone())).map(|data| data.get(key)) {
        Some(Some(text)) => Ok(text),
        Some(None) => Err(Missing::Cluster(format!(
            "ConfigMap `{name}` of namespace `{namespace}` has no key `{key}`, so no token of this issuer is accepted: \
             add it"
        ))),
        None if objects.cluster.is_none() => Err(Missing::Laptop),
        None => Err(Missing::Cluster(format!(
            "ConfigMap `{name}` does not exist in namespace `{namespace}`, or lacks the label `toolgate.dev/jwks: \
             \"true\"` without which it is not read, so no token of this issuer is accepted: create it, or label it"
        ))),
    }
}
