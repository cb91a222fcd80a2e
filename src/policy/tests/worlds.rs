//! Generated worlds and questions, from small vocabularies so that things meet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::policy::snapshot::{
    Annotations, ArgumentRule, Deprecation, Effect, Input, Issuer, Keys, Lifecycle, Registration, Rule, Scalar,
    ServerRequests, Snapshot, Subject, Target, TimeWindow, Tool, ToolSelector,
};
use crate::policy::world::{DeclaredRole, DeclaredTool, Gateway, Key, Server, ServerRule, World};
use crate::policy::{Call, Identity, Item, Policy};

pub(super) const NOWS: [&str; 4] =
    ["2026-01-05T09:30:00Z", "2026-01-05T23:30:00Z", "2026-01-06T01:00:00Z", "2026-01-11T12:00:00Z"];
const TOOLS: [&str; 5] = ["get_x", "set_x", "del_x", "get_y", "put"];
const TOOL_GLOBS: [&str; 6] = ["*", "get_*", "?et_x", "{del,set}_x", "put", "none"];
const URIS: [&str; 9] = [
    "repo://acme/a",
    "repo://acme/b/c",
    "repo://other/a",
    "repo://acme/../a",
    "mem:x",
    "REPO://acme/%62/./c",
    "repo://acme/b%2fc",
    "repo://other/x%2F..%2Fa",
    "repo://acme/b%252Fc\u{1}",
];
const URI_GLOBS: [&str; 6] = ["*", "repo://acme/*", "repo://*/a", "mem:?", "repo://acme/b/c", "Repo://acme/%62%2fc"];
/// Templates, and URIs that they expand to.
pub(super) const TEMPLATES: [(&str, &[&str]); 4] = [
    ("repo://{owner}/{name}", &["repo://acme/a", "repo://other/a"]),
    ("repo://acme/{+path}", &["repo://acme/a", "repo://acme/b/c"]),
    ("mem:{id}", &["mem:x"]),
    ("repo://{owner}/b/c", &["repo://acme/b/c"]),
];
/// Conditions whose meaning the oracle spells out, by position.
pub(super) const CONDITIONS: [&str; 9] = [
    "identity.claims.mfa == true",
    "arguments.n <= 10",
    "identity.claims.mfa == true && arguments.env != 'prod'",
    "tool.annotations.readOnly",
    "arguments.env == 'dev' || identity.claims.mfa == true",
    "'eng' in identity.groups",
    "now.getHours() < 12",
    "has(arguments.n) && now.getHours() < 12",
    "!(arguments.env in ['prod', 'test'])",
];

pub(in crate::policy) fn target() -> Target {
    Target { namespace: "a".to_owned(), server: "s1".to_owned() }
}

