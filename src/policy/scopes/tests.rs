use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::policy::Item;
use crate::policy::tests::fixture::{ada, now, policy};

/// The definition: every scope tried by a decision of its own.
fn by_trial(policy: &Policy, identity: &Identity, scopes: &[String], call: &Call<'_>) -> Option<Vec<String>> {
    let allowed_with = |scopes: Vec<String>| {
        let richer = Identity { scopes, ..identity.clone() };
        policy.decide(&policy.subject(Some(&richer)), call, now()).verdict == Verdict::Allow
    };
    let lacking: Vec<&String> = scopes.iter().filter(|scope| !identity.scopes.contains(scope)).collect();
    let with =
        |more: &[&String]| -> Vec<String> { identity.scopes.iter().chain(more.iter().copied()).cloned().collect() };
    if let Some(scope) = lacking.iter().find(|scope| allowed_with(with(&[scope]))) {
        return Some(vec![(*scope).clone()]);
    }
    (lacking.len() > 1 && allowed_with(with(&lacking))).then(|| lacking.into_iter().cloned().collect())
}

fn evaluations(policy: &Policy, scopes: &[String], call: &Call<'_>) -> (Option<Vec<String>>, usize) {
    let mut search = Search { policy, identity: &ada(json!({})), call, now: now(), evaluations: 0 };
    (search.run(scopes), search.evaluations)
}

#[test]
fn a_refusal_costs_a_few_passes_over_the_rules_whatever_the_number_of_scopes() {
    const SCOPES: usize = 500;
    let role = |number: usize, rule: Value| {
        let subject = json!({"kind": "Scope", "issuer": "corp", "name": format!("s{number:03}")});
        json!({"name": format!("r{number}"), "subjects": [subject], "rules": [rule]})
    };
    let call = Call { item: Item::Tool("x"), arguments: Some("{}") };
    let scopes: Vec<String> = (0..SCOPES).map(|number| format!("s{number:03}")).collect();
    for (rule, last, expected) in [
        (json!({"effect": "Allow", "tools": ["y"]}), json!({"effect": "Allow", "tools": ["x"]}), Some("s499")),
        (
            json!({"effect": "Allow", "tools": ["x"], "arguments": [{"path": "/a", "in": ["b"]}]}),
            json!({"effect": "Allow", "tools": ["x"], "when": "'s499' in identity.scopes && !('s498' in identity.scopes)"}),
            Some("s499"),
        ),
        (json!({"effect": "Allow", "tools": ["x"], "when": "false"}), json!({"effect": "Deny", "tools": ["x"]}), None),
    ] {
        let roles: Vec<Value> =
            (0..SCOPES).map(|n| role(n, if n + 1 == SCOPES { last.clone() } else { rule.clone() })).collect();
        let policy = policy(json!(["x", "y"]), json!(roles));
        let (found, evaluations) = evaluations(&policy, &scopes, &call);
        assert_eq!(found, expected.map(|scope| vec![scope.to_owned()]));
        assert!(evaluations <= 4 * SCOPES, "{evaluations} evaluations of {SCOPES} rules");
    }
}

#[test]
fn a_rule_that_takes_scopes_apart_never_yields_a_scope_that_does_not_suffice() {
    let roles = json!([
        {"name": "any", "subjects": [{"kind": "User", "issuer": "corp", "name": "ada"}],
         "rules": [{"effect": "Allow", "tools": ["x"], "when": "identity.scopes.exists(s, s.startsWith('ops:'))"}]},
    ]);
    let policy = policy(json!(["x"]), roles);
    let call = Call { item: Item::Tool("x"), arguments: None };
    let scopes = ["a", "ops:x", "z"].map(str::to_owned);
    let (found, _) = evaluations(&policy, &scopes, &call);
    assert_eq!(found, Some(scopes.to_vec()), "all of them do suffice");
}

const SCOPES: [&str; 4] = ["a", "b", "c", "d"];
const CONDITIONS: [&str; 6] = [
    "'a' in identity.scopes",
    "!('b' in identity.scopes)",
    "'c' in identity.scopes || identity.claims.mfa",
    "'mcp:read' in identity.scopes",
    "arguments.n == 1",
    "identity.claims.mfa == true",
];

fn role() -> impl Strategy<Value = (Value, [bool; 5])> {
    let rule = (
        select(vec!["Allow", "Allow", "Deny"]),
        select(vec!["x", "y", "*"]),
        select(vec![0, 0, 1]),
        select(CONDITIONS.to_vec()),
    );
    let rule = rule.prop_map(|(effect, tools, conditioned, when)| {
        let mut rule = json!({"effect": effect, "tools": [tools], "resources": ["m:a", "m:a%2Fb"]});
        if conditioned == 1 {
            rule["when"] = json!(when);
        }
        rule
    });
    let issuer = || select(vec!["corp", "corp", "other"]);
    let subject = prop_oneof![
        4 => (issuer(), select(SCOPES.to_vec()))
            .prop_map(|(issuer, name)| json!({"kind": "Scope", "issuer": issuer, "name": name})),
        1 => issuer().prop_map(|issuer| json!({"kind": "User", "issuer": issuer, "name": "ada"})),
        1 => Just(json!({"kind": "Scope", "issuer": "corp", "name": "mcp:read"})),
    ];
    (prop::collection::vec(subject, 0..3), prop::collection::vec(rule, 0..3), any::<[bool; 5]>())
        .prop_map(|(subjects, rules, inherits)| (json!({"subjects": subjects, "rules": rules}), inherits))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_answer_is_that_of_trying_every_scope(roles in prop::collection::vec(role(), 1..6), mfa: bool, n in 0..3) {
        let numbered = roles.into_iter().enumerate().map(|(number, (mut role, inherits))| {
            role["name"] = json!(format!("r{number}"));
            let parents = (0..number).filter(|parent| inherits[*parent]).map(|parent| format!("r{parent}"));
            role["inherits"] = json!(parents.collect::<Vec<_>>());
            role
        });
        let policy = policy(json!(["x", "y"]), Value::Array(numbered.collect()));
        let identity = ada(json!({"mfa": mfa}));
        let scopes: Vec<String> = SCOPES.iter().map(|scope| (*scope).to_owned()).collect();
        let arguments = ["{}", r#"{"n":1}"#, r#"{"n":1,"N":2}"#][usize::try_from(n).unwrap_or(0)];
        for item in [Item::Tool("x"), Item::Resource("m:a"), Item::Resource("m:a%2Fb"), Item::Tool("gone")] {
            let call = Call { item, arguments: Some(arguments) };
            let found = policy.missing_scopes(&identity, &scopes, &call, now());
            prop_assert_eq!(found, by_trial(&policy, &identity, &scopes, &call), "{:?}", item);
        }
    }
}
