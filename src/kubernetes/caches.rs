//! The caches of this process, each kind watched once.
//!
//! Owns which kinds are watched and by which labels. Of users' own objects beside the four kinds only Services are
//! watched, and the ConfigMaps that bear a label for it; Secrets never are.

use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;

use crate::api::{McpGateway, McpRole, McpServer, McpTool};

use super::apply::Object;
use super::labels::{self, KEY_SETS};
use super::watch::{Cache, Keep, Scope};

/// Everything that the operator believes of the cluster.
#[derive(Clone)]
pub struct Caches {
    /// McpServers.
    pub servers: Cache<McpServer>,
    /// McpTools.
    pub tools: Cache<McpTool>,
    /// McpRoles.
    pub roles: Cache<McpRole>,
    /// McpGateways.
    pub gateways: Cache<McpGateway>,
    /// Pods of servers, without their spec.
    pub pods: Cache<Pod>,
    /// Our Deployments.
    pub deployments: Cache<Deployment>,
    /// Services: ours, and those that servers name as their source.
    pub services: Cache<Service>,
    /// Our ServiceAccounts.
    pub service_accounts: Cache<ServiceAccount>,
    /// Our ConfigMaps.
    pub config_maps: Cache<ConfigMap>,
    /// Users' ConfigMaps with key sets and certificates.
    pub key_sets: Cache<ConfigMap>,
    /// Our `NetworkPolicies`.
    pub network_policies: Cache<NetworkPolicy>,
    /// Our `PodDisruptionBudgets`.
    pub disruption_budgets: Cache<PodDisruptionBudget>,
}

impl Caches {
    /// The caches, and the future that keeps them: it must be polled, and ends only if one of the watches did.
    pub fn new(client: &Client, scope: &Scope) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let owned = labels::owned();
        let mut kept: Vec<BoxFuture<'static, ()>> = Vec::new();
        let mut keeps = Keeper { client, scope, kept: &mut kept };
        let caches = Self {
            servers: keeps.whole(""),
            tools: keeps.whole(""),
            roles: keeps.whole(""),
            gateways: keeps.whole(""),
            pods: keeps.watched(labels::SERVER, Keep::Whole, |pod: &mut Pod| pod.spec = None),
            deployments: keeps.packed(&owned),
            services: keeps.packed(""),
            service_accounts: keeps.packed(&owned),
            config_maps: keeps.packed(&owned),
            key_sets: keeps.whole(KEY_SETS),
            network_policies: keeps.packed(&owned),
            disruption_budgets: keeps.packed(&owned),
        };
        let keep = async move {
            // One that ended would leave a cache behind that never changes again.
            future::select_all(kept).await;
        };
        (caches, keep)
    }

    /// Waits until every cache is full: a half-filled one would revoke what is granted and delete what is wanted.
    pub async fn ready(&self) {
        let policy = future::join4(self.servers.ready(), self.tools.ready(), self.roles.ready(), self.gateways.ready());
        let workloads = future::join3(self.pods.ready(), self.deployments.ready(), self.services.ready());
        let rest = future::join4(
            self.service_accounts.ready(),
            self.config_maps.ready(),
            self.network_policies.ready(),
            self.disruption_budgets.ready(),
        );
        future::join4(policy, workloads, rest, self.key_sets.ready()).await;
    }
}

/// Makes caches, and collects what keeps them.
struct Keeper<'a> {
    client: &'a Client,
    scope: &'a Scope,
    kept: &'a mut Vec<BoxFuture<'static, ()>>,
}

impl Keeper<'_> {
    fn whole<K: Object>(&mut self, labels: &str) -> Cache<K> {
        self.watched(labels, Keep::Whole, |_| {})
    }

    /// What is read only when its server is looked at.
    fn packed<K: Object>(&mut self, labels: &str) -> Cache<K> {
        self.watched(labels, Keep::Packed, |_| {})
    }

    fn watched<K: Object>(&mut self, labels: &str, keep: Keep, strip: fn(&mut K)) -> Cache<K> {
        let (cache, keep) = Cache::frugal(self.client, self.scope, labels, keep, strip);
        self.kept.push(keep.boxed());
        cache
    }
}

#[cfg(test)]
impl Caches {
    /// Caches that nothing follows: a test says what is in them.
    pub(crate) fn detached() -> Self {
        Self {
            servers: Cache::detached(),
            tools: Cache::detached(),
            roles: Cache::detached(),
            gateways: Cache::detached(),
            pods: Cache::detached(),
            deployments: Cache::detached(),
            services: Cache::detached(),
            service_accounts: Cache::detached(),
            config_maps: Cache::detached(),
            key_sets: Cache::detached(),
            network_policies: Cache::detached(),
            disruption_budgets: Cache::detached(),
        }
    }

    /// Lists everything anew.
    pub(crate) fn read(&self, fake: &super::fake::Fake) {
        fn list<K: Object>(
            fake: &super::fake::Fake,
            resource: &str,
            label: Option<(&str, Option<&str>)>,
            cache: &Cache<K>,
        ) {
            let selected = |object: &serde_json::Value| {
                label.is_none_or(|(name, value)| {
                    let found = object["metadata"]["labels"][name].as_str();
                    found.is_some() && value.is_none_or(|value| found == Some(value))
                })
            };
            let objects = fake.all(resource).into_iter().filter(selected);
            let objects: Vec<K> = objects.map(|object| serde_json::from_value(object).unwrap()).collect();
            cache.set(&objects, fake.version());
        }
        let owned = Some((labels::MANAGED_BY, Some(labels::TOOLGATE)));
        list(fake, "apis/toolgate.dev/v1alpha1/mcpservers", None, &self.servers);
        list(fake, "apis/toolgate.dev/v1alpha1/mcptools", None, &self.tools);
        list(fake, "apis/toolgate.dev/v1alpha1/mcproles", None, &self.roles);
        list(fake, "apis/toolgate.dev/v1alpha1/mcpgateways", None, &self.gateways);
        list(fake, "api/v1/pods", Some((labels::SERVER, None)), &self.pods);
        list(fake, "apis/apps/v1/deployments", owned, &self.deployments);
        list(fake, "api/v1/services", None, &self.services);
        list(fake, "api/v1/serviceaccounts", owned, &self.service_accounts);
        list(fake, "api/v1/configmaps", owned, &self.config_maps);
        list(fake, "apis/networking.k8s.io/v1/networkpolicies", owned, &self.network_policies);
        list(fake, "apis/policy/v1/poddisruptionbudgets", owned, &self.disruption_budgets);
    }
}
