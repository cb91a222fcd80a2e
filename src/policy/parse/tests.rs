//! What objects say together, and what is left of them when they are broken.

use proptest::prelude::*;
use serde_json::{Value, json};

mod cluster;

use super::*;
use crate::api;
use crate::policy::snapshot::{Effect, Keys, Lifecycle, Subject};
use crate::policy::world::UNNAMED_ISSUER;

fn add(objects: &mut Objects, kind: &str, name: &str, spec: &Value) {
    let api_version = format!("{}/{}", api::GROUP, api::VERSION);
    let value = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    match kind {
        "McpServer" => objects.servers.push(serde_json::from_value(value).unwrap()),
        "McpTool" => objects.tools.push(serde_json::from_value(value).unwrap()),
        "McpRole" => objects.roles.push(serde_json::from_value(value).unwrap()),
        _ => objects.gateways.push(serde_json::from_value(value).unwrap()),
    }
}

/// One server `files` with the tool `read_file`, behind the gateway `default` with the issuer `corp`.
fn base() -> Objects {
    let mut objects = Objects::default();
    add(&mut objects, "McpServer", "files", &json!({"source": {"remote": {"url": "https://a"}}}));
    add(&mut objects, "McpTool", "files-read", &tool("read_file"));
    add(&mut objects, "McpGateway", "default", &gateway(&[("corp", "https://corp")]));
    objects
}

fn tool(name: &str) -> Value {
    json!({"serverRef": {"name": "files"}, "toolName": name, "description": "d"})
}

fn gateway(issuers: &[(&str, &str)]) -> Value {
    let issuers: Vec<Value> = issuers.iter().map(|(name, url)| json!({"name": name, "oidc": {"url": url}})).collect();
    json!({"issuers": issuers})
}

fn rule(effect: &str, more: &Value) -> Value {
    let mut rule = json!({"effect": effect, "servers": ["files"], "tools": ["read_file"]});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

fn with(kind: &str, name: &str, spec: &Value) -> (World, Vec<Finding>) {
    let mut objects = base();
    add(&mut objects, kind, name, spec);
    parse(&objects)
}

/// Findings as `kind/name pointer reason`, with `!` before errors.
fn told(findings: &[Finding]) -> Vec<String> {
    let tell = |f: &Finding| {
        let mark = if f.severity == Severity::Error { "!" } else { "" };
        format!("{mark}{}/{} {} {}", f.object.kind, f.object.name, f.pointer, f.reason)
    };
    findings.iter().map(tell).collect()
}

fn role<'a>(world: &'a World, name: &str) -> &'a super::super::world::DeclaredRole {
    &world.roles[&("default".to_owned(), name.to_owned())]
}

#[test]
fn sound_objects_give_no_finding() {
    let spec = json!({"subjects": [{"kind": "Group", "name": "eng"}], "rules": [rule("Allow", &json!({}))]});
    let (world, findings) = with("McpRole", "dev", &spec);
    assert_eq!(told(&findings), Vec::<String>::new());
    let subject = Subject::Group { issuer: "corp".to_owned(), name: "eng".to_owned() };
    assert_eq!(role(&world, "dev").subjects, [subject]);
    assert_eq!(role(&world, "dev").rules.len(), 1);
    assert_eq!(world.gateways[&("default".to_owned(), "default".to_owned())].issuers[0].keys, Keys::Discovery);
}

