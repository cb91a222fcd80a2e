//! What only a cluster has, and what a laptop makes of it.

use super::*;
use crate::policy::snapshot::{DISCONNECTED_DENY, Target};
use crate::policy::{Identity, Policy, compile};

const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b","kid":"1"}]}"#;

fn cluster(objects: Objects) -> Objects {
    let cluster = ClusterIssuer { url: "https://cluster".to_owned(), jwks: KEYS.to_owned() };
    Objects { cluster: Some(cluster), ..objects }
}

fn config_map(objects: &mut Objects, name: &str, key: &str, text: &str) {
    let data = BTreeMap::from([(key.to_owned(), text.to_owned())]);
    objects.config_maps.insert(("default".to_owned(), name.to_owned()), data);
}

fn only_issuer(world: &World) -> &super::super::super::snapshot::Issuer {
    let gateway = world.gateways.values().next().unwrap();
    assert_eq!(gateway.issuers.len(), 1);
    &gateway.issuers[0]
}

fn of(kind: &str, spec: &Value) -> Objects {
    let mut objects = Objects::default();
    add(&mut objects, kind, "default", spec);
    objects
}

fn accounts() -> Value {
    json!({"issuers": [{"name": "kubernetes", "serviceAccounts": {}}]})
}

#[test]
fn the_cluster_signs_for_its_service_accounts() {
    let (world, findings) = parse(&cluster(of("McpGateway", &accounts())));

    assert_eq!(told(&findings), Vec::<String>::new());
    let issuer = only_issuer(&world);
    assert_eq!((issuer.name.as_str(), issuer.url.as_str()), ("kubernetes", "https://cluster"));
    assert_eq!((issuer.subject_claim.as_str(), &issuer.keys), ("sub", &Keys::Inline(KEYS.to_owned())));
}

