//! One JSON-RPC message, looked into: its kind, method, id and the few fields of `params` that routing needs.
//!
//! The bytes stay as they came; everything found is a byte range into them.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::fields::{self, Unclear, present};
use super::json::{self, range_in};
use super::strict;

/// A parsed message. Cheap to clone: everything is shared.
#[derive(Clone, Debug)]
pub struct Envelope(Arc<Fields>);

/// What was found in a message.
#[derive(Debug)]
pub struct Fields {
    text: Bytes,
    /// What it is.
    pub kind: Kind,
    /// `method`, empty for a response.
    pub method: String,
    id: Option<Range<usize>>,
    params: Option<Range<usize>>,
    /// `params.name` (tools and prompts), decoded.
    pub name: Option<String>,
    /// `params.uri` (resources), decoded.
    pub uri: Option<String>,
    /// `params.taskId`, decoded.
    pub task: Option<String>,
    name_range: Option<Range<usize>>,
    arguments: Option<Range<usize>>,
    meta: Option<Range<usize>>,
    result: Option<Range<usize>>,
    unclear: Option<Unclear>,
}

/// Which of JSON-RPC's messages it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error.
    Response,
}

/// Why a body is not one acceptable message.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Not JSON, not UTF-8, too deep, or with duplicate keys: JSON-RPC -32700.
    #[error("parse error: {0}")]
    Parse(String),
    /// JSON, but nothing that says it is JSON-RPC 2.0: -32600.
    #[error("invalid request: {0}")]
    Foreign(&'static str),
    /// JSON-RPC 2.0, but no message of it: -32600.
    #[error("invalid request: {0}")]
    Request(&'static str),
    /// JSON-RPC 2.0 that readers could take for different messages: -32600. Carries the raw id, where that is clear.
    #[error("invalid request: {1}")]
    Unclear(Option<Box<RawValue>>, Unclear),
    /// A message with parameters of another shape than its method has: -32602. Carries the raw id.
    #[error("invalid params: {1}")]
    Params(Option<Box<RawValue>>, String),
}

impl Invalid {
    /// Whether no reader takes it for a message: it is not JSON, or does not say that it is JSON-RPC 2.0.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Parse(_) | Self::Foreign(_))
    }
}

/// Members of a message.
const MEMBERS: [&str; 6] = ["jsonrpc", "method", "id", "params", "result", "error"];
/// Parameters that policy looks at.
const PARAMETERS: [&str; 8] = ["name", "uri", "taskId", "arguments", "_meta", "ref", "notifications", "task"];

impl Envelope {
    /// Parses one message from a client: strict about duplicate keys and depth at every level, and about all that the
    /// gateway reads (`strict`).
    pub fn parse(body: Bytes) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(&body).map_err(|_| Invalid::Parse("the body is not UTF-8".to_owned()))?;
        strict::check_message(text).map_err(|error| Invalid::Parse(error.to_string()))?;
        let mut fields = Fields::look_into(text)?;
        if let Some(unclear) = fields.unclear.take() {
            return Err(Invalid::Params(fields.raw_id(text), unclear.to_string()));
        }
        fields.check_spelling(text)?;
        fields.text = body;
        Ok(Self(Arc::new(fields)))
    }

    /// Parses one message from a server, or one of our own. The client is its last reader, so members that the gateway
    /// does not read are not our concern; those that it reads must be clear. See [`Fields::unclear`].
    pub fn parse_trusting(body: Bytes) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(&body).map_err(|_| Invalid::Parse("the message is not UTF-8".to_owned()))?;
        let mut fields = Fields::look_into(text)?;
        fields.text = body;
        Ok(Self(Arc::new(fields)))
    }
}