#[test]
fn a_broken_part_takes_an_allow_rule_out_and_broadens_a_deny_rule() {
    // What is broken, where it is told, the reason, and what is left in a Deny rule.
    let window = |start: &str, zone: &str| json!({"timeWindow": {"start": start, "end": "17:00", "timeZone": zone}});
    let argument = |argument: Value| json!({"arguments": [argument], "when": "now == now"});
    let cases = [
        (json!({"when": "identity.("}), "/when", "InvalidExpression"),
        (json!({"tools": ["read_file", "{a"]}), "/tools/1", "InvalidGlob"),
        (json!({"servers": ["files", "{a"]}), "/servers/1", "InvalidGlob"),
        (json!({"prompts": ["{a"]}), "/prompts/0", "InvalidGlob"),
        (json!({"resources": ["https://h:*/x"]}), "/resources/0", "InvalidGlob"),
        (json!({"toolSelector": {}}), "/toolSelector", "InvalidSelector"),
        (json!({"serverSelector": {"matchLabels": {}}}), "/serverSelector", "InvalidSelector"),
        (json!({"servers": []}), "", "IncompleteRule"),
        (json!({"tools": []}), "", "IncompleteRule"),
        (window("09:00", "Europe/Atlantis"), "/timeWindow/timeZone", "InvalidTimeZone"),
        (window("9:00", "UTC"), "/timeWindow/start", "InvalidTimeWindow"),
        (window("24:00", "UTC"), "/timeWindow/start", "InvalidTimeWindow"),
        (window("17:00", "UTC"), "/timeWindow", "InvalidTimeWindow"),
        (argument(json!({"path": "a", "in": [1]})), "/arguments/0/path", "InvalidPointer"),
        (argument(json!({"path": "/a"})), "/arguments/0", "InvalidCondition"),
        (argument(json!({"path": "/a", "below": ["/a/../b"]})), "/arguments/0/below/0", "InvalidCondition"),
        (argument(json!({"path": "/a", "minimum": 2, "maximum": 1})), "/arguments/0", "InvalidCondition"),
    ];
    for (part, pointer, reason) in cases {
        for effect in ["Allow", "Deny"] {
            let (world, findings) = with("McpRole", "r", &json!({"rules": [rule(effect, &part)]}));
            let expected = format!("!McpRole/r /spec/rules/0{pointer} {reason}");
            assert!(told(&findings).contains(&expected), "{effect} {part}: {:?}", told(&findings));
            let rules = &role(&world, "r").rules;
            if effect == "Allow" {
                assert!(rules.is_empty(), "{part}");
                continue;
            }
            let [kept] = rules.as_slice() else { panic!("{part}: the Deny rule is gone") };
            assert_eq!(kept.rule.effect, Effect::Deny);
            assert!(kept.rule.arguments.is_empty() && kept.rule.time_window.is_none(), "{part}: narrower than `true`");
            assert!(kept.rule.when.is_none() || part.get("arguments").is_some(), "{part}");
            let star = "*".to_owned();
            let nothing = part == json!({"tools": []});
            let lists =
                [("tools", &kept.rule.tools), ("prompts", &kept.rule.prompts), ("resources", &kept.rule.resources)];
            for (list, globs) in lists {
                let broken = pointer.starts_with(&format!("/{list}/")) || (list, pointer) == ("tools", "/toolSelector");
                assert_eq!(globs.contains(&star), broken || nothing, "{part}");
            }
            let servers_broken = part.get("servers").is_some() || part.get("serverSelector").is_some();
            assert_eq!(kept.servers.contains(&star), servers_broken, "{part}");
        }
    }
}

#[test]
fn a_sound_rule_is_taken_over_in_policys_words() {
    let part = json!({
        "toolSelector": {"annotations": {"readOnly": true}, "capabilities": ["b", "a"]},
        "arguments": [{"path": "/a", "in": ["x", 1, "x"], "maximum": 3}, {"path": "/p", "below": ["/srv/", "/"]}],
        "timeWindow": {"days": ["Sun", "Mon"], "start": "22:30", "end": "24:00", "timeZone": "Europe/Berlin"},
    });
    let (world, findings) = with("McpRole", "r", &json!({"rules": [rule("Allow", &part)]}));
    assert_eq!(told(&findings), Vec::<String>::new());
    let rule = &role(&world, "r").rules[0].rule;
    let as_json = serde_json::to_value(rule).unwrap();
    assert_eq!(
        as_json,
        json!({
            "index": 0, "effect": "Allow", "tools": ["read_file"],
            "toolSelector": {"readOnly": true, "capabilities": ["a", "b"]},
            "arguments": [
                {"path": "/a", "in": [1, "x"], "maximum": 3},
                {"path": "/p", "below": ["/", "/srv"]},
            ],
            "timeWindow": {"days": [1, 7], "startMinute": 1350, "endMinute": 1440, "timeZone": "Europe/Berlin"},
        })
    );
}

