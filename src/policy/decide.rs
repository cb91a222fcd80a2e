//! One call, one decision.

use std::sync::Arc;

use jiff::Timestamp;

use super::load::{Policy, SubjectView};

/// What a caller wants to use, and with which arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The thing.
    pub item: Item<'a>,
    /// JSON text of `params.arguments`, if any. It is parsed only when a candidate rule reads it. The caller has
    /// already refused duplicate keys and nesting beyond the limit.
    pub arguments: Option<&'a str>,
}

/// A thing that rules are about. Names are the server's own, never exposed ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Item<'a> {
    /// A tool by its server-side name.
    Tool(&'a str),
    /// A prompt by name.
    Prompt(&'a str),
    /// A resource by URI.
    Resource(&'a str),
    /// A resource template by its RFC 6570 text; only visibility is asked of it.
    ResourceTemplate(&'a str),
}

/// The outcome, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
    /// Why, for audit and `explain`; only [`Reason::Argument`] may be told to a caller.
    pub reason: Reason,
}

/// What the gateway does with a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Forward it.
    Allow,
    /// Refuse it; the caller may see that the thing exists.
    Deny,
    /// Answer as if the thing did not exist.
    Unknown,
}

/// A rule of a role.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleRef {
    /// Name of the McpRole.
    pub role: Arc<str>,
    /// Position in `spec.rules`.
    pub index: u32,
}

/// Why a decision came out as it did.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// An Allow rule matched.
    Allowed,
    /// No McpTool declares this name and `registration` is `Declared`.
    NotDeclared,
    /// The tool is disabled, or past its sunset.
    Disabled,
    /// No rule of the caller's roles is about this.
    NoRule,
    /// A Deny rule matched.
    DenyRule,
    /// A rule would allow but for the value at this path of the arguments.
    Argument {
        /// JSON pointer.
        path: String,
        /// What is permitted there, as a phrase: `one of "a", "b"`, `below /srv/data`, `at most 10`.
        permitted: String,
    },
    /// A rule would allow but for its `when`.
    Condition,
    /// A rule would allow at another time.
    Time,
    /// The URI has dot segments or encoded `/` or `.`.
    UnsafeUri,
}

impl Policy {
    /// Decides about one call. Deny wins over allow, and what no rule allows is denied.
    pub fn decide(&self, view: &SubjectView, call: &Call<'_>, now: Timestamp) -> Decision {
        let _ = (view, call, now);
        Decision { verdict: Verdict::Unknown, rule: None, reason: Reason::NoRule }
    }

    /// Whether lists show this item to the caller: some arguments could be allowed now. A call that
    /// [`Policy::decide`] allows is always visible.
    pub fn visible(&self, view: &SubjectView, item: Item<'_>, now: Timestamp) -> bool {
        let _ = (view, item, now);
        false
    }
}
