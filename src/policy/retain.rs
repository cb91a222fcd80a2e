//! PURE. Whether a caller may still have what an earlier call of theirs began, such as the result of a task.
//!
//! The same rules as for lists, without arguments: those were decided when the call was made. Time windows of Allow
//! rules say when a call may be made, so one that has closed since hides no result.

use jiff::Timestamp;

use super::decide::{Item, facts};
use super::input::Arguments;
use super::load::{Policy, SubjectView};
use super::snapshot::Effect;

impl Policy {
    /// Whether the caller could still be allowed this, at some time of the day and with some arguments.
    pub fn retains(&self, view: &SubjectView, item: Item<'_>, now: Timestamp) -> bool {
        let Ok(located) = self.locate(view, item, now) else { return false };
        let arguments = Arguments::new(None);
        let facts = facts(view, &located, &arguments, now);
        let mut retained = false;
        for rule in self.candidates(&located) {
            match rule.effect {
                Effect::Deny if rule.applies_to_lists(&facts) => return false,
                Effect::Allow => retained = retained || rule.applies_at_some_time(&facts),
                Effect::Deny => {}
            }
        }
        retained
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::tests::fixture::{ada, now, of_dev, visible};

    /// Whether Ada retains the tool `t` under these rules of hers, on a Monday morning.
    fn retained(rules: serde_json::Value) -> bool {
        let policy = of_dev(json!(["t"]), rules);
        policy.retains(&policy.subject(Some(&ada(json!({"mfa": true})))), Item::Tool("t"), now())
    }

    /// A window that is open on Sundays only.
    fn sundays() -> serde_json::Value {
        json!({"days": [7], "startMinute": 0, "endMinute": 1440, "timeZone": "UTC"})
    }

    #[test]
    fn a_closed_time_window_hides_no_result() {
        let rules = json!([{"effect": "Allow", "tools": ["t"], "timeWindow": sundays()}]);

        assert!(!visible(&of_dev(json!(["t"]), rules.clone()), Item::Tool("t")));
        assert!(retained(rules));
    }

    #[test]
    fn what_no_rule_allows_any_more_is_not_retained() {
        assert!(!retained(json!([])));
        assert!(!retained(json!([{"effect": "Allow", "tools": ["other"]}])));
        assert!(!retained(json!([{"effect": "Allow", "tools": ["t"]}, {"effect": "Deny", "tools": ["t"]}])));
        assert!(!retained(json!([{"effect": "Allow", "tools": ["t"], "when": "identity.claims.mfa == false"}])));
    }

    #[test]
    fn arguments_were_decided_when_the_call_was_made() {
        let argument = json!([{"path": "/a", "in": ["x"]}]);
        assert!(retained(json!([{"effect": "Allow", "tools": ["t"], "arguments": argument}])));
        assert!(retained(json!([
            {"effect": "Allow", "tools": ["t"]}, {"effect": "Deny", "tools": ["t"], "arguments": argument},
        ])));
    }

    #[test]
    fn a_tool_that_was_disabled_gives_no_result() {
        let policy =
            of_dev(json!([{"name": "t", "lifecycle": "Disabled"}]), json!([{"effect": "Allow", "tools": ["t"]}]));
        assert!(!policy.retains(&policy.subject(Some(&ada(json!({})))), Item::Tool("t"), now()));
    }
}
