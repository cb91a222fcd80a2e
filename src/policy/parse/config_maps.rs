//! What objects read from ConfigMaps of their namespace.

use std::collections::BTreeSet;

use super::{Objects, Report};
use crate::api::conditions::reason;
use crate::api::{ConfigMapKey, Object};
use crate::policy::world::{Key, ObjectRef, Severity};

/// The ConfigMaps that these objects refer to, as (namespace, name): what [`Objects::config_maps`] should hold.
pub fn config_maps(objects: &Objects) -> BTreeSet<Key> {
    let key_sets = objects.gateways.iter().flat_map(|gateway| {
        let oidc = gateway.spec.issuers.iter().filter_map(|issuer| issuer.oidc.as_ref());
        let references = oidc.filter_map(|oidc| oidc.jwks.as_ref()?.config_map_ref.as_ref());
        references.map(|reference| (gateway.namespace().to_owned(), reference.name.clone()))
    });
    let bundles = objects.servers.iter().filter_map(|server| {
        let bundle = server.spec.source.remote.as_ref()?.ca_bundle.as_ref()?;
        Some((server.namespace().to_owned(), bundle.config_map_ref.name.clone()))
    });
    key_sets.chain(bundles).collect()
}

/// Why a key of a ConfigMap cannot be read.
pub(super) struct Missing {
    /// Nothing is wrong: it is just not read here.
    pub(super) is_laptop: bool,
    message: String,
}

impl Missing {
    /// Tells it, with what follows from it.
    pub(super) fn report(self, object: &ObjectRef, pointer: &str, consequence: &str, report: &mut Report) {
        let severity = if self.is_laptop { Severity::Warning } else { Severity::Error };
        let message = format!("{}, so {consequence}{}", self.message, if self.is_laptop { "" } else { ": create it" });
        report.add(object, pointer.to_owned(), severity, reason::CONFIG_MAP_NOT_FOUND, message);
    }
}

/// The text of one key.
pub(super) fn find<'a>(objects: &'a Objects, namespace: &str, wanted: &ConfigMapKey) -> Result<&'a str, Missing> {
    let ConfigMapKey { name, key } = wanted;
    let data = objects.config_maps.get(&(namespace.to_owned(), name.clone()));
    let is_laptop = objects.cluster.is_none();
    match data.map(|data| data.get(key)) {
        Some(Some(text)) => Ok(text),
        Some(None) => Err(Missing {
            is_laptop: false,
            message: format!("ConfigMap `{name}` of namespace `{namespace}` has no key `{key}`"),
        }),
        None if is_laptop => Err(Missing { is_laptop, message: "ConfigMaps are not read on a laptop".to_owned() }),
        None => Err(Missing {
            is_laptop,
            message: format!(
                "ConfigMap `{name}` does not exist in namespace `{namespace}`, or lacks the label \
                 `toolgate.dev/jwks: \"true\"` without which it is not read"
            ),
        }),
    }
}
