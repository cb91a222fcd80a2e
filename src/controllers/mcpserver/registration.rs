//! PURE. `registration: Auto`: an McpTool for each tool that a server offers and nobody declares.
//!
//! They are made once and never changed afterwards: who edits one keeps the edit. One that a person declares too is
//! deleted, so that the person's wins.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Resource as _;

use crate::api::{Lifecycle, McpServer, McpTool, McpToolSpec, Object as _, Reference};
use crate::controllers::hex;
use crate::kubernetes::labels;
use crate::policyserver::fleet::Offer;

/// Most McpTools that are made for one server.
pub(super) const TOOLS: usize = 256;
/// Longest name of a tool, in bytes: what `McpTool.spec.toolName` takes.
const NAME: usize = 256;
/// Longest part of a tool's name in the name of its McpTool.
const SLUG: usize = 40;
/// Annotation with the digest of the definition that the tool had when it was registered.
const DIGEST: &str = "toolgate.dev/definition-digest";

/// McpTools to make and to delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Registration {
    /// To make.
    pub(super) create: Vec<McpTool>,
    /// To delete: a person declares the same.
    pub(super) delete: Vec<Arc<McpTool>>,
}

/// `tools` are those of the server's namespace.
pub(super) fn register(server: &McpServer, offer: Option<&Offer>, tools: &[Arc<McpTool>]) -> Registration {
    let of_server = tools.iter().filter(|tool| tool.spec.server_ref.name == server.name());
    let (ours, theirs): (Vec<_>, Vec<_>) = of_server.partition(|tool| is_registered(tool));
    let declared: BTreeSet<&str> = theirs.iter().map(|tool| tool.spec.tool_name.as_str()).collect();
    let (delete, kept): (Vec<_>, Vec<_>) =
        ours.into_iter().partition(|tool| declared.contains(tool.spec.tool_name.as_str()));
    let known: BTreeSet<&str> = kept.iter().map(|tool| tool.spec.tool_name.as_str()).chain(declared).collect();
    let is_auto = server.spec.registration == crate::api::Registration::Auto;
    let offered = offer.filter(|_| is_auto).into_iter().flat_map(|offer| &offer.tools);
    let is_new = |name: &str| !name.is_empty() && name.len() <= NAME && !known.contains(name);
    let create = offered
        .filter(|tool| is_new(&tool.name))
        .take(TOOLS.saturating_sub(kept.len()))
        .map(|tool| registered(server, &tool.name, &tool.digest))
        .collect();
    Registration { create, delete: delete.into_iter().cloned().collect() }
}

fn is_registered(tool: &McpTool) -> bool {
    tool.labels().get(labels::REGISTERED_BY).is_some_and(|by| by == labels::DISCOVERY)
}

fn registered(server: &McpServer, name: &str, digest: &str) -> McpTool {
    let spec = McpToolSpec {
        server_ref: Reference { name: server.name().to_owned() },
        tool_name: name.to_owned(),
        exposed_name: None,
        title: None,
        description: None,
        annotations: None,
        capabilities: Vec::new(),
        lifecycle: Lifecycle::Active,
        deprecation: None,
    };
    let mut tool = McpTool::new(&object_name(server.name(), name), spec);
    let meta = tool.meta_mut();
    meta.namespace = Some(server.namespace().to_owned());
    meta.labels = Some([(labels::REGISTERED_BY.to_owned(), labels::DISCOVERY.to_owned())].into());
    meta.annotations = Some([(DIGEST.to_owned(), digest.to_owned())].into());
    meta.owner_references = server.controller_owner_ref(&()).map(|owner| vec![owner]);
    tool
}

/// `<server>-<slug>-<hash8>`: readable, valid whatever the tool is called, and different for different tools.
fn object_name(server: &str, tool: &str) -> String {
    let mut slug = String::new();
    for character in tool.chars().map(|character| character.to_ascii_lowercase()) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= SLUG {
            break;
        }
    }
    let hash = hex(tool.as_bytes(), 4);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { format!("{server}-{hash}") } else { format!("{server}-{slug}-{hash}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policyserver::fleet::OfferedTool;

    fn server(registration: &str) -> McpServer {
        serde_json::from_value(json!({
            "apiVersion": "toolgate.dev/v1alpha1", "kind": "McpServer",
            "metadata": {"namespace": "agents", "name": "files", "uid": "u1"},
            "spec": {"registration": registration, "source": {"remote": {"url": "https://a"}}},
        }))
        .unwrap()
    }

    fn offer(names: &[&str]) -> Offer {
        let tools = names.iter().map(|name| OfferedTool { name: (*name).to_owned(), digest: "sha256:0".to_owned() });
        Offer { tools: tools.collect(), ..Offer::default() }
    }

    #[test]
    fn every_tool_that_nobody_declares_gets_an_mcptool_with_a_valid_name() {
        let made = register(&server("Auto"), Some(&offer(&["Read_File", "read-file", "読む", "___"])), &[]).create;

        let names: Vec<&str> = made.iter().map(crate::api::Object::name).collect();
        assert!(names[0].starts_with("files-read-file-"), "{names:?}");
        for name in &names {
            let valid = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(valid && name.len() <= 253 && name.starts_with("files-") && !name.ends_with('-'), "{name}");
        }
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 4, "{names:?}");
        assert_eq!(made[0].spec.tool_name, "Read_File");
        assert_eq!(made[0].metadata.owner_references.as_ref().unwrap()[0].uid, "u1");
        assert_eq!(made[0].labels()[labels::REGISTERED_BY], "discovery");
    }

    #[test]
    fn what_is_known_is_not_made_again_and_a_declared_twin_wins() {
        let auto = Arc::new(registered(&server("Auto"), "read", "sha256:0"));
        let other = Arc::new(registered(&server("Auto"), "write", "sha256:0"));
        let mut person = registered(&server("Auto"), "read", "sha256:0");
        person.metadata.labels = None;
        person.metadata.name = Some("mine".to_owned());

        let quiet = register(&server("Auto"), Some(&offer(&["read", "write"])), &[auto.clone(), other.clone()]);
        let twin = register(&server("Auto"), Some(&offer(&["read", "write"])), &[auto.clone(), other, person.into()]);

        assert_eq!(quiet, Registration::default());
        assert_eq!((twin.create, twin.delete), (Vec::new(), vec![auto]));
    }

    #[test]
    fn no_more_than_256_are_made_and_none_where_tools_must_be_declared() {
        let names: Vec<String> = (0..300).map(|index| format!("t{index:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let first = register(&server("Auto"), Some(&offer(&names)), &[]).create;
        assert_eq!((first.len(), first[255].spec.tool_name.as_str()), (256, "t255"));

        let there: Vec<Arc<McpTool>> = first.into_iter().map(Arc::new).collect();
        assert_eq!(register(&server("Auto"), Some(&offer(&names)), &there).create, Vec::new());
        assert_eq!(register(&server("Declared"), Some(&offer(&names)), &[]).create, Vec::new());
        assert_eq!(register(&server("Auto"), Some(&offer(&[&"x".repeat(257)])), &[]).create, Vec::new());
    }
}
