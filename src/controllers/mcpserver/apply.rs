//! Brings the cluster to a plan, one object after the other, each only where it differs.
//!
//! The order is such that a stop after any write leaves nothing open: the barrier and the boot snapshot are there
//! before the pods. The next reconcile goes on where this one stopped, because each looks at everything.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::conditions::reason;
use crate::api::{McpServer, Object as _};
use crate::kubernetes::Key;
use crate::kubernetes::apply::{Applied, Error, Object, Writer};
use crate::kubernetes::caches::Caches;
use crate::kubernetes::watch::Cache;
use crate::kubernetes::{apply::is_ours, labels};
use crate::policy::Finding;

use super::names;
use super::plan::{Plan, finding};
use super::registration::Registration;

/// Least time between two writes of one boot ConfigMap: gateways hear of policy on their streams, not from it.
const BOOT: Duration = Duration::from_secs(2);

/// What came of bringing the cluster to a plan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Objects that are somebody else's, or that Kubernetes refuses.
    pub(super) findings: Vec<Finding>,
    /// Something was left for later.
    pub(super) after: Option<Duration>,
    /// Kubernetes refused something, which it may not do the next time.
    pub(super) is_refused: bool,
}

/// When each boot ConfigMap was last written. Holds those of the last seconds alone.
#[derive(Default)]
pub(super) struct Boots(Mutex<HashMap<Key, Instant>>);

impl Boots {
    /// How long to wait before the next write.
    fn wait(&self, key: &Key) -> Option<Duration> {
        let mut written = self.0.lock();
        written.retain(|_, at| at.elapsed() < BOOT);
        written.get(key).map(|at| BOOT.saturating_sub(at.elapsed()))
    }

    fn wrote(&self, key: &Key) {
        self.0.lock().insert(key.clone(), Instant::now());
    }
}

/// One reconcile's writes.
pub(super) struct Apply<'a> {
    pub(super) writer: &'a Writer,
    pub(super) caches: &'a Caches,
    pub(super) boots: &'a Boots,
    pub(super) server: &'a McpServer,
    /// The boot ConfigMap waits for its turn: see [`crate::controllers::turns`].
    pub(super) is_put_off: bool,
}

impl Apply<'_> {
    pub(super) async fn run(&self, plan: &Plan, registration: &Registration) -> Result<Outcome, Error> {
        let caches = self.caches;
        let mut outcome = Outcome::default();
        self.one(&plan.service_account, &caches.service_accounts, &mut outcome).await?;
        self.one(&plan.ca, &caches.config_maps, &mut outcome).await?;
        if let Some(boot) = &plan.boot {
            self.boot(boot, &mut outcome).await?;
        }
        self.one(&plan.network_policy, &caches.network_policies, &mut outcome).await?;
        self.one(&plan.service, &caches.services, &mut outcome).await?;
        match &plan.disruption_budget {
            Some(budget) => {
                self.one(budget, &caches.disruption_budgets, &mut outcome).await?;
            }
            None => self.budget_goes().await?,
        }
        // No pods without all that they need: above all not without the barrier.
        if let Some(deployment) = plan.deployment.as_ref().filter(|_| outcome.findings.is_empty()) {
            self.one(deployment, &caches.deployments, &mut outcome).await?;
        }
        if let Some(catalogue) = &plan.catalogue {
            self.one(catalogue, &caches.config_maps, &mut outcome).await?;
        }
        for tool in &registration.delete {
            self.writer.delete(tool.as_ref()).await?;
        }
        for tool in &registration.create {
            self.writer.create(tool).await?;
        }
        Ok(outcome)
    }

    async fn one<K: Object>(&self, desired: &K, cache: &Cache<K>, outcome: &mut Outcome) -> Result<Applied, Error> {
        let (kind, name) = (K::kind(&()), crate::api::Object::name(desired).to_owned());
        match self.writer.apply(desired, cache).await {
            Ok(Applied::Foreign) => {
                let message = format!(
                    "{kind} `{name}` exists and is not Toolgate's, so it is left alone: rename or remove it, or rename \
                     the McpServer"
                );
                outcome.findings.push(finding(self.server, "", reason::CONFLICTED, message));
                Ok(Applied::Foreign)
            }
            Ok(applied) => Ok(applied),
            Err(error) => match error.refusal() {
                // One object that is refused does not keep the others from what they need.
                Some(message) => {
                    outcome.is_refused = true;
                    outcome.findings.push(finding(self.server, "", reason::OBJECT_REFUSED, message));
                    Ok(Applied::Unchanged)
                }
                None => Err(error),
            },
        }
    }

    async fn boot(&self, boot: &ConfigMap, outcome: &mut Outcome) -> Result<(), Error> {
        if self.is_put_off {
            return Ok(());
        }
        let key = (self.server.namespace().to_owned(), self.server.name().to_owned());
        if let Some(wait) = self.boots.wait(&key) {
            outcome.after = Some(wait);
            return Ok(());
        }
        if self.one(boot, &self.caches.config_maps, outcome).await? == Applied::Written {
            self.boots.wrote(&key);
        }
        Ok(())
    }

    async fn budget_goes(&self) -> Result<(), Error> {
        let key = (self.server.namespace().to_owned(), names::companion(self.server.name()));
        let Some(budget) = self.caches.disruption_budgets.get(&key) else { return Ok(()) };
        let ours = kube::core::ObjectMeta {
            labels: Some(labels::of_server(self.server.name())),
            owner_references: self.server.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..kube::core::ObjectMeta::default()
        };
        if is_ours(&budget.metadata, &ours) {
            self.writer.delete(budget.as_ref()).await?;
        }
        Ok(())
    }
}