#[test]
fn on_a_laptop_nobody_signs_for_service_accounts() {
    let (world, findings) = parse(&of("McpGateway", &accounts()));

    assert_eq!(told(&findings), ["McpGateway/default /spec/issuers/0/serviceAccounts NoCluster"]);
    assert_eq!(only_issuer(&world).keys, Keys::Inline(r#"{"keys":[]}"#.to_owned()));
}

#[test]
fn an_oidc_issuer_cannot_be_the_cluster_beside_its_service_accounts() {
    let issuers =
        json!([{"name": "kubernetes", "serviceAccounts": {}}, {"name": "b", "oidc": {"url": "https://cluster"}}]);
    let (world, findings) = parse(&cluster(of("McpGateway", &json!({"issuers": issuers}))));

    assert_eq!(told(&findings), ["!McpGateway/default /spec/issuers/1 Conflicted"]);
    only_issuer(&world);
}

#[test]
fn an_issuer_that_is_nothing_is_refused() {
    let (world, findings) = parse(&cluster(of("McpGateway", &json!({"issuers": [{"name": "a"}]}))));

    assert_eq!(told(&findings), ["!McpGateway/default /spec/issuers/0 InvalidKeys"]);
    assert_eq!(world.gateways.values().next().unwrap().issuers, []);
}

#[test]
fn a_service_account_is_the_user_that_kubernetes_names() {
    let account = json!({"kind": "ServiceAccount", "namespace": "ci", "name": "build-bot"});
    let user = |issuer: &str| Subject::User {
        issuer: issuer.to_owned(),
        name: "system:serviceaccount:ci:build-bot".to_owned(),
    };
    let subjects = |gateway: &Value, subject: &Value| {
        let mut objects = cluster(of("McpGateway", gateway));
        add(&mut objects, "McpRole", "r", &json!({"subjects": [subject]}));
        let (world, findings) = parse(&objects);
        (role(&world, "r").subjects.clone(), told(&findings))
    };
    let both =
        json!({"issuers": [{"name": "corp", "oidc": {"url": "https://corp"}}, {"name": "k", "serviceAccounts": {}}]});
    assert_eq!(subjects(&accounts(), &account), (vec![user("kubernetes")], Vec::new()));
    assert_eq!(subjects(&both, &account), (vec![user("k")], Vec::new()), "no choice among several issuers");

    let mut named = account.clone();
    named["issuer"] = "corp".into();
    let (none, findings) = subjects(&both, &named);
    assert_eq!((none, findings), (Vec::new(), vec!["!McpRole/r /spec/subjects/0/issuer IssuerNotFound".to_owned()]));
    let (none, findings) = subjects(&gateway(&[("corp", "https://corp")]), &account);
    assert_eq!((none, findings), (Vec::new(), vec!["!McpRole/r /spec/subjects/0 IssuerNotFound".to_owned()]));
    for broken in [
        json!({"kind": "ServiceAccount", "name": "a"}),
        json!({"kind": "ServiceAccount", "namespace": "a:b", "name": "a"}),
    ] {
        let (none, findings) = subjects(&accounts(), &broken);
        assert_eq!((none, findings), (Vec::new(), vec!["!McpRole/r /spec/subjects/0 InvalidSubject".to_owned()]));
    }
}

#[test]
fn keys_come_from_a_config_map_and_go_with_it() {
    let spec = json!({"issuers": [{"name": "a", "oidc": {"url": "https://a", "jwks": {"configMapRef": {"name": "keys", "key": "jwks"}}}}]});
    let at = "McpGateway/default /spec/issuers/0/oidc/jwks/configMapRef";
    let mut objects = cluster(of("McpGateway", &spec));
    let none = Keys::Inline(r#"{"keys":[]}"#.to_owned());

    let (world, findings) = parse(&objects);
    assert_eq!((told(&findings), &only_issuer(&world).keys), (vec![format!("!{at} ConfigMapNotFound")], &none));

    config_map(&mut objects, "keys", "jwks", KEYS);
    let (world, findings) = parse(&objects);
    assert_eq!((told(&findings), &only_issuer(&world).keys), (Vec::new(), &Keys::Inline(KEYS.to_owned())));

    config_map(&mut objects, "keys", "other", KEYS);
    let (world, findings) = parse(&objects);
    assert_eq!((told(&findings), &only_issuer(&world).keys), (vec![format!("!{at} ConfigMapNotFound")], &none));

    config_map(&mut objects, "keys", "jwks", r#"{"keys":[{"kty":"oct","k":"secret"}]}"#);
    let (world, findings) = parse(&objects);
    assert_eq!((told(&findings), &only_issuer(&world).keys), (vec![format!("!{at} InvalidKeys")], &none));

    let (world, findings) = parse(&of("McpGateway", &spec));
    assert_eq!((told(&findings), &only_issuer(&world).keys), (vec![format!("{at} NoCluster")], &none));
}

#[test]
fn a_server_tells_what_its_pods_miss() {
    let bundle = json!({"configMapRef": {"name": "ca", "key": "ca.crt"}});
    let spec = json!({"source": {"remote": {"url": "https://a", "caBundle": bundle}}, "podTemplate": {"spec": {"hostPID": true}}});
    let template = "!McpServer/default /spec/podTemplate/spec/hostPID InvalidPodTemplate".to_owned();
    let (world, findings) = parse(&cluster(of("McpServer", &spec)));
    assert_eq!((told(&findings), world.servers.len()), (vec![template.clone()], 1), "that is not broken policy");

    let bundle = "McpServer/default /spec/source/remote/caBundle NoCluster".to_owned();
    assert_eq!(told(&parse(&of("McpServer", &spec)).1), [template, bundle]);
}

#[test]
fn a_gateway_that_may_deny_when_disconnected_must_understand_it() {
    let snapshot = |policy: Option<Value>| {
        let mut spec = json!({"source": {"remote": {"url": "https://a"}}});
        if let Some(policy) = policy {
            spec["disconnectedPolicy"] = policy;
        }
        let (world, _) = parse(&of("McpServer", &spec));
        let target = Target { namespace: "default".to_owned(), server: "default".to_owned() };
        compile(&world, &target, &[]).unwrap()
    };
    let (unset, keep) = (snapshot(None), snapshot(Some(json!({"mode": "KeepLastKnownGood"}))));
    let deny = snapshot(Some(json!({"mode": "DenyAfter", "seconds": 300})));

    assert_eq!((unset.deny_after_seconds, unset.hash()), (None, keep.hash()));
    assert_eq!((deny.deny_after_seconds, deny.requires()), (Some(300), vec![DISCONNECTED_DENY]));
    assert_eq!(unset.requires(), Vec::<&str>::new());
    assert!(!String::from_utf8(unset.canonical()).unwrap().contains("denyAfter"), "an older gateway reads it");
    assert_ne!(deny.access_hash(), unset.access_hash());
}

#[test]
fn on_a_laptop_an_identity_stands_in_for_a_service_account() {
    let mut objects = base();
    objects.gateways.clear();
    add(&mut objects, "McpGateway", "default", &accounts());
    let subject = json!({"kind": "ServiceAccount", "namespace": "ci", "name": "build-bot"});
    add(&mut objects, "McpRole", "builder", &json!({"subjects": [subject], "rules": [rule("Allow", &json!({}))]}));
    let (world, _) = parse(&objects);
    let target = Target { namespace: "default".to_owned(), server: "files".to_owned() };
    let policy = Policy::load(compile(&world, &target, &[]).unwrap()).unwrap();
    let roles = |subject: &str| {
        let identity = Identity {
            issuer: "kubernetes".to_owned(),
            subject: subject.to_owned(),
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
        };
        policy.subject(Some(&identity)).roles.len()
    };

    assert_eq!(roles("system:serviceaccount:ci:build-bot"), 1);
    assert_eq!(roles("system:serviceaccount:cd:build-bot"), 0);
}

#[test]
fn what_becomes_of_a_lost_session_is_in_the_snapshot_only_where_it_is_not_replayed() {
    let snapshot = |on_loss: Option<&str>| {
        let mut spec = json!({"source": {"remote": {"url": "https://a"}}});
        if let Some(on_loss) = on_loss {
            spec["onLoss"] = json!(on_loss);
        }
        let (world, _) = parse(&of("McpServer", &spec));
        let target = Target { namespace: "default".to_owned(), server: "default".to_owned() };
        compile(&world, &target, &[]).unwrap()
    };
    let (unset, replay, ends) = (snapshot(None), snapshot(Some("Replay")), snapshot(Some("NotFound")));

    assert_eq!(unset.canonical(), replay.canonical());
    assert!(!String::from_utf8(unset.canonical()).unwrap().contains("onLoss"));
    assert!(String::from_utf8(ends.canonical()).unwrap().contains(r#""onLoss":"NotFound""#));
    assert_eq!(ends.access_hash(), unset.access_hash(), "it decides nothing about access");
}
