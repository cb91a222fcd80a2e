//! Whether a caller could be allowed anything at all, whatever the arguments and at any time.
//!
//! It answers for [`Policy::decide`] before there is a call, so it errs towards yes: what depends on arguments, on the
//! time or on a tool that is not declared counts as possible for an Allow rule and as not matching for a Deny rule. A
//! no is a promise: `decide` allows this caller nothing under this policy.

use std::sync::Arc;

use super::condition::{Condition, Conjunct, Inputs};
use super::load::{Policy, SubjectView};
use super::rule::{CompiledRule, Kind};
use super::snapshot::{Effect, Lifecycle, Registration};
use super::truth::Truth;

impl Policy {
    /// Whether some call, with some arguments, at some time, could be allowed to this caller. Never says no where
    /// [`Policy::decide`] would say [`Allow`](super::Verdict::Allow) for some call.
    pub fn could_allow_anything(&self, view: &SubjectView) -> bool {
        if !Arc::ptr_eq(&view.policy, self.hash()) && view.policy != *self.hash() {
            return false; // Resolved under another policy: it grants nothing here.
        }
        let rules = |positions: &[u32]| -> Vec<&CompiledRule> {
            positions.iter().filter_map(|position| self.rules.get(*position as usize)).collect()
        };
        let tools = self.snapshot().tools.iter().enumerate();
        let mut in_use = tools.filter(|(_, tool)| tool.lifecycle != Lifecycle::Disabled);
        if in_use.any(|(position, _)| is_possible(&rules(view.candidates.of_tool(position)), view, |_| true)) {
            return true;
        }
        let all = rules(&view.candidates.all);
        let undeclared = self.snapshot().registration == Registration::Auto;
        (undeclared && is_possible(&all, view, |rule| rule.could_name(Kind::Tools)))
            || is_possible(&all, view, |rule| rule.could_name(Kind::Prompts))
            || is_possible(&all, view, |rule| rule.could_name(Kind::Resources))
    }
}

/// Whether an Allow rule among those that `names` picks could match, and no Deny rule among them surely does. Of a
/// Deny rule `names` must mean that it names everything of the kind.
fn is_possible(rules: &[&CompiledRule], view: &SubjectView, names: impl Fn(&CompiledRule) -> bool) -> bool {
    let identity = view.candidates.identity.as_ref();
    let judged = |rule: &CompiledRule| rule.condition.as_ref().map_or(Truth::True, |when| of_identity(when, identity));
    let mut possible = false;
    for rule in rules.iter().filter(|rule| names(rule)) {
        match rule.effect {
            Effect::Allow => possible |= judged(rule) == Truth::True,
            Effect::Deny => {
                let is_certain = rule.window.is_none() && rule.reads_identity_alone() && judged(rule) != Truth::False;
                if is_certain {
                    return false;
                }
            }
        }
    }
    possible
}

/// The conjuncts that read nothing but the identity, which no call can change. An Allow rule needs each of them true.
fn of_identity(when: &Condition, identity: Option<&serde_json::Value>) -> Truth {
    // No conjunct that is evaluated here reads the time.
    let inputs = Inputs { identity, arguments: None, tool: None, now: jiff::Timestamp::UNIX_EPOCH };
    let fixed = when.conjuncts().iter().filter(|conjunct| conjunct.reads_identity_alone());
    fixed.fold(Truth::True, |truth, conjunct| truth.and(when.judge(conjunct, &inputs)))
}

