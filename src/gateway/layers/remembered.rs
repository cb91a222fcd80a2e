//! PURE. What a session remembers of its client, so that its server's side can be begun anew: `initialize` as it came,
//! what was agreed, the log level and the subscriptions.
//!
//! Owns no identity and decides nothing. Bounded: [`limits::REPLAY_BYTES`] for one session.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::gateway::limits;
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::json::{members, quote};
use crate::gateway::protocol::meta;

/// What one client said and was told.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Remembered {
    /// `None`: it is too large to be kept, and the session cannot be begun anew.
    initialize: Option<Bytes>,
    /// The revision that was agreed.
    version: Option<String>,
    /// Methods that announce a change of a list which the server has.
    lists: Vec<&'static str>,
    is_initialized: bool,
    /// The log level that the client asked for.
    level: Option<Level>,
    subscriptions: BTreeSet<String>,
    bytes: usize,
}

/// The levels of RFC 5424, most verbose first. One that is none of them is the server's to refuse.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Level(usize);

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Members of the server's capabilities, and what announces that such a list changed.
const LISTS: [(&str, &str); 3] = [
    ("tools", "notifications/tools/list_changed"),
    ("prompts", "notifications/prompts/list_changed"),
    ("resources", "notifications/resources/list_changed"),
];

impl Remembered {
    /// Of a client that opens a session with this message.
    pub(in crate::gateway) fn new(initialize: Option<&Envelope>) -> Self {
        let initialize = initialize
            .map(|message| meta::strip_own(message.text()).map_or_else(|| message.bytes().clone(), Bytes::from));
        // A copy: what came may be a part of something larger.
        let initialize = initialize.filter(|it| it.len() <= limits::REPLAY_BYTES).map(|it| Bytes::copy_from_slice(&it));
        let bytes = initialize.as_ref().map_or(0, Bytes::len);
        Self { initialize, bytes, ..Self::default() }
    }

    /// The server's answer to `initialize` (JSON text of the result).
    pub(in crate::gateway) fn agreed(&mut self, result: &str) {
        self.version = version_of(result);
        self.lists = lists_of(result);
    }

    /// A message of the client that is about to be sent.
    pub(in crate::gateway) fn note(&mut self, message: &Envelope) {
        match message.method.as_str() {
            "notifications/initialized" => self.is_initialized = true,
            "logging/setLevel" => {
                let level = message.params().and_then(|params| text(params, "level"));
                let known = level.and_then(|level| LEVELS.iter().position(|known| *known == level)).map(Level);
                self.level = known.or(self.level);
            }
            "resources/subscribe" => {
                let Some(uri) = &message.uri else { return };
                let fits = self.bytes + uri.len() <= limits::REPLAY_BYTES;
                if fits && self.subscriptions.insert(uri.clone()) {
                    self.bytes += uri.len();
                }
            }
            "resources/unsubscribe" => {
                let Some(uri) = &message.uri else { return };
                if self.subscriptions.remove(uri) {
                    self.bytes -= uri.len();
                }
            }
            _ => {}
        }
    }

    /// The client's `initialize`, if it is known.
    pub(in crate::gateway) fn initialize(&self) -> Option<&Bytes> {
        self.initialize.as_ref()
    }

    /// The revision that was agreed.
    pub(in crate::gateway) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether a server's answer to the same `initialize` agrees on the revision that the client speaks.
    pub(in crate::gateway) fn agrees_with(&self, result: &str) -> bool {
        self.version.is_some() && self.version == version_of(result)
    }

