//! World and target to snapshot. Pure, total, deterministic.

use std::collections::{BTreeMap, BTreeSet};

use super::glob::Glob;
use super::snapshot::{ArgumentRule, Effect, FORMAT, Input, Role, Rule, Snapshot, Subject, Target, Tool};
use super::world::{DeclaredRole, DeclaredTool, Gateway, Key, Server, ServerRule, World};

/// Compiles the policy of one server. `urls` are the endpoint's own URLs, canonical one first.
///
/// `None` if the world holds no such server. What decides nothing about the order of a list does not show in it: the
/// same objects give the same bytes. Only objects of the target's namespace count, and only `urls` are accepted
/// audiences: the gateway's own URL belongs to another endpoint.
///
/// Two tools of one name, or of one exposed name, are `parse`'s to report; here the first by name of its McpTool
/// stays, and the other is left out.
pub fn compile(world: &World, target: &Target, urls: &[String]) -> Option<Snapshot> {
    Compiler::new(world, &target.namespace).compile(&target.server, urls)
}

/// [`compile`] for many servers of one namespace: what does not depend on the server is arranged once.
#[derive(Debug)]
pub struct Compiler<'a> {
    world: &'a World,
    namespace: &'a str,
    /// By server, in the order of the names of the McpTools.
    tools: BTreeMap<&'a str, Vec<&'a DeclaredTool>>,
    /// By name.
    roles: BTreeMap<&'a str, Arranged<'a>>,
    /// By name, the roles that inherit it.
    heirs: BTreeMap<&'a str, Vec<&'a str>>,
}

/// A role whose lists are sorted and whose globs are parsed.
#[derive(Debug)]
struct Arranged<'a> {
    declared: &'a DeclaredRole,
    subjects: Vec<Subject>,
    rules: Vec<ArrangedRule<'a>>,
}

#[derive(Debug)]
pub(super) struct ArrangedRule<'a> {
    pub(super) declared: &'a ServerRule,
    /// `None` is a glob that `parse` refuses; if one gets here, it cannot lift a Deny.
    servers: Vec<Option<Glob>>,
    reduced: Rule,
}

