use serde_json::json;

use super::*;
use crate::policy::snapshot::{Issuer, Keys, Registration, ServerRequests};
use crate::policy::tests::fixture::snapshot;
use crate::policy::world::{DeclaredTool, Server};

fn target() -> Target {
    Target { namespace: "default".to_owned(), server: "ops".to_owned() }
}

fn named(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

fn input(kind: &str, name: &str) -> Input {
    Input { kind: kind.to_owned(), name: name.to_owned(), uid: String::new(), generation: 0 }
}

fn world() -> World {
    let server = Server {
        gateway: "gw".to_owned(),
        registration: Registration::Declared,
        server_requests: ServerRequests::default(),
        deny_after_seconds: None,
        on_loss: crate::policy::snapshot::OnLoss::default(),
        labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
        input: input("McpServer", "ops"),
    };
    World { servers: BTreeMap::from([(named("ops"), server)]), ..World::default() }
}

fn rule(servers: &[&str], selector: Option<&[(&str, &str)]>) -> ServerRule {
    let rule = serde_json::from_value(json!({"index": 0, "effect": "Allow", "tools": ["*"]})).unwrap();
    let selector = selector.map(|pairs| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    ServerRule { servers: servers.iter().map(|s| (*s).to_owned()).collect(), server_selector: selector, rule }
}

fn role(inherits: &[&str], rules: Vec<ServerRule>) -> DeclaredRole {
    let inherits = inherits.iter().map(|name| (*name).to_owned()).collect();
    DeclaredRole { inherits, subjects: Vec::new(), rules, input: input("McpRole", "r") }
}

fn tool(name: &str, exposed: Option<&str>) -> DeclaredTool {
    let mut tool = snapshot(json!([name]), json!([])).tools.remove(0);
    tool.exposed_name = exposed.map(str::to_owned);
    DeclaredTool { server: "ops".to_owned(), tool, input: input("McpTool", name) }
}

fn roles_of(world: &World) -> Vec<String> {
    compile(world, &target(), &[]).unwrap().roles.into_iter().map(|role| role.name).collect()
}

#[test]
fn a_rule_concerns_servers_by_glob_or_by_label() {
    for (servers, selector, concerned) in [
        (&["ops"][..], None, true),
        (&["o*", "x"], None, true),
        (&["other"], None, false),
        (&[], Some(&[("tier", "gold")][..]), true),
        (&[], Some(&[("tier", "iron")]), false),
        (&["other"], Some(&[("tier", "gold")]), true),
        (&[], Some(&[]), true),
        (&[], None, false),
        (&["[bad"], None, false),
    ] {
        let mut world = world();
        world.roles.insert(named("r"), role(&[], vec![rule(servers, selector)]));
        assert_eq!(roles_of(&world) == ["r"], concerned, "{servers:?} {selector:?}");
    }
}

#[test]
fn heirs_are_kept_and_strangers_are_not() {
    let mut world = world();
    world.roles.insert(named("base"), role(&[], vec![rule(&["ops"], None)]));
    world.roles.insert(named("heir"), role(&["base", "stranger"], vec![]));
    world.roles.insert(named("grandchild"), role(&["heir"], vec![]));
    world.roles.insert(named("stranger"), role(&[], vec![rule(&["other"], None)]));
    world.roles.insert(("elsewhere".to_owned(), "far".to_owned()), role(&[], vec![rule(&["ops"], None)]));
    let snapshot = compile(&world, &target(), &[]).unwrap();
    let names: Vec<_> = snapshot.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["base", "grandchild", "heir"]);
    assert_eq!(snapshot.roles[2].inherits, ["base"], "an inherited role without a rule for the target is left out");
}

#[test]
fn the_first_by_object_name_keeps_a_contested_name() {
    let mut world = world();
    world.tools.insert(named("a"), tool("x", Some("y")));
    world.tools.insert(named("b"), tool("x", None));
    world.tools.insert(named("c"), tool("y", None));
    world.tools.insert(named("d"), tool("z", Some("z")));
    let snapshot = compile(&world, &target(), &[]).unwrap();
    let tools: Vec<_> = snapshot.tools.iter().map(|tool| (tool.name.as_str(), tool.exposed_name.as_deref())).collect();
    assert_eq!(tools, [("x", Some("y")), ("z", None)]);
    assert!(super::super::Policy::load(snapshot).is_ok());
}

#[test]
fn without_its_gateway_a_server_trusts_nobody() {
    let mut world = world();
    assert!(compile(&world, &target(), &[]).unwrap().issuers.is_empty());
    let issuer = |name: &str| Issuer {
        name: name.to_owned(),
        url: format!("https://{name}"),
        subject_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        service_accounts: false,
        keys: Keys::Discovery,
    };
    let gateway = |anonymous: &str| Gateway {
        url: Some("https://front.example.com/mcp".to_owned()),
        issuers: vec![issuer("b"), issuer("a")],
        anonymous: Some(anonymous.to_owned()),
        input: input("McpGateway", "gw"),
    };
    world.gateways.insert(named("gw"), gateway("public"));
    world.gateways.insert(("elsewhere".to_owned(), "gw".to_owned()), gateway("other"));
    let urls = ["http://b/".to_owned(), "http://a/".to_owned(), "http://b/".to_owned()];
    let snapshot = compile(&world, &target(), &urls).unwrap();
    let names: Vec<_> = snapshot.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(snapshot.urls, ["http://b/", "http://a/"], "the gateway's own URL is another endpoint's");
    assert_eq!(snapshot.anonymous, None, "a role that does not exist lets nobody in");
    world.roles.insert(named("public"), role(&[], vec![]));
    assert_eq!(compile(&world, &target(), &[]).unwrap().anonymous.as_deref(), Some("public"));
}

#[test]
fn access_hash_is_deaf_to_what_decides_nothing() {
    let mut world = world();
    world.roles.insert(named("r"), role(&[], vec![rule(&["ops"], None)]));
    let hash = |world: &World, url: &str| compile(world, &target(), &[url.to_owned()]).unwrap().access_hash();
    let before = hash(&world, "http://a/");
    let mut moved = world.clone();
    moved.roles.get_mut(&named("r")).unwrap().input.generation = 7;
    assert_eq!(hash(&moved, "http://b/"), before);
    world.roles.get_mut(&named("r")).unwrap().rules[0].rule.tools = vec!["x".to_owned()];
    assert_ne!(hash(&world, "http://a/"), before);
}
