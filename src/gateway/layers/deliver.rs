//! The answer on its way back: checked, filtered, and counted.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::input_round::FORBIDDEN;
use super::list_changes::Subscription;
use super::listed::shown;
use super::pending::Awaited;
use super::record::Recorder;
use super::session::Session;
use super::stream;
use crate::gateway::audit::Outcome;
use crate::gateway::body::Body;
use crate::gateway::endpoint::{Caller, Endpoint, Force, OpenStream};
use crate::gateway::lifetime::Lifetime;
use crate::gateway::limits;
use crate::gateway::memory::{self, Hold, NoRoom};
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::error::{Reject, upstream_label};
use crate::gateway::protocol::fields::{self, Unclear, present};
use crate::gateway::protocol::headers::{ACCEL, SESSION};
use crate::gateway::protocol::id::Id;
use crate::gateway::protocol::inputs;
use crate::gateway::protocol::json::{members, splice};
use crate::gateway::protocol::list::{self, Entry, Override};
use crate::gateway::protocol::list_changed;
use crate::gateway::protocol::meta;
use crate::gateway::protocol::methods::List;
use crate::gateway::protocol::sse;
use crate::gateway::upstream::{Content, Reached, Reply, UpstreamError};
use crate::policy::snapshot::{Elicitation, Lifecycle, Tool};

/// What an answer is for, and so what is done with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::gateway) enum Purpose {
    /// Opens a session.
    Initialize,
    /// Says what the server can do, without opening a session.
    Discover,
    /// Is filtered.
    List {
        /// Which list.
        list: List,
        /// It was asked for with a cursor: it goes on with the list of before.
        follows: bool,
    },
    /// The use of a tool, a prompt, a resource or a task.
    Use {
        /// JSON text that callers of a deprecated tool find in `_meta`.
        deprecation: Option<Arc<str>>,
        /// The server's own name of the tool, where one is used: a task that the result creates belongs to it.
        tool: Option<Arc<str>>,
    },
    /// Passes.
    Plain,
}

/// Everything that an answer needs on its way back.
pub(in crate::gateway) struct Delivery {
    pub(in crate::gateway) endpoint: Arc<Endpoint>,
    pub(in crate::gateway) force: Arc<Force>,
    pub(in crate::gateway) caller: Caller,
    pub(in crate::gateway) session: Option<Arc<Session>>,
    pub(in crate::gateway) era: Era,
    /// The client's id as JSON text; `None` for a notification, an answer, or a stream of its own.
    pub(in crate::gateway) id: Option<String>,
    pub(in crate::gateway) purpose: Purpose,
    /// The caller's place among long-lived streams, for a stream of its own.
    pub(in crate::gateway) open: Option<OpenStream>,
    /// What is announced on a stream of its own.
    pub(in crate::gateway) subscription: Option<Subscription>,
    /// The request's place among those that its session waits for.
    pub(in crate::gateway) awaited: Option<Awaited>,
    pub(in crate::gateway) record: Recorder,
}

const PROBLEM: &str = "the answer is not a JSON-RPC message";

impl Delivery {
    /// The response to the client.
    pub(in crate::gateway) async fn deliver(mut self, reply: Reply) -> Response<Body> {
        let status = self.check_status(reply.status);
        if status.is_err() || !matches!(reply.content, Content::Events(_)) {
            self.answered(); // Whatever it is, this is what the client gets.
        }
        if let Err(reject) = status {
            return refuse(self.record, &reject);
        }
        self.record.status(reply.status);
        let mut response = Response::builder().status(reply.status);
        for (name, value) in &reply.headers {
            response = response.header(name, value);
        }
        if let (Purpose::Initialize, true, Some(upstream)) = (&self.purpose, reply.status.is_success(), reply.session) {
            let session = self.endpoint.sessions.open(&self.caller, upstream, self.record.received());
            if let (Some(id), Content::Events(_)) = (&self.id, &reply.content) {
                self.awaited = Awaited::begin(&session, id, Purpose::Initialize).ok(); // It is the session's first.
            }
            self.session = Some(session);
        }
        if let Some(session) = &self.session {
            response = response.header(SESSION, session.id.as_str());
        }
        let (body, content_type, outcome) = match reply.content {
            Content::Empty => (Bytes::new(), None, status_outcome(reply.status)),
            // What a broken server prints is for its operator, not for its callers.
            Content::Opaque(_) if reply.status.is_server_error() => {
                let failed = format!("it failed with HTTP {}", reply.status.as_u16());
                return refuse(self.record, &garbage(&failed));
            }
            Content::Opaque(bytes) => (bytes, Some("text/plain; charset=utf-8"), status_outcome(reply.status)),
            Content::Json(bytes) => {
                let answer = match self.room(bytes.len()).await {
                    Ok(room) => {
                        self.json(bytes, reply.status).map(|(bytes, outcome)| (self.hold(room, bytes), outcome))
                    }
                    Err(error) => Err(UpstreamError::from(error).into()),
                };
                match answer {
                    Ok((bytes, outcome)) => (bytes, Some("application/json"), outcome),
                    Err(reject) => {
                        self.record.because(&reject);
                        return refuse(self.record, &reject);
                    }
                }
            }
            Content::Events(events) => {
                if self.open.is_some() {
                    self.record.park();
                }
                let lifetime = self.lifetime();
                let response = response
                    .extension(lifetime)
                    .header(header::CONTENT_TYPE, "text/event-stream")
                    .header(header::CACHE_CONTROL, "no-cache")
                    .header(ACCEL, "no");
                return respond(response, Body::Events(stream::events(self, events)));
            }
        };
        self.record.sent(body.len());
        self.record.finish(outcome);
        match content_type {
            Some(content_type) => respond(response.header(header::CONTENT_TYPE, content_type), Body::Full(body)),
            None => respond(response, Body::Empty),
        }
    }

