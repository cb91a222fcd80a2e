//! What a server offers, asked by the gateway itself: the source of the registry table and of discovery.
//!
//! Owns the gateway's own conversation with a server. Decides nothing, and shows nobody what it finds.

mod page;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::protocol::definition;
use super::protocol::envelope::{Envelope, Kind};
use super::protocol::era::{Era, LEGACY, MODERN};
use super::protocol::headers::{METHOD, VERSION};
use super::protocol::json::{check, range_in};
use super::upstream::{Content, Outbound, Reply, Upstream, UpstreamError, Verb};
use page::{Entry, Fault, Response};

/// The answer of one server to `initialize` (or `server/discover`) and its lists, all pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// `serverInfo.name`.
    pub name: Option<String>,
    /// `serverInfo.version`.
    pub version: Option<String>,
    /// Revision that was agreed.
    pub protocol_version: String,
    /// Tools in the server's order.
    pub tools: Vec<Listed>,
    /// Prompts in the server's order.
    pub prompts: Vec<Listed>,
    /// Resources; `name` is the URI.
    pub resources: Vec<Listed>,
    /// Resource templates; `name` is the template.
    pub templates: Vec<Listed>,
}

/// One entry of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Name, URI or template: what rules match.
    pub name: String,
    /// What agents read.
    pub description: Option<String>,
    /// Of a tool, if it was asked for and there is one: see [`definition::digest`].
    pub digest: Option<String>,
}

/// Whether the digests of tools' definitions are wanted: they are for whoever pins them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Digests {
    /// They cost nothing where nobody asks.
    Skip,
    /// Of each tool.
    Compute,
}

/// Pages of one list.
const PAGES: usize = 100;
/// Entries of one list.
const ENTRIES: usize = 10_000;
/// All answers together, in bytes.
const BYTES: usize = 64 << 20;
/// Names and descriptions of one list that are kept, in bytes.
const KEPT: usize = 8 << 20;
/// Longest description that is kept, in characters.
const DESCRIPTION: usize = 1024;
/// Largest definition of a tool that has a digest, and largest greeting, in bytes: each is read as a value.
const DEFINITION: usize = 1 << 20;
/// One exchange. Longer than `limits::UPSTREAM_START` and the end of a child, so that the reason is told.
const EXCHANGE: Duration = Duration::from_secs(45);
/// Longest error text of a server that is repeated, in characters.
const TEXT: usize = 200;
/// JSON-RPC "method not found".
const UNKNOWN_METHOD: i64 = -32601;

/// Asks a server what it offers: `initialize` and the lists that it announces; `server/discover` if it refuses
/// `initialize`, as servers do that speak 2026-07-28 alone. The session is ended afterwards.
///
/// Every exchange is bounded by 45 s, which is more than a start may take. Let it finish: dropped halfway it leaves a session that
/// ends only when it was idle too long.
///
/// Fails with [`UpstreamError::Garbage`] if the server speaks neither era or if a list is not valid or too long, and
/// otherwise as [`Upstream::send`] does.
pub async fn ask(upstream: &Upstream, digests: Digests) -> Result<Catalogue, UpstreamError> {
    let mut talk = Talk::new(upstream, Era::Legacy, digests);
    let found = match talk.initialize().await {
        Ok(greeting) => talk.read(&greeting).await.map_err(Failure::Lists),
        Err(failure) => Err(failure),
    };
    talk.end().await;
    let refusal = match found {
        Ok(found) => return Ok(found),
        Err(Failure::Refused { why, .. } | Failure::Upstream(UpstreamError::Garbage(why))) => why,
        Err(Failure::Upstream(error) | Failure::Lists(error)) => return Err(error),
    };
    let mut talk = Talk::new(upstream, Era::Modern, digests);
    match talk.request("server/discover", Map::new()).await {
        Ok(greeting) => talk.read(&greeting.small()?).await,
        Err(Failure::Refused { .. } | Failure::Upstream(UpstreamError::LegacyOnly | UpstreamError::Garbage(_))) => {
            Err(UpstreamError::Garbage(format!("it refused initialize: {refusal}")))
        }
        Err(Failure::Upstream(error) | Failure::Lists(error)) => Err(error),
    }
}

/// One conversation.
struct Talk<'a> {
    upstream: &'a Upstream,
    era: Era,
    digests: Digests,
    version: String,
    session: Option<Arc<str>>,
    next: u64,
    bytes: usize,
}

/// Why a request has no result.
enum Failure {
    /// The server said no, with a JSON-RPC error (and its code) or with an HTTP status.
    Refused { code: Option<i64>, why: String },
    /// There is no answer.
    Upstream(UpstreamError),
    /// It spoke this era, but its lists failed.
    Lists(UpstreamError),
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

/// The result of a request, in the message that it came in.
struct Answer {
    text: Bytes,
    result: Range<usize>,
}

impl Answer {
    /// As JSON text.
    fn text(&self) -> Result<&str, UpstreamError> {
        let text = self.text.get(self.result.clone()).and_then(|text| std::str::from_utf8(text).ok());
        text.ok_or_else(|| garbage("it is not UTF-8"))
    }

