//! What every controller reads: caches, the judgement, what gateways said.
//!
//! Writes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::{McpTool, Object as _};
use crate::kubernetes::apply::{Object, Written};
use crate::kubernetes::caches::Caches;
use crate::kubernetes::{Key, labels};
use crate::policy::snapshot::Target;
use crate::policy::{Finding, ObjectRef};
use crate::policyserver::fleet::{Fleet, Report};
use crate::policyserver::index::{Index, Judgement, Published, Refusal};
use crate::status::{Enforcing, Verdict};
use crate::telemetry::operator::Metrics;

use super::grouped::Grouped;
use super::settings::Settings;
use super::turns::Turns;

/// An acknowledgement that has not come after this time is late.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);

/// What every controller reads.
pub struct Context {
    /// The cluster, as far as it was seen.
    pub caches: Caches,
    /// What policy says.
    pub index: Arc<Index>,
    /// What gateways say.
    pub fleet: Arc<Fleet>,
    /// What the installation says.
    pub settings: Settings,
    /// What the process says about itself.
    pub metrics: Arc<Metrics>,
    /// What was written lately.
    pub(super) written: Arc<Written>,
    /// Who waits to tell of a new policy.
    pub(super) turns: Turns,
    pods: Grouped<Pod>,
    tools: Grouped<McpTool>,
    ages: Mutex<HashMap<Target, (String, Instant)>>,
}

/// The policy and the gateways of one server.
pub(super) struct View {
    published: Option<Arc<Published>>,
    refusal: Option<Refusal>,
    ready: BTreeSet<String>,
    reports: Vec<Arc<Report>>,
    is_fleet_complete: bool,
    due_in: Option<Duration>,
}

impl View {
    pub(super) fn enforcing(&self) -> Enforcing<'_> {
        Enforcing {
            published: self.published.as_deref(),
            refusal: self.refusal.as_ref(),
            ready: &self.ready,
            reports: &self.reports,
            is_fleet_complete: self.is_fleet_complete,
            are_acks_due: self.due_in.is_none(),
        }
    }

    /// When acknowledgements that have not come become late, if some have not.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let newest = self.published.as_ref().map(|published| published.hash.as_str());
        let acked = |report: &&Arc<Report>| report.acked.as_ref().map(|acked| acked.hash.as_str()) == newest;
        let acknowledged = self.reports.iter().filter(|report| self.ready.contains(&report.pod)).filter(acked).count();
        self.due_in.filter(|_| acknowledged < self.ready.len())
    }

    pub(super) fn published(&self) -> Option<&Arc<Published>> {
        self.published.as_ref()
    }
}

impl Context {
    /// Reads these.
    pub fn new(
        caches: Caches,
        index: Arc<Index>,
        fleet: Arc<Fleet>,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let pods = Grouped::new(caches.pods.clone(), server_of_pod);
        let tools = Grouped::new(caches.tools.clone(), server_of_tool);
        Self {
            caches,
            index,
            fleet,
            settings,
            metrics,
            written: Arc::default(),
            turns: Turns::default(),
            pods,
            tools,
            ages: Mutex::default(),
        }
    }

    /// The pods of a server.
    pub(super) fn pods(&self, server: &Key) -> Vec<Arc<Pod>> {
        self.pods.of(server)
    }

    /// The McpTools that name a server.
    pub(super) fn tools(&self, server: &Key) -> Vec<Arc<McpTool>> {
        self.tools.of(server)
    }

    /// The policy and the gateways of a server.
    pub(super) fn view(&self, judgement: &Judgement, server: &Key) -> View {
        let target = Target { namespace: server.0.clone(), server: server.1.clone() };
        let published = judgement.published.get(&target).cloned();
        let due_in = self.due_in(&target, published.as_deref());
        let pods = self.pods(server);
        let ready = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| pod.metadata.uid.clone());
        View {
            refusal: judgement.refusals.get(&target).cloned(),
            ready: ready.collect(),
            reports: self.fleet.of(&target),
            is_fleet_complete: *self.fleet.is_complete().borrow(),
            due_in,
            published,
        }
    }

    /// Every server of a namespace that has a policy.
    pub(super) fn views(&self, judgement: &Judgement, namespace: &str) -> Vec<View> {
        let targets = judgement.published.keys().chain(judgement.refusals.keys());
        let targets: BTreeSet<&Target> = targets.filter(|target| target.namespace == namespace).collect();
        targets.iter().map(|target| self.view(judgement, &(namespace.to_owned(), target.server.clone()))).collect()
    }

    /// How long until an acknowledgement of this policy is late. A new leader counts from when it saw it first.
    fn due_in(&self, target: &Target, published: Option<&Published>) -> Option<Duration> {
        let mut ages = self.ages.lock();
        let Some(published) = published else {
            ages.remove(target);
            return None;
        };
        let now = Instant::now();
        match ages.get(target) {
            Some((hash, since)) if *hash == published.hash => {
                ACKNOWLEDGE.checked_sub(now.saturating_duration_since(*since)).filter(|left| !left.is_zero())
            }
            _ => {
                ages.insert(target.clone(), (published.hash.clone(), now));
                Some(ACKNOWLEDGE)
            }
        }
    }
}

/// What was found about an object as it is; `None`: this generation has not been judged yet, and there is nothing to say
/// before. That it was is a change.
pub(super) fn verdict<'a, K: Object>(judgement: &'a Judgement, object: &K) -> Option<Verdict<'a>> {
    let about = judgement.about(&reference(object))?;
    let judged = about.generation.filter(|judged| *judged >= crate::api::Object::generation(object))?;
    Some(Verdict { judged: Some(judged), findings: &about.findings })
}

/// The generation that was judged, and what was found.
pub(super) fn found(judgement: &Judgement, object: &ObjectRef) -> (Option<i64>, Vec<Finding>) {
    judgement.about(object).map(|about| (about.generation, about.findings.clone())).unwrap_or_default()
}

/// Names an object as policy does.
pub(super) fn reference<K: Object>(object: &K) -> ObjectRef {
    ObjectRef {
        kind: K::kind(&()).into_owned(),
        namespace: crate::api::Object::namespace(object).to_owned(),
        name: crate::api::Object::name(object).to_owned(),
    }
}

/// Whether a pod serves and stays.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let says = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    says && pod.metadata.deletion_timestamp.is_none()
}

pub(super) fn server_of_pod(pod: &Pod) -> Option<Key> {
    let name = pod.metadata.labels.as_ref()?.get(labels::SERVER)?;
    Some((pod.metadata.namespace.clone()?, name.clone()))
}

#[allow(clippy::unnecessary_wraps)] // As the function for pods.
fn server_of_tool(tool: &McpTool) -> Option<Key> {
    Some((tool.namespace().to_owned(), tool.spec.server_ref.name.clone()))
}