    /// Memory for the copy that is made of an answer where something is changed in it, as in every list that is filtered.
    pub(in crate::gateway) async fn room(&self, bytes: usize) -> Result<Hold, NoRoom> {
        let mut room = memory::budget().hold(memory::Owner::Gateway);
        room.grow(bytes).await?;
        Ok(room)
    }

    /// An answer that is held by its caller until it is written. The copies are gone by then.
    fn hold(&self, room: Hold, bytes: Bytes) -> Bytes {
        drop(room);
        let mut hold = memory::budget().hold(memory::Owner::Caller(self.caller.key().cloned()));
        hold.take_over(bytes.len());
        hold.attach(bytes)
    }

    /// How long a stream of this exchange may live.
    pub(in crate::gateway) fn lifetime(&self) -> Lifetime {
        let until = self.caller.expires_in().map(|left| Instant::now() + left);
        Lifetime { until, endpoint: self.endpoint.clone(), force: self.force.clone() }
    }

    /// The client has its answer.
    pub(super) fn answered(&self) {
        if let Some(awaited) = &self.awaited {
            awaited.answered();
        }
    }

    /// The policy in force now, and the caller's view of it: an answer may outlive several.
    pub(in crate::gateway) fn current(&self) -> (Arc<Force>, Caller) {
        let force = self.endpoint.enforced(&self.force);
        if Arc::ptr_eq(&force, &self.force) {
            return (force, self.caller.clone());
        }
        let view = force.view_of(&self.caller, &self.force);
        (force, Caller { view, verified: self.caller.verified.clone() })
    }