#[test]
fn dangling_references_are_refused() {
    let (world, findings) = with("McpRole", "dev", &json!({"inherits": [{"name": "viewer"}]}));
    assert_eq!(told(&findings), ["!McpRole/dev /spec/inherits/0/name RoleNotFound"]);
    assert!(role(&world, "dev").inherits.is_empty());

    let spec = json!({"serverRef": {"name": "gone"}, "toolName": "t", "description": "d"});
    let (world, findings) = with("McpTool", "t", &spec);
    assert_eq!(told(&findings), ["!McpTool/t /spec/serverRef/name ServerNotFound"]);
    assert_eq!(world.tools.len(), 1);

    let spec = json!({"source": {"remote": {"url": "https://a"}}, "gatewayRef": {"name": "gone"}});
    let (_, findings) = with("McpServer", "s", &spec);
    assert_eq!(told(&findings), ["!McpServer/s /spec/gatewayRef/name GatewayNotFound"]);
    assert!(findings[0].message.contains("`default`"), "{}", findings[0].message);

    let mut spec = tool("write_file");
    spec["lifecycle"] = "Deprecated".into();
    spec["deprecation"] = json!({"replacedBy": "gone", "message": "m"});
    let (world, findings) = with("McpTool", "w", &spec);
    assert_eq!(told(&findings), ["McpTool/w /spec/deprecation/replacedBy ToolNotFound"]);
    let deprecation = &world.tools[&("default".to_owned(), "w".to_owned())].tool.deprecation;
    assert_eq!(deprecation.as_ref().unwrap().replaced_by, None);

    let anonymous = json!({"anonymous": {"mode": "Role", "roleRef": {"name": "gone"}}});
    let (world, findings) = with("McpGateway", "g", &anonymous);
    assert_eq!(told(&findings), ["!McpGateway/g /spec/anonymous/roleRef/name RoleNotFound"]);
    assert!(world.gateways.values().all(|gateway| gateway.anonymous.is_none()));
}

#[test]
fn a_namespace_without_gateway_is_no_dangling_reference() {
    let mut objects = base();
    objects.gateways.clear();
    add(&mut objects, "McpRole", "dev", &json!({"subjects": [{"kind": "User", "name": "ada"}]}));
    let (world, findings) = parse(&objects);
    assert_eq!(told(&findings), ["McpRole/dev /spec/subjects NoIssuers"]);
    let subject = Subject::User { issuer: UNNAMED_ISSUER.to_owned(), name: "ada".to_owned() };
    assert_eq!(role(&world, "dev").subjects, [subject]);
}

#[test]
fn roles_that_inherit_in_a_circle_grant_nothing_and_still_deny() {
    let mut objects = base();
    let rules = json!([rule("Allow", &json!({})), rule("Deny", &json!({}))]);
    for (name, inherits) in [("a", "b"), ("b", "c"), ("c", "a"), ("above", "a"), ("self", "self"), ("free", "above")] {
        add(&mut objects, "McpRole", name, &json!({"inherits": [{"name": inherits}], "rules": rules}));
    }
    let (world, findings) = parse(&objects);
    let expected =
        ["a", "b", "c", "self"].map(|name| format!("!McpRole/{name} /spec/inherits/0/name InheritanceCycle"));
    assert_eq!(told(&findings), expected);
    assert!(findings[0].message.contains("`a`, `b`, `c`"), "{}", findings[0].message);
    for name in ["a", "b", "c", "self"] {
        assert!(role(&world, name).inherits.is_empty());
        let effects: Vec<Effect> = role(&world, name).rules.iter().map(|rule| rule.rule.effect).collect();
        assert_eq!(effects, [Effect::Deny], "{name}");
    }
    for (name, inherits) in [("above", "a"), ("free", "above")] {
        assert_eq!(role(&world, name).inherits, [inherits]);
        assert_eq!(role(&world, name).rules.len(), 2, "{name} is not on the circle");
    }
}

#[test]
fn of_two_tools_with_one_name_the_older_then_the_first_keeps_it() {
    let mut objects = base();
    add(&mut objects, "McpTool", "again", &tool("read_file"));
    let (world, findings) = parse(&objects);
    assert_eq!(told(&findings), ["!McpTool/files-read /spec/toolName Conflicted"]);
    assert!(findings[0].message.contains("`again`") && findings[0].message.contains("`files-read`"));
    assert_eq!(world.tools.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["again"]);

    for (tool, at) in objects.tools.iter_mut().zip(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]) {
        std::sync::Arc::make_mut(tool).metadata.creation_timestamp = serde_json::from_value(json!(at)).unwrap();
    }
    let (world, findings) = parse(&objects);
    assert_eq!(told(&findings), ["!McpTool/again /spec/toolName Conflicted"]);
    assert_eq!(world.tools.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["files-read"]);
}