    /// The requests that follow `initialize`, for subscriptions that `may_see` permits. Their ids are none of the
    /// client's.
    pub(in crate::gateway) fn follow_up(&self, may_see: impl Fn(&str) -> bool) -> Vec<String> {
        let mut calls = Vec::new();
        if let Some(level) = self.level.and_then(|level| LEVELS.get(level.0)) {
            calls.push(("logging/setLevel", format!(r#"{{"level":"{level}"}}"#)));
        }
        let visible = self.subscriptions.iter().filter(|uri| may_see(uri));
        calls.extend(visible.map(|uri| ("resources/subscribe", format!(r#"{{"uri":{}}}"#, quote(uri)))));
        let number = |(at, (method, params))| {
            format!(r#"{{"jsonrpc":"2.0","id":"toolgate-{at}","method":"{method}","params":{params}}}"#)
        };
        calls.into_iter().enumerate().map(number).collect()
    }

    /// Whether the client said that it is ready.
    pub(in crate::gateway) fn is_initialized(&self) -> bool {
        self.is_initialized
    }

    /// What the client is told once its session was begun anew: that every list may have changed, and what was lost.
    pub(in crate::gateway) fn notices(&self, why: &str) -> Vec<String> {
        let mut notices: Vec<String> =
            self.lists.iter().map(|method| format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)).collect();
        if self.level.is_none_or(|level| LEVELS.get(level.0..).is_some_and(|heard| heard.contains(&"warning"))) {
            notices.push(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"warning","logger":"toolgate","data":{}}}}}"#,
                quote(why)
            ));
        }
        notices
    }
}

/// The result in a server's answer to `initialize`, if it is one.
pub(in crate::gateway) fn result_of(answer: &Bytes) -> Option<String> {
    let message = Envelope::parse_trusting(answer.clone()).ok()?;
    (message.kind == Kind::Response).then(|| message.result().map(str::to_owned)).flatten()
}

/// Whether a message answers a request.
pub(in crate::gateway) fn is_answer(message: &Bytes) -> bool {
    Envelope::parse_trusting(message.clone()).is_ok_and(|message| message.kind == Kind::Response)
}

fn version_of(result: &str) -> Option<String> {
    text(result, "protocolVersion")
}

fn lists_of(result: &str) -> Vec<&'static str> {
    let all = members(result).unwrap_or_default();
    let declared = all.iter().find(|(key, _)| key == "capabilities").and_then(|(_, raw)| members(raw.get()));
    let declared = declared.unwrap_or_default();
    let has = |name: &str| declared.iter().any(|(key, raw)| key == name && raw.get().starts_with('{'));
    LISTS.iter().filter(|(name, _)| has(name)).map(|(_, method)| *method).collect()
}

fn text(object: &str, key: &str) -> Option<String> {
    let all = members(object)?;
    let (_, raw) = all.iter().find(|(name, _)| name == key)?;
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(method: &str, params: &str) -> Envelope {
        let id = if method.starts_with("notifications/") { "" } else { r#""id":7,"# };
        Envelope::parse(format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{params}}}"#).into()).unwrap()
    }

    fn of(messages: &[(&str, &str)]) -> Remembered {
        let mut remembered = Remembered::new(Some(&message("initialize", r#"{"protocolVersion":"2025-11-25"}"#)));
        for (method, params) in messages {
            remembered.note(&message(method, params));
        }
        remembered
    }

    #[test]
    fn initialize_is_kept_as_it_came() {
        let text = r#"{ "jsonrpc":"2.0","id":"a", "method":"initialize","params":{"capabilities":{"x":1.50}}}"#;

        let remembered = Remembered::new(Some(&Envelope::parse(text.into()).unwrap()));

        assert_eq!(remembered.initialize().unwrap(), text);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let long = format!(r#"{{"uri":"mem:{}"}}"#, "x".repeat(1000));
        let mut remembered = of(&[]);
        for at in 0..1000 {
            remembered.note(&message("resources/subscribe", &long.replace("mem:", &format!("mem:{at}"))));
        }
        let kept = remembered.follow_up(|_| true);
        assert!(kept.iter().map(String::len).sum::<usize>() < 2 * limits::REPLAY_BYTES, "{}", kept.len());
        assert!(!kept.is_empty() && remembered.bytes <= limits::REPLAY_BYTES);

        let large = format!(r#"{{"clientInfo":"{}"}}"#, "x".repeat(limits::REPLAY_BYTES));
        assert_eq!(Remembered::new(Some(&message("initialize", &large))).initialize(), None);
    }

    #[test]
    fn the_last_level_and_the_subscriptions_that_stand_are_asked_for_again() {
        let remembered = of(&[
            ("notifications/initialized", "{}"),
            ("logging/setLevel", r#"{"level":"debug"}"#),
            ("resources/subscribe", r#"{"uri":"mem:a"}"#),
            ("resources/subscribe", r#"{"uri":"mem:b"}"#),
            ("resources/subscribe", r#"{"uri":"mem:c"}"#),
            ("resources/unsubscribe", r#"{"uri":"mem:a"}"#),
            ("logging/setLevel", r#"{"level":"error"}"#),
        ]);

        let asked = remembered.follow_up(|uri| uri != "mem:c"); // It may not be seen any more.

        assert!(remembered.is_initialized());
        assert_eq!(
            asked,
            [
                r#"{"jsonrpc":"2.0","id":"toolgate-0","method":"logging/setLevel","params":{"level":"error"}}"#,
                r#"{"jsonrpc":"2.0","id":"toolgate-1","method":"resources/subscribe","params":{"uri":"mem:b"}}"#,
            ]
        );
    }

    #[test]
    fn a_client_hears_of_the_lists_that_its_server_has_and_of_no_warning_that_it_does_not_want() {
        let result = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}}}"#;
        let methods = |remembered: &Remembered| -> Vec<String> {
            let parsed = remembered.notices("gone").into_iter().map(|text| Envelope::parse(text.into()).unwrap());
            parsed.map(|notice| notice.method.clone()).collect()
        };
        let mut remembered = of(&[]);
        remembered.agreed(result);
        let lists = ["notifications/tools/list_changed", "notifications/resources/list_changed"];
        assert_eq!(methods(&remembered), [&lists[..], &["notifications/message"]].concat());

        remembered.note(&message("logging/setLevel", r#"{"level":"warning"}"#));
        assert_eq!(methods(&remembered).len(), 3);
        remembered.note(&message("logging/setLevel", r#"{"level":"error"}"#));
        assert_eq!(methods(&remembered), lists);
    }

    #[test]
    fn another_revision_is_not_what_the_client_agreed_to() {
        let mut remembered = of(&[]);
        let result = |version: &str| format!(r#"{{"protocolVersion":"{version}","capabilities":{{}}}}"#);
        assert!(!remembered.agrees_with(&result("2025-11-25")), "nothing was agreed yet");

        remembered.agreed(&result("2025-11-25"));

        assert!(remembered.agrees_with(&result("2025-11-25")));
        assert!(!remembered.agrees_with(&result("2025-06-18")));
        assert!(!remembered.agrees_with("{}"));
    }
}
