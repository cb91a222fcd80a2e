//! PURE. Who may use what, in four words. Every answer is that of [`Policy`]; nothing is decided here.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::policy::explain::{Reach, reach};
use crate::policy::snapshot::{Effect, Rule};
use crate::policy::{Call, Identity, Item, Policy, Reason, RuleRef};

/// How callers without a token are called in tables.
pub const ANONYMOUS: &str = "(anonymous)";

/// What the two marks mean, for below a table.
pub const LEGEND: &str =
    "* under conditions: some arguments, some times, or some claims    ~ at another time: a window is closed now";

/// Whether someone may use something.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
pub enum Access {
    /// It looks as if it did not exist.
    #[serde(rename = "no")]
    No,
    /// At another time.
    #[serde(rename = "not now")]
    NotNow,
    /// Under conditions on arguments, time or claims.
    #[serde(rename = "if")]
    Sometimes,
    /// Always, with any arguments.
    #[serde(rename = "yes")]
    Always,
}

impl Access {
    /// What stands behind a name in a table.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::No | Self::Always => "",
            Self::NotNow => "~",
            Self::Sometimes => "*",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::No => "no",
            Self::NotNow => "not now",
            Self::Sometimes => "if",
            Self::Always => "yes",
        })
    }
}

/// Whether `identity` may use `item` with some arguments.
pub fn access(policy: &Policy, identity: Option<&Identity>, item: Item<'_>, now: Timestamp) -> Access {
    let view = policy.subject(identity);
    if !policy.visible(&view, item, now) {
        let decision = policy.decide(&view, &Call { item, arguments: None }, now);
        return if decision.reason == Reason::Time { Access::NotNow } else { Access::No };
    }
    let rules = live(policy, identity, item, now);
    let denied = rules.iter().any(|rule| rule.effect == Effect::Deny);
    let allowed = rules.iter().any(|rule| rule.effect == Effect::Allow && rule.conditions.is_empty());
    if allowed && !denied { Access::Always } else { Access::Sometimes }
}

/// The rules that bear on the item for this identity, now or at another time; not those whose `when` is false for it
/// whatever it asks for.
pub fn live(policy: &Policy, identity: Option<&Identity>, item: Item<'_>, now: Timestamp) -> Vec<Reach> {
    let mut rules = reach(policy, identity, item, now);
    // A rule that cannot be found is kept: a table never promises too much.
    rules.retain(|reach| reach.now || find(policy, &reach.rule).is_none_or(|rule| rule.time_window.is_some()));
    rules
}

/// The rule behind a reference, if this policy holds it.
fn find<'a>(policy: &'a Policy, reference: &RuleRef) -> Option<&'a Rule> {
    let role = policy.snapshot().roles.iter().find(|role| role.name == *reference.role)?;
    role.rules.iter().find(|rule| rule.index == reference.index)
}

/// Whether a rule has more to it than the things that it names.
pub fn is_conditional(rule: &Rule) -> bool {
    !rule.arguments.is_empty() || rule.time_window.is_some() || rule.when.is_some()
}

/// Everyone who may use `item`, now or at another time.
pub fn who(
    policy: &Policy,
    identities: &BTreeMap<String, Identity>,
    item: Item<'_>,
    now: Timestamp,
) -> BTreeMap<String, Access> {
    let mut who: BTreeMap<String, Access> =
        identities.iter().map(|(name, identity)| (name.clone(), access(policy, Some(identity), item, now))).collect();
    if policy.snapshot().anonymous.is_some() {
        who.insert(ANONYMOUS.to_owned(), access(policy, None, item, now));
    }
    who.retain(|_, access| *access != Access::No);
    who
}

/// Names with their marks, or `nobody`.
pub fn names(who: &BTreeMap<String, Access>) -> String {
    if who.is_empty() {
        return "nobody".to_owned();
    }
    who.iter().map(|(name, access)| format!("{name}{}", access.mark())).collect::<Vec<_>>().join(", ")
}