    fn check_status(&self, status: StatusCode) -> Result<(), Reject> {
        match status {
            // The challenge of a server would send the client to a foreign login.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let error = UpstreamError::Refused(status.as_u16());
                self.force.metrics.upstream_error(upstream_label(&error));
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// One JSON message, as the whole answer.
    fn json(&mut self, bytes: Bytes, status: StatusCode) -> Result<(Bytes, Outcome), Reject> {
        let message = Envelope::parse_trusting(sse::without_mark(bytes));
        if !status.is_success() {
            // An error may come without an id, or without being JSON-RPC at all: it tells nothing that is filtered.
            let message = message.map_err(|_| garbage(PROBLEM))?;
            return match (message.kind, message.result()) {
                (Kind::Response, None) => {
                    self.check_error(&message)?;
                    self.record.answered(error_code(&message));
                    Ok((cleaned(&message), status_outcome(status)))
                }
                _ => Err(garbage("an error status came with something else than an error")),
            };
        }
        let message = message.map_err(|error| garbage(&error.to_string()))?;
        match &self.id {
            Some(id) if message.kind == Kind::Response && same_id(message.id(), id) => {}
            Some(_) => return Err(garbage("it answers another request")),
            // Nobody waits for a body here.
            None => return Ok((Bytes::new(), Outcome::Ok)),
        }
        let purpose = self.purpose.clone();
        let answered = self.answer(&purpose, &message)?;
        self.record.answered(error_code(&message));
        Ok(answered)
    }

    /// An error may ask the caller to open a URL.
    fn check_error(&self, message: &Envelope) -> Result<(), Reject> {
        let asks =
            inputs::asks_for_url(message.text()).map_err(|unclear| garbage(&format!("in its error {unclear}")))?;
        if !asks {
            return Ok(());
        }
        let allowed = self.current().0.policy.snapshot().server_requests.elicitation == Elicitation::FormAndUrl;
        self.record_question("elicitation/create", (!allowed).then_some(FORBIDDEN))?;
        if allowed { Ok(()) } else { Err(not_asked("elicitation/create")) }
    }

    /// The final answer to a request: what the client gets, and how it counts.
    pub(in crate::gateway) fn answer(&self, purpose: &Purpose, message: &Envelope) -> Result<(Bytes, Outcome), Reject> {
        let (Some(result), Some(range)) = (message.result(), message.result_range()) else {
            self.check_error(message)?;
            return Ok((cleaned(message), Outcome::Error));
        };
        let unclear = |unclear: Unclear| garbage(&format!("in its result {unclear}"));
        let seen = Used::read(result).map_err(unclear)?;
        if let Some(requests) = inputs::check(seen.input_requests).map_err(unclear)? {
            self.record_input_requests(requests)?;
        }
        if let (Purpose::Initialize, Some(session)) = (purpose, &self.session) {
            session.life.agreed(result);
        }
        match purpose {
            Purpose::Plain => Ok((cleaned(message), Outcome::Ok)),
            Purpose::Initialize | Purpose::Discover => {
                let clean = meta::strip_own(result);
                let bytes = match list_changed::declare(clean.as_deref().unwrap_or(result)).or(clean) {
                    Some(changed) => splice(message.text(), &[(range, changed)]).into(),
                    None => message.bytes().clone(),
                };
                Ok((bytes, Outcome::Ok))
            }
            Purpose::List { list, follows } => {
                let (force, caller) = self.current();
                let text = self
                    .filter(*list, *follows, message.text(), range, &force, &caller)
                    .map_err(|error| garbage(&error.to_string()))?;
                let text = text.as_deref().unwrap_or_else(|| message.text());
                let bytes = match meta::strip_own(text) {
                    Some(clean) => clean.into(),
                    None if text.len() == message.bytes().len() => message.bytes().clone(),
                    None => Bytes::copy_from_slice(text.as_bytes()),
                };
                Ok((bytes, Outcome::Ok))
            }
            Purpose::Use { deprecation, tool } => {
                if !result.starts_with('{') {
                    return Err(garbage("the result is no object"));
                }
                if let Some(task) = seen.new_task().map_err(unclear)?
                    && let Some(tool) = tool
                {
                    self.endpoint.tasks.record(task, &self.caller, tool);
                }
                let outcome =
                    if seen.is_error.is_some_and(|raw| raw.get() == "true") { Outcome::ToolError } else { Outcome::Ok };
                let bytes = match deprecation {
                    None => cleaned(message),
                    Some(told) => {
                        let clean = meta::strip_own(result);
                        let told =
                            meta::with_meta(clean.as_deref().unwrap_or(result), "toolgate.dev/deprecation", told)
                                .ok_or_else(|| garbage("the result is no object"))?;
                        splice(message.text(), &[(range, told)]).into()
                    }
                };
                Ok((bytes, outcome))
            }
        }
    }
}

impl Delivery {
    /// Takes out of a list what the caller may not see, and remembers what was listed.
    fn filter(
        &self,
        list: List,
        follows: bool,
        whole: &str,
        result: Range<usize>,
        force: &Force,
        caller: &Caller,
    ) -> Result<Option<String>, list::NoList> {
        let now = Timestamp::now();
        let mut names = Names::default();
        let filtered = list::filter(list, whole, result, |name, entry| {
            names.push(name);
            if shown(list, name, force, &caller.view, now).is_none() {
                return Entry::Drop;
            }
            let declared = if list == List::Tools { force.policy.tool(name) } else { None };
            match declared.and_then(overrides) {
                None => Entry::Keep,
                Some(change) => change.apply(entry).map_or(Entry::Drop, Entry::Replace),
            }
        })?;
        self.endpoint.listings.record(list, follows, names.within_bound(), caller, force, now);
        Ok(filtered)
    }
}

/// The few members of a result that are read.
#[derive(Default)]
struct Used<'a> {
    is_error: Option<&'a RawValue>,
    result_type: Option<&'a RawValue>,
    input_requests: Option<&'a RawValue>,
    task_id: Option<&'a RawValue>,
    /// Where 2025-11-25 has the task.
    task: Option<&'a RawValue>,
}

impl<'a> Used<'a> {
    /// Finds them, where the result is an object.
    fn read(result: &'a str) -> Result<Self, Unclear> {
        if !result.starts_with('{') {
            return Ok(Self::default());
        }
        let names = ["isError", "resultType", "inputRequests", "taskId", "task"];
        let [is_error, result_type, input_requests, task_id, task] = fields::read(result, &names)?.map(present);
        Ok(Self { is_error, result_type, input_requests, task_id, task })
    }