impl Deref for Envelope {
    type Target = Fields;
    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl Fields {
    /// Finds everything; the text itself is put in by the caller.
    fn look_into(text: &str) -> Result<Self, Invalid> {
        if text.trim_start().starts_with('[') {
            return Err(Invalid::Request("batches are not supported"));
        }
        let found = fields::find(text, &MEMBERS).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Invalid::Foreign("not a JSON-RPC object"),
            _ => Invalid::Parse(error.to_string()),
        })?;
        let [version, method, id, params, result, error] = found.values.map(present);
        if let Some(unclear) = found.unclear {
            return Err(Invalid::Unclear(id.map(ToOwned::to_owned), unclear)); // Whatever its version may be.
        }
        if version.is_none_or(|version| string(version).as_deref() != Ok("2.0")) {
            return Err(Invalid::Foreign("jsonrpc must be \"2.0\""));
        }
        if id.is_some_and(|id| !id.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])) {
            return Err(Invalid::Request("id must be a string or a number"));
        }
        if result.is_some() && error.is_some() {
            return Err(Invalid::Unclear(id.map(ToOwned::to_owned), Unclear::Other("both a result and an error")));
        }
        let kind = match (method, id, result.is_some() || error.is_some()) {
            (Some(_), Some(_), false) => Kind::Request,
            (Some(_), None, false) => Kind::Notification,
            (None, _, true) => Kind::Response,
            _ => return Err(Invalid::Request("neither a request, nor a notification, nor a response")),
        };
        let method = method.map(string).transpose().map_err(|()| Invalid::Request("method must be a string"))?;
        let mut envelope = Self {
            text: Bytes::new(),
            kind,
            method: method.unwrap_or_default(),
            id: id.map(|raw| range_in(text, raw.get())),
            params: None,
            name: None,
            uri: None,
            task: None,
            name_range: None,
            arguments: None,
            meta: None,
            result: result.map(|raw| range_in(text, raw.get())),
            unclear: None,
        };
        if let Some(params) = params {
            envelope.unclear = envelope.look_into_params(text, params).err();
        }
        Ok(envelope)
    }

    /// Finds what policy looks at in `params`. Where that is unclear, nothing is found: a malformed known method must
    /// never travel on as "something else".
    fn look_into_params(&mut self, text: &str, params: &RawValue) -> Result<(), Unclear> {
        let at = |raw: &RawValue| range_in(text, raw.get());
        let string = |raw: Option<&RawValue>, what| raw.map(string).transpose().map_err(|()| Unclear::Other(what));
        let read = ["name", "uri", "taskId", "arguments", "_meta"];
        // A list would be read as the fields in their order by some.
        let found = fields::read(params.get(), &read).map_err(|unclear| match unclear {
            Unclear::NoObject => Unclear::Other("params must be an object"),
            unclear => unclear,
        })?;
        let [name, uri, task, arguments, meta] = found.map(present);
        let decoded = (
            string(name, "name must be a string")?,
            string(uri, "uri must be a string")?,
            string(task, "taskId must be a string")?,
        );
        (self.name, self.uri, self.task) = decoded;
        self.params = Some(at(params));
        (self.name_range, self.arguments, self.meta) = (name.map(at), arguments.map(at), meta.map(at));
        Ok(())
    }

    fn raw_id(&self, text: &str) -> Option<Box<RawValue>> {
        let id = text.get(self.id.clone()?)?;
        RawValue::from_string(id.to_owned()).ok()
    }

    /// Why `params` of a message from a server can be read in two ways, if they can: then nothing was found in them,
    /// and the message must not travel on.
    pub fn unclear(&self) -> Option<&Unclear> {
        self.unclear.as_ref()
    }

    /// Refuses members that a reader which ignores case would take for one that policy looks at.
    fn check_spelling(&self, text: &str) -> Result<(), Invalid> {
        let misspelt = |text: &str, known: &[&str]| {
            let all = json::members(text)?;
            let odd = all.iter().find(|(key, _)| known.iter().any(|name| key != name && json::same_folded(key, name)));
            odd.map(|(key, _)| key.to_string())
        };
        if misspelt(text, &MEMBERS).is_some() {
            return Err(Invalid::Request("a member of the message differs from its name only in case"));
        }
        let params = self.params.clone().and_then(|range| text.get(range));
        match params.and_then(|params| misspelt(params, &PARAMETERS)) {
            None => Ok(()),
            Some(key) => {
                Err(Invalid::Params(self.raw_id(text), format!("{key:?} differs from a parameter's name only in case")))
            }
        }
    }

    /// The message as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// The message as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default() // Checked when it was parsed.
    }

    fn slice(&self, range: Option<&Range<usize>>) -> Option<&str> {
        self.text().get(range?.clone())
    }

    /// The id as JSON text: `7`, `"a"`.
    pub fn id(&self) -> Option<&str> {
        self.slice(self.id.as_ref())
    }

    /// Where the id lies in [`Fields::text`].
    pub fn id_range(&self) -> Option<Range<usize>> {
        self.id.clone()
    }

    /// `params` as JSON text.
    pub fn params(&self) -> Option<&str> {
        self.slice(self.params.as_ref())
    }

    /// Where `params` lies in [`Fields::text`].
    pub fn params_range(&self) -> Option<Range<usize>> {
        self.params.clone()
    }

    /// Where `params.name` lies in [`Fields::text`], quotes included.
    pub fn name_range(&self) -> Option<Range<usize>> {
        self.name_range.clone()
    }

    /// `params.arguments` as JSON text.
    pub fn arguments(&self) -> Option<&str> {
        self.slice(self.arguments.as_ref())
    }

    /// `params._meta` as JSON text.
    pub fn meta(&self) -> Option<&str> {
        self.slice(self.meta.as_ref())
    }

    /// `result` as JSON text; `None` for an error.
    pub fn result(&self) -> Option<&str> {
        self.slice(self.result.as_ref())
    }

    /// Where `result` lies in [`Fields::text`].
    pub fn result_range(&self) -> Option<Range<usize>> {
        self.result.clone()
    }

    /// Where `params._meta` lies in [`Fields::text`].
    pub fn meta_range(&self) -> Option<Range<usize>> {
        self.meta.clone()
    }
}

fn string(raw: &RawValue) -> Result<String, ()> {
    serde_json::from_str(raw.get()).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Envelope, Invalid> {
        Envelope::parse(text.to_owned().into())
    }

    #[test]
    fn members_that_differ_only_in_case_are_refused() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Params":{"name":"x"}}"#,
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"param\u{17f}\":{}}",
            r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"Notifications":{}}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_members_pass() {
        let message = parse(r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"Other":1},"extra":1e2}"#).unwrap();

        assert_eq!((message.kind, message.id()), (Kind::Request, Some("7")));
    }

    #[test]
    fn malformed_parameters_are_answered_under_their_id() {
        let Err(Invalid::Params(Some(id), _)) =
            parse(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":7}}"#)
        else {
            panic!("a name that is no string")
        };
        assert_eq!(id.get(), "\"a\"");
    }
}
