//! PURE. How far roles reach: what their rules could allow, and which servers they are about.

use std::collections::BTreeMap;

use super::compile::Compiler;
use super::decide::RuleRef;
use super::rule::{CompiledRule, Subject};
use super::snapshot::{Effect, Rule, Tool};
use super::world::World;

/// What a role comes to, with the roles that it inherits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extent {
    /// Declared tools that some Allow rule names, whatever its conditions.
    pub tools: usize,
    /// Servers that some rule is about.
    pub servers: usize,
}

/// The extent of every role of a namespace, by name.
pub fn extents(world: &World, namespace: &str) -> BTreeMap<String, Extent> {
    let compiler = Compiler::new(world, namespace);
    let own: BTreeMap<&str, Reached> = compiler.role_names().map(|role| (role, own(&compiler, role))).collect();
    let extent = |role: &str| {
        let mut reached = Reached::default();
        for inherited in compiler.with_ancestors(role) {
            reached.add(own.get(inherited));
        }
        Extent { tools: count(&reached.tools), servers: count(&reached.servers) }
    };
    own.keys().map(|role| ((*role).to_owned(), extent(role))).collect()
}

/// Sets of positions.
#[derive(Debug, Default)]
struct Reached {
    tools: Vec<u64>,
    servers: Vec<u64>,
}

impl Reached {
    fn add(&mut self, other: Option<&Self>) {
        let unite = |into: &mut Vec<u64>, from: &[u64]| {
            into.resize(into.len().max(from.len()), 0);
            into.iter_mut().zip(from).for_each(|(into, from)| *into |= from);
        };
        if let Some(Self { tools, servers }) = other {
            unite(&mut self.tools, tools);
            unite(&mut self.servers, servers);
        }
    }
}

fn own(compiler: &Compiler<'_>, role: &str) -> Reached {
    let mut reached = Reached::default();
    for (index, rule) in (0_u32..).zip(compiler.rules(role)) {
        // Conditions do not matter here, and are dear to compile.
        let bare = Rule { when: None, ..rule.declared.rule.clone() };
        let reference = RuleRef { role: role.into(), index };
        let allows = bare.effect == Effect::Allow;
        // What does not compile allows nothing.
        let allow = CompiledRule::compile(&bare, reference, 0).ok().filter(|_| allows);
        let mut first_tool = 0;
        for (position, (name, server)) in compiler.servers().enumerate() {
            let tools = compiler.tools_of(name);
            if rule.concerns(name, &server.labels) {
                insert(&mut reached.servers, position);
                let allowed =
                    |tool: &Tool| allow.as_ref().is_some_and(|rule| rule.names(&Subject::Tool(&tool.name, Some(tool))));
                let positions = (first_tool..).zip(tools).filter(|(_, declared)| allowed(&declared.tool));
                positions.for_each(|(position, _)| insert(&mut reached.tools, position));
            }
            first_tool += tools.len();
        }
    }
    reached
}

fn insert(set: &mut Vec<u64>, position: usize) {
    let word = position / 64;
    if set.len() <= word {
        set.resize(word + 1, 0);
    }
    if let Some(word) = set.get_mut(word) {
        *word |= 1 << (position % 64);
    }
}

fn count(set: &[u64]) -> usize {
    set.iter().map(|word| word.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A world of the servers `a`, `b` with two tools each, and these roles.
    fn world(declared: &[(&str, &[&str], Value)]) -> World {
        let input = |kind: &str, name: &str| json!({"kind": kind, "name": name, "uid": "", "generation": 1});
        let server = |name: &str| {
            json!([["n", name], {
                "gateway": "default", "registration": "Declared", "labels": {"tier": name},
                "server_requests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
                "input": input("McpServer", name),
            }])
        };
        let tool = |server: &str, name: &str| {
            let hints = json!({"readOnly": false, "destructive": true, "idempotent": false, "openWorld": true});
            json!([["n", format!("{server}-{name}")], {
                "server": server, "input": input("McpTool", name),
                "tool": {"name": name, "annotations": hints, "lifecycle": "Active"},
            }])
        };
        let role = |(name, inherits, rules): &(&str, &[&str], Value)| {
            let written: Vec<Value> = rules
                .as_array()
                .unwrap()
                .iter()
                .map(|rule| {
                    let (mut rule, servers) = (rule.clone(), rule["servers"].clone());
                    rule.as_object_mut().unwrap().remove("servers");
                    rule["index"] = json!(0);
                    json!({"servers": servers, "server_selector": null, "rule": rule})
                })
                .collect();
            json!([["n", name], {
                "inherits": inherits, "subjects": [], "rules": written, "input": input("McpRole", name),
            }])
        };
        let world = json!({
            "servers": [server("a"), server("b")],
            "tools": [tool("a", "get"), tool("a", "put"), tool("b", "get"), tool("b", "put")],
            "roles": declared.iter().map(role).collect::<Vec<_>>(),
            "gateways": [],
        });
        serde_json::from_value(world).unwrap()
    }

    fn extent(roles: &[(&str, &[&str], Value)], role: &str) -> (usize, usize) {
        let extent = extents(&world(roles), "n")[role];
        (extent.tools, extent.servers)
    }

    #[test]
    fn a_tool_that_two_rules_allow_is_counted_once() {
        let rules = json!([
            {"effect": "Allow", "servers": ["*"], "tools": ["get"]},
            {"effect": "Allow", "servers": ["a"], "tools": ["*"]},
        ]);

        assert_eq!(extent(&[("r", &[], rules)], "r"), (3, 2));
    }

    #[test]
    fn conditions_do_not_narrow_and_denials_do_not_allow() {
        let rules = json!([
            {"effect": "Allow", "servers": ["a"], "tools": ["get"], "when": "identity.subject == 'ada'"},
            {"effect": "Deny", "servers": ["b"], "tools": ["*"]},
        ]);

        assert_eq!(extent(&[("r", &[], rules)], "r"), (1, 2));
    }

    #[test]
    fn what_is_inherited_counts_for_the_heir_alone() {
        let parent = json!([{"effect": "Allow", "servers": ["a"], "tools": ["*"]}]);
        let heir = json!([{"effect": "Allow", "servers": ["b"], "tools": ["put"]}]);
        let roles: [(&str, &[&str], Value); 2] = [("parent", &[], parent), ("heir", &["parent"], heir)];

        assert_eq!(extent(&roles, "heir"), (3, 2));
        assert_eq!(extent(&roles, "parent"), (2, 1));
    }
}
