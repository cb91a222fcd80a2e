//! From declared objects to a [`World`]: the only part of `policy` that knows `api`.
//!
//! Owns what objects say together: references, names claimed twice, issuers of subjects, cycles. Total: any typed
//! objects give a world, and every part of them that is not in force is told as a [`Finding`]. Fails closed: a broken
//! part of an Allow rule takes the rule out of force, a broken part of a Deny rule makes it deny more, never less.
//!
//! # Issuers
//! A role is not bound to one gateway. The issuers that its subjects may name are those of all McpGateways of its
//! namespace, and within a namespace one name means one issuer: a second gateway that uses the name for another URL
//! loses that issuer. A subject may leave its issuer out only where the namespace has exactly one name; where it has
//! none, the subject is of [`UNNAMED_ISSUER`](super::world::UNNAMED_ISSUER).
//!
//! # What only a cluster has
//! ServiceAccount tokens and ConfigMaps are read where [`Objects::cluster`] is there. On a laptop their issuers exist
//! without keys, so that subjects may name them and identities of the overlay can stand in; a warning says so. In a
//! cluster a ConfigMap that is missing leaves its issuer without keys, and that is an error.
//!
//! # Everything to everyone
//! A rule grants everything to everyone if it allows the tools `*` at the servers `*` without any condition, and its
//! role is one that callers get without being named: the role of anonymous callers, or a role with the scope `openid`,
//! which every OIDC token has, or a role that one of these inherits. It is in force, with a warning.

mod advice;
mod argument;
mod config_maps;
mod cycles;
mod gateways;
mod roles;
mod rules;
mod servers;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::api::conditions::reason;
use crate::api::{McpGateway, McpRole, McpServer, McpTool, Object};

use super::snapshot::Input;
use super::world::{Finding, Key, ObjectRef, Severity, World};

/// Every object of the kinds that policy reads, in any order. A cluster's are shared with its caches.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// McpServers.
    pub servers: Vec<Arc<McpServer>>,
    /// McpTools.
    pub tools: Vec<Arc<McpTool>>,
    /// McpRoles.
    pub roles: Vec<Arc<McpRole>>,
    /// McpGateways.
    pub gateways: Vec<Arc<McpGateway>>,
    /// Who signs ServiceAccount tokens; unset on a laptop.
    pub cluster: Option<ClusterIssuer>,
    /// `data` of the ConfigMaps with the label `toolgate.dev/jwks: "true"`.
    pub config_maps: BTreeMap<Key, BTreeMap<String, String>>,
}

/// The cluster as the issuer of ServiceAccount tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterIssuer {
    /// The `iss` claim of its tokens.
    pub url: String,
    /// Its JWK set, as JSON text.
    pub jwks: String,
}

/// Parses all objects together. The findings are sorted by object and pointer; a finding of severity `Error` names a
/// part that is not in force.
pub fn parse(objects: &Objects) -> (World, Vec<Finding>) {
    let mut report = Report::default();
    let servers = unique(&objects.servers, &mut report);
    let tools = unique(&objects.tools, &mut report);
    let roles = unique(&objects.roles, &mut report);
    let gateways = unique(&objects.gateways, &mut report);

    let parsed = gateways::parse(&gateways, &roles, objects, &mut report);
    let mut world = World { gateways: parsed.gateways, ..World::default() };
    world.servers = servers::parse(&servers, &world.gateways, objects, &mut report);
    world.tools = tools::parse(&tools, &world.servers, &mut report);
    world.roles = roles::parse(&roles, &world.gateways, &parsed.of_service_accounts, &mut report);
    advice::give(&world, &mut report);

    let mut findings = report.findings;
    findings.sort_by(|a, b| (&a.object, &a.pointer, a.reason).cmp(&(&b.object, &b.pointer, b.reason)));
    (world, findings)
}

/// The objects by name. Of two with one name the older stays; without an age, the first.
fn unique<'a, K: Object>(objects: &'a [Arc<K>], report: &mut Report) -> BTreeMap<Key, &'a K> {
    let mut kept: BTreeMap<Key, &K> = BTreeMap::new();
    for object in objects.iter().map(Arc::as_ref) {
        match kept.entry(key(object)) {
            Entry::Vacant(entry) => {
                entry.insert(object);
            }
            Entry::Occupied(mut entry) => {
                let older = object.created().is_some_and(|created| entry.get().created().is_none_or(|c| created < c));
                if older {
                    entry.insert(object);
                }
                let message = "the same name is declared twice; the older one, or the first, keeps working: remove one";
                report.error(&reference(object), "/metadata/name", reason::CONFLICTED, message.to_owned());
            }
        }
    }
    kept
}

/// Collects findings.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn error(&mut self, object: &ObjectRef, pointer: impl Into<String>, reason: &'static str, message: String) {
        self.add(object, pointer.into(), Severity::Error, reason, message);
    }

    fn warning(&mut self, object: &ObjectRef, pointer: impl Into<String>, reason: &'static str, message: String) {
        self.add(object, pointer.into(), Severity::Warning, reason, message);
    }

    fn add(&mut self, object: &ObjectRef, pointer: String, severity: Severity, reason: &'static str, message: String) {
        self.findings.push(Finding { object: object.clone(), pointer, severity, reason, message });
    }
}

fn key(object: &impl Object) -> Key {
    (object.namespace().to_owned(), object.name().to_owned())
}

fn reference<K: Object>(object: &K) -> ObjectRef {
    ObjectRef { kind: K::kind(), namespace: object.namespace().to_owned(), name: object.name().to_owned() }
}

fn input<K: Object>(object: &K) -> Input {
    Input {
        kind: K::kind(),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
        generation: object.generation(),
    }
}

/// The objects of one namespace, in the order of their names.
fn in_namespace<'a, T>(objects: &'a BTreeMap<Key, T>, namespace: &'a str) -> impl Iterator<Item = (&'a str, &'a T)> {
    objects
        .range((namespace.to_owned(), String::new())..)
        .take_while(move |((found, _), _)| found == namespace)
        .map(|((_, name), object)| (name.as_str(), object))
}

/// `` `a`, `b` `` for messages; at most eight, so that a message stays readable.
fn quoted(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
