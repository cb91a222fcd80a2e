//! Warnings: what is in force and probably not meant.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, in_namespace};
use crate::api::conditions::reason;
use crate::policy::check::glob_matches;
use crate::policy::snapshot::{Effect, Registration, Subject};
use crate::policy::world::{ObjectRef, Server, ServerRule, UNNAMED_ISSUER, World};

pub(super) fn give(world: &World, report: &mut Report) {
    let everyone = roles_of_everyone(world);
    for ((namespace, name), role) in &world.roles {
        let object = ObjectRef { kind: "McpRole".to_owned(), namespace: namespace.clone(), name: name.clone() };
        for rule in &role.rules {
            let servers = unmatched_servers(world, &object, rule, report);
            unmatched_tools(world, &object, rule, &servers, report);
            if everyone.contains(&(namespace.as_str(), name.as_str())) && grants_everything(rule) {
                let message = "this rule grants every tool of every server to callers whom no subject names; if that \
                               is not meant, narrow servers and tools, or add a condition";
                report.warning(&object, at(rule, ""), reason::GRANTS_EVERYTHING, message.to_owned());
            }
        }
        if role.subjects.iter().any(|subject| issuer(subject) == UNNAMED_ISSUER)
            && in_namespace(&world.gateways, namespace).all(|(_, gateway)| gateway.issuers.is_empty())
        {
            let message = format!(
                "no McpGateway of namespace `{namespace}` lists an issuer, so only the identities of `toolgate local` \
                 can have this role: add an McpGateway before the cluster"
            );
            report.warning(&object, "/spec/subjects", reason::NO_ISSUERS, message);
        }
    }
}

fn at(rule: &ServerRule, member: &str) -> String {
    format!("/spec/rules/{}{member}", rule.rule.index)
}

fn issuer(subject: &Subject) -> &str {
    match subject {
        Subject::User { issuer, .. }
        | Subject::Group { issuer, .. }
        | Subject::Claim { issuer, .. }
        | Subject::Scope { issuer, .. } => issuer,
    }
}

/// Names the globs that match no server, and returns the servers that the rule is about.
fn unmatched_servers<'a>(
    world: &'a World,
    object: &'a ObjectRef,
    rule: &ServerRule,
    report: &mut Report,
) -> BTreeMap<&'a str, &'a Server> {
    let mut concerned = BTreeMap::new();
    for (position, glob) in rule.servers.iter().enumerate() {
        let matched = matching(world, object, glob);
        if matched.is_empty() {
            let message = format!(
                "`{glob}` matches no McpServer of namespace `{}`: correct it, or declare the server",
                object.namespace
            );
            report.warning(object, at(rule, &format!("/servers/{position}")), reason::NO_MATCH, message);
        }
        concerned.extend(matched);
    }
    if let Some(labels) = &rule.server_selector {
        let selected: Vec<(&str, &Server)> = in_namespace(&world.servers, &object.namespace)
            .filter(|(_, server)| labels.iter().all(|(name, value)| server.labels.get(name) == Some(value)))
            .collect();
        if selected.is_empty() {
            let message = format!("no McpServer of namespace `{}` has these labels", object.namespace);
            report.warning(object, at(rule, "/serverSelector"), reason::NO_MATCH, message);
        }
        concerned.extend(selected);
    }
    concerned
}

fn matching<'a>(world: &'a World, object: &'a ObjectRef, glob: &str) -> Vec<(&'a str, &'a Server)> {
    in_namespace(&world.servers, &object.namespace).filter(|(name, _)| glob_matches(glob, name)).collect()
}

/// Globs over tools can be judged only where every tool is declared.
fn unmatched_tools(
    world: &World,
    object: &ObjectRef,
    rule: &ServerRule,
    servers: &BTreeMap<&str, &Server>,
    report: &mut Report,
) {
    if servers.is_empty() || servers.values().any(|server| server.registration == Registration::Auto) {
        return;
    }
    for (position, text) in rule.rule.tools.iter().enumerate() {
        let matched = in_namespace(&world.tools, &object.namespace).any(|(_, declared)| {
            servers.contains_key(declared.server.as_str()) && glob_matches(text, &declared.tool.name)
        });
        if !matched {
            let message = format!(
                "`{text}` matches no declared tool of these servers: correct it, or declare the tool with an McpTool"
            );
            report.warning(object, at(rule, &format!("/tools/{position}")), reason::NO_MATCH, message);
        }
    }
}

/// The roles that callers have without being named, those they inherit included.
fn roles_of_everyone(world: &World) -> BTreeSet<(&str, &str)> {
    let anonymous = world
        .gateways
        .iter()
        .filter_map(|((namespace, _), gateway)| Some((namespace.as_str(), gateway.anonymous.as_deref()?)));
    let by_scope = world.roles.iter().filter_map(|((namespace, name), role)| {
        let open = role.subjects.iter().any(|s| matches!(s, Subject::Scope { name, .. } if name == "openid"));
        open.then_some((namespace.as_str(), name.as_str()))
    });
    let mut found = BTreeSet::new();
    let mut stack: Vec<(&str, &str)> = anonymous.chain(by_scope).collect();
    while let Some((namespace, name)) = stack.pop() {
        if let Some(role) = world.roles.get(&(namespace.to_owned(), name.to_owned()))
            && found.insert((namespace, name))
        {
            stack.extend(role.inherits.iter().map(|other| (namespace, other.as_str())));
        }
    }
    found
}

fn grants_everything(rule: &ServerRule) -> bool {
    let any = |globs: &[String]| globs.iter().any(|glob| glob.bytes().all(|byte| byte == b'*'));
    let free = rule.rule.arguments.is_empty() && rule.rule.when.is_none() && rule.rule.time_window.is_none();
    rule.rule.effect == Effect::Allow && free && any(&rule.servers) && any(&rule.rule.tools)
}