#[test]
fn two_tools_cannot_be_exposed_under_one_name() {
    let mut spec = tool("write_file");
    spec["exposedName"] = "read_file".into();
    let (world, findings) = with("McpTool", "z", &spec);
    assert_eq!(told(&findings), ["!McpTool/z /spec/exposedName Conflicted"]);
    let hidden = &world.tools[&("default".to_owned(), "z".to_owned())].tool;
    assert_eq!((hidden.lifecycle, &hidden.exposed_name), (Lifecycle::Disabled, &None), "nor under its own name");
    // The loser claims nothing, so that a third tool is judged without it.
    let mut objects = base();
    add(&mut objects, "McpTool", "z", &spec);
    add(&mut objects, "McpTool", "zz", &tool("write_file"));
    let (world, findings) = parse(&objects);
    assert_eq!((world.tools.len(), findings.len()), (2, 1));
}

#[test]
fn two_objects_of_one_name_are_one() {
    let mut objects = base();
    objects.servers.push(objects.servers[0].clone());
    let (world, findings) = parse(&objects);
    assert_eq!(told(&findings), ["!McpServer/files /metadata/name Conflicted"]);
    assert_eq!(world.servers.len(), 1);
}

#[test]
fn a_subject_needs_its_issuer_where_there_are_two() {
    let mut objects = base();
    add(&mut objects, "McpGateway", "other", &gateway(&[("partner", "https://partner"), ("corp", "https://corp")]));
    let subjects = json!([
        {"kind": "Group", "name": "eng"},
        {"kind": "Group", "name": "eng", "issuer": "partner"},
        {"kind": "Group", "name": "eng", "issuer": "nobody"},
    ]);
    add(&mut objects, "McpRole", "dev", &json!({"subjects": subjects}));
    let (world, findings) = parse(&objects);
    assert_eq!(
        told(&findings),
        ["!McpRole/dev /spec/subjects/0 IssuerRequired", "!McpRole/dev /spec/subjects/2/issuer IssuerNotFound"]
    );
    for finding in &findings {
        assert!(finding.message.contains("`corp`, `partner`"), "{}", finding.message);
    }
    let subject = Subject::Group { issuer: "partner".to_owned(), name: "eng".to_owned() };
    assert_eq!(role(&world, "dev").subjects, [subject]);
}

#[test]
fn subjects_that_mean_nobody_are_refused() {
    let subjects = json!([{"kind": "User"}, {"kind": "Claim", "claim": "c"}, {"kind": "Claim", "values": ["v"]}]);
    let (world, findings) = with("McpRole", "dev", &json!({"subjects": subjects}));
    let expected = [0, 1, 2].map(|index| format!("!McpRole/dev /spec/subjects/{index} InvalidSubject"));
    assert_eq!(told(&findings), expected);
    assert!(role(&world, "dev").subjects.is_empty());
}

