//! Why may, or may not, this identity use that: every rule that was looked at, in words.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::arguments;
use super::decide::{Call, Decision, Item, Reason, RuleRef, UNCLEAR, Verdict, facts};
use super::identity::Identity;
use super::input::Arguments;
use super::load::Policy;
use super::rule::{self, CompiledRule, Facts, Subject};
use super::snapshot::Effect;
use super::truth::Truth;

/// One call, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What `decide` says.
    pub decision: Decision,
    /// Every rule of the caller's roles that names the item, in the order of role and index. Empty where no rule is
    /// asked: for a tool that is not declared or disabled, and for an unsafe URI.
    pub rules: Vec<RuleReport>,
}

/// What one rule says about a call.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleReport {
    /// The rule.
    pub rule: RuleRef,
    /// `Allow` or `Deny`.
    pub effect: Effect,
    /// Whether it matched.
    pub matched: bool,
    /// Why, in words: `/path is "/etc/passwd", permitted: below /data`; `outside Mon-Fri 09:00-17:00 Europe/Berlin`.
    pub because: String,
}

/// A rule that bears on what an identity may do with an item, whether it applies at the moment or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// The rule.
    pub rule: RuleRef,
    /// `Allow` or `Deny`.
    pub effect: Effect,
    /// Whether it applies now to some arguments (Allow) or could refuse some (Deny).
    pub now: bool,
    /// Its conditions in words, all of which must hold; empty for a rule without any.
    pub conditions: Vec<String>,
}

/// Explains one call. `call.arguments` of `None` means "some arguments": conditions on arguments are reported, not
/// judged, and the decision is that of [`Policy::visible`].
pub fn explain(policy: &Policy, identity: Option<&Identity>, call: &Call<'_>, now: Timestamp) -> Explanation {
    let view = policy.subject(identity);
    let open = call.arguments.is_none() && rule::has_arguments(call.item);
    let Ok(located) = policy.locate(&view, call.item, now) else {
        return Explanation { decision: policy.decide(&view, call, now), rules: Vec::new() };
    };
    let arguments = Arguments::new(call.arguments.filter(|_| rule::has_arguments(call.item)));
    let facts = facts(&view, &located, &arguments, now);
    // Rules that allow some readings of a URI allow nothing while one is left.
    let allows = |rule: &&CompiledRule| rule.effect == Effect::Allow && rule.applies(&facts);
    let allowed = policy.candidates(&located).filter(allows).fold(0, |all, rule| all | rule.named(&located.subject));
    let left = matches!(call.item, Item::Resource(_)) && allowed != located.subject.readings();
    let report = |rule: &CompiledRule| RuleReport {
        rule: rule.reference.clone(),
        effect: rule.effect,
        matched: match rule.unclear(&arguments) {
            Some(_) => rule.effect == Effect::Deny,
            None if left && rule.effect == Effect::Allow => false,
            None if open => rule.applies_to_lists(&facts),
            None => rule.applies(&facts),
        },
        because: read_as(rule, &located.subject) + &because(rule, &facts, open),
    };
    let rules: Vec<RuleReport> = policy.candidates(&located).map(report).collect();
    let decision = if open { shown(policy, &rules, call.item, &view, now) } else { policy.decide(&view, call, now) };
    Explanation { decision, rules }
}

/// Every rule of the identity's roles that names the item, in the order of role and index.
pub fn reach(policy: &Policy, identity: Option<&Identity>, item: Item<'_>, now: Timestamp) -> Vec<Reach> {
    let view = policy.subject(identity);
    let Ok(located) = policy.locate(&view, item, now) else { return Vec::new() };
    let arguments = Arguments::new(None);
    let facts = facts(&view, &located, &arguments, now);
    let open = rule::has_arguments(item);
    let one = |rule: &CompiledRule| Reach {
        rule: rule.reference.clone(),
        effect: rule.effect,
        now: match rule.effect {
            Effect::Allow if open => rule.applies_to_lists(&facts),
            Effect::Deny if open => rule.is_open(&facts) && rule.judge_when(&facts, false) != Truth::False,
            Effect::Allow | Effect::Deny => rule.applies(&facts),
        },
        conditions: conditions_of(rule),
    };
    policy.candidates(&located).map(one).collect()
}

/// Under which conditions the identity may use the item now, a line for each rule: `developer/0: /path below /data`,
/// then `not by developer/2: when …`. Empty if lists do not show the item.
pub fn conditions(policy: &Policy, identity: Option<&Identity>, item: Item<'_>, now: Timestamp) -> Vec<String> {
    if !policy.visible(&policy.subject(identity), item, now) {
        return Vec::new();
    }
    let (allows, denies): (Vec<Reach>, Vec<Reach>) = reach(policy, identity, item, now)
        .into_iter()
        .filter(|reach| reach.now)
        .partition(|reach| reach.effect == Effect::Allow);
    let line = |reach: &Reach, prefix: &str| {
        let conditions = if reach.conditions.is_empty() { "always".to_owned() } else { reach.conditions.join("; ") };
        format!("{prefix}{}/{}: {conditions}", reach.rule.role, reach.rule.index)
    };
    let allows = allows.iter().map(|reach| line(reach, ""));
    allows.chain(denies.iter().map(|reach| line(reach, "not by "))).collect()
}

