//! What the caches hold, and what of it changed since the last look.
//!
//! Versions are read before objects, so objects are at least as new as the versions say. Whether something changed is
//! seen by comparing everything that policy can see, not by trusting that every change was told: a look that finds
//! nothing has seen that nothing is different.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, Hasher as _};
use std::sync::Arc;

use crate::api::{McpGateway, McpRole, McpServer, McpTool, Object};
use crate::kubernetes::Key;
use crate::kubernetes::watch::Cache;
use crate::policy::parse::{ClusterIssuer, Objects};
use crate::policy::version::Version;
use crate::policyserver::Caches;

/// Everything that one judgement reads.
pub(super) struct Gathered {
    servers: HashMap<String, Vec<Arc<McpServer>>>,
    tools: HashMap<String, Vec<Arc<McpTool>>>,
    roles: HashMap<String, Vec<Arc<McpRole>>>,
    gateways: HashMap<String, Vec<Arc<McpGateway>>>,
    config_maps: BTreeMap<Key, BTreeMap<String, String>>,
    cluster: Option<ClusterIssuer>,
    /// By namespace with a server, how new what was read is.
    pub(super) versions: HashMap<String, Arc<Version>>,
    /// By namespace, what policy can see of it.
    pub(super) prints: HashMap<String, u64>,
}

/// Looks at the caches, and keeps the key under which it compares.
#[derive(Default)]
pub(super) struct Gatherer(RandomState);

impl Gatherer {
    /// Reads all caches. `epoch` is part of every version.
    pub(super) fn gather(&self, caches: &Caches, epoch: u64) -> Gathered {
        let mut namespaces = HashSet::new();
        loop {
            let gathered = self.look(caches, epoch, &namespaces);
            let unknown = gathered.servers.keys().any(|namespace| !gathered.versions.contains_key(namespace));
            if !unknown {
                return gathered;
            }
            // A namespace that had no server before: its version must be read before its objects, so all again.
            namespaces = gathered.servers.into_keys().collect();
        }
    }

    fn look(&self, caches: &Caches, epoch: u64, namespaces: &HashSet<String>) -> Gathered {
        let known =
            namespaces.iter().cloned().chain(caches.servers.all().into_iter().map(|o| o.namespace().to_owned()));
        let known: HashSet<String> = known.collect();
        let versions = known.into_iter().map(|namespace| {
            let version = Version { epoch, seen: seen(caches, &namespace) };
            (namespace, Arc::new(version))
        });
        let versions = versions.collect();
        let cluster = caches.cluster.now();
        let mut prints = HashMap::new();
        let servers = self.kind(&caches.servers, &mut prints);
        let tools = self.kind(&caches.tools, &mut prints);
        let roles = self.kind(&caches.roles, &mut prints);
        let gateways = self.kind(&caches.gateways, &mut prints);
        let mut config_maps = BTreeMap::new();
        for config_map in caches.config_maps.all() {
            let key = (config_map.namespace().to_owned(), config_map.name().to_owned());
            let data = config_map.data.clone().unwrap_or_default();
            // Unlike the others it has no generation.
            add(&mut prints, &key.0, self.0.hash_one((&key.1, &data)));
            config_maps.insert(key, data);
        }
        // New keys of the cluster change every namespace, and so does a new epoch.
        let everywhere = self.0.hash_one((cluster.as_ref().map(|issuer| (&issuer.url, &issuer.jwks)), epoch));
        for print in prints.values_mut() {
            *print = print.wrapping_add(everywhere);
        }
        let cluster = cluster.map(|issuer| ClusterIssuer { url: issuer.url.clone(), jwks: issuer.jwks.clone() });
        Gathered { servers, tools, roles, gateways, config_maps, cluster, versions, prints }
    }

