use serde_json::json;

use super::*;
use crate::policy::snapshot::{Registration, Snapshot};
use crate::policy::tests::fixture::{ada, decide, now, of_dev, policy, snapshot, visible};

fn argument(path: &str, permitted: &str) -> Reason {
    Reason::Argument { path: path.to_owned(), permitted: permitted.to_owned() }
}

#[test]
fn what_no_rule_names_is_unknown() {
    let policy = of_dev(json!(["get", "set"]), json!([{"effect": "Allow", "tools": ["get"]}]));
    assert_eq!(decide(&policy, Item::Tool("get"), None).verdict, Verdict::Allow);
    for (item, reason) in [
        (Item::Tool("set"), Reason::NoRule),
        (Item::Tool("gone"), Reason::NotDeclared),
        (Item::Prompt("get"), Reason::NoRule),
        (Item::Resource("mem:get"), Reason::NoRule),
    ] {
        assert_eq!(decide(&policy, item, None), Decision { verdict: Verdict::Unknown, rule: None, reason });
        assert!(!visible(&policy, item));
    }
}

#[test]
fn a_deny_wins_over_every_allow() {
    let policy = of_dev(
        json!(["get"]),
        json!([{"effect": "Allow", "tools": ["*"]}, {"effect": "Deny", "tools": ["g*"]}, {"effect": "Allow", "tools": ["get"]}]),
    );
    let decision = decide(&policy, Item::Tool("get"), None);
    let rule = Some(RuleRef { role: "dev".into(), index: 1 });
    assert_eq!(decision, Decision { verdict: Verdict::Unknown, rule, reason: Reason::DenyRule });
    assert!(!visible(&policy, Item::Tool("get")));
}

