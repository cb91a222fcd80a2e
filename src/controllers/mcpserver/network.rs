//! PURE. The barrier around the pods of a server: who may connect to them, and where they may connect to.
//!
//! Admits the gateway's port alone. Probes come from the node, which Kubernetes lets through; nobody else reaches the
//! admin port. Where `sandbox.egress`, or the installation's default, limits egress, the whole pod has what the
//! gateway itself needs besides: DNS in the cluster, the operator, the issuers' keys, and the server where that runs
//! elsewhere. A gateway and its server share one network, so what the gateway may reach, the server may too.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{Egress, McpGateway, McpServer, Object as _};
use crate::controllers::settings::{PolicyServer, Settings};
use crate::kubernetes::labels;

use super::names;

/// Ports of DNS in clusters: by name, and where its pods listen in some.
const DNS_PORTS: [i32; 2] = [53, 5353];
/// Where the DNS cache of a node listens.
const NODE_DNS: &str = "169.254.20.10/32";

/// What of the surroundings decides where the gateway must connect to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The McpGateway whose issuers are trusted.
    pub gateway: Option<&'a McpGateway>,
    /// The Service of `source.service`.
    pub upstream: Option<&'a Service>,
}

pub(super) fn policy(server: &McpServer, around: Surroundings<'_>, settings: &Settings) -> NetworkPolicySpec {
    let asked = server.spec.sandbox.as_ref().and_then(|sandbox| sandbox.egress.as_ref());
    let limited = asked.or(settings.default_egress.as_ref());
    let egress = limited.map(|limited| {
        let mut rules = vec![dns(), policy_server(&settings.policy_server)];
        rules.extend(upstream(server, around.upstream));
        rules.extend(around.gateway.into_iter().flat_map(key_ports).map(anywhere));
        rules.extend(limited.iter().map(to));
        rules.dedup();
        rules
    });
    let mut types = vec!["Ingress".to_owned()];
    types.extend(egress.as_ref().map(|_| "Egress".to_owned()));
    NetworkPolicySpec {
        pod_selector: Some(selector(labels::SERVER, server.name())),
        policy_types: Some(types),
        ingress: Some(vec![NetworkPolicyIngressRule { from: None, ports: Some(vec![tcp(names::MCP_PORT)]) }]),
        egress,
    }
}

fn selector(label: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(label.to_owned(), value.to_owned())].into()), ..LabelSelector::default() }
}

fn port(protocol: &str, port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(port), protocol: Some(protocol.to_owned()), end_port: None }
}

fn tcp(number: i32) -> NetworkPolicyPort {
    port("TCP", IntOrString::Int(number))
}

fn block(cidr: &str) -> NetworkPolicyPeer {
    let block = IPBlock { cidr: cidr.to_owned(), except: None };
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}

/// Any port of DNS, at pods of this cluster and at the node's cache. Names are asked of nobody outside, else they would
/// be a way out.
fn dns() -> NetworkPolicyEgressRule {
    let pods = NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    let ports = DNS_PORTS.iter().flat_map(|number| ["UDP", "TCP"].map(|kind| port(kind, IntOrString::Int(*number))));
    NetworkPolicyEgressRule { to: Some(vec![pods, block(NODE_DNS)]), ports: Some(ports.collect()) }
}

fn policy_server(server: &PolicyServer) -> NetworkPolicyEgressRule {
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(selector("kubernetes.io/metadata.name", &server.namespace)),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(vec![tcp(i32::from(server.port))]) }
}

fn anywhere(number: i32) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: None, ports: Some(vec![tcp(number)]) }
}

fn to(egress: &Egress) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(vec![block(&egress.cidr)]), ports: egress.port.map(|number| vec![tcp(number)]) }
}

/// The server itself, where it runs elsewhere. A name has no addresses that a NetworkPolicy could know.
fn upstream(server: &McpServer, service: Option<&Service>) -> Option<NetworkPolicyEgressRule> {
    if let Some(remote) = &server.spec.source.remote {
        return port_of(&remote.url).map(anywhere);
    }
    let source = server.spec.source.service.as_ref()?;
    // Until the Service is there, nothing can be reached behind it.
    let spec = service?.spec.as_ref()?;
    let target = spec.ports.iter().flatten().find(|port| port.port == source.port)?.target_port.clone();
    let target = target.unwrap_or(IntOrString::Int(source.port));
    let ports = Some(vec![port("TCP", target)]);
    let selected = spec.selector.clone().filter(|labels| !labels.is_empty());
    let to = selected.map(|labels| {
        let pods = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        vec![NetworkPolicyPeer { pod_selector: Some(pods), ..NetworkPolicyPeer::default() }]
    });
    Some(NetworkPolicyEgressRule { to, ports })
}

/// The ports at which the keys of the gateway's issuers are fetched, sorted.
fn key_ports(gateway: &McpGateway) -> Vec<i32> {
    let of_issuer = |issuer: &crate::api::Issuer| {
        let oidc = issuer.oidc.as_ref()?;
        match &oidc.jwks {
            None => port_of(&oidc.url), // Its own metadata says where, and mostly that is beside it.
            Some(jwks) => jwks.url.as_deref().and_then(port_of),
        }
    };
    let mut ports: Vec<i32> = gateway.spec.issuers.iter().filter_map(of_issuer).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The port of an http or https URL.
fn port_of(url: &str) -> Option<i32> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    match after_host.rsplit_once(':') {
        Some((_, port)) => port.parse().ok(),
        None => Some(if scheme == "https" { 443 } else { 80 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_url_is_written_or_that_of_its_scheme() {
        for (url, port) in [
            ("https://a.example", Some(443)),
            ("https://a.example/x:1", Some(443)),
            ("https://a.example:8443/x", Some(8443)),
            ("http://[::1]/x", Some(80)),
            ("http://[::1]:81", Some(81)),
            ("a.example", None),
        ] {
            assert_eq!(port_of(url), port, "{url}");
        }
    }
}
