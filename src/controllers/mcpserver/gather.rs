//! Reads the caches for one McpServer: what its plan and its status are made from. Writes nothing.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::api::conditions::reason;
use crate::api::{McpGateway, McpServer, McpTool, Object as _};
use crate::controllers::context::{Context, View, found, is_ready, reference};
use crate::kubernetes::Key;
use crate::policy::Finding;
use crate::policyserver::fleet::Offer;
use crate::policyserver::index::{Judgement, Published};
use crate::status::{Waiting, Workload};
use crate::wire::{VerifyKey, open};

use super::network::Surroundings;
use super::plan::{Facts, finding};
use super::{names, registration};

/// What is known of one McpServer.
pub(super) struct Gathered {
    pub(super) judgement: Arc<Judgement>,
    pub(super) view: View,
    pub(super) judged: Option<i64>,
    pub(super) findings: Vec<Finding>,
    pub(super) deployment: Option<Arc<Deployment>>,
    pub(super) workload: Option<Workload>,
    pub(super) tools: Vec<Arc<McpTool>>,
    pub(super) offer: Option<Arc<Offer>>,
    pub(super) registration: registration::Registration,
    boot: Option<Vec<u8>>,
    gateway: Option<Arc<McpGateway>>,
    upstream: Option<Arc<Service>>,
}

pub(super) fn gather(context: &Context, key: &Key, server: &McpServer) -> Gathered {
    let caches = &context.caches;
    let judgement = context.index.now();
    let view = context.view(&judgement, key);
    let (judged, mut findings) = found(&judgement, &reference(server));
    let in_namespace = |name: &str| (key.0.clone(), name.to_owned());
    let source = server.spec.source.service.as_ref();
    let upstream = source.and_then(|source| caches.services.get(&in_namespace(&source.name)));
    findings.extend(check_source(server, upstream.as_deref()));
    let boot_map = caches.config_maps.get(&in_namespace(&names::boot_map(&key.1)));
    let current = boot_map.as_ref().and_then(|map| map.binary_data.as_ref()?.get(names::BOOT_KEY));
    let boot = view
        .published()
        .map(|published| boot(published, current.map(|bytes| bytes.0.as_slice()), &context.settings.verify_key));
    let deployment = caches.deployments.get(key);
    let workload = deployment.as_ref().map(|deployment| workload(deployment, &context.pods(key)));
    let tools = context.tools(key);
    let offer = view.enforcing().offer().cloned();
    let registration = registration::register(server, offer.as_deref(), &tools);
    let gateway = caches.gateways.get(&in_namespace(&server.spec.gateway_ref.name));
    Gathered {
        judgement,
        view,
        judged,
        findings,
        deployment,
        workload,
        tools,
        offer,
        registration,
        boot,
        gateway,
        upstream,
    }
}

impl Gathered {
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            boot: self.boot.as_deref(),
            offer: self.offer.as_deref(),
            running: self.deployment.as_deref(),
            around: Surroundings { gateway: self.gateway.as_deref(), upstream: self.upstream.as_deref() },
        }
    }
}

/// What the boot ConfigMap should hold: what it holds, if that is the published policy, else the newest form of that.
/// Its version alone is no reason to write: it rises with every write of a status.
fn boot(published: &Published, current: Option<&[u8]>, key: &VerifyKey) -> Vec<u8> {
    let is_same = |bytes: &&[u8]| {
        **bytes == *published.bytes // As it was written: no signature need be checked.
            || open(bytes, key).is_ok_and(|opened| {
                opened.target == published.target
                    && opened.hash == published.hash
                    && opened.version.epoch == published.version.epoch
            })
    };
    current.filter(is_same).unwrap_or(&published.bytes).to_vec()
}

/// Whether the Service of `source.service` is there. `ready` waits for it: what it refers to must exist.
fn check_source(server: &McpServer, upstream: Option<&Service>) -> Option<Finding> {
    let source = server.spec.source.service.as_ref()?;
    let find = |pointer: &str, message: String| Some(finding(server, pointer, reason::SERVICE_NOT_FOUND, message));
    let Some(service) = upstream else {
        let message =
            format!("Service `{}` does not exist in namespace `{}`: create it", source.name, server.namespace());
        return find("/spec/source/service/name", message);
    };
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    if ports.any(|port| port.port == source.port) {
        return None;
    }
    let message = format!("Service `{}` has no port {}: correct one of them", source.name, source.port);
    find("/spec/source/service/port", message)
}

fn workload(deployment: &Deployment, pods: &[Arc<Pod>]) -> Workload {
    let status = deployment.status.as_ref();
    let is_seen = status.and_then(|status| status.observed_generation) >= deployment.metadata.generation;
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| pod.metadata.uid.clone());
    Workload {
        wanted,
        replicas: status.and_then(|status| status.replicas).unwrap_or(0),
        // Until the Deployment's controller has seen the newest template, no pod is of it.
        updated: status.filter(|_| is_seen).and_then(|status| status.updated_replicas).unwrap_or(0),
        ready: ready.collect(),
        waiting: waiting(deployment, pods),
    }
}

/// What keeps a pod from running: of the newest pod that waits, else why there is none.
fn waiting(deployment: &Deployment, pods: &[Arc<Pod>]) -> Option<Waiting> {
    let newest = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| Some((pod, pod_waits(pod)?)))
        .max_by(|(a, _), (b, _)| {
            let age = |pod: &Pod| (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone());
            age(a).cmp(&age(b))
        });
    newest.map(|(_, waiting)| waiting).or_else(|| {
        let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let failure = conditions
            .into_iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
        Some(Waiting {
            reason: failure.reason.clone().unwrap_or_default(),
            message: failure.message.clone().unwrap_or_default(),
        })
    })
}

fn pod_waits(pod: &Pod) -> Option<Waiting> {
    let status = pod.status.as_ref()?;
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    if let Some(condition) = scheduled.filter(|condition| condition.status == "False") {
        return Some(Waiting {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        });
    }
    // The usual steps of a start say nothing.
    let is_step = |reason: &str| ["PodInitializing", "ContainerCreating"].contains(&reason);
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waits = containers.filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?)));
    waits
        .filter(|(_, waits)| waits.reason.as_deref().is_some_and(|reason| !is_step(reason)))
        .map(|(container, waits)| Waiting {
            reason: waits.reason.clone().unwrap_or_default(),
            message: format!("container {}: {}", container.name, waits.message.as_deref().unwrap_or("it waits")),
        })
        .next()
}