impl<'a> Compiler<'a> {
    /// Arranges the objects of a namespace.
    pub fn new(world: &'a World, namespace: &'a str) -> Self {
        let mut tools: BTreeMap<&str, Vec<&DeclaredTool>> = BTreeMap::new();
        for (_, declared) in within(&world.tools, namespace) {
            tools.entry(declared.server.as_str()).or_default().push(declared);
        }
        let roles: BTreeMap<&str, Arranged<'_>> =
            within(&world.roles, namespace).map(|(name, role)| (name, Arranged::new(role))).collect();
        let mut heirs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, role) in &roles {
            role.declared.inherits.iter().for_each(|parent| heirs.entry(parent.as_str()).or_default().push(name));
        }
        Self { world, namespace, tools, roles, heirs }
    }

    /// As [`compile`].
    pub fn compile(&self, server: &str, urls: &[String]) -> Option<Snapshot> {
        let target = Target { namespace: self.namespace.to_owned(), server: server.to_owned() };
        let declared = self.world.servers.get(&self.key(server))?;
        let gateway = self.world.gateways.get(&self.key(&declared.gateway));
        let mut inputs = BTreeSet::from([declared.input.clone()]);
        inputs.extend(gateway.map(|gateway| gateway.input.clone()));
        let tools = self.tools(server, &mut inputs);
        let roles = self.roles(server, &declared.labels, &mut inputs);
        Some(Snapshot {
            format: FORMAT,
            target,
            urls: distinct(urls),
            registration: declared.registration,
            server_requests: declared.server_requests,
            deny_after_seconds: declared.deny_after_seconds,
            on_loss: declared.on_loss,
            tools,
            roles,
            anonymous: gateway.and_then(|gateway| self.anonymous(gateway)),
            issuers: gateway.map(issuers).unwrap_or_default(),
            inputs: inputs.into_iter().collect(),
        })
    }

    /// Every role of the namespace.
    pub(super) fn role_names(&self) -> impl Iterator<Item = &'a str> {
        self.roles.keys().copied()
    }

    /// The role and every role that it inherits, each once.
    pub(super) fn with_ancestors(&self, role: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut pending = vec![role];
        while let Some(name) = pending.pop() {
            if found.insert(name) {
                let inherits = self.roles.get(name).map(|role| role.declared.inherits.as_slice());
                pending.extend(inherits.into_iter().flatten().map(String::as_str));
            }
        }
        found
    }

    /// The rules of a role, in the order of the manifest.
    pub(super) fn rules(&self, role: &str) -> &[ArrangedRule<'a>] {
        self.roles.get(role).map(|role| role.rules.as_slice()).unwrap_or_default()
    }

    /// Every server of the namespace.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'a str, &'a Server)> {
        within(&self.world.servers, self.namespace)
    }

    /// The declared tools of a server.
    pub(super) fn tools_of(&self, server: &str) -> &[&'a DeclaredTool] {
        self.tools.get(server).map(Vec::as_slice).unwrap_or_default()
    }

    fn key(&self, name: &str) -> Key {
        (self.namespace.to_owned(), name.to_owned())
    }

    /// The anonymous role, if it exists: a name without a role refuses callers without a token.
    fn anonymous(&self, gateway: &Gateway) -> Option<String> {
        gateway.anonymous.clone().filter(|role| self.roles.contains_key(role.as_str()))
    }

    fn tools(&self, server: &str, inputs: &mut BTreeSet<Input>) -> Vec<Tool> {
        let mut by_name: BTreeMap<String, Tool> = BTreeMap::new();
        let mut exposed = BTreeSet::new();
        for declared in self.tools.get(server).into_iter().flatten() {
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

    /// The roles with a rule for the server and their heirs, reduced to the server.
    fn roles(&self, server: &str, labels: &BTreeMap<String, String>, inputs: &mut BTreeSet<Input>) -> Vec<Role> {
        let concerned = |role: &Arranged<'_>| -> Vec<Rule> {
            let rules = role.rules.iter().filter(|rule| rule.concerns(server, labels));
            rules.map(|rule| rule.reduced.clone()).collect()
        };
        let mut rules: BTreeMap<&str, Vec<Rule>> = BTreeMap::new();
        for (name, role) in &self.roles {
            let of_role = concerned(role);
            if !of_role.is_empty() {
                rules.insert(name, of_role);
            }
        }
        let mut kept = BTreeSet::new();
        let mut pending: Vec<&str> = rules.keys().copied().collect();
        while let Some(name) = pending.pop() {
            if kept.insert(name) {
                pending.extend(self.heirs.get(name).into_iter().flatten());
            }
        }
        let reduce = |name: &&str| {
            let role = self.roles.get(*name)?;
            inputs.insert(role.declared.input.clone());
            let inherited = role.declared.inherits.iter().filter(|parent| kept.contains(parent.as_str()));
            let mut inherits: Vec<String> = inherited.cloned().collect();
            sort(&mut inherits);
            let rules = rules.remove(*name).unwrap_or_default();
            Some(Role { name: (*name).to_owned(), inherits, subjects: role.subjects.clone(), rules })
        };
        kept.iter().filter_map(reduce).collect()
    }
}

impl<'a> Arranged<'a> {
    fn new(declared: &'a DeclaredRole) -> Self {
        let mut subjects: Vec<Subject> = declared.subjects.iter().map(sorted_subject).collect();
        sort(&mut subjects);
        let arrange = |rule: &'a ServerRule| ArrangedRule {
            declared: rule,
            servers: rule.servers.iter().map(|glob| Glob::parse(glob).ok()).collect(),
            reduced: reduced(&rule.rule),
        };
        Self { declared, subjects, rules: declared.rules.iter().map(arrange).collect() }
    }
}

impl ArrangedRule<'_> {
    /// Whether the rule is about the server: named by a glob, or selected by its labels. A rule with neither is about
    /// none.
    pub(super) fn concerns(&self, server: &str, labels: &BTreeMap<String, String>) -> bool {
        let named = self.servers.iter().any(|glob| match glob {
            Some(glob) => glob.matches(server),
            None => self.declared.rule.effect == Effect::Deny,
        });
        let selected =
            |wanted: &BTreeMap<String, String>| wanted.iter().all(|(key, want)| labels.get(key) == Some(want));
        named || self.declared.server_selector.as_ref().is_some_and(selected)
    }
}

/// The objects of one namespace, in the order of their names.
fn within<'a, T>(objects: &'a BTreeMap<Key, T>, namespace: &'a str) -> impl Iterator<Item = (&'a str, &'a T)> {
    objects
        .range((namespace.to_owned(), String::new())..)
        .take_while(move |((found, _), _)| found == namespace)
        .map(|((_, name), object)| (name.as_str(), object))
}

/// The caller's order without repetitions: the first is canonical.
fn distinct(urls: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    urls.iter().filter(|url| seen.insert(url.as_str())).cloned().collect()
}

fn issuers(gateway: &Gateway) -> Vec<super::snapshot::Issuer> {
    let mut issuers = gateway.issuers.clone();
    issuers.sort_by(|a, b| (&a.name, &a.url).cmp(&(&b.name, &b.url)));
    issuers
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