/// The McpServer is gone: what it owned goes. Kubernetes collects it as well; this holds where it is slow to. What was
/// left by a deletion that orphans has no owner any more, and stays.
pub(super) async fn clean(
    writer: &Writer,
    caches: &Caches,
    key: &Key,
    tools: &[std::sync::Arc<crate::api::McpTool>],
) -> Result<(), Error> {
    let (namespace, name) = key;
    let at = |name: String| (namespace.clone(), name);
    writer.forget::<McpServer>(key);
    // The pods first: nothing may run without its barrier.
    gone(writer, &caches.deployments, key, &at(name.clone())).await?;
    gone(writer, &caches.services, key, &at(name.clone())).await?;
    gone(writer, &caches.disruption_budgets, key, &at(names::companion(name))).await?;
    gone(writer, &caches.network_policies, key, &at(names::companion(name))).await?;
    gone(writer, &caches.service_accounts, key, &at(names::companion(name))).await?;
    gone(writer, &caches.config_maps, key, &at(names::boot_map(name))).await?;
    gone(writer, &caches.config_maps, key, &at(names::catalogue_map(name))).await?;
    for tool in tools.iter().filter(|tool| is_owned(tool.as_ref(), name)) {
        writer.delete(tool.as_ref()).await?;
    }
    let ca = caches.config_maps.get(&at(names::CA_MAP.to_owned()));
    let is_ours = |map: &ConfigMap| map.labels().get(labels::MANAGED_BY).is_some_and(|by| by == labels::TOOLGATE);
    if let Some(ca) = ca.filter(|ca| is_ours(ca))
        && caches.servers.in_namespace(namespace).is_empty()
    {
        writer.delete(ca.as_ref()).await?;
    }
    Ok(())
}

async fn gone<K: Object>(writer: &Writer, cache: &Cache<K>, server: &Key, child: &Key) -> Result<(), Error> {
    match cache.get(child) {
        Some(object) if is_owned(object.as_ref(), &server.1) => {
            writer.delete(object.as_ref()).await?;
        }
        Some(_) => {} // Somebody else's, or left on purpose.
        None => writer.forget::<K>(child),
    }
    Ok(())
}

/// Whether an object's controller is, or was, the McpServer of this name.
fn is_owned<K: Object>(object: &K, server: &str) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| {
        owner.controller == Some(true)
            && owner.kind == "McpServer"
            && owner.api_version.starts_with(crate::api::GROUP)
            && owner.name == server
    })
}