    /// The id of the task that this result creates.
    fn new_task(&self) -> Result<Option<String>, Unclear> {
        let id = match (self.task_id, self.task) {
            (Some(id), _) if self.result_type.is_some_and(|kind| kind.get() == "\"task\"") => Some(id),
            (_, Some(task)) if task.get().starts_with('{') => {
                let [id] = fields::read(task.get(), &["taskId"])?;
                id
            }
            _ => None,
        };
        Ok(id.and_then(|id| serde_json::from_str(id.get()).ok()))
    }
}

/// The server asked what policy does not let it ask. It did answer, so it saw the request.
pub(super) fn not_asked(method: &str) -> Reject {
    let method: String = method.chars().take(64).collect(); // It is the server's word.
    Reject::denied(format!("the server asked for {method}, which policy does not allow")).reached(Reached::Yes)
}

/// The server's answer is not valid. It did answer, so it saw the request.
pub(super) fn garbage(what: &str) -> Reject {
    Reject::from(UpstreamError::Garbage(what.to_owned())).reached(Reached::Yes)
}

/// The code of a JSON-RPC error; `None` for a result.
pub(super) fn error_code(message: &Envelope) -> Option<i64> {
    if message.result().is_some() {
        return None;
    }
    let member = |text, name: &str| members(text)?.into_iter().find(|(key, _)| key == name).map(|(_, raw)| raw.get());
    member(member(message.text(), "error")?, "code")?.parse().ok()
}

fn cleaned(message: &Envelope) -> Bytes {
    meta::strip_own(message.text()).map_or_else(|| message.bytes().clone(), Bytes::from)
}

/// Whether an answer is to this request; servers may write an id in their own way, but not as one of another type.
pub(in crate::gateway) fn same_id(answered: Option<&str>, asked: &str) -> bool {
    answered.is_some_and(|answered| {
        answered == asked || (answered.starts_with('"') == asked.starts_with('"') && Id::of(answered) == Id::of(asked))
    })
}

fn status_outcome(status: StatusCode) -> Outcome {
    if status.is_success() { Outcome::Ok } else { Outcome::Error }
}

fn respond(builder: http::response::Builder, body: Body) -> Response<Body> {
    builder.body(body).unwrap_or_else(|_| {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// The end of an exchange that is refused.
pub(in crate::gateway) fn refuse(mut record: Recorder, reject: &Reject) -> Response<Body> {
    let id = record.received().and_then(|message| message.id()).or(reject.id.as_deref());
    let body = reject.body(id, record.request_id());
    record.refused(reject);
    record.sent(body.len());
    record.finish(reject.outcome);
    own_response(reject.status, reject.header.clone(), body)
}

/// A response of our own.
pub(in crate::gateway) fn own_response(
    status: StatusCode,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    json: String,
) -> Response<Body> {
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    if let Some(pair) = header {
        response = response.header(pair.0, pair.1);
    }
    respond(response, Body::Full(json.into()))
}

/// Names of a list's entries as the server gave them, within [`limits::LISTED_BYTES`].
#[derive(Default)]
struct Names {
    all: Vec<Box<str>>,
    bytes: usize,
}

impl Names {
    fn push(&mut self, name: &str) {
        self.bytes += name.len() + size_of::<Box<str>>();
        if self.bytes <= limits::LISTED_BYTES {
            self.all.push(name.into());
        } else {
            self.all = Vec::new(); // Not kept, but counted.
        }
    }

    fn within_bound(self) -> Option<Vec<Box<str>>> {
        (self.bytes <= limits::LISTED_BYTES).then_some(self.all)
    }
}

/// What the declaration changes about a listed tool.
fn overrides(tool: &Tool) -> Option<Override> {
    let notice = (tool.lifecycle == Lifecycle::Deprecated || tool.deprecation.is_some()).then(|| notice(tool));
    let change = Override {
        name: tool.exposed_name.clone(),
        title: tool.title.clone(),
        description: tool.description.clone(),
        notice,
    };
    (change != Override::default()).then_some(change)
}

fn notice(tool: &Tool) -> String {
    let told = tool.deprecation.clone().unwrap_or_default();
    let mut text = "Deprecated.".to_owned();
    if let Some(message) = told.message {
        text = format!("{text} {message}");
    }
    if let Some(other) = told.replaced_by {
        text = format!("{text} Use {other} instead.");
    }
    if let Some(time) = told.sunset_time {
        text = format!("{text} It goes away on {time}.");
    }
    text
}