#[derive(Clone, Copy, Debug)]
pub(in crate::policy) enum OwnedItem {
    Tool(&'static str),
    Prompt(&'static str),
    Resource(&'static str),
    Template(&'static str),
}

#[derive(Clone, Debug)]
pub(in crate::policy) struct Question {
    pub(in crate::policy) identity: Option<Identity>,
    pub(in crate::policy) item: OwnedItem,
    pub(in crate::policy) arguments: Option<String>,
    pub(in crate::policy) now: Timestamp,
}

impl Question {
    pub(in crate::policy) fn item(&self) -> Item<'_> {
        match self.item {
            OwnedItem::Tool(name) => Item::Tool(name),
            OwnedItem::Prompt(name) => Item::Prompt(name),
            OwnedItem::Resource(uri) => Item::Resource(uri),
            OwnedItem::Template(text) => Item::ResourceTemplate(text),
        }
    }

    pub(in crate::policy) fn call(&self) -> Call<'_> {
        Call { item: self.item(), arguments: self.arguments.as_deref() }
    }
}

pub(super) fn identity(issuer: &str, subject: &str, groups: &[&str]) -> Identity {
    Identity {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        scopes: Vec::new(),
        claims: serde_json::Map::new(),
    }
}

fn strings(values: &[&'static str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    let count = values.len().min(2);
    subsequence(values, 0..=count).prop_shuffle()
}

fn name(values: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    select(values.to_vec()).prop_map(str::to_owned)
}

pub(in crate::policy) fn question() -> impl Strategy<Value = Question> {
    let claims = select(vec![
        json!({}),
        json!({"mfa": true}),
        json!({"mfa": false, "dep": "ops"}),
        json!({"mfa": "yes", "dep": ["ops", "x"]}),
    ]);
    let identity = (name(&["i1", "i2"]), name(&["ada", "bob"]), strings(&["eng", "ops"]), strings(&["s:r"]), claims);
    let identity = identity.prop_map(|(issuer, subject, groups, scopes, claims)| {
        let claims = claims.as_object().cloned().unwrap_or_default();
        Identity { issuer, subject, groups, scopes, claims }
    });
    let item = prop_oneof![
        4 => select(TOOLS.to_vec()).prop_map(OwnedItem::Tool),
        1 => select(TOOLS.to_vec()).prop_map(OwnedItem::Prompt),
        2 => select(URIS.to_vec()).prop_map(OwnedItem::Resource),
        1 => select(TEMPLATES.to_vec()).prop_map(|(text, _)| OwnedItem::Template(text)),
    ];
    let arguments = select(vec![
        "{}",
        r#"{"env":"dev"}"#,
        r#"{"env":"prod","n":3}"#,
        r#"{"env":["dev"],"n":"3"}"#,
        r#"{"n":11}"#,
        r#"{"env":"dev","n":1e1,"p":"/data/x"}"#,
        r#"{"p":"/data/../etc"}"#,
        r#"{"p":"/database","env":null}"#,
        "[]",
        "{",
    ]);
    let arguments = option::weighted(0.8, arguments.prop_map(str::to_owned));
    (option::weighted(0.85, identity), item, arguments, select(NOWS.to_vec()))
        .prop_map(|(identity, item, arguments, now)| Question { identity, item, arguments, now: now.parse().unwrap() })
}

fn input(kind: &str, name: &str) -> Input {
    Input { kind: kind.to_owned(), name: name.to_owned(), uid: String::new(), generation: 0 }
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(name(&["tier", "team"]), name(&["gold", "iron"]), 0..2)
}

fn annotations() -> impl Strategy<Value = Annotations> {
    any::<[bool; 4]>().prop_map(|[read_only, destructive, idempotent, open_world]| Annotations {
        read_only,
        destructive,
        idempotent,
        open_world,
    })
}

fn tool() -> impl Strategy<Value = DeclaredTool> {
    let lifecycle = select(vec![Lifecycle::Active, Lifecycle::Active, Lifecycle::Deprecated, Lifecycle::Disabled]);
    let sunset = option::weighted(0.2, select(vec!["2026-01-05T23:30:00Z", "2030-01-01T00:00:00Z"]));
    let parts = (name(&["s1", "s1", "s2"]), name(&TOOLS), option::weighted(0.2, name(&["get_x", "shown"])));
    (parts, annotations(), strings(&["c1", "c2"]), labels(), lifecycle, sunset).prop_map(
        |((server, name, exposed_name), annotations, capabilities, labels, lifecycle, sunset)| {
            let deprecation = sunset
                .map(|sunset| Deprecation { sunset_time: Some(sunset.parse().unwrap()), ..Deprecation::default() });
            let (title, description) = (None, None);
            let tool = Tool {
                name,
                exposed_name,
                title,
                description,
                annotations,
                capabilities,
                labels,
                lifecycle,
                deprecation,
            };
            DeclaredTool { server, tool, input: input("McpTool", "t") }
        },
    )
}

fn argument_rule() -> impl Strategy<Value = ArgumentRule> {
    let scalars = vec![Scalar::String("dev".to_owned()), Scalar::String("test".to_owned()), Scalar::Integer(10)];
    let condition = |path: &str| ArgumentRule { path: path.to_owned(), ..ArgumentRule::default() };
    prop_oneof![
        subsequence(scalars, 1..3).prop_map(move |one_of| ArgumentRule { one_of, ..condition("/env") }),
        Just(ArgumentRule { below: vec!["/data".to_owned(), "/tmp".to_owned()], ..condition("/p") }),
        (option::of(1_i64..4), option::of(4_i64..12)).prop_map(move |(minimum, maximum)| ArgumentRule {
            minimum,
            maximum,
            ..condition("/n")
        }),
    ]
}

fn window() -> impl Strategy<Value = TimeWindow> {
    let ends = select(vec![(9 * 60, 17 * 60), (22 * 60, 6 * 60), (0, 1440), (12 * 60, 12 * 60)]);
    (subsequence((1_u8..=7).collect::<Vec<_>>(), 0..4), ends).prop_map(|(days, (start_minute, end_minute))| {
        TimeWindow { days, start_minute, end_minute, time_zone: "UTC".to_owned() }
    })
}

fn selector() -> impl Strategy<Value = ToolSelector> {
    (option::of(any::<bool>()), option::weighted(0.2, any::<bool>()), strings(&["c1"]), labels()).prop_map(
        |(read_only, destructive, capabilities, match_labels)| ToolSelector {
            read_only,
            destructive,
            idempotent: None,
            open_world: None,
            capabilities,
            match_labels,
        },
    )
}

pub(super) fn rule() -> impl Strategy<Value = ServerRule> {
    let effect = select(vec![Effect::Allow, Effect::Allow, Effect::Allow, Effect::Deny]);
    let names = (strings(&TOOL_GLOBS), option::weighted(0.2, selector()), strings(&TOOL_GLOBS), strings(&URI_GLOBS));
    let conditions = (
        prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(argument_rule(), 1..3)],
        option::weighted(0.2, window()),
        option::weighted(0.3, name(&CONDITIONS)),
    );
    let servers =
        (select(vec![vec!["*"], vec!["s1", "zzz"], vec!["s?"], vec!["s2"], vec![]]), option::weighted(0.2, labels()));
    (effect, names, conditions, servers).prop_map(
        |(effect, (tools, tool_selector, prompts, resources), (arguments, time_window, when), (servers, selector))| {
            let index = 0;
            let rule = Rule { index, effect, tools, tool_selector, prompts, resources, arguments, time_window, when };
            let servers = servers.into_iter().map(str::to_owned).collect();
            ServerRule { servers, server_selector: selector, rule }
        },
    )
}

fn subject() -> impl Strategy<Value = Subject> {
    let issuer = || name(&["i1", "i1", "i2"]);
    prop_oneof![
        (issuer(), name(&["ada", "bob"])).prop_map(|(issuer, name)| Subject::User { issuer, name }),
        (issuer(), name(&["eng", "ops"])).prop_map(|(issuer, name)| Subject::Group { issuer, name }),
        (issuer(), name(&["s:r"])).prop_map(|(issuer, name)| Subject::Scope { issuer, name }),
        issuer().prop_map(|issuer| Subject::Claim {
            issuer,
            claim: "dep".to_owned(),
            values: vec!["ops".to_owned(), "dev".to_owned()],
        }),
    ]
}

fn role() -> impl Strategy<Value = (DeclaredRole, [bool; 4])> {
    let rules = prop::collection::vec(rule(), 0..4);
    (prop::collection::vec(subject(), 1..4), rules, prop::array::uniform4(prop::bool::weighted(0.3))).prop_map(
        |(subjects, mut rules, inherits)| {
            (0_u32..).zip(&mut rules).for_each(|(index, rule)| rule.rule.index = index);
            (DeclaredRole { inherits: Vec::new(), subjects, rules, input: input("McpRole", "r") }, inherits)
        },
    )
}

fn key(namespace: &str, name: String) -> Key {
    (namespace.to_owned(), name)
}

/// Roles `r0` to `r4` inherit only such of smaller numbers, so there is no cycle.
fn roles() -> impl Strategy<Value = BTreeMap<Key, DeclaredRole>> {
    prop::collection::vec(role(), 1..5).prop_map(|roles| {
        let numbered = roles.into_iter().enumerate().map(|(number, (mut role, flags))| {
            let parents = flags.iter().enumerate().filter(|(parent, flag)| **flag && *parent < number);
            role.inherits = parents.map(|(parent, _)| format!("r{parent}")).collect();
            role.input = input("McpRole", &format!("r{number}"));
            (key("a", format!("r{number}")), role)
        });
        numbered.collect()
    })
}

pub(in crate::policy) fn world() -> impl Strategy<Value = World> {
    let registration = select(vec![Registration::Declared, Registration::Declared, Registration::Auto]);
    let server = (registration, labels()).prop_map(|(registration, labels)| Server {
        gateway: "gw".to_owned(),
        registration,
        server_requests: ServerRequests::default(),
        deny_after_seconds: None,
        on_loss: crate::policy::snapshot::OnLoss::default(),
        labels,
        input: input("McpServer", "s1"),
    });
    let issuer = |name: &str| Issuer {
        name: name.to_owned(),
        url: format!("https://{name}.example.com"),
        subject_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        service_accounts: false,
        keys: Keys::Discovery,
    };
    let gateway = option::of(name(&["r0", "r1", "gone"])).prop_map(move |anonymous| Gateway {
        url: None,
        issuers: vec![issuer("i1"), issuer("i2")],
        anonymous,
        input: input("McpGateway", "gw"),
    });
    let tools = prop::collection::vec(tool(), 3..8);
    (server, tools, roles(), gateway, role()).prop_map(|(server, tools, mut roles, gateway, (elsewhere, _))| {
        // A role of the same name in another namespace must not count.
        roles.insert(key("b", "r0".to_owned()), elsewhere);
        let tools = tools.into_iter().enumerate().map(|(number, tool)| (key("a", format!("t{number}")), tool));
        World {
            servers: BTreeMap::from([(key("a", "s1".to_owned()), server)]),
            tools: tools.collect(),
            roles,
            gateways: BTreeMap::from([(key("a", "gw".to_owned()), gateway)]),
        }
    })
}

/// One declared tool, one role with an argument condition.
pub(super) fn one_argument_rule() -> Policy {
    let snapshot: Value = json!({
        "format": 1, "target": {"namespace": "a", "server": "s1"}, "urls": [], "registration": "Declared",
        "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
        "tools": [{
            "name": "get_x", "lifecycle": "Active",
            "annotations": {"readOnly": false, "destructive": true, "idempotent": false, "openWorld": true},
        }],
        "roles": [{
            "name": "r0", "subjects": [{"kind": "Group", "issuer": "i1", "name": "eng"}],
            "rules": [{"index": 0, "effect": "Allow", "tools": ["get_*"], "arguments": [{"path": "/environment", "in": ["dev"]}]}],
        }],
        "issuers": [], "inputs": [],
    });
    Policy::load(serde_json::from_value::<Snapshot>(snapshot).unwrap()).unwrap()
}