    /// As a value, where it is one that cannot be large.
    fn small(&self) -> Result<Value, UpstreamError> {
        match self.text()? {
            text if text.len() > DEFINITION => Err(UpstreamError::TooLarge(DEFINITION)),
            text => serde_json::from_str(text).map_err(|error| garbage(&error.to_string())),
        }
    }
}

impl<'a> Talk<'a> {
    fn new(upstream: &'a Upstream, era: Era, digests: Digests) -> Self {
        let version = if era == Era::Modern { MODERN } else { "" }; // A legacy one is not agreed yet.
        Self { upstream, era, digests, version: version.to_owned(), session: None, next: 1, bytes: 0 }
    }

    async fn initialize(&mut self) -> Result<Value, Failure> {
        let params = json!({ "protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": info() });
        let Value::Object(params) = params else { return Err(garbage("params").into()) };
        let greeting = self.request("initialize", params).await?.small()?;
        let version = greeting.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
        version.clone_into(&mut self.version);
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.post(&initialized).await?;
        Ok(greeting)
    }

    /// Reads all lists that the greeting announces.
    async fn read(&mut self, greeting: &Value) -> Result<Catalogue, UpstreamError> {
        let info = match self.era {
            Era::Legacy => at(greeting, "serverInfo"),
            Era::Modern => at(at(greeting, "_meta"), "io.modelcontextprotocol/serverInfo"),
        };
        let text = |key: &str| at(info, key).as_str().map(ToOwned::to_owned);
        let has = |list: &str| at(at(greeting, "capabilities"), list).is_object();
        let mut found = Catalogue {
            name: text("name"),
            version: text("version"),
            protocol_version: self.version.clone(),
            ..Catalogue::default()
        };
        if has("tools") {
            found.tools = self.list("tools/list", "tools", "name").await?;
        }
        if has("prompts") {
            found.prompts = self.list("prompts/list", "prompts", "name").await?;
        }
        if has("resources") {
            found.resources = self.list("resources/list", "resources", "uri").await?;
            found.templates = self.list("resources/templates/list", "resourceTemplates", "uriTemplate").await?;
        }
        Ok(found)
    }

    async fn list(&mut self, method: &str, member: &str, key: &str) -> Result<Vec<Listed>, UpstreamError> {
        let (mut found, mut kept) = (Vec::new(), 0);
        let mut params = Map::new();
        for _ in 0..PAGES {
            let page = match self.request(method, std::mem::take(&mut params)).await {
                Ok(page) => page,
                // Servers announce resources without knowing templates.
                Err(Failure::Refused { code: Some(UNKNOWN_METHOD), .. }) => return Ok(found),
                Err(Failure::Refused { why, .. }) => return Err(garbage(&format!("{method} failed: {why}"))),
                Err(Failure::Upstream(error) | Failure::Lists(error)) => return Err(error),
            };
            let text = page.text()?;
            let read = page::read(text, member, |entry| {
                if found.len() >= ENTRIES {
                    return Err(garbage(&format!("{method} has more than {ENTRIES} entries")));
                }
                let listed = self.entry(entry, key, member == "tools");
                let listed = listed.ok_or_else(|| garbage(&format!("an entry of {method} has no {key:?}")))?;
                kept += listed.name.len() + listed.description.as_ref().map_or(0, String::len);
                if kept > KEPT {
                    return Err(garbage(&format!("the entries of {method} have names of more than {KEPT} bytes")));
                }
                found.push(listed);
                Ok(())
            });
            let read = read.map_err(|failed| failed.unwrap_or_else(|error| garbage(&format!("{method}: {error}"))))?;
            if !read.is_list {
                return Err(garbage(&format!("{method} has no {member:?}")));
            }
            match read.next.map(RawValue::get) {
                None | Some("null") => return Ok(found),
                // An empty one is a cursor too.
                Some(cursor) => params.insert("cursor".to_owned(), serde_json::from_str(cursor).unwrap_or_default()),
            };
        }
        Err(garbage(&format!("{method} has more than {PAGES} pages")))
    }

    /// One entry of a list; `None` if it has no name.
    fn entry(&self, entry: &str, key: &str, is_tool: bool) -> Option<Listed> {
        let read: Entry<'_> = page::object(entry).ok()?;
        let name = read.key(key)?;
        if self.digests == Digests::Skip {
            let description = read.description().map(|text| text.chars().take(DESCRIPTION).collect());
            return Some(Listed { name, description, digest: None });
        }
        // One value at a time. A definition that is too large has no digest: nothing that pins it is allowed.
        let value = Some(entry).filter(|entry| is_tool && entry.len() <= DEFINITION);
        let value: Option<Value> = value.and_then(|entry| serde_json::from_str(entry).ok());
        Some(Listed { name, description: None, digest: value.as_ref().and_then(definition::digest) })
    }