impl CompiledRule {
    /// Whether no call, and no time but that of its window, changes whether the rule applies.
    fn reads_identity_alone(&self) -> bool {
        let when = self.condition.as_ref().map_or(&[][..], Condition::conjuncts);
        self.arguments.is_empty() && when.iter().all(Conjunct::reads_identity_alone)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::policy::snapshot::Registration;
    use crate::policy::tests::fixture::{ada, of_dev, policy, snapshot};
    use crate::policy::tests::worlds::{question, target, world};
    use crate::policy::{Policy, Verdict, compile};

    /// Whether these rules could allow Ada anything at a server with the tool `get`.
    fn could(rules: Value) -> bool {
        let policy = of_dev(json!(["get"]), rules);
        policy.could_allow_anything(&policy.subject(Some(&ada(json!({"mfa": true})))))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_no_means_that_decide_allows_nothing(
            world in world(), questions in prop::collection::vec(question(), 24),
        ) {
            let policy = Policy::load(compile(&world, &target(), &[]).unwrap()).unwrap();
            for question in &questions {
                let view = policy.subject(question.identity.as_ref());
                let allowed = policy.decide(&view, &question.call(), question.now).verdict == Verdict::Allow;
                prop_assert!(!allowed || policy.could_allow_anything(&view), "{:#?}", question);
                let visible = policy.visible(&view, question.item(), question.now);
                prop_assert!(!visible || policy.could_allow_anything(&view), "{:#?}", question);
            }
        }
    }

    #[test]
    fn arguments_and_times_count_as_possible() {
        for rule in [
            json!({"effect": "Allow", "tools": ["get"], "arguments": [{"path": "/a", "in": ["b"]}]}),
            json!({"effect": "Allow", "tools": ["get"], "when": "arguments.n > 1 && identity.claims.mfa"}),
            json!({"effect": "Allow", "tools": ["get"], "when": "now.getHours() == 3"}),
            json!({"effect": "Allow", "tools": ["get"], "when": "tool.annotations.readOnly"}),
            json!({"effect": "Allow", "tools": ["get"], "timeWindow":
                {"days": [7], "startMinute": 0, "endMinute": 1, "timeZone": "UTC"}}),
            json!({"effect": "Allow", "prompts": ["p"]}),
            json!({"effect": "Allow", "resources": ["mem:?"]}),
        ] {
            assert!(could(json!([rule])), "{rule}");
        }
    }

    #[test]
    fn who_no_rule_could_ever_allow_gets_nothing() {
        for rules in [
            json!([]),
            json!([{"effect": "Deny", "tools": ["*"]}]),
            json!([{"effect": "Allow", "tools": ["set"]}]), // No such tool is declared.
            json!([{"effect": "Allow", "tools": ["get"], "when": "identity.claims.root"}]),
            json!([{"effect": "Allow", "tools": ["get"]}, {"effect": "Deny", "tools": ["g*"]}]),
            json!([
                {"effect": "Allow", "tools": ["*"], "prompts": ["a"], "resources": ["*"]},
                {"effect": "Deny", "tools": ["*"], "prompts": ["*"], "resources": ["*"], "when": "identity.claims.mfa"},
            ]),
        ] {
            assert!(!could(rules.clone()), "{rules}");
        }
        // Another caller, without that role, and one without a token.
        let policy = of_dev(json!(["get"]), json!([{"effect": "Allow", "tools": ["get"]}]));
        let stranger = crate::policy::Identity { groups: vec![], ..ada(json!({})) };
        assert!(!policy.could_allow_anything(&policy.subject(Some(&stranger))));
        assert!(!policy.could_allow_anything(&policy.subject(None)));
    }

    #[test]
    fn a_deny_that_depends_on_a_call_leaves_something_possible() {
        for deny in [
            json!({"effect": "Deny", "tools": ["*"], "arguments": [{"path": "/a", "in": ["b"]}]}),
            json!({"effect": "Deny", "tools": ["*"], "when": "now.getHours() < 12"}),
            json!({"effect": "Deny", "tools": ["*"], "timeWindow":
                {"days": [7], "startMinute": 0, "endMinute": 1, "timeZone": "UTC"}}),
            json!({"effect": "Deny", "prompts": ["*"], "resources": ["*"]}),
        ] {
            assert!(could(json!([{"effect": "Allow", "tools": ["get"]}, deny])), "{deny}");
        }
    }

    #[test]
    fn tools_that_are_not_declared_count_where_registration_is_auto() {
        let role = json!([{
            "name": "dev", "subjects": [{"kind": "Group", "issuer": "corp", "name": "eng"}],
            "rules": [{"effect": "Allow", "tools": ["set"]}],
        }]);
        let declared = policy(json!(["get"]), role.clone());
        assert!(!declared.could_allow_anything(&declared.subject(Some(&ada(json!({}))))));
        let auto = crate::policy::Snapshot { registration: Registration::Auto, ..snapshot(json!(["get"]), role) };
        let auto = Policy::load(auto).unwrap();
        assert!(auto.could_allow_anything(&auto.subject(Some(&ada(json!({}))))));
    }

    #[test]
    fn a_disabled_tool_gives_nobody_a_session() {
        let policy =
            of_dev(json!([{"name": "get", "lifecycle": "Disabled"}]), json!([{"effect": "Allow", "tools": ["get"]}]));
        assert!(!policy.could_allow_anything(&policy.subject(Some(&ada(json!({}))))));
    }
}
