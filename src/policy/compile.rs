//! World and target to snapshot. Pure, total, deterministic.

use std::collections::{BTreeMap, BTreeSet};

use super::glob::Glob;
use super::snapshot::{ArgumentRule, Effect, FORMAT, Input, Role, Rule, Snapshot, Subject, Target, Tool};
use super::world::{DeclaredRole, Gateway, Key, ServerRule, World};

/// Compiles the policy of one server. `urls` are the endpoint's own URLs, canonical one first.
///
/// `None` if the world holds no such server. What decides nothing about the order of a list does not show in it: the
/// same objects give the same bytes. Only objects of the target's namespace count, and only `urls` are accepted
/// audiences: the gateway's own URL belongs to another endpoint.
///
/// Two tools of one name, or of one exposed name, are `parse`'s to report; here the first by name of its McpTool
/// stays, and the other is left out.
pub fn compile(world: &World, target: &Target, urls: &[String]) -> Option<Snapshot> {
    let server = world.servers.get(&key(target, &target.server))?;
    let gateway = world.gateways.get(&key(target, &server.gateway));
    let mut inputs = BTreeSet::from([server.input.clone()]);
    inputs.extend(gateway.map(|gateway| gateway.input.clone()));
    let tools = tools(world, target, &mut inputs);
    let roles = roles(world, target, &server.labels, &mut inputs);
    Some(Snapshot {
        format: FORMAT,
        target: target.clone(),
        urls: distinct(urls),
        registration: server.registration,
        server_requests: server.server_requests,
        deny_after_seconds: server.deny_after_seconds,
        tools,
        roles,
        anonymous: gateway.and_then(|gateway| anonymous(world, target, gateway)),
        issuers: gateway.map(issuers).unwrap_or_default(),
        inputs: inputs.into_iter().collect(),
    })
}

fn key(target: &Target, name: &str) -> Key {
    (target.namespace.clone(), name.to_owned())
}

/// The caller's order without repetitions: the first is canonical.
fn distinct(urls: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    urls.iter().filter(|url| seen.insert(url.as_str())).cloned().collect()
}

/// The anonymous role, if it exists: a name without a role refuses callers without a token.
fn anonymous(world: &World, target: &Target, gateway: &Gateway) -> Option<String> {
    gateway.anonymous.clone().filter(|role| world.roles.contains_key(&key(target, role)))
}

fn issuers(gateway: &Gateway) -> Vec<super::snapshot::Issuer> {
    let mut issuers = gateway.issuers.clone();
    issuers.sort_by(|a, b| (&a.name, &a.url).cmp(&(&b.name, &b.url)));
    issuers
}

fn tools(world: &World, target: &Target, inputs: &mut BTreeSet<Input>) -> Vec<Tool> {
    let mut by_name: BTreeMap<String, Tool> = BTreeMap::new();
    let mut exposed = BTreeSet::new();
    // In the order of namespace and name of the McpTool.
    for ((namespace, _), declared) in &world.tools {
        if *namespace != target.namespace || declared.server != target.server {
            continue;
        }
        inputs.insert(declared.input.clone());
        let mut tool = declared.tool.clone();
        sort(&mut tool.capabilities);
        // An exposed name that says nothing new is none, so that both ways to write it are one policy.
        tool.exposed_name = tool.exposed_name.filter(|exposed| *exposed != tool.name);
        let exposed_name = tool.exposed_name.as_ref().unwrap_or(&tool.name);
        if !by_name.contains_key(&tool.name) && exposed.insert(exposed_name.clone()) {
            by_name.insert(tool.name.clone(), tool);
        }
    }
    by_name.into_values().collect()
}

/// The roles with a rule for the target and their heirs, reduced to the target.
fn roles(world: &World, target: &Target, labels: &BTreeMap<String, String>, inputs: &mut BTreeSet<Input>) -> Vec<Role> {
    let declared: BTreeMap<&str, &DeclaredRole> = world
        .roles
        .iter()
        .filter(|((namespace, _), _)| *namespace == target.namespace)
        .map(|((_, name), role)| (name.as_str(), role))
        .collect();
    let concerned = |role: &DeclaredRole| {
        let rules = (0_u32..).zip(&role.rules).filter(|(_, rule)| concerns(rule, target, labels));
        rules.map(|(_, rule)| reduced(&rule.rule)).collect::<Vec<_>>()
    };
    let rules: BTreeMap<&str, Vec<Rule>> = declared.iter().map(|(name, role)| (*name, concerned(role))).collect();

    let mut heirs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, role) in &declared {
        role.inherits.iter().for_each(|parent| heirs.entry(parent.as_str()).or_default().push(name));
    }
    let mut kept = BTreeSet::new();
    let mut pending: Vec<&str> = rules.iter().filter(|(_, rules)| !rules.is_empty()).map(|(name, _)| *name).collect();
    while let Some(name) = pending.pop() {
        if kept.insert(name) {
            pending.extend(heirs.get(name).into_iter().flatten());
        }
    }

    let reduce = |(name, role): (&&str, &&DeclaredRole)| {
        inputs.insert(role.input.clone());
        let mut inherits: Vec<String> =
            role.inherits.iter().filter(|parent| kept.contains(parent.as_str())).cloned().collect();
        sort(&mut inherits);
        let mut subjects: Vec<Subject> = role.subjects.iter().map(sorted_subject).collect();
        sort(&mut subjects);
        Role { name: (*name).to_owned(), inherits, subjects, rules: rules.get(name).cloned().unwrap_or_default() }
    };
    declared.iter().filter(|(name, _)| kept.contains(**name)).map(reduce).collect()
}

/// Whether a rule is about the server: named by a glob, or selected by its labels. A rule with neither is about none.
fn concerns(rule: &ServerRule, target: &Target, labels: &BTreeMap<String, String>) -> bool {
    let named = rule.servers.iter().any(|glob| match Glob::parse(glob) {
        Ok(glob) => glob.matches(&target.server),
        Err(_) => rule.rule.effect == Effect::Deny, // `parse` refuses it; if one gets here, it cannot lift a Deny.
    });
    let selected = |wanted: &BTreeMap<String, String>| wanted.iter().all(|(key, want)| labels.get(key) == Some(want));
    named || rule.server_selector.as_ref().is_some_and(selected)
}

/// A rule with every list sorted whose order means nothing. The order of `arguments` stays: a refusal names the first
/// that fails.
fn reduced(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    let Rule { index: _, effect: _, tools, tool_selector, prompts, resources, arguments, time_window, when: _ } =
        &mut rule;
    [tools, prompts, resources].into_iter().for_each(sort);
    if let Some(selector) = tool_selector {
        sort(&mut selector.capabilities);
    }
    if let Some(window) = time_window {
        sort(&mut window.days);
    }
    for ArgumentRule { path: _, one_of, below, minimum: _, maximum: _ } in arguments {
        sort(one_of);
        sort(below);
    }
    rule
}

fn sorted_subject(subject: &Subject) -> Subject {
    let mut subject = subject.clone();
    if let Subject::Claim { values, .. } = &mut subject {
        sort(values);
    }
    subject
}

fn sort<T: Ord>(list: &mut Vec<T>) {
    list.sort();
    list.dedup();
}

#[cfg(test)]
mod tests;
