//! One call, one decision; and whether a list shows a thing, by the same rules.
//!
//! A Deny rule that applies wins over every Allow. Without an Allow that applies the call is refused. A refused call
//! of a thing that the caller's lists show is answered with `Deny`, any other as if the thing did not exist: both
//! questions are asked of one function, so a list and an answer cannot contradict each other.
//!
//! A URI that can be read in several ways is several things: an Allow is needed for each, a Deny of one suffices.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::arguments;
use super::condition::Inputs;
use super::glob::Template;
use super::input::Arguments;
use super::load::{Policy, SubjectView};
use super::rule::{self, CompiledRule, Facts, Miss, Subject};
use super::snapshot::{Effect, Lifecycle, Registration, Tool};
use super::uri;

/// Longest name of a tool or prompt that is looked at, in bytes; a longer one is unknown.
const NAME_BYTES: usize = 1 << 10;

/// What is wrong with arguments that cannot be judged, for [`Reason::Unclear`].
pub const UNCLEAR: &str = "keys that differ only in case, or half of a surrogate pair, stand where a rule reads";

/// What a caller wants to use, and with which arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The thing.
    pub item: Item<'a>,
    /// JSON text of `params.arguments`, if any. It is parsed only when a candidate rule reads it. The caller has
    /// already refused repeated keys and nesting beyond the limit. Absent arguments count as an empty object; for
    /// resources it is ignored, because reading one has no arguments.
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
    /// Why, for audit and `explain`; only [`Reason::Argument`] and [`Reason::Unclear`] may be told to a
    /// caller.
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
    /// The arguments may be read in two ways where a rule reads them: [`UNCLEAR`].
    Unclear {
        /// JSON pointer to the object or string; empty for the arguments themselves.
        path: String,
    },
    /// A rule would allow but for its `when`.
    Condition,
    /// A rule would allow at another time.
    Time,
    /// The URI has no canonical form, or a server may read it as one that no rule allows.
    UnsafeUri,
}

/// A thing as policy finds it, and the rules to ask.
pub(super) struct Located<'a> {
    pub(super) subject: Subject<'a>,
    /// Positions of rules; all of them name the thing if `exact`.
    rules: &'a [u32],
    exact: bool,
    /// The variable `tool` of a declared tool.
    declared_variable: Option<&'a Value>,
    /// The variable `tool` of an undeclared one.
    undeclared_variable: Option<Value>,
}

impl Policy {
    /// Decides about one call. Deny wins over allow, and what no rule allows is denied.
    pub fn decide(&self, view: &SubjectView, call: &Call<'_>, now: Timestamp) -> Decision {
        let located = match self.locate(view, call.item, now) {
            Ok(located) => located,
            Err(reason) => return Decision { verdict: Verdict::Unknown, rule: None, reason },
        };
        let arguments = Arguments::new(call.arguments.filter(|_| rule::has_arguments(call.item)));
        let facts = facts(view, &located, &arguments, now);
        let (mut allow, mut missing) = (None, located.subject.readings());
        for rule in self.candidates(&located) {
            // Whatever its effect: what cannot be judged is refused.
            if let Some(path) = rule.unclear(&arguments) {
                let verdict = self.refusal(&located, &facts, call.item);
                return Decision { verdict, rule: Some(rule.reference.clone()), reason: Reason::Unclear { path } };
            }
            match rule.effect {
                Effect::Deny if rule.applies(&facts) => {
                    let verdict = self.refusal(&located, &facts, call.item);
                    return Decision { verdict, rule: Some(rule.reference.clone()), reason: Reason::DenyRule };
                }
                Effect::Allow if missing != 0 && rule.applies(&facts) => {
                    missing &= !rule.named(&located.subject);
                    allow = allow.or(Some(rule));
                }
                Effect::Deny | Effect::Allow => {}
            }
        }
        match allow {
            Some(rule) if missing == 0 => {
                Decision { verdict: Verdict::Allow, rule: Some(rule.reference.clone()), reason: Reason::Allowed }
            }
            Some(_) => Decision { verdict: Verdict::Unknown, rule: None, reason: Reason::UnsafeUri },
            None => self.nearest_miss(&located, &facts, call.item),
        }
    }

    /// Whether lists show this item to the caller: some arguments could be allowed now. A call that
    /// [`Policy::decide`] allows is always visible.
    pub fn visible(&self, view: &SubjectView, item: Item<'_>, now: Timestamp) -> bool {
        let Ok(located) = self.locate(view, item, now) else { return false };
        let arguments = Arguments::new(None);
        self.shows(&located, &facts(view, &located, &arguments, now), item)
    }

