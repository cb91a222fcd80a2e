//! McpServers: what callers may be asked, whose tokens count, and what the server's pods refer to.

use std::collections::BTreeMap;

use super::{Objects, Report, in_namespace, input, quoted, reference};
use crate::api::conditions::reason;
use crate::api::{self, DisconnectedMode, McpServer, Object as _, pod_template};
use crate::policy::snapshot::{Elicitation, Leave, OnLoss, Registration, ServerRequests};
use crate::policy::world::{Gateway, Key, ObjectRef, Server};

pub(super) fn parse(
    servers: &BTreeMap<Key, &McpServer>,
    gateways: &BTreeMap<Key, Gateway>,
    objects: &Objects,
    report: &mut Report,
) -> BTreeMap<Key, Server> {
    let mut parsed = BTreeMap::new();
    for (key, object) in servers {
        let server = server(object);
        check_gateway(key, &server, gateways, report);
        check_pods(object, objects, report);
        parsed.insert(key.clone(), server);
    }
    parsed
}

fn server(object: &McpServer) -> Server {
    let asked = object.spec.server_requests;
    let leave = |leave| match leave {
        api::Leave::Allow => Leave::Allow,
        api::Leave::Deny => Leave::Deny,
    };
    Server {
        gateway: object.spec.gateway_ref.name.clone(),
        registration: match object.spec.registration {
            api::Registration::Declared => Registration::Declared,
            api::Registration::Auto => Registration::Auto,
        },
        server_requests: ServerRequests {
            elicitation: match asked.elicitation {
                api::Elicitation::Form => Elicitation::Form,
                api::Elicitation::FormAndUrl => Elicitation::FormAndUrl,
                api::Elicitation::Deny => Elicitation::Deny,
            },
            sampling: leave(asked.sampling),
            roots: leave(asked.roots),
        },
        deny_after_seconds: deny_after(object),
        on_loss: match object.spec.on_loss {
            api::OnLoss::Replay => OnLoss::Replay,
            api::OnLoss::NotFound => OnLoss::NotFound,
        },
        labels: object.labels(),
        input: input(object),
    }
}

/// A namespace without any McpGateway is a small beginning, not a dangling reference, as long as nothing but the
/// default is meant.
fn check_gateway(key: &Key, server: &Server, gateways: &BTreeMap<Key, Gateway>, report: &mut Report) {
    let (namespace, name) = key;
    let names: Vec<&str> = in_namespace(gateways, namespace).map(|(name, _)| name).collect();
    if names.contains(&server.gateway.as_str()) || (names.is_empty() && server.gateway == "default") {
        return;
    }
    let object = ObjectRef { kind: "McpServer".to_owned(), namespace: namespace.clone(), name: name.clone() };
    let message = format!(
        "McpGateway `{}` does not exist in namespace `{namespace}`, so no token is accepted: {}",
        server.gateway,
        if names.is_empty() { "create it".to_owned() } else { format!("create it, or name one of {}", quoted(&names)) }
    );
    report.error(&object, "/spec/gatewayRef/name", reason::GATEWAY_NOT_FOUND, message);
}

/// A policy that denies wants a time; without one, which the schema forbids, the shortest is safe.
fn deny_after(object: &McpServer) -> Option<u32> {
    let policy = object.spec.disconnected_policy?;
    match policy.mode {
        DisconnectedMode::KeepLastKnownGood => None,
        DisconnectedMode::DenyAfter => {
            Some(policy.seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0))
        }
    }
}

/// Nothing of this is policy, and none of it is out of force here: the pods are another room's. But one place tells
/// everything that is wrong with an object.
fn check_pods(server: &McpServer, objects: &Objects, report: &mut Report) {
    let object = reference(server);
    for fault in pod_template::faults(&server.spec.pod_template) {
        let pointer = format!("/spec/podTemplate{}", fault.pointer);
        report.error(&object, pointer, reason::INVALID_POD_TEMPLATE, fault.message);
    }
    // In a cluster the pods mount it, and wait for it.
    let has_bundle = server.spec.source.remote.as_ref().is_some_and(|remote| remote.ca_bundle.is_some());
    if has_bundle && objects.cluster.is_none() {
        let message = "ConfigMaps are not read on a laptop, so only public certificates count here";
        report.warning(&object, "/spec/source/remote/caBundle", reason::NO_CLUSTER, message.to_owned());
    }
}