    fn kind<K>(&self, cache: &Cache<K>, prints: &mut HashMap<String, u64>) -> HashMap<String, Vec<Arc<K>>>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Send
            + Sync
            + std::fmt::Debug
            + 'static,
    {
        let mut by_namespace: HashMap<String, Vec<Arc<K>>> = HashMap::new();
        let kind = <K as Object>::kind();
        for object in cache.all() {
            let namespace = Object::namespace(object.as_ref());
            // What policy can see of an object, for a spec never changes without its generation.
            let mut print = self.0.build_hasher();
            (&kind, Object::name(object.as_ref()), Object::uid(object.as_ref())).hash(&mut print);
            (Object::generation(object.as_ref()), &object.meta().labels).hash(&mut print);
            add(prints, namespace, print.finish());
            match by_namespace.get_mut(namespace) {
                Some(objects) => objects.push(object),
                None => {
                    by_namespace.insert(namespace.to_owned(), vec![object]);
                }
            }
        }
        by_namespace
    }
}

/// The sum does not depend on the order, and nobody can aim at it without the hasher's key.
fn add(prints: &mut HashMap<String, u64>, namespace: &str, print: u64) {
    match prints.get_mut(namespace) {
        Some(sum) => *sum = sum.wrapping_add(print),
        None => {
            prints.insert(namespace.to_owned(), print);
        }
    }
}

impl Gathered {
    /// The objects of one namespace, for `parse`: policy never looks across namespaces.
    pub(super) fn objects(&self, namespace: &str) -> Objects {
        fn of<K>(objects: &HashMap<String, Vec<Arc<K>>>, namespace: &str) -> Vec<Arc<K>> {
            objects.get(namespace).cloned().unwrap_or_default()
        }
        let config_maps = self.config_maps.range((namespace.to_owned(), String::new())..);
        let config_maps = config_maps.take_while(|((found, _), _)| found == namespace);
        Objects {
            servers: of(&self.servers, namespace),
            tools: of(&self.tools, namespace),
            roles: of(&self.roles, namespace),
            gateways: of(&self.gateways, namespace),
            cluster: self.cluster.clone(),
            config_maps: config_maps.map(|(key, data)| (key.clone(), data.clone())).collect(),
        }
    }

    /// The McpServers of a namespace.
    pub(super) fn servers(&self, namespace: &str) -> &[Arc<McpServer>] {
        self.servers.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// The McpTools of a namespace.
    pub(super) fn tools(&self, namespace: &str) -> &[Arc<McpTool>] {
        self.tools.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// The McpRoles of a namespace.
    pub(super) fn roles(&self, namespace: &str) -> &[Arc<McpRole>] {
        self.roles.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// The McpGateways of a namespace.
    pub(super) fn gateways(&self, namespace: &str) -> &[Arc<McpGateway>] {
        self.gateways.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// Namespaces that look other than they did.
    pub(super) fn changed(&self, before: &HashMap<String, u64>) -> HashSet<String> {
        let now = self.prints.iter().filter(|(namespace, print)| before.get(*namespace) != Some(print));
        let gone = before.keys().filter(|namespace| !self.prints.contains_key(*namespace));
        now.map(|(namespace, _)| namespace).chain(gone).cloned().collect()
    }
}

/// How often the cluster's history went back, as far as the caches have seen: each of them sees it once.
pub(in crate::policyserver) fn rewinds(caches: &Caches) -> u64 {
    let Caches { servers, tools, roles, gateways, config_maps, pods: _, cluster: _ } = caches;
    servers.rewinds() + tools.rewinds() + roles.rewinds() + gateways.rewinds() + config_maps.rewinds()
}

/// What the caches are surely not older than. Read it before the objects.
pub(in crate::policyserver) fn seen(caches: &Caches, namespace: &str) -> BTreeMap<String, u64> {
    BTreeMap::from([
        ("McpServer".to_owned(), caches.servers.version(namespace)),
        ("McpTool".to_owned(), caches.tools.version(namespace)),
        ("McpRole".to_owned(), caches.roles.version(namespace)),
        ("McpGateway".to_owned(), caches.gateways.version(namespace)),
        ("ConfigMap".to_owned(), caches.config_maps.version(namespace)),
    ])
}