    /// Finds the thing and the rules to ask, or says why no rule is asked.
    pub(super) fn locate<'a>(
        &'a self,
        view: &'a SubjectView,
        item: Item<'a>,
        now: Timestamp,
    ) -> Result<Located<'a>, Reason> {
        if !Arc::ptr_eq(&view.policy, self.hash()) && view.policy != *self.hash() {
            return Err(Reason::NoRule); // Resolved under another policy: it grants nothing here.
        }
        self.find(&view.candidates.all, |position| view.candidates.of_tool(position), item, now)
    }

    /// Finds the thing, and which of these rules to ask. `of_tool` has those that name the declared tool at a position.
    pub(super) fn find<'a>(
        &'a self,
        rules: &'a [u32],
        of_tool: impl FnOnce(usize) -> &'a [u32],
        item: Item<'a>,
        now: Timestamp,
    ) -> Result<Located<'a>, Reason> {
        let all =
            |subject| Located { subject, rules, exact: false, declared_variable: None, undeclared_variable: None };
        match item {
            Item::Tool(name) | Item::Prompt(name) if name.len() > NAME_BYTES => Err(Reason::NoRule),
            Item::Tool(name) => match self.declared(name) {
                Some((position, tool)) if is_in_use(tool, now) => Ok(Located {
                    subject: Subject::Tool(name, Some(tool)),
                    rules: of_tool(position),
                    exact: true,
                    declared_variable: self.tool_variable(position),
                    undeclared_variable: None,
                }),
                Some(_) => Err(Reason::Disabled),
                None => match self.snapshot().registration {
                    Registration::Declared => Err(Reason::NotDeclared),
                    Registration::Auto => Ok(Located {
                        undeclared_variable: Some(rule::tool_variable(name, &self.snapshot().target.server, None)),
                        ..all(Subject::Tool(name, None))
                    }),
                },
            },
            Item::Prompt(name) => Ok(all(Subject::Prompt(name))),
            Item::Resource(uri) => match uri::readings(uri) {
                Some(readings) => Ok(all(Subject::Resource(readings))),
                None => Err(Reason::UnsafeUri),
            },
            Item::ResourceTemplate(text) => match Template::parse(text) {
                Some(template) => Ok(all(Subject::Template(template))),
                None => Err(Reason::NoRule), // Too long to look at.
            },
        }
    }

    /// The rules that name the thing, in the order of role and index.
    pub(super) fn candidates<'a>(&'a self, located: &'a Located<'a>) -> impl Iterator<Item = &'a CompiledRule> {
        let rules = located.rules.iter().filter_map(|position| self.rules.get(*position as usize));
        rules.filter(|rule| located.exact || rule.names(&located.subject))
    }

    /// Whether some arguments could be allowed.
    pub(super) fn shows(&self, located: &Located<'_>, facts: &Facts<'_>, item: Item<'_>) -> bool {
        let applies = |rule: &CompiledRule| {
            if rule::has_arguments(item) { rule.applies_to_lists(facts) } else { rule.applies(facts) }
        };
        let mut missing = located.subject.readings();
        for rule in self.candidates(located) {
            match rule.effect {
                Effect::Deny if applies(rule) => return false,
                Effect::Allow if missing != 0 && applies(rule) => missing &= !rule.named(&located.subject),
                Effect::Deny | Effect::Allow => {}
            }
        }
        missing == 0
    }

    fn refusal(&self, located: &Located<'_>, facts: &Facts<'_>, item: Item<'_>) -> Verdict {
        if self.shows(located, facts, item) { Verdict::Deny } else { Verdict::Unknown }
    }

    /// Why nothing allowed it: what the Allow rule that came nearest still lacks.
    fn nearest_miss(&self, located: &Located<'_>, facts: &Facts<'_>, item: Item<'_>) -> Decision {
        let allows = self.candidates(located).filter(|rule| rule.effect == Effect::Allow);
        let nearest = allows.filter_map(|rule| rule.miss(facts).map(|miss| (miss, rule))).min_by_key(|(miss, _)| *miss);
        let Some((miss, rule)) = nearest else {
            return Decision { verdict: Verdict::Unknown, rule: None, reason: Reason::NoRule };
        };
        let reason = match miss {
            Miss::Arguments(_, first) => match rule.arguments.get(first) {
                Some(condition) => {
                    Reason::Argument { path: condition.path.clone(), permitted: arguments::permitted(condition) }
                }
                None => Reason::Condition, // Not reached: `first` is a position in this list.
            },
            Miss::DynamicCondition | Miss::StaticCondition => Reason::Condition,
            Miss::Time => Reason::Time,
        };
        Decision { verdict: self.refusal(located, facts, item), rule: Some(rule.reference.clone()), reason }
    }
}

/// What rules are judged on.
pub(super) fn facts<'a>(
    view: &'a SubjectView,
    located: &'a Located<'a>,
    arguments: &'a Arguments<'a>,
    now: Timestamp,
) -> Facts<'a> {
    facts_of(view.candidates.identity.as_ref(), located, arguments, now)
}

/// What rules are judged on, for a caller with this variable `identity`.
pub(super) fn facts_of<'a>(
    identity: Option<&'a Value>,
    located: &'a Located<'a>,
    arguments: &'a Arguments<'a>,
    now: Timestamp,
) -> Facts<'a> {
    let tool = located.declared_variable.or(located.undeclared_variable.as_ref());
    Facts { inputs: Inputs { identity, arguments: None, tool, now }, arguments }
}

/// Whether a declared tool exists for callers. It ends at its sunset, to the instant.
fn is_in_use(tool: &Tool, now: Timestamp) -> bool {
    let sunset = tool.deprecation.as_ref().and_then(|deprecation| deprecation.sunset_time);
    tool.lifecycle != Lifecycle::Disabled && sunset.is_none_or(|sunset| now < sunset)
}

#[cfg(test)]
mod tests;