    /// One request; its result.
    async fn request(&mut self, method: &str, mut params: Map<String, Value>) -> Result<Answer, Failure> {
        let id = self.next;
        self.next += 1;
        if self.era == Era::Modern {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": info(),
            });
            params.insert("_meta".to_owned(), meta);
        }
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let answer = async {
            let reply = self.post(&message).await?;
            if let Some(session) = &reply.session {
                self.session = Some(session.clone());
            }
            self.answer(id, reply).await
        };
        timeout(EXCHANGE, answer).await.map_err(|_| UpstreamError::Timeout)?
    }

    /// Finds the response to `id` in a reply.
    async fn answer(&mut self, id: u64, reply: Reply) -> Result<Answer, Failure> {
        let status = reply.status;
        match reply.content {
            Content::Json(text) => match self.response(id, &text)? {
                Some(result) => Ok(result),
                None => Err(garbage("it answered with another message than the response").into()),
            },
            Content::Events(mut events) => {
                while let Some(event) = events.next().await {
                    let event = event?;
                    let Some(text) = event.is_message().then_some(event.data).flatten() else { continue };
                    if let Some(result) = self.response(id, &text)? {
                        return Ok(result);
                    }
                    self.decline(&text).await?;
                }
                Err(UpstreamError::Gone.into())
            }
            Content::Empty | Content::Opaque(_) if status.is_success() => Err(garbage("an empty answer").into()),
            Content::Empty | Content::Opaque(_) => {
                Err(Failure::Refused { code: None, why: format!("HTTP status {status}") })
            }
        }
    }

    /// The result in a message, if it is the response to `id`.
    fn response(&mut self, id: u64, text: &Bytes) -> Result<Option<Answer>, Failure> {
        self.bytes += text.len();
        if self.bytes > BYTES {
            return Err(UpstreamError::TooLarge(BYTES).into());
        }
        if self.digests == Digests::Compute {
            // A repeated key would show clients another definition than the one whose digest is pinned.
            let text = std::str::from_utf8(text).map_err(|_| garbage("it is not UTF-8"))?;
            check(text).map_err(|error| garbage(&error.to_string()))?;
        }
        let whole = std::str::from_utf8(text).map_err(|_| garbage("it is not UTF-8"))?;
        let message: Response<'_> = page::object(whole).map_err(|error| garbage(&error.to_string()))?;
        if let Some(error) = message.error.and_then(|error| page::object::<Fault<'_>>(error.get()).ok()) {
            // An error may have no id, if the server could not read it.
            let code = error.code();
            let text: String = error.message().as_deref().unwrap_or("no message").chars().take(TEXT).collect();
            return Err(Failure::Refused { code, why: format!("{text} ({})", code.unwrap_or_default()) });
        }
        let is_ours = message.id.is_some_and(|raw| raw.get() == id.to_string());
        let result = message.result.filter(|_| is_ours);
        Ok(result.map(|result| Answer { result: range_in(whole, result.get()), text: text.clone() }))
    }

    /// Answers what a server asks of its client: a ping, and nothing else.
    async fn decline(&self, text: &Bytes) -> Result<(), UpstreamError> {
        let Ok(message) = Envelope::parse_trusting(text.clone()) else { return Ok(()) };
        let (Kind::Request, Some(id)) = (message.kind, message.id()) else { return Ok(()) };
        let id: Value = serde_json::from_str(id).unwrap_or_default();
        let answer = if message.method == "ping" {
            json!({ "jsonrpc": "2.0", "id": id, "result": {} })
        } else {
            let error = json!({ "code": UNKNOWN_METHOD, "message": "the gateway only asks what there is" });
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        };
        self.post(&answer).await.map(|_| ())
    }

    async fn post(&self, message: &Value) -> Result<Reply, UpstreamError> {
        let message =
            Envelope::parse_trusting(message.to_string().into()).map_err(|error| garbage(&error.to_string()))?;
        self.send(Verb::Post(message)).await
    }

    async fn send(&self, verb: Verb) -> Result<Reply, UpstreamError> {
        let mut headers = HeaderMap::new();
        if let (false, Ok(version)) = (self.version.is_empty(), HeaderValue::from_str(&self.version)) {
            headers.insert(VERSION, version);
        }
        if let (Era::Modern, Verb::Post(message)) = (self.era, &verb)
            && let Ok(method) = HeaderValue::from_str(&message.method)
        {
            headers.insert(METHOD, method);
        }
        let outbound = Outbound { verb, era: self.era, caller: None, session: self.session.clone(), headers };
        timeout(EXCHANGE, self.upstream.send(outbound)).await.map_err(|_| UpstreamError::Timeout)?
    }

    /// Ends the session. A server may refuse to (405): then it ends it by itself.
    async fn end(&self) {
        if self.session.is_some()
            && let Err(error) = self.send(Verb::Delete).await
        {
            tracing::debug!(%error, "the session of discovery did not end");
        }
    }
}

/// A member of an object; null if it has none or is no object.
fn at<'v>(value: &'v Value, key: &str) -> &'v Value {
    value.get(key).unwrap_or(&Value::Null)
}

fn info() -> Value {
    json!({ "name": "toolgate", "version": env!("CARGO_PKG_VERSION") })
}

fn garbage(why: &str) -> UpstreamError {
    UpstreamError::Garbage(why.to_owned())
}

#[cfg(test)]
mod tests;