/// The roles with an Allow rule that names the item, whoever has them and whatever its conditions; sorted. Roles that
/// inherit one of these are not repeated.
pub fn allowing_roles(policy: &Policy, item: Item<'_>) -> Vec<Arc<str>> {
    let subject = match item {
        Item::Tool(name) => Subject::Tool(name, policy.tool(name)),
        Item::Prompt(name) => Subject::Prompt(name),
        Item::Resource(uri) => match super::uri::readings(uri) {
            Some(readings) => Subject::Resource(readings),
            None => return Vec::new(),
        },
        Item::ResourceTemplate(text) => match super::glob::Template::parse(text) {
            Some(template) => Subject::Template(template),
            None => return Vec::new(),
        },
    };
    let rules = policy.rules.iter().filter(|rule| rule.effect == Effect::Allow && rule.names(&subject));
    rules.map(|rule| Arc::clone(&rule.reference.role)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The decision about "some arguments".
fn shown(
    policy: &Policy,
    rules: &[RuleReport],
    item: Item<'_>,
    view: &super::load::SubjectView,
    now: Timestamp,
) -> Decision {
    let first = |effect| rules.iter().find(|report| report.effect == effect && report.matched);
    match (first(Effect::Deny), first(Effect::Allow)) {
        (Some(deny), _) => {
            Decision { verdict: Verdict::Unknown, rule: Some(deny.rule.clone()), reason: Reason::DenyRule }
        }
        (None, Some(allow)) => {
            Decision { verdict: Verdict::Allow, rule: Some(allow.rule.clone()), reason: Reason::Allowed }
        }
        // No arguments could be allowed, so these none are refused as well, for the true reason.
        (None, None) => policy.decide(view, &Call { item, arguments: None }, now),
    }
}

/// Which reading of a URI an Allow rule leaves to others, or a Deny rule is about; empty where there is one reading.
fn read_as(rule: &CompiledRule, subject: &Subject<'_>) -> String {
    let Subject::Resource(readings) = subject else { return String::new() };
    let (named, wanted) = (rule.named(subject), u8::from(rule.effect == Effect::Deny));
    let odd = readings.iter().enumerate().find(|(bit, _)| (named >> bit) & 1 == wanted);
    match odd.filter(|(bit, _)| rule.effect == Effect::Allow || *bit > 0) {
        None => String::new(),
        Some((_, reading)) if wanted == 1 => format!("a server may read the URI as {reading}; "),
        Some((_, reading)) => format!("not about {reading}, as a server may read the URI; "),
    }
}

/// Why a rule matched or not. `open`: the arguments are not known yet.
fn because(rule: &CompiledRule, facts: &Facts<'_>, open: bool) -> String {
    if let Some(path) = rule.unclear(facts.arguments) {
        return format!("cannot be judged: at {path:?} {UNCLEAR}");
    }
    let mut fails = Vec::new();
    let mut depends = Vec::new();
    let matters = |truth: Truth| match rule.effect {
        Effect::Allow => truth != Truth::True,
        Effect::Deny => truth == Truth::False,
    };
    if let Some(window) = rule.window.as_ref().filter(|_| !rule.is_open(facts)) {
        fails.push(format!("outside {}", window.text()));
    }
    for condition in &rule.arguments {
        let permitted = arguments::permitted(condition);
        let word = if rule.effect == Effect::Allow { "permitted" } else { "refused" };
        if open {
            depends.push(format!("{} {permitted}", condition.path));
        } else if matters(rule::judge_argument(condition, facts)) {
            let found = facts.arguments.object().map(|object| arguments::found(condition, object));
            let found = found.unwrap_or_else(|| "cannot be read: the arguments are no object".to_owned());
            fails.push(format!("{} {found}, {word}: {permitted}", condition.path));
        }
    }
    if let Some(condition) = &rule.condition {
        let truth = rule.judge_when(facts, !open);
        match truth {
            truth if !matters(truth) && open && rule.is_dynamic() => {
                depends.push(format!("when {}", condition.source()));
            }
            Truth::Unknown => {
                let note = format!("when cannot be evaluated: {}", condition.source());
                if matters(truth) { &mut fails } else { &mut depends }.push(note);
            }
            truth if matters(truth) => fails.push(format!("when does not hold: {}", condition.source())),
            _ => {}
        }
    }
    if !fails.is_empty() {
        return fails.join("; ");
    }
    match (depends.is_empty(), conditions_of(rule).is_empty()) {
        (false, _) if open => format!("depends on {}", depends.join("; ")),
        (false, _) => depends.join("; "),
        (true, true) => "no conditions".to_owned(),
        (true, false) => format!("holds: {}", conditions_of(rule).join("; ")),
    }
}

/// The conditions of a rule in words.
fn conditions_of(rule: &CompiledRule) -> Vec<String> {
    let mut conditions: Vec<String> = rule
        .arguments
        .iter()
        .map(|condition| format!("{} {}", condition.path, arguments::permitted(condition)))
        .collect();
    conditions.extend(rule.window.iter().map(|window| window.text().to_owned()));
    conditions.extend(rule.condition.iter().map(|condition| format!("when {}", condition.source())));
    conditions
}

#[cfg(test)]
mod tests;
