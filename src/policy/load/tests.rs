use serde_json::json;

use super::*;
use crate::policy::snapshot::{ArgumentRule, Issuer, Keys};
use crate::policy::tests::fixture::{ada, policy, snapshot};

fn roles_of(policy: &Policy, identity: Option<&Identity>) -> Vec<String> {
    policy.subject(identity).roles.iter().map(ToString::to_string).collect()
}

fn role(name: &str, inherits: &[&str], subjects: &Value) -> Value {
    json!({"name": name, "inherits": inherits, "subjects": subjects, "rules": [{"effect": "Allow", "tools": ["x"]}]})
}

fn error(tools: Value, roles: Value) -> String {
    Policy::load(snapshot(tools, roles)).unwrap_err().to_string()
}

#[test]
fn two_issuers_never_mix() {
    let of = |kind: &str, name: &str| json!([{"kind": kind, "issuer": "other", "name": name}]);
    let policy = policy(
        json!(["x"]),
        json!([
            role("by-user", &[], &of("User", "ada")),
            role("by-group", &[], &of("Group", "eng")),
            role("by-scope", &[], &of("Scope", "mcp:read")),
            role("by-claim", &[], &json!([{"kind": "Claim", "issuer": "other", "claim": "dep", "values": ["ops"]}])),
        ]),
    );
    let mut identity = ada(json!({"dep": "ops"}));
    assert!(roles_of(&policy, Some(&identity)).is_empty());
    identity.issuer = "other".to_owned();
    assert_eq!(roles_of(&policy, Some(&identity)), ["by-claim", "by-group", "by-scope", "by-user"]);
}

#[test]
fn claims_match_strings_and_lists_of_strings_only() {
    let subject = json!([{"kind": "Claim", "issuer": "corp", "claim": "dep", "values": ["ops", "true", "1"]}]);
    let policy = policy(json!(["x"]), json!([role("r", &[], &subject)]));
    let has = |claim: Value| !roles_of(&policy, Some(&ada(json!({"dep": claim})))).is_empty();
    assert!(has(json!("ops")) && has(json!(["dev", "ops"])));
    for other in [json!("dev"), json!(true), json!(1), json!({"ops": "ops"}), json!([["ops"]]), json!(null)] {
        assert!(!has(other.clone()), "{other}");
    }
}

#[test]
fn heirs_have_what_they_inherit_through_any_number_of_roles() {
    let policy = policy(
        json!(["x"]),
        json!([
            role("c", &["b"], &json!([{"kind": "User", "issuer": "corp", "name": "ada"}])),
            role("b", &["a"], &json!([])),
            role("a", &[], &json!([])),
            role("d", &["c"], &json!([])),
        ]),
    );
    assert_eq!(roles_of(&policy, Some(&ada(json!({})))), ["a", "b", "c"]);
}

#[test]
fn a_caller_without_a_token_has_the_anonymous_role_or_none() {
    let open = snapshot(json!(["x"]), json!([role("public", &["base"], &json!([])), role("base", &[], &json!([]))]));
    let with = Snapshot { anonymous: Some("public".to_owned()), ..open.clone() };
    assert_eq!(roles_of(&Policy::load(with).unwrap(), None), ["base", "public"]);
    let gone = Snapshot { anonymous: Some("gone".to_owned()), ..open.clone() };
    assert!(roles_of(&Policy::load(gone).unwrap(), None).is_empty());
    assert!(roles_of(&Policy::load(open).unwrap(), None).is_empty());
}

#[test]
fn cycles_are_refused_at_any_length() {
    let cycle = json!([role("a", &["b"], &json!([])), role("b", &["c"], &json!([])), role("c", &["a"], &json!([]))]);
    assert!(error(json!([]), cycle).contains("cycle"));
    assert!(error(json!([]), json!([role("a", &["a"], &json!([]))])).contains("cycle"));
    // A chain as long as the limit is no cycle, and no recursion follows it.
    let chain: Vec<Value> = (0..ROLES)
        .map(|i| {
            let parent = format!("r{}", i + 1);
            role(
                &format!("r{i}"),
                if i + 1 < ROLES { std::slice::from_ref(&parent) } else { &[] }
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
                &json!([]),
            )
        })
        .collect();
    assert!(Policy::load(snapshot(json!([]), json!(chain))).is_ok());
}

