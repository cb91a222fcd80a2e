//! One document: whose it is, what it says, and what is wrong with it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::{Fault, Schemas};
use super::wording::{nearest, short};
use super::yaml::Node;
use crate::api::{GROUP, McpGateway, McpRole, McpServer, McpTool, VERSION};
use crate::policy::ObjectRef;
use crate::policy::parse::Objects;

/// An object of ours, in its Rust type.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum Typed {
    Server(Arc<McpServer>),
    Tool(Arc<McpTool>),
    Role(Arc<McpRole>),
    Gateway(Arc<McpGateway>),
}

impl Typed {
    fn read(kind: &str, value: Value) -> Result<Self, String> {
        fn read<T: DeserializeOwned>(value: Value) -> Result<Arc<T>, String> {
            serde_json::from_value(value).map(Arc::new).map_err(|error| short(&error.to_string()))
        }
        match kind {
            "McpServer" => read(value).map(Self::Server),
            "McpTool" => read(value).map(Self::Tool),
            "McpRole" => read(value).map(Self::Role),
            "McpGateway" => read(value).map(Self::Gateway),
            other => Err(format!("kind `{}` is unknown", short(other))),
        }
    }

    pub(super) fn add_to(&self, objects: &mut Objects) {
        match self {
            Self::Server(object) => objects.servers.push(Arc::clone(object)),
            Self::Tool(object) => objects.tools.push(Arc::clone(object)),
            Self::Role(object) => objects.roles.push(Arc::clone(object)),
            Self::Gateway(object) => objects.gateways.push(Arc::clone(object)),
        }
    }
}

/// What a document comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Not ours.
    Foreign,
    /// Probably meant to be ours.
    Doubtful(Fault),
    /// Ours, and out of force. Without a reference it does not even say what it is.
    Broken(Option<ObjectRef>, Vec<Fault>),
    /// Ours.
    Sound(ObjectRef, Typed),
}

/// The objects of a document: itself, or the items of a `v1` List.
pub(super) fn objects(document: Node) -> Vec<Arc<Node>> {
    let text = |field| document.get(field).and_then(Node::text);
    match (text("apiVersion"), text("kind"), document.get("items").and_then(Node::items)) {
        (Some("v1"), Some("List"), Some(items)) => items.iter().cloned().map(Arc::new).collect(),
        _ => vec![Arc::new(document)],
    }
}

/// Reads one object.
pub(super) fn judge(schemas: &Schemas, node: &Node) -> Outcome {
    let text = |field| node.get(field).and_then(Node::text);
    let (version, kind) = (text("apiVersion"), text("kind").unwrap_or_default());
    let kinds = schemas.names();
    let known = kinds.contains(&kind);
    let ours = version.is_some_and(|version| version.split('/').next() == Some(GROUP));
    let wanted = format!("{GROUP}/{VERSION}");
    let fault = |pointer: &str, message: String| Fault { pointer: pointer.to_owned(), message };
    match version {
        None if known => {
            return Outcome::Broken(
                reference(node, kind),
                vec![fault("", format!("apiVersion is missing: add `apiVersion: {wanted}`"))],
            );
        }
        Some(version) if known && !ours => {
            let message = format!(
                "apiVersion `{}` is not Toolgate's, so this {kind} is not read: if it is meant for Toolgate, write \
                 `{wanted}`",
                short(version)
            );
            return Outcome::Doubtful(fault("/apiVersion", message));
        }
        Some(version) if ours && version != wanted => {
            let message = format!("apiVersion `{}` is not known here: write `{wanted}`", short(version));
            return Outcome::Broken(reference(node, kind), vec![fault("/apiVersion", message)]);
        }
        _ if !ours => return Outcome::Foreign,
        _ => {}
    }
    if !known {
        let hint = nearest(kind, &kinds)
            .map_or_else(|| format!("there are {}", kinds.join(", ")), |name| format!("did you mean `{name}`?"));
        return Outcome::Broken(None, vec![fault("/kind", format!("kind `{}` is unknown: {hint}", short(kind)))]);
    }
    let value = node.value();
    let faults = schemas.check(kind, &value);
    let reference = reference(node, kind);
    if !faults.is_empty() {
        return Outcome::Broken(reference, faults);
    }
    match (reference, Typed::read(kind, value)) {
        (Some(reference), Ok(typed)) => Outcome::Sound(reference, typed),
        // The schema requires a name and the types of all fields, so this is for what it cannot say.
        (reference, Err(why)) => Outcome::Broken(reference, vec![fault("", why)]),
        (None, Ok(_)) => Outcome::Broken(None, vec![fault("/metadata", "`name` is missing: add it".to_owned())]),
    }
}

fn reference(node: &Node, kind: &str) -> Option<ObjectRef> {
    let metadata = node.get("metadata")?;
    let text = |field| metadata.get(field).and_then(Node::text);
    let name = text("name").filter(|name| name.len() <= 253)?.to_owned();
    let namespace = text("namespace").filter(|name| name.len() <= 253).unwrap_or("default").to_owned();
    Some(ObjectRef { kind: kind.to_owned(), namespace, name })
}
