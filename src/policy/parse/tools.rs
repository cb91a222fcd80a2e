//! McpTools: one declaration for each tool of a server, one tool for each exposed name.

use std::collections::BTreeMap;

use super::{Report, input, quoted, reference};
use crate::api::conditions::reason;
use crate::api::{self, McpTool, Object};
use crate::policy::snapshot::{Annotations, Deprecation, Lifecycle, Tool};
use crate::policy::world::{DeclaredTool, Key, ObjectRef, Server};

pub(super) fn parse(
    tools: &BTreeMap<Key, &McpTool>,
    servers: &BTreeMap<Key, Server>,
    report: &mut Report,
) -> BTreeMap<Key, DeclaredTool> {
    // The older claims first; without an age, the first by name.
    let mut order: Vec<(&Key, &McpTool)> = tools.iter().map(|(key, tool)| (key, *tool)).collect();
    order.sort_by_key(|(key, tool)| (tool.created(), *key));

    let mut claims = Claims::default();
    let mut losers = Vec::new();
    let mut parsed = BTreeMap::new();
    for (key, tool) in order {
        let object = reference(tool);
        let (namespace, server) = (&key.0, &tool.spec.server_ref.name);
        if !servers.contains_key(&(namespace.clone(), server.clone())) {
            let message = format!(
                "McpServer `{server}` does not exist in namespace `{namespace}`, so the tool does not either: create it"
            );
            report.error(&object, "/spec/serverRef/name", reason::SERVER_NOT_FOUND, message);
            continue;
        }
        if !claims.claim(tool, &object, report) {
            losers.push((key, tool));
            continue;
        }
        if tool.spec.description.is_none() {
            let message = "no description, so agents read the server's, which can change unseen: set description";
            report.warning(&object, "/spec", reason::NO_DESCRIPTION, message.to_owned());
        }
        let declared = DeclaredTool { server: server.clone(), tool: declaration(tool), input: input(tool) };
        parsed.insert(key.clone(), declared);
    }
    for (key, tool) in losers {
        // Fails closed: where registration is `Auto`, a tool without a declaration exists. One that lost its exposed
        // name must not come to light under its own, without what its declaration says of it.
        if claims.take_if_free(tool, &key.0) {
            let server = tool.spec.server_ref.name.clone();
            let hidden = Tool { lifecycle: Lifecycle::Disabled, exposed_name: None, ..declaration(tool) };
            parsed.insert(key.clone(), DeclaredTool { server, tool: hidden, input: input(tool) });
        }
    }
    check_replacements(tools, &mut parsed, report);
    parsed
}

/// Who has which name at which server.
#[derive(Default)]
struct Claims {
    /// (namespace, server, tool name) -> McpTool.
    names: BTreeMap<(String, String, String), String>,
    /// (namespace, server, exposed name) -> McpTool.
    exposed: BTreeMap<(String, String, String), String>,
}

impl Claims {
    /// Whether the tool gets both of its names. Nothing is claimed if not.
    fn claim(&mut self, tool: &McpTool, object: &ObjectRef, report: &mut Report) -> bool {
        let spec = &tool.spec;
        let at = |name: &str| (object.namespace.clone(), spec.server_ref.name.clone(), name.to_owned());
        let exposed_name = spec.exposed_name.as_deref().unwrap_or(&spec.tool_name);
        let (name, exposed) = (at(&spec.tool_name), at(exposed_name));
        let pointer = if spec.exposed_name.is_some() { "/spec/exposedName" } else { "/spec/toolName" };
        let conflict = match (self.names.get(&name), self.exposed.get(&exposed)) {
            (Some(other), _) => Some((other, "/spec/toolName", "tool", spec.tool_name.as_str())),
            (None, Some(other)) => Some((other, pointer, "exposed name", exposed_name)),
            (None, None) => None,
        };
        if let Some((other, pointer, what, value)) = conflict {
            let message = format!(
                "McpTools `{other}` and `{}` both claim the {what} `{value}` of McpServer `{}`; `{other}` keeps it: \
                 change or remove one",
                object.name, spec.server_ref.name
            );
            report.error(object, pointer, reason::CONFLICTED, message);
            return false;
        }
        self.names.insert(name, object.name.clone());
        self.exposed.insert(exposed, object.name.clone());
        true
    }

    /// Whether nothing is known by the tool's own name, to the server or to callers; it is taken then.
    fn take_if_free(&mut self, tool: &McpTool, namespace: &str) -> bool {
        let name = (namespace.to_owned(), tool.spec.server_ref.name.clone(), tool.spec.tool_name.clone());
        if self.names.contains_key(&name) || self.exposed.contains_key(&name) {
            return false;
        }
        self.names.insert(name, tool.name().to_owned());
        true
    }
}

fn declaration(tool: &McpTool) -> Tool {
    let spec = &tool.spec;
    let mut capabilities = spec.capabilities.clone();
    capabilities.sort();
    capabilities.dedup();
    let said = spec.annotations.unwrap_or_default();
    let read_only = said.read_only.unwrap_or(false);
    Tool {
        name: spec.tool_name.clone(),
        exposed_name: spec.exposed_name.clone().filter(|exposed| *exposed != spec.tool_name),
        title: spec.title.clone(),
        description: spec.description.clone(),
        annotations: Annotations {
            read_only,
            destructive: said.destructive.unwrap_or(!read_only),
            idempotent: said.idempotent.unwrap_or(false),
            open_world: said.open_world.unwrap_or(true),
        },
        capabilities,
        labels: tool.labels(),
        lifecycle: match spec.lifecycle {
            api::Lifecycle::Active => Lifecycle::Active,
            api::Lifecycle::Deprecated => Lifecycle::Deprecated,
            api::Lifecycle::Disabled => Lifecycle::Disabled,
        },
        deprecation: spec.deprecation.as_ref().map(|deprecation| Deprecation {
            message: deprecation.message.clone(),
            sunset_time: deprecation.sunset_time.as_ref().map(|time| time.0),
            replaced_by: deprecation.replaced_by.clone(),
        }),
    }
}

/// A replacement that does not exist is not told to callers.
fn check_replacements(tools: &BTreeMap<Key, &McpTool>, parsed: &mut BTreeMap<Key, DeclaredTool>, report: &mut Report) {
    for ((namespace, name), declared) in parsed.iter_mut() {
        let Some(deprecation) = &mut declared.tool.deprecation else { continue };
        let Some(other) = &deprecation.replaced_by else { continue };
        if other != name && tools.contains_key(&(namespace.clone(), other.clone())) {
            continue;
        }
        let object = ObjectRef { kind: McpTool::kind(), namespace: namespace.clone(), name: name.clone() };
        let message = format!(
            "McpTool {} is no replacement in namespace `{namespace}`, so callers are not told of it: name another",
            quoted(&[other])
        );
        report.warning(&object, "/spec/deprecation/replacedBy", reason::TOOL_NOT_FOUND, message);
        deprecation.replaced_by = None;
    }
}