#[test]
fn a_refusal_for_an_argument_names_the_path_and_what_is_permitted() {
    let policy = of_dev(
        json!(["deploy"]),
        json!([{"effect": "Allow", "tools": ["deploy"], "arguments": [
            {"path": "/environment", "in": ["development", "staging"]}, {"path": "/replicas", "maximum": 10},
        ]}]),
    );
    let environment = argument("/environment", r#"one of "development", "staging""#);
    for (arguments, reason) in [
        (Some(r#"{"environment": "production", "replicas": 1}"#), environment.clone()),
        (Some(r#"{"environment": "staging", "replicas": 11}"#), argument("/replicas", "at most 10")),
        (Some(r#"{"replicas": 1}"#), environment.clone()),
        (Some("[]"), environment.clone()),
        (None, environment),
    ] {
        let decision = decide(&policy, Item::Tool("deploy"), arguments);
        assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, reason), "{arguments:?}");
    }
    let allowed = decide(&policy, Item::Tool("deploy"), Some(r#"{"environment": "staging", "replicas": 1e1}"#));
    assert_eq!(allowed.verdict, Verdict::Allow);
}

#[test]
fn the_nearest_miss_is_reported() {
    let policy = of_dev(
        json!(["deploy"]),
        json!([
            {"effect": "Allow", "tools": ["deploy"], "when": "identity.claims.root"},
            {"effect": "Allow", "tools": ["deploy"], "arguments": [{"path": "/a", "in": ["x"]}, {"path": "/b", "in": ["x"]}]},
            {"effect": "Allow", "tools": ["deploy"], "arguments": [{"path": "/b", "in": ["y"]}]},
        ]),
    );
    let decision = decide(&policy, Item::Tool("deploy"), Some("{}"));
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, argument("/b", r#""y""#)));
    assert_eq!(decision.rule.unwrap().index, 2);
}

#[test]
fn a_deny_on_arguments_refuses_but_does_not_hide() {
    let policy = of_dev(
        json!(["deploy"]),
        json!([
            {"effect": "Allow", "tools": ["deploy"]},
            {"effect": "Deny", "tools": ["deploy"], "arguments": [{"path": "/environment", "in": ["production"]}]},
        ]),
    );
    assert_eq!(decide(&policy, Item::Tool("deploy"), Some(r#"{"environment": "staging"}"#)).verdict, Verdict::Allow);
    // Whoever leaves the argument out, or sends another type, does not get around the Deny.
    for arguments in [
        r#"{"environment": "production"}"#,
        "{}",
        r#"{"environment": ["production"]}"#,
        "[]",
        "{",
        r#"{"environment": null}"#,
    ] {
        let decision = decide(&policy, Item::Tool("deploy"), Some(arguments));
        assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::DenyRule), "{arguments}");
    }
    assert!(visible(&policy, Item::Tool("deploy")));
}

#[test]
fn an_error_in_a_condition_denies_under_either_effect() {
    let source = "identity.claims.missing == 1";
    let allow = of_dev(json!(["x"]), json!([{"effect": "Allow", "tools": ["x"], "when": source}]));
    let decision = decide(&allow, Item::Tool("x"), None);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Unknown, Reason::Condition));
    let deny = of_dev(
        json!(["x"]),
        json!([{"effect": "Allow", "tools": ["x"]}, {"effect": "Deny", "tools": ["x"], "when": source}]),
    );
    assert_eq!(decide(&deny, Item::Tool("x"), None).reason, Reason::DenyRule);
}

#[test]
fn lists_judge_the_part_of_when_that_reads_no_arguments() {
    let policy = of_dev(
        json!(["a", "b"]),
        json!([
            {"effect": "Allow", "tools": ["a"], "when": "identity.claims.mfa == true && arguments.n <= 10"},
            {"effect": "Allow", "tools": ["b"], "when": "identity.claims.mfa == false && arguments.n <= 10"},
        ]),
    );
    assert!(visible(&policy, Item::Tool("a")) && !visible(&policy, Item::Tool("b")));
    let refused = decide(&policy, Item::Tool("a"), Some(r#"{"n": 11}"#));
    assert_eq!((refused.verdict, refused.reason), (Verdict::Deny, Reason::Condition));
    assert_eq!(decide(&policy, Item::Tool("b"), Some(r#"{"n": 1}"#)).verdict, Verdict::Unknown);
    assert_eq!(decide(&policy, Item::Tool("a"), Some(r#"{"n": 10}"#)).verdict, Verdict::Allow);
}

#[test]
fn outside_its_window_a_rule_neither_allows_nor_shows() {
    let window = json!({"days": [6, 7], "startMinute": 0, "endMinute": 1440, "timeZone": "UTC"});
    let policy = of_dev(json!(["x"]), json!([{"effect": "Allow", "tools": ["x"], "timeWindow": window}]));
    let decision = decide(&policy, Item::Tool("x"), None);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Unknown, Reason::Time));
    let view = policy.subject(Some(&ada(json!({}))));
    assert!(policy.visible(&view, Item::Tool("x"), "2026-01-04T12:00:00Z".parse().unwrap()), "Sunday");
}

#[test]
fn disabled_tools_and_tools_past_their_sunset_look_unknown() {
    let policy = of_dev(
        json!([
            {"name": "off", "lifecycle": "Disabled"},
            {"name": "old", "deprecation": {"sunsetTime": "2026-01-05T09:30:00Z"}},
            {"name": "fading", "lifecycle": "Deprecated", "deprecation": {"sunsetTime": "2026-01-05T09:30:01Z"}},
        ]),
        json!([{"effect": "Allow", "tools": ["*"]}]),
    );
    for name in ["off", "old"] {
        let decision = decide(&policy, Item::Tool(name), None);
        assert_eq!((decision.verdict, decision.reason), (Verdict::Unknown, Reason::Disabled), "{name}");
    }
    assert_eq!(decide(&policy, Item::Tool("fading"), None).verdict, Verdict::Allow);
}

#[test]
fn selectors_read_declarations_never_names() {
    let policy = of_dev(
        json!([
            {"name": "a", "annotations": {"readOnly": true, "destructive": false, "idempotent": false, "openWorld": true}},
            {"name": "b", "capabilities": ["search"], "labels": {"tier": "gold"}},
            "c",
        ]),
        json!([
            {"effect": "Allow", "toolSelector": {"readOnly": true}},
            {"effect": "Allow", "toolSelector": {"capabilities": ["search"], "matchLabels": {"tier": "gold"}}},
        ]),
    );
    let visible: Vec<_> = ["a", "b", "c"].into_iter().filter(|name| visible(&policy, Item::Tool(name))).collect();
    assert_eq!(visible, ["a", "b"]);
}

#[test]
fn undeclared_tools_are_granted_by_name_alone_and_denied_on_the_worst_assumptions() {
    let rules = json!([
        {"effect": "Allow", "toolSelector": {}},
        {"effect": "Allow", "tools": ["get_*", "del_*"]},
        {"effect": "Deny", "tools": ["del_*"]},
    ]);
    let dev = json!([{"name": "dev", "subjects": [{"kind": "User", "issuer": "corp", "name": "ada"}], "rules": rules}]);
    let load = |roles| {
        let snapshot = Snapshot { registration: Registration::Auto, ..snapshot(json!([]), roles) };
        Policy::load(snapshot).unwrap()
    };
    let policy = load(dev);
    assert_eq!(decide(&policy, Item::Tool("get_x"), None).verdict, Verdict::Allow);
    assert_eq!(decide(&policy, Item::Tool("other"), None).reason, Reason::NoRule);
    assert_eq!(decide(&policy, Item::Tool("del_x"), None).reason, Reason::DenyRule);
    assert_eq!(decide(&policy, Item::Tool(&"get_".repeat(300)), None).reason, Reason::NoRule, "too long to look at");

    let cautious = load(json!([{
        "name": "dev", "subjects": [{"kind": "User", "issuer": "corp", "name": "ada"}],
        "rules": [{"effect": "Allow", "tools": ["*"]}, {"effect": "Deny", "toolSelector": {"destructive": true}}],
    }]));
    assert_eq!(decide(&cautious, Item::Tool("get_x"), None).reason, Reason::DenyRule);
}

#[test]
fn resources_are_judged_by_uri_and_without_arguments() {
    let policy = of_dev(
        json!([]),
        json!([
            {"effect": "Allow", "resources": ["repo://acme/*"]},
            {"effect": "Deny", "resources": ["repo://acme/secret/*"]},
            {"effect": "Allow", "resources": ["mem:*"], "arguments": [{"path": "/a", "in": ["x"]}]},
        ]),
    );
    assert_eq!(decide(&policy, Item::Resource("repo://acme/a/b"), None).verdict, Verdict::Allow);
    assert_eq!(decide(&policy, Item::Resource("repo://acme/secret/b"), None).reason, Reason::DenyRule);
    assert_eq!(decide(&policy, Item::Resource("repo://acme/a/../secret/b"), None).reason, Reason::DenyRule);
    let unsafe_uri = decide(&policy, Item::Resource("repo://acme/a%00"), None);
    assert_eq!((unsafe_uri.verdict, unsafe_uri.reason), (Verdict::Unknown, Reason::UnsafeUri));
    let read = decide(&policy, Item::Resource("mem:x"), Some(r#"{"a": "x"}"#));
    assert_eq!(read.verdict, Verdict::Unknown, "reading a resource has no arguments");
    assert!(!visible(&policy, Item::Resource("mem:x")));
}

/// A caller who may read what `allow` names and `deny` does not.
fn reader(allow: &[&str], deny: &[&str]) -> Policy {
    let rules = json!([{"effect": "Allow", "resources": allow}, {"effect": "Deny", "resources": deny}]);
    of_dev(json!([]), rules)
}

#[test]
fn a_deny_holds_in_every_spelling_of_its_uris() {
    for (deny, uri) in [
        ("file:///etc/*", "file://localhost/etc/passwd"),
        ("file://localhost/etc/*", "file:///etc/passwd"),
        ("https://h/admin/*", "https://h:443/admin/x"),
        ("https://h:443/admin/*", "https://h/admin/x"),
        ("https://h/admin/*", "https://h./admin/x"),
        ("https://h./admin/*", "HTTPS://H/admin/x"),
        ("file:///my docs/*", "file:///my%20docs/x"),
        ("file:///my%20docs/*", "file:///my docs/x"),
        ("repo://acme/café/*", "repo://acme/caf%C3%A9/x"),
        ("repo://acme/caf%c3%a9/*", "repo://acme/café/x"),
        ("repo://acme/secret/*", "repo://acme/pub%2F..%2Fsecret/x"),
        ("repo://acme/secret/*", "repo://acme/secret%252Fx"),
        ("repo://acme/secret/*", "repo://acme/secret%5Cx"),
        ("file:///etc/passwd", "file:///etc//passwd"),
    ] {
        let policy = reader(&["*"], &[deny]);
        assert_eq!(decide(&policy, Item::Resource(uri), None).reason, Reason::DenyRule, "{deny} {uri}");
        assert!(!visible(&policy, Item::Resource(uri)), "{deny} {uri}");
    }
}

#[test]
fn honest_uris_with_escapes_are_allowed_where_everything_is() {
    let policy = reader(&["*"], &[]);
    for uri in
        ["repo://acme/feature%2Fx", "repo://acme/a%2Eb", "file:///a%5Cb", "x://h/100%25", "x://h/a%252Fb", "x://h/%FF"]
    {
        assert_eq!(decide(&policy, Item::Resource(uri), None).verdict, Verdict::Allow, "{uri}");
    }
    for uri in ["x://h/a%0Ab", "x://h/a\u{7f}b", "x://h/%2525252Fb"] {
        assert_eq!(decide(&policy, Item::Resource(uri), None).reason, Reason::UnsafeUri, "{uri}");
    }
}

#[test]
fn every_reading_of_a_uri_needs_a_rule_that_allows_it() {
    let uri = Item::Resource("repo://acme/feature%2Fx/readme");
    let encoded = "repo://acme/feature%2fx/*";
    let decision = decide(&reader(&[encoded], &[]), uri, None);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Unknown, Reason::UnsafeUri));
    let policy = of_dev(
        json!([]),
        json!([
            {"effect": "Allow", "resources": [encoded]},
            {"effect": "Allow", "resources": ["repo://acme/feature/x/*"]},
        ]),
    );
    assert_eq!(decide(&policy, uri, None).verdict, Verdict::Allow, "also by two rules");
}

proptest::proptest! {
    #[test]
    fn two_spellings_of_one_uri_are_decided_alike(
        (one, two, glob) in crate::policy::uri::tests::twins(), deny: bool, cut in 0..3_usize,
    ) {
        let glob = glob.replace('\\', "/");
        let glob = match cut {
            0 => glob,
            1 => format!("{}*", glob.rsplit_once('/').map_or("", |(folder, _)| folder)),
            _ => format!("*{}", glob.get(glob.len() - 1..).unwrap_or_default()),
        };
        let loaded = Policy::load(snapshot(json!([]), json!([{
            "name": "dev", "subjects": [{"kind": "User", "issuer": "corp", "name": "ada"}],
            "rules": [{"effect": "Allow", "resources": [if deny { "*" } else { &glob }]},
                      {"effect": "Deny", "resources": if deny { vec![&glob] } else { Vec::new() }}],
        }])));
        let Ok(policy) = loaded else { return Ok(()) };
        let both = [&one, &two].map(|uri| decide(&policy, Item::Resource(uri), None));
        proptest::prop_assert_eq!(&both[0], &both[1], "{} and {} under {}", one, two, glob);
        proptest::prop_assert!(cut != 0 || (both[0].verdict == Verdict::Allow) != deny, "{} under {}", one, glob);
    }
}

#[test]
fn templates_show_where_some_uri_of_theirs_could_be_allowed() {
    let policy = of_dev(
        json!([]),
        json!([
            {"effect": "Allow", "resources": ["repo://acme/*", "mem:*"]},
            {"effect": "Deny", "resources": ["repo://acme/secret/*", "mem:*"]},
        ]),
    );
    for (template, shown) in [
        ("repo://{owner}/{path}", true),
        ("repo://acme/{dir}/x", true),
        ("repo://acme/secret/{id}", false),
        ("repo://other/{id}", false),
        ("mem:{id}", false),
    ] {
        assert_eq!(visible(&policy, Item::ResourceTemplate(template)), shown, "{template}");
    }
}

#[test]
fn the_first_allow_by_role_and_index_is_named() {
    let policy = policy(
        json!(["x"]),
        json!([
            {"name": "zed", "subjects": [{"kind": "User", "issuer": "corp", "name": "ada"}], "rules": [{"effect": "Allow", "tools": ["x"]}]},
            {"name": "any", "subjects": [{"kind": "Scope", "issuer": "corp", "name": "mcp:read"}],
             "rules": [{"effect": "Deny", "tools": ["y"]}, {"effect": "Allow", "tools": ["x"]}]},
        ]),
    );
    let decision = decide(&policy, Item::Tool("x"), None);
    assert_eq!(decision.rule, Some(RuleRef { role: "any".into(), index: 1 }));
}

#[test]
fn a_when_that_asks_for_a_tool_is_an_error_for_prompts() {
    let policy = of_dev(
        json!(["x"]),
        json!([{"effect": "Allow", "tools": ["x"], "prompts": ["x"], "when": "tool.name == 'x' && tool.server == 'ops'"}]),
    );
    assert_eq!(decide(&policy, Item::Tool("x"), None).verdict, Verdict::Allow);
    assert_eq!(decide(&policy, Item::Prompt("x"), None).reason, Reason::Condition);
}

#[test]
fn arguments_are_not_parsed_unless_a_rule_reads_them() {
    let policy = of_dev(json!(["x"]), json!([{"effect": "Allow", "tools": ["x"]}]));
    assert_eq!(decide(&policy, Item::Tool("x"), Some("{ not json")).verdict, Verdict::Allow);
    let view = policy.subject(None);
    assert!(!policy.visible(&view, Item::Tool("x"), now()), "no token, no anonymous role");
}

#[test]
fn arguments_with_two_readings_are_refused_where_a_rule_reads_them_and_nowhere_else() {
    let odd = r#"{"env":"dev","Env":"prod"}"#;
    let halved = r#"{"env":"dev","note":"\ud800"}"#;
    let below = r#"{"env":"dev","headers":{"Accept":1,"accept":2}}"#;
    for (rules, refused) in [
        (json!([{"effect": "Allow", "tools": ["x"]}]), &[][..]),
        (json!([{"effect": "Allow", "tools": ["x"], "arguments": [{"path": "/env", "in": ["dev"]}]}]), &[odd]),
        (
            json!([{"effect": "Allow", "tools": ["x"]},
                   {"effect": "Deny", "tools": ["x"], "arguments": [{"path": "/env", "in": ["prod"]}]}]),
            &[odd],
        ),
        (json!([{"effect": "Allow", "tools": ["x"], "when": "arguments.env == 'dev'"}]), &[odd]),
        (json!([{"effect": "Allow", "tools": ["x"], "when": "size(arguments) > 0"}]), &[odd, halved, below]),
        (
            json!([{"effect": "Allow", "tools": ["x"]},
                   {"effect": "Deny", "tools": ["x"], "when": "arguments.headers.via == 'x'"}]),
            &[odd, below],
        ),
        (json!([{"effect": "Allow", "tools": ["x"], "when": "arguments.note != 'x' || true"}]), &[odd, halved]),
    ] {
        let policy = of_dev(json!(["x"]), rules.clone());
        for arguments in [odd, halved, below] {
            let decision = decide(&policy, Item::Tool("x"), Some(arguments));
            let unclear = matches!(decision.reason, Reason::Unclear { .. });
            assert_eq!(unclear, refused.contains(&arguments), "{rules} {arguments}: {decision:?}");
            assert!(!unclear || decision.verdict == Verdict::Deny, "{rules} {arguments}: {decision:?}");
        }
    }
}

#[test]
fn what_reads_arguments_of_another_tool_does_not_count() {
    let policy = of_dev(
        json!(["x", "y"]),
        json!([{"effect": "Allow", "tools": ["x"]}, {"effect": "Deny", "tools": ["y"], "when": "size(arguments) > 0"}]),
    );
    let odd = Some(r#"{"a":1,"A":"\udfff"}"#);
    assert_eq!(decide(&policy, Item::Tool("x"), odd).verdict, Verdict::Allow);
}
