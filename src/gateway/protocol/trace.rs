//! W3C trace context of a message: in `params._meta` (SEP-414) or in headers.

use http::{HeaderMap, HeaderName};

use super::envelope::Envelope;
use super::json::{self, members, range_in, splice};
use crate::telemetry::traces::Incoming;

/// `traceparent`.
pub const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The context that a message came with.
#[derive(Debug, Default)]
pub struct Context {
    parent: Option<String>,
    state: Option<String>,
}

impl Context {
    /// As the tracer takes it.
    pub fn borrow(&self) -> Incoming<'_> {
        Incoming { traceparent: self.parent.as_deref(), tracestate: self.state.as_deref() }
    }
}

/// The context of a message: that of `_meta` where it has one, else that of the headers; never a mixture.
pub fn incoming(headers: &HeaderMap, message: &Envelope) -> Context {
    let meta = message.meta().and_then(members).unwrap_or_default();
    let text = |name: &HeaderName| {
        let (_, raw) = meta.iter().find(|(key, _)| key == name.as_str())?;
        serde_json::from_str::<String>(raw.get()).ok()
    };
    if let Some(parent) = text(&TRACE_PARENT) {
        return Context { parent: Some(parent), state: text(&TRACE_STATE) };
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Context { parent: text(TRACE_PARENT), state: text(TRACE_STATE) }
}

/// The message with this context in `params._meta`. A message without parameters stays as it is: the headers carry it.
pub fn put(message: Envelope, parent: &str, state: Option<&str>) -> Envelope {
    let Some(params) = message.params().filter(|params| params.starts_with('{')) else { return message };
    let mut entries = vec![format!("\"traceparent\":{}", json::quote(parent))];
    entries.extend(state.map(|state| format!("\"tracestate\":{}", json::quote(state))));
    let edit = if let Some(meta) = message.meta() {
        let Some(all) = members(meta) else { return message };
        let kept = all.iter().filter(|(key, _)| key != "traceparent" && key != "tracestate");
        let kept = kept.map(|(key, value)| format!("{}:{}", json::quote(key), value.get()));
        let joined = kept.chain(entries).collect::<Vec<_>>().join(",");
        (range_in(message.text(), meta), format!("{{{joined}}}"))
    } else {
        let start = range_in(message.text(), params).start + 1; // Behind the opening brace.
        let comma = if members(params).is_some_and(|all| all.is_empty()) { "" } else { "," };
        (start..start, format!("\"_meta\":{{{}}}{comma}", entries.join(",")))
    };
    Envelope::parse_trusting(splice(message.text(), &[edit]).into()).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(params: &str) -> Envelope {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{params}}}"#);
        Envelope::parse(text.into()).unwrap()
    }

    #[test]
    fn the_context_in_meta_wins_as_a_whole() {
        let headers: HeaderMap =
            [(TRACE_PARENT, "h".parse().unwrap()), (TRACE_STATE, "s".parse().unwrap())].into_iter().collect();

        let context = incoming(&headers, &message(r#"{"_meta":{"traceparent":"m"}}"#));
        assert_eq!((context.parent.as_deref(), context.state), (Some("m"), None));
        let context = incoming(&headers, &message("{}"));
        assert_eq!((context.parent.as_deref(), context.state.as_deref()), (Some("h"), Some("s")));
    }

    #[test]
    fn our_context_replaces_the_callers_and_all_else_stays() {
        let sent = put(message(r#"{"_meta":{"a":1e2,"traceparent":"x","tracestate":"y"},"name":"n"}"#), "p", None);
        assert_eq!(sent.params(), Some(r#"{"_meta":{"a":1e2,"traceparent":"p"},"name":"n"}"#));

        let sent = put(message(r#"{"name":"n"}"#), "p", Some("s"));
        assert_eq!(sent.params(), Some(r#"{"_meta":{"traceparent":"p","tracestate":"s"},"name":"n"}"#));
        assert_eq!(put(message("{}"), "p", None).params(), Some(r#"{"_meta":{"traceparent":"p"}}"#));
    }
}
