//! What a server may say and ask on its own: only to the caller that caused it, and only as declared.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::session::Session;
use crate::gateway::endpoint::{Caller, Force};
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::fields::{self, Unclear};
use crate::gateway::protocol::inputs;
use crate::gateway::protocol::json::{members, quote};
use crate::gateway::protocol::methods::{self, Asked, Notice};
use crate::gateway::tasks::Tasks;
use crate::policy::Item;
use crate::policy::snapshot::{Elicitation, Leave, ServerRequests};

/// What becomes of a message that a server sent on its own.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::gateway) enum Fate {
    /// The caller gets it.
    Pass,
    /// Nobody gets it.
    Drop(&'static str),
    /// The server is told that it may not ask.
    Refuse(&'static str),
}

/// What is said of a message that readers could take for different ones.
const UNCLEAR: &str = "it can be read in two ways";

/// Whether readers could take a request or a notification for different ones, where policy reads it.
pub(in crate::gateway) fn is_unclear(message: &Envelope) -> bool {
    let params = message.params();
    let read = match (message.kind, message.method.as_str()) {
        (Kind::Request, "elicitation/create") => params.map(|params| fields::read(params, &["mode"]).map(|_| ())),
        (Kind::Notification, TASKS) => params.map(|params| asked_in(params).map(|_| ())),
        _ => None,
    };
    message.unclear().is_some() || read.is_some_and(|read| read.is_err())
}

/// Tells the whole of a task, what it asks its caller included.
const TASKS: &str = "notifications/tasks";

/// `inputRequests` of a result, or of what is said of a task.
fn asked_in(object: &str) -> Result<Option<&RawValue>, Unclear> {
    let [requests] = fields::read(object, &["inputRequests"])?;
    inputs::check(requests)
}

/// What is said of a notification that asks its caller what policy forbids.
pub(in crate::gateway) const ASKS: &str = "it asks what policy does not let this server ask";

/// What a notification about a task asks of its caller.
pub(in crate::gateway) fn asked_of(message: &Envelope) -> Option<&RawValue> {
    let tells = message.kind == Kind::Notification && message.method == TASKS;
    message.params().filter(|_| tells).and_then(|params| asked_in(params).ok().flatten())
}

/// Judges a request or a notification from a server.
pub(in crate::gateway) fn judge(
    message: &Envelope,
    era: Era,
    force: &Force,
    caller: &Caller,
    session: Option<&Session>,
    tasks: &Tasks,
) -> Fate {
    let requests = force.policy.snapshot().server_requests;
    if is_unclear(message) {
        return if message.kind == Kind::Request { Fate::Refuse(UNCLEAR) } else { Fate::Drop(UNCLEAR) };
    }
    match message.kind {
        Kind::Notification => match methods::notice_from_server(&message.method) {
            Some(Notice::Plain) => Fate::Pass,
            Some(Notice::ResourceUpdated) => {
                let visible = message
                    .uri
                    .as_deref()
                    .is_some_and(|uri| force.policy.visible(&caller.view, Item::Resource(uri), Timestamp::now()));
                if visible { Fate::Pass } else { Fate::Drop("it is about a resource that the caller may not see") }
            }
            Some(Notice::Task) => {
                let now = Timestamp::now();
                let served = message.task.as_deref().is_some_and(|task| tasks.serves(task, caller, force, now));
                match asked_of(message).and_then(|asked| forbidden_input(requests, asked)) {
                    _ if !served => Fate::Drop("it is about a task that is not the caller's"),
                    Some(_) => Fate::Drop(ASKS),
                    None => Fate::Pass,
                }
            }
            None => Fate::Drop("the notification is unknown"),
        },
        Kind::Request if era == Era::Modern => Fate::Drop("MCP 2026-07-28 has no requests from servers"),
        Kind::Request => {
            let Some(session) = session else { return Fate::Refuse("there is no session to answer in") };
            let Some(asked) = methods::from_server(&message.method) else {
                return Fate::Refuse("the method is unknown");
            };
            if !permitted(requests, asked, message.params()) {
                return Fate::Refuse("policy does not let this server ask that");
            }
            if let Some(id) = message.id() {
                session.ask(id);
            }
            Fate::Pass
        }
        Kind::Response => Fate::Drop("nobody asked for this answer"),
    }
}

/// Whether `serverRequests` lets this through. `params` is JSON text.
fn permitted(requests: ServerRequests, asked: Asked, params: Option<&str>) -> bool {
    match asked {
        Asked::Ping => true,
        Asked::Sampling => requests.sampling == Leave::Allow,
        Asked::Roots => requests.roots == Leave::Allow,
        Asked::Elicitation => match requests.elicitation {
            Elicitation::Deny => false,
            Elicitation::FormAndUrl => true,
            // Only what surely is a form: absent means form, and anything else may ask to open a URL.
            Elicitation::Form => params.is_none_or(|params| {
                fields::read(params, &["mode"]).is_ok_and(|[mode]| mode.is_none_or(|mode| mode.get() == "\"form\""))
            }),
        },
    }
}

/// The first request in `inputRequests` (2026-07-28) that is not permitted, by its method. It was checked to be clear.
pub(in crate::gateway) fn forbidden_input(requests: ServerRequests, input_requests: &RawValue) -> Option<String> {
    for (_, raw) in members(input_requests.get()).unwrap_or_default() {
        let [method, params] = fields::read(raw.get(), &["method", "params"]).unwrap_or_default(); // No method: refused.
        let method = method.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).unwrap_or_default();
        let params = fields::present(params).map(RawValue::get);
        let allowed = methods::from_server(&method).is_some_and(|asked| permitted(requests, asked, params));
        if !allowed {
            return Some(method);
        }
    }
    None
}

/// The error that a refused server gets.
pub(in crate::gateway) fn refusal(id: &str, why: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":{}}}}}"#, quote(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_a_server_may_ask_for_forms_only() {
        let requests = ServerRequests::default();

        assert!(permitted(requests, Asked::Elicitation, Some(r#"{"message":"?"}"#)));
        assert!(permitted(requests, Asked::Elicitation, Some(r#"{"mode":"form"}"#)));
        assert!(!permitted(requests, Asked::Elicitation, Some(r#"{"mode":"url"}"#)));
        for params in [r#"{"mode":"form","mode":"url"}"#, r#"{"Mode":"url"}"#, r#"["form"]"#, r#"{"mode":null}"#] {
            assert!(!permitted(requests, Asked::Elicitation, Some(params)), "{params}");
        }
        assert!(!permitted(requests, Asked::Sampling, None));
        assert!(!permitted(requests, Asked::Roots, None));
    }

    #[test]
    fn input_requests_are_judged_like_requests() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let requests = ServerRequests::default();

        let form = raw(r#"{"a":{"method":"elicitation/create","params":{}}}"#);
        let sampling = raw(r#"{"a":{"method":"elicitation/create"},"b":{"method":"sampling/createMessage"}}"#);

        assert_eq!(forbidden_input(requests, &form), None);
        assert_eq!(forbidden_input(requests, &sampling).as_deref(), Some("sampling/createMessage"));
    }
}
