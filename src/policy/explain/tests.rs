use serde_json::json;

use super::*;
use crate::policy::tests::fixture::{ada, now, of_dev};

fn sample() -> Policy {
    let weekend = json!({"days": [6, 7], "startMinute": 540, "endMinute": 1020, "timeZone": "Europe/Berlin"});
    of_dev(
        json!(["write", "read"]),
        json!([
            {"effect": "Allow", "tools": ["read"]},
            {"effect": "Allow", "tools": ["write"], "arguments": [{"path": "/path", "below": ["/data"]}]},
            {"effect": "Allow", "tools": ["write"], "timeWindow": weekend},
            {"effect": "Allow", "tools": ["write"], "when": "identity.claims.root == true"},
            {"effect": "Deny", "tools": ["write"], "when": "arguments.path.endsWith('.env')"},
        ]),
    )
}

fn explained(arguments: Option<&str>) -> Explanation {
    let call = Call { item: Item::Tool("write"), arguments };
    explain(&sample(), Some(&ada(json!({"root": false}))), &call, now())
}

fn lines(explanation: &Explanation) -> Vec<String> {
    let line = |r: &RuleReport| format!("{} {:?} {} {}", r.rule.index, r.effect, r.matched, r.because);
    explanation.rules.iter().map(line).collect()
}

#[test]
fn every_rule_says_why_it_did_not_match() {
    let explanation = explained(Some(r#"{"path": "/etc/passwd"}"#));
    assert_eq!(explanation.decision.verdict, Verdict::Deny);
    assert_eq!(
        lines(&explanation),
        [
            r#"1 Allow false /path is "/etc/passwd", permitted: below /data"#,
            "2 Allow false outside Sat,Sun 09:00-17:00 Europe/Berlin",
            "3 Allow false when does not hold: identity.claims.root == true",
            "4 Deny false when does not hold: arguments.path.endsWith('.env')",
        ]
    );
}

#[test]
fn a_match_says_what_held_and_an_error_says_so() {
    let allowed = explained(Some(r#"{"path": "/data/x"}"#));
    assert_eq!(allowed.decision.verdict, Verdict::Allow);
    assert_eq!(lines(&allowed)[0], "1 Allow true holds: /path below /data");
    let missing = explained(Some("{}"));
    assert_eq!(lines(&missing)[0], "1 Allow false /path is missing, permitted: below /data");
    let error = "4 Deny true when cannot be evaluated: arguments.path.endsWith('.env')";
    assert_eq!(lines(&missing)[3], error);
    let broken = explained(Some("[]"));
    assert!(lines(&broken)[0].contains("the arguments are no object"));
}

#[test]
fn without_arguments_conditions_on_them_are_reported_not_judged() {
    let explanation = explained(None);
    assert_eq!(explanation.decision.verdict, Verdict::Allow);
    assert_eq!(lines(&explanation)[0], "1 Allow true depends on /path below /data");
    assert_eq!(lines(&explanation)[3], "4 Deny false depends on when arguments.path.endsWith('.env')");
}

#[test]
fn conditions_list_what_is_open_now() {
    let identity = ada(json!({"root": false}));
    let of = |name| conditions(&sample(), Some(&identity), Item::Tool(name), now());
    assert_eq!(of("read"), ["dev/0: always"]);
    assert_eq!(of("write"), ["dev/1: /path below /data", "not by dev/4: when arguments.path.endsWith('.env')"]);
    assert!(of("gone").is_empty());
}

#[test]
fn reach_lists_what_is_closed_as_well() {
    let reach = reach(&sample(), Some(&ada(json!({}))), Item::Tool("write"), now());
    let brief: Vec<_> = reach.iter().map(|r| (r.rule.index, r.now, r.conditions.join("; "))).collect();
    assert_eq!(brief[1], (2, false, "Sat,Sun 09:00-17:00 Europe/Berlin".to_owned()));
    assert_eq!(brief.len(), 4);
}

#[test]
fn allowing_roles_are_those_that_could_ever_allow() {
    let roles = allowing_roles(&sample(), Item::Tool("write"));
    assert_eq!(roles.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["dev"]);
    assert!(allowing_roles(&sample(), Item::Tool("gone")).is_empty());
}

#[test]
fn a_tool_that_is_not_declared_has_no_rules_to_report() {
    let call = Call { item: Item::Tool("gone"), arguments: None };
    let explanation = explain(&sample(), Some(&ada(json!({}))), &call, now());
    assert_eq!((explanation.decision.reason, explanation.rules), (Reason::NotDeclared, Vec::new()));
}

#[test]
fn a_rule_says_how_else_a_uri_may_be_read() {
    let policy = of_dev(
        json!([]),
        json!([
            {"effect": "Allow", "resources": ["repo://acme/a%2fb/*"]},
            {"effect": "Deny", "resources": ["repo://acme/a/b/*"]},
        ]),
    );
    let call = Call { item: Item::Resource("repo://acme/a%2Fb/x"), arguments: None };
    let explanation = explain(&policy, Some(&ada(json!({}))), &call, now());
    assert_eq!(
        lines(&explanation),
        [
            "0 Allow false not about repo://acme/a/b/x, as a server may read the URI; no conditions",
            "1 Deny true a server may read the URI as repo://acme/a/b/x; no conditions",
        ]
    );
}

#[test]
fn a_rule_that_cannot_be_sure_of_its_arguments_says_so() {
    let explanation = explained(Some(r#"{"path": "/data/x", "Path": "/etc"}"#));
    assert_eq!(explanation.decision.reason, Reason::Unclear { path: String::new() });
    let line = format!("1 Allow false cannot be judged: at \"\" {UNCLEAR}");
    assert_eq!(lines(&explanation)[0], line);
}