#[test]
fn what_cannot_be_enforced_does_not_load_and_says_where() {
    let rule = |rule: Value| json!([{"name": "r", "rules": [rule]}]);
    for (tools, roles, part) in [
        (json!([]), json!([role("a", &["gone"], &json!([]))]), "\"gone\", which does not exist"),
        (json!(["x", "x"]), json!([]), "two tools are called \"x\""),
        (json!([{"name": "x", "exposedName": "y"}, "y"]), json!([]), "two exposed tools are called \"y\""),
        (json!([]), json!([{"name": "r"}, {"name": "r"}]), "two roles"),
        (json!([]), rule(json!({"effect": "Allow", "tools": ["[a]"]})), "rule 0 of role \"r\": tools"),
        (json!([]), rule(json!({"effect": "Deny", "resources": ["{a"]})), "resources"),
        (json!([]), rule(json!({"effect": "Allow", "when": "user == 1"})), "when"),
        (json!([]), rule(json!({"effect": "Allow", "arguments": [{"path": "a"}]})), "arguments"),
        (
            json!([]),
            rule(
                json!({"effect": "Allow", "timeWindow": {"days": [], "startMinute": 0, "endMinute": 1, "timeZone": "X/Y"}}),
            ),
            "timeWindow: time zone \"X/Y\"",
        ),
    ] {
        let message = error(tools, roles);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn issuers_are_unique_by_url() {
    let issuer = |name: &str, url: &str| Issuer {
        name: name.to_owned(),
        url: url.to_owned(),
        subject_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        service_accounts: false,
        keys: Keys::Discovery,
    };
    let load = |issuers| Policy::load(Snapshot { issuers, ..snapshot(json!([]), json!([])) });
    assert!(load(vec![issuer("a", "https://a"), issuer("b", "https://b")]).is_ok());
    assert!(load(vec![issuer("a", "https://a"), issuer("a", "https://laptop")]).is_ok(), "one issuer, two signers");
    assert!(load(vec![issuer("a", "https://a"), issuer("b", "https://a")]).is_err());
}

#[test]
fn bounds_hold() {
    let too_many: Vec<Value> = (0..=ROLES).map(|i| json!({"name": format!("r{i}")})).collect();
    assert!(error(json!([]), json!(too_many)).contains("1001 roles are more than 1000"));
    let bytes = vec![b' '; SNAPSHOT_BYTES + 1];
    assert!(matches!(Policy::from_json(&bytes), Err(LoadError::TooLarge(_))));
}

#[test]
fn another_format_is_said_before_its_unknown_fields() {
    let newer = br#"{"format": 2, "quotas": []}"#;
    assert!(matches!(Policy::from_json(newer), Err(LoadError::Format(2))));
    let unknown = br#"{"format": 1, "quotas": []}"#;
    assert!(matches!(Policy::from_json(unknown), Err(LoadError::Json(_))));
    let good = snapshot(json!(["x"]), json!([]));
    assert_eq!(Policy::from_json(&good.canonical()).unwrap().hash().as_ref(), good.hash());
}

#[test]
fn tools_are_found_by_both_names() {
    let policy = policy(json!([{"name": "x", "exposedName": "y"}, "z"]), json!([]));
    assert_eq!(policy.tool("x").unwrap().name, "x");
    assert_eq!(policy.tool_by_exposed_name("y").unwrap().name, "x");
    assert_eq!(policy.tool_by_exposed_name("z").unwrap().name, "z");
    assert!(policy.tool_by_exposed_name("x").is_none() && policy.tool("y").is_none());
}

/// Snapshots that share conditions, each spoilt in some way or not.
mod checked {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::policy::compile;
    use crate::policy::tests::worlds::{target, world};

    fn spoil(snapshot: &mut Snapshot, how: &str) {
        let rule = snapshot.roles.iter_mut().flat_map(|role| &mut role.rules).next();
        match (how, rule) {
            ("format", _) => snapshot.format += 1,
            ("tool", _) => snapshot.tools.extend(snapshot.tools.first().cloned()),
            ("role", _) => snapshot.roles.extend(snapshot.roles.first().cloned()),
            ("heir", _) => snapshot.roles.iter_mut().for_each(|role| role.inherits.push("nobody".to_owned())),
            ("anonymous", _) => snapshot.anonymous = Some("nobody".to_owned()),
            ("when", Some(rule)) => rule.when = Some("this is not CEL".to_owned()),
            ("glob", Some(rule)) => rule.tools.push("{".to_owned()),
            ("path", Some(rule)) => rule.arguments.push(ArgumentRule { path: "x".to_owned(), ..Default::default() }),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn what_is_checked_loads_and_what_is_not_does_not(
            world in world(),
            ways in prop::collection::vec(
                select(&["", "format", "tool", "role", "heir", "anonymous", "when", "glob", "path"][..]), 3),
        ) {
            let mut proven = Proven::default();
            for how in ways {
                let mut snapshot = compile(&world, &target(), &[]).unwrap();
                spoil(&mut snapshot, how);
                let checked = check(&snapshot, &mut proven).map_err(|error| error.to_string());
                let loaded = Policy::load(snapshot).map(|_| ()).map_err(|error| error.to_string());
                prop_assert_eq!(checked, loaded, "{}", how);
            }
        }
    }
}