#[test]
fn one_issuer_name_means_one_issuer_in_a_namespace() {
    let mut objects = base();
    add(
        &mut objects,
        "McpGateway",
        "evil",
        &gateway(&[("corp", "https://evil"), ("b", "https://b"), ("c", "https://b")]),
    );
    let (world, findings) = parse(&objects);
    assert_eq!(
        told(&findings),
        ["!McpGateway/evil /spec/issuers/0/name Conflicted", "!McpGateway/evil /spec/issuers/2 Conflicted"]
    );
    let evil = &world.gateways[&("default".to_owned(), "evil".to_owned())];
    assert_eq!(evil.issuers.iter().map(|issuer| issuer.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn keys_that_cannot_be_read_verify_nothing() {
    for (jwks, pointer) in [
        (json!({"inline": "{"}), "/inline"),
        (json!({"inline": "[]"}), "/inline"),
        (json!({"inline": r#"{"keys":[1]}"#}), "/inline"),
        (json!({"inline": r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#}), "/inline"),
        (json!({"inline": r#"{"keys":[{"kty":"OKP","x":"a","d":"b"}]}"#}), "/inline"),
        (json!({}), ""),
    ] {
        let spec = json!({"issuers": [{"name": "b", "oidc": {"url": "https://b", "jwks": jwks}}]});
        let (world, findings) = with("McpGateway", "g", &spec);
        assert_eq!(told(&findings), [format!("!McpGateway/g /spec/issuers/0/oidc/jwks{pointer} InvalidKeys")]);
        let gateway = &world.gateways[&("default".to_owned(), "g".to_owned())];
        assert_eq!(gateway.issuers[0].keys, Keys::Inline(r#"{"keys":[]}"#.to_owned()));
    }
}

#[test]
fn globs_that_match_nothing_are_doubtful() {
    let part = json!({"servers": ["files", "file"], "tools": ["read_*", "write_*"]});
    let (_, findings) = with("McpRole", "r", &json!({"rules": [rule("Allow", &part)]}));
    assert_eq!(
        told(&findings),
        ["McpRole/r /spec/rules/0/servers/1 NoMatch", "McpRole/r /spec/rules/0/tools/1 NoMatch"]
    );
    // Where tools need no declaration, nothing is known of them.
    let mut objects = base();
    let spec = json!({"registration": "Auto", "source": {"remote": {"url": "https://b"}}});
    add(&mut objects, "McpServer", "auto", &spec);
    let part = json!({"servers": ["auto"], "tools": ["write_*"]});
    add(&mut objects, "McpRole", "r", &json!({"rules": [rule("Allow", &part)]}));
    assert_eq!(told(&parse(&objects).1), Vec::<String>::new());
}

#[test]
fn a_tool_without_description_is_doubtful() {
    let (world, findings) = with("McpTool", "t", &json!({"serverRef": {"name": "files"}, "toolName": "t"}));
    assert_eq!(told(&findings), ["McpTool/t /spec NoDescription"]);
    assert_eq!(world.tools.len(), 2);
}

#[test]
fn everything_to_everyone_is_doubtful() {
    let everything = json!({"rules": [rule("Allow", &json!({"servers": ["*"], "tools": ["*"]}))]});
    let warned = |objects: &Objects| told(&parse(objects).1);
    let expected = ["McpRole/all /spec/rules/0 GrantsEverything"];
    let mut objects = base();
    add(&mut objects, "McpRole", "all", &everything);
    assert_eq!(warned(&objects), Vec::<String>::new(), "nobody has the role");

    add(&mut objects, "McpRole", "public", &json!({"inherits": [{"name": "all"}]}));
    objects.gateways.clear();
    let anonymous = json!({"issuers": [], "anonymous": {"mode": "Role", "roleRef": {"name": "public"}}});
    add(&mut objects, "McpGateway", "default", &anonymous);
    assert_eq!(warned(&objects), expected, "anonymous callers inherit it");

    let mut objects = base();
    let mut spec = everything.clone();
    spec["subjects"] = json!([{"kind": "Scope", "name": "openid"}]);
    add(&mut objects, "McpRole", "all", &spec);
    assert_eq!(warned(&objects), expected, "every OIDC token has the scope");
    spec["rules"][0]["when"] = "identity.subject == 'ada'".into();
    objects.roles.clear();
    add(&mut objects, "McpRole", "all", &spec);
    assert_eq!(warned(&objects), Vec::<String>::new(), "a condition narrows it");
}

#[test]
fn namespaces_do_not_see_each_other() {
    let mut objects = base();
    let spec = json!({"inherits": [{"name": "viewer"}], "rules": [rule("Allow", &json!({}))]});
    add(&mut objects, "McpRole", "dev", &spec);
    add(&mut objects, "McpRole", "viewer", &json!({}));
    std::sync::Arc::make_mut(&mut objects.roles[0]).metadata.namespace = Some("elsewhere".to_owned());
    let (_, findings) = parse(&objects);
    assert_eq!(
        told(&findings),
        ["!McpRole/dev /spec/inherits/0/name RoleNotFound", "McpRole/dev /spec/rules/0/servers/0 NoMatch"]
    );
}

/// Arbitrary objects: small vocabularies, so that references, conflicts and circles happen.
fn arbitrary() -> impl Strategy<Value = Objects> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("{"), Just("")];
    let names = move || proptest::collection::vec(name(), 0..3);
    let rule = (any::<bool>(), names(), names(), names(), name(), any::<i64>(), any::<i64>(), ".{0,6}").prop_map(
        |(allow, servers, tools, prompts, path, minimum, maximum, text)| {
            json!({
                "effect": if allow { "Allow" } else { "Deny" }, "servers": servers, "tools": tools, "prompts": prompts,
                "toolSelector": {"capabilities": tools}, "serverSelector": {"matchLabels": {}}, "when": text,
                "arguments": [{"path": format!("/{path}"), "minimum": minimum, "maximum": maximum, "below": prompts}],
                "timeWindow": {"start": text, "end": path, "timeZone": "UTC"},
            })
        },
    );
    let rules = proptest::collection::vec(rule, 0..3);
    let subject = (any::<bool>(), proptest::option::of(name()), proptest::option::of(name())).prop_map(
        |(user, name, issuer)| json!({"kind": if user {"User"} else {"Claim"}, "name": name, "issuer": issuer}),
    );
    let access = (names(), rules, proptest::collection::vec(subject, 0..3)).prop_map(|(inherits, rules, subjects)| {
        let inherits: Vec<Value> = inherits.iter().map(|name| json!({"name": name})).collect();
        json!({"inherits": inherits, "rules": rules, "subjects": subjects})
    });
    let tool = (name(), name(), proptest::option::of(name())).prop_map(|(server, tool, exposed)| {
        json!({"serverRef": {"name": server}, "toolName": tool, "exposedName": exposed, "deprecation": {"replacedBy": tool}})
    });
    let gateway = (names(), name()).prop_map(|(issuers, role)| {
        let issuers: Vec<Value> =
            issuers.iter().map(|i| json!({"name": i, "oidc": {"url": i, "jwks": {"inline": i}}})).collect();
        json!({"issuers": issuers, "anonymous": {"mode": "Role", "roleRef": {"name": role}}})
    });
    let server = name().prop_map(|gateway| json!({"source": {}, "gatewayRef": {"name": gateway}}));
    let some = |kind: &'static str, spec: BoxedStrategy<Value>| {
        proptest::collection::vec((name(), spec), 0..4)
            .prop_map(move |specs| specs.into_iter().map(|(name, spec)| (kind, name, spec)).collect::<Vec<_>>())
    };
    (
        some("McpRole", access.boxed()),
        some("McpTool", tool.boxed()),
        some("McpGateway", gateway.boxed()),
        some("McpServer", server.boxed()),
    )
        .prop_map(|(roles, tools, gateways, servers)| {
            let mut objects = Objects::default();
            for (kind, name, spec) in roles.into_iter().chain(tools).chain(gateways).chain(servers) {
                add(&mut objects, kind, name, &spec);
            }
            objects
        })
}

proptest! {
    #[test]
    fn any_objects_give_a_world_whose_references_hold(objects in arbitrary()) {
        let (world, _) = parse(&objects);
        for ((namespace, name), role) in &world.roles {
            let mut seen = std::collections::BTreeSet::new();
            let mut stack = role.inherits.clone();
            while let Some(other) = stack.pop() {
                prop_assert!(&other != name, "{name} inherits itself");
                let inherited = world.roles.get(&(namespace.clone(), other.clone()));
                prop_assert!(inherited.is_some(), "{other} does not exist");
                if seen.insert(other) {
                    stack.extend(inherited.into_iter().flat_map(|role| role.inherits.iter().cloned()));
                }
            }
            let issuers: Vec<&String> =
                world.gateways.values().flat_map(|g| g.issuers.iter().map(|issuer| &issuer.name)).collect();
            for subject in &role.subjects {
                let (Subject::User { issuer, .. } | Subject::Group { issuer, .. } | Subject::Claim { issuer, .. }
                    | Subject::Scope { issuer, .. }) = subject;
                prop_assert!(issuers.contains(&issuer) || (issuers.is_empty() && issuer == UNNAMED_ISSUER));
            }
        }
        for ((namespace, _), tool) in &world.tools {
            prop_assert!(world.servers.contains_key(&(namespace.clone(), tool.server.clone())));
        }
    }

    #[test]
    fn every_deny_rule_stays(objects in arbitrary()) {
        let (world, _) = parse(&objects);
        let mut seen = std::collections::BTreeSet::new();
        for role in &objects.roles {
            let name = role.metadata.name.clone().unwrap_or_default();
            if !seen.insert(name.clone()) {
                continue; // A second object of the same name is not in force.
            }
            let declared: Vec<usize> = role.spec.rules.iter().enumerate()
                .filter(|(_, rule)| rule.effect == api::Effect::Deny).map(|(index, _)| index).collect();
            let kept: Vec<usize> = world.roles[&("default".to_owned(), name)].rules.iter()
                .filter(|rule| rule.rule.effect == Effect::Deny).map(|rule| rule.rule.index as usize).collect();
            prop_assert_eq!(declared, kept);
        }
    }

    #[test]
    fn the_order_of_objects_changes_nothing(objects in arbitrary()) {
        // Of two objects with one name the first stays, so only worlds without such pairs can be compared.
        let mut objects = objects;
        macro_rules! unique { ($list:ident) => {{
            let mut seen = std::collections::BTreeSet::new();
            objects.$list.retain(|object| seen.insert(object.metadata.name.clone()));
        }}}
        unique!(roles); unique!(tools); unique!(gateways); unique!(servers);
        let forwards = parse(&objects);
        objects.roles.reverse(); objects.tools.reverse(); objects.gateways.reverse(); objects.servers.reverse();
        prop_assert_eq!(forwards, parse(&objects));
    }
}
