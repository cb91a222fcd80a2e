//! PURE. Who may use what, in four words. Every answer is that of [`crate::policy::explain`]; nothing is decided here.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::policy::explain::explain;
use crate::policy::snapshot::{Effect, Rule};
use crate::policy::{Call, Identity, Item, Policy, Reason, RuleRef, Verdict};

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
    let explanation = explain(policy, identity, &Call { item, arguments: None }, now);
    if explanation.decision.verdict != Verdict::Allow {
        return if explanation.decision.reason == Reason::Time { Access::NotNow } else { Access::No };
    }
    // A rule that cannot be found is taken for a conditional one: a table never promises too much.
    let conditional = |rule: &RuleRef| find(policy, rule).is_none_or(is_conditional);
    let allowed = explanation.rules.iter().any(|report| report.effect == Effect::Allow && !conditional(&report.rule));
    let denied = explanation.rules.iter().any(|report| report.effect == Effect::Deny);
    if allowed && !denied { Access::Always } else { Access::Sometimes }
}

/// The rule behind a reference, if this policy holds it.
pub fn find<'a>(policy: &'a Policy, reference: &RuleRef) -> Option<&'a Rule> {
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
