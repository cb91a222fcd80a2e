//! PURE. Everything that exists for one McpServer, from the server and what is around it.
//!
//! No client and no clock: the same input gives the same plan, so that tests compare whole objects and nothing is
//! written where nothing changes. What cannot be planned is left as it is, and told as a [`Finding`].

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;

use crate::api::conditions::reason;
use crate::api::{GatewayUpdate, McpServer, Object as _};
use crate::controllers::settings::Settings;
use crate::kubernetes::labels;
use crate::policy::{Finding, ObjectRef, Severity};
use crate::policyserver::fleet::Offer;

use super::network::{self, Surroundings};
use super::{catalogue, names, pods, revision, template};

/// What a plan is made from beside the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The signed snapshot that new gateways start from; unset: none yet.
    pub boot: Option<&'a [u8]>,
    /// What the server offers; unset: not known, and the last catalogue stays.
    pub offer: Option<&'a Offer>,
    /// The Deployment as it is.
    pub running: Option<&'a Deployment>,
    /// Whom the gateway must reach.
    pub around: Surroundings<'a>,
}

/// Everything that exists for one McpServer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The identity of the pods, without any right.
    pub service_account: ServiceAccount,
    /// The CA of the endpoints: one for the namespace.
    pub ca: ConfigMap,
    /// What gateways start from; unset: what there is stays.
    pub boot: Option<ConfigMap>,
    /// What the server offers; unset: what there is stays.
    pub catalogue: Option<ConfigMap>,
    /// The barrier around the pods.
    pub network_policy: NetworkPolicy,
    /// The endpoint.
    pub service: Service,
    /// How many pods may be taken away; unset: there is but one, and the budget goes.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// The pods; unset: they cannot be planned, and what runs stays.
    pub deployment: Option<Deployment>,
    /// The pods are as they were planned earlier, and would be others by now: `gatewayUpdate: OnRollout`.
    pub is_update_waiting: bool,
    /// What is wrong with the declaration.
    pub findings: Vec<Finding>,
}

/// Plans everything.
pub fn plan(server: &McpServer, facts: &Facts<'_>, settings: &Settings) -> Plan {
    let mut findings = Vec::new();
    check_ports(server, &mut findings);
    let base = pods::template(server, settings);
    let template = match template::merge(&base, &server.spec.pod_template) {
        Ok(template) if findings.is_empty() => Some(template),
        Ok(_) => None,
        Err(message) => {
            // The judge of policy tells the same fault; one that only the merge shows is told here.
            findings.push(finding(server, "/spec/podTemplate", reason::INVALID_POD_TEMPLATE, message));
            None
        }
    };
    let name = server.name();
    let (deployment, is_update_waiting) =
        template.map(|template| deployment(server, template, facts.running, settings)).unzip();
    Plan {
        service_account: ServiceAccount {
            metadata: meta(server, names::companion(name)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        ca: ca(server, settings),
        boot: facts.boot.map(|bytes| ConfigMap {
            metadata: meta(server, names::boot_map(name)),
            binary_data: Some([(names::BOOT_KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
            ..ConfigMap::default()
        }),
        catalogue: facts.offer.map(|offer| ConfigMap {
            metadata: meta(server, names::catalogue_map(name)),
            data: Some([(names::CATALOGUE_KEY.to_owned(), catalogue::text(offer))].into()),
            ..ConfigMap::default()
        }),
        network_policy: NetworkPolicy {
            metadata: meta(server, names::companion(name)),
            spec: Some(network::policy(server, facts.around, settings)),
        },
        service: service(server),
        disruption_budget: (replicas(server, facts.running) > 1).then(|| disruption_budget(server)),
        deployment,
        is_update_waiting: is_update_waiting.unwrap_or_default(),
        findings,
    }
}

/// A finding about a server's workload.
pub(super) fn finding(server: &McpServer, pointer: &str, reason: &'static str, message: String) -> Finding {
    let object = ObjectRef {
        kind: "McpServer".to_owned(),
        namespace: server.namespace().to_owned(),
        name: server.name().to_owned(),
    };
    Finding { object, pointer: pointer.to_owned(), severity: Severity::Error, reason, message }
}

/// Server and gateway share the ports of their pod.
fn check_ports(server: &McpServer, findings: &mut Vec<Finding>) {
    let port = server.spec.source.container.as_ref().and_then(|container| container.port);
    if let Some(port) = port.filter(|port| [names::MCP_PORT, names::ADMIN_PORT].contains(port)) {
        let message = format!("port {port} is the gateway's: let the server listen on another");
        findings.push(finding(server, "/spec/source/container/port", reason::PORT_TAKEN, message));
    }
}

/// How many pods are asked for: by the McpServer, else by whoever scaled the Deployment.
fn replicas(server: &McpServer, running: Option<&Deployment>) -> i32 {
    let scaled = running.and_then(|deployment| deployment.spec.as_ref()?.replicas);
    server.spec.replicas.or(scaled).unwrap_or(1)
}

fn meta(server: &McpServer, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(server.namespace().to_owned()),
        labels: Some(labels::of_server(server.name())),
        owner_references: server.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn selector(server: &McpServer) -> LabelSelector {
    // By our own label alone: `app.kubernetes.io/instance` may stand on the pods of others.
    let own = [(labels::SERVER.to_owned(), server.name().to_owned())].into();
    LabelSelector { match_labels: Some(own), ..LabelSelector::default() }
}

/// No owner: it goes with the last McpServer of the namespace.
fn ca(server: &McpServer, settings: &Settings) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::CA_MAP.to_owned()),
            namespace: Some(server.namespace().to_owned()),
            labels: Some([(labels::MANAGED_BY.to_owned(), labels::TOOLGATE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(names::CA_KEY.to_owned(), settings.ca.clone())].into()),
        ..ConfigMap::default()
    }
}

fn service(server: &McpServer) -> Service {
    let port = ServicePort {
        name: Some("mcp".to_owned()),
        port: names::MCP_PORT,
        protocol: Some("TCP".to_owned()),
        // A number: not every version of Kubernetes finds the named port of a native sidecar.
        target_port: Some(IntOrString::Int(names::MCP_PORT)),
        ..ServicePort::default()
    };
    Service {
        metadata: meta(server, server.name().to_owned()),
        spec: Some(ServiceSpec {
            selector: selector(server).match_labels,
            ports: Some(vec![port]),
            // A session's state is in one pod.
            session_affinity: Some("ClientIP".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn disruption_budget(server: &McpServer) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(server, names::companion(server.name())),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(server)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// The Deployment, and whether pods as they would be planned now wait for a rollout.
fn deployment(
    server: &McpServer,
    template: PodTemplateSpec,
    running: Option<&Deployment>,
    settings: &Settings,
) -> (Deployment, bool) {
    let mut metadata = meta(server, server.name().to_owned());
    let declared = revision::declared(server, settings);
    let kept = running
        .and_then(revision::read)
        .filter(|kept| server.spec.gateway_update == GatewayUpdate::OnRollout && kept.declared == declared);
    let is_waiting = kept.as_ref().is_some_and(|kept| kept.template != template);
    let revision = kept.unwrap_or(revision::Revision { declared, template });
    metadata.annotations = revision::annotation(&revision).map(|(name, text)| [(name, text)].into());
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            // Left out when unset: then it is an autoscaler's, or whoever's `kubectl scale` was the last.
            replicas: server.spec.replicas,
            revision_history_limit: Some(3),
            selector: selector(server),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: revision.template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    (deployment, is_waiting)
}

#[cfg(test)]
mod tests;
