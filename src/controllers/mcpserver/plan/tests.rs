use serde_json::{Value, json};

use super::*;
use crate::controllers::settings::PolicyServer;
use crate::wire::Signer;

fn settings() -> Settings {
    Settings {
        gateway_image: "gateway:1".to_owned(),
        policy_server: PolicyServer {
            url: "https://policy.toolgate.svc:9443".to_owned(),
            namespace: "toolgate".to_owned(),
            port: 9443,
        },
        ca: "CA".to_owned(),
        verify_key: Signer::from_seed(&[1; 32]).unwrap().verify_key().unwrap(),
        default_egress: None,
    }
}

#[allow(clippy::needless_pass_by_value)] // Reads well where it is called.
fn server(spec: Value) -> McpServer {
    serde_json::from_value(json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": "McpServer",
        "metadata": {"namespace": "agents", "name": "files", "uid": "u1"},
        "spec": spec,
    }))
    .unwrap()
}

fn stdio(more: &Value) -> McpServer {
    let mut spec = json!({"source": {"container": {
        "image": "files:1", "transport": "Stdio", "command": ["/server"], "args": ["stdio"],
        "env": [{"name": "A", "value": "1"}], "sessions": "Shared",
        "resources": {"limits": {"memory": "256Mi"}},
    }}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server(spec)
}

fn http(more: &Value) -> McpServer {
    let mut spec = json!({"source": {"container": {"image": "web:1", "transport": "StreamableHttp", "port": 8000}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server(spec)
}

fn pod(server: &McpServer) -> Value {
    let deployment = plan(server, &Facts::default(), &settings()).deployment.unwrap();
    serde_json::to_value(deployment.spec.unwrap().template).unwrap()["spec"].clone()
}

fn barrier(server: &McpServer, facts: &Facts<'_>, settings: &Settings) -> Value {
    serde_json::to_value(plan(server, facts, settings).network_policy.spec.unwrap()).unwrap()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {list}"))
}

fn args(container: &Value) -> String {
    let args: Vec<&str> = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    args.join(" ")
}

#[test]
fn a_stdio_server_runs_below_the_shim_with_the_gateway_as_a_native_sidecar() {
    let pod = pod(&stdio(&json!({})));

    let init: Vec<&Value> = pod["initContainers"].as_array().unwrap().iter().collect();
    assert_eq!(
        init.iter().map(|container| &container["name"]).collect::<Vec<_>>(),
        ["toolgate-shim", "toolgate-gateway"]
    );
    assert_eq!(init[0]["command"], json!(["/toolgate-shim", "install", "/toolgate/shim"]));
    assert_eq!(init[1]["restartPolicy"], "Always");
    assert_eq!(init[1]["command"], json!(["/toolgate-gateway", "sidecar"]));
    assert_eq!(
        args(init[1]),
        "--namespace agents --server files --policy-server https://policy.toolgate.svc:9443 \
         --boot /etc/toolgate/boot/snapshot --state /var/lib/toolgate --token /var/run/toolgate/token/token \
         --stdio-socket /run/toolgate/stdio.sock --sessions Shared"
    );
    let main = named(&pod["containers"], "server");
    assert_eq!(main["image"], "files:1");
    assert_eq!(
        main["command"],
        json!(["/toolgate/shim", "serve", "--socket", "/run/toolgate/stdio.sock", "--", "/server"])
    );
    assert_eq!(main["args"], json!(["stdio"]));
    assert_eq!(main["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!(main["resources"]["limits"]["memory"], "256Mi");
}

#[test]
fn an_http_server_is_reached_on_localhost_and_started_as_its_image_says() {
    let pod = pod(&http(&json!({})));

    let main = named(&pod["containers"], "server");
    assert!(main.get("command").is_none() && main.get("volumeMounts").is_none());
    let gateway = named(&pod["initContainers"], "toolgate-gateway");
    assert!(args(gateway).ends_with("--upstream http://127.0.0.1:8000/mcp"), "{}", args(gateway));
    assert_eq!(pod["initContainers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_service_or_a_remote_has_the_gateway_in_front_as_the_only_container() {
    let of_service = pod(&server(json!({"source": {"service": {"name": "web", "port": 80, "path": "/x"}}})));
    let of_remote = pod(&server(json!({"source": {"remote": {
        "url": "https://mcp.example.com/mcp", "caBundle": {"configMapRef": {"name": "corp", "key": "ca.pem"}},
    }}})));

    for pod in [&of_service, &of_remote] {
        assert!(pod.get("initContainers").is_none());
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        assert!(pod["containers"][0].get("restartPolicy").is_none());
    }
    assert!(args(&of_service["containers"][0]).ends_with("--upstream http://web.agents.svc:80/x"));
    let gateway = &of_remote["containers"][0];
    assert!(args(gateway).ends_with(
        "--upstream https://mcp.example.com/mcp --upstream-is-remote --upstream-ca /etc/toolgate/upstream-ca/ca.crt"
    ));
    assert_eq!(
        named(&of_remote["volumes"], "toolgate-upstream-ca")["configMap"],
        json!({"name": "corp", "items": [{"key": "ca.pem", "path": "ca.crt"}]})
    );
}

#[test]
fn every_container_is_restricted_and_only_the_gateway_has_a_token() {
    for server in [stdio(&json!({})), http(&json!({})), server(json!({"source": {"remote": {"url": "https://a"}}}))] {
        let pod = pod(&server);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let containers = ["initContainers", "containers"].map(|list| pod[list].as_array().cloned().unwrap_or_default());
        for container in containers.into_iter().flatten() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{}", container["name"]);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["runAsNonRoot"], true);
            let mounts = container["volumeMounts"].to_string();
            let is_gateway = container["name"] == "toolgate-gateway";
            for private in ["toolgate-token", "toolgate-state", "toolgate-boot"] {
                assert_eq!(mounts.contains(private), is_gateway, "{} {private}", container["name"]);
            }
        }
        let token = &named(&pod["volumes"], "toolgate-token")["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(*token, json!({"audience": "toolgate-policy", "expirationSeconds": 600, "path": "token"}));
    }
}

#[test]
fn the_server_waits_while_its_gateway_drains() {
    let pod = pod(&http(&json!({})));

    let wait = named(&pod["containers"], "server")["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().unwrap();
    let gateway = named(&pod["initContainers"], "toolgate-gateway");
    let drain = &gateway["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(*drain, json!(["/toolgate-gateway", "drain", "--state", "/var/lib/toolgate"]));
    // A drain takes up to 20 s (`gateway::limits::DRAIN_BOUND`), and the server needs time to end.
    assert!(wait > 20 && pod["terminationGracePeriodSeconds"].as_i64().unwrap() >= wait + 15);
    for (probe, path) in [("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        assert_eq!(gateway[probe]["httpGet"]["path"], path);
    }
}

#[test]
fn the_sandbox_says_where_the_server_writes_and_what_runs_it() {
    let pod = pod(&stdio(&json!({"sandbox": {"filesystem": "Scratch", "runtimeClassName": "gvisor"}})));

    assert_eq!(pod["runtimeClassName"], "gvisor");
    let mounts = &named(&pod["containers"], "server")["volumeMounts"];
    assert_eq!(named(mounts, "toolgate-scratch")["mountPath"], "/tmp");
    assert!(!super::tests::pod(&stdio(&json!({})))["volumes"].to_string().contains("toolgate-scratch"));
}

#[test]
fn only_the_gateways_port_is_admitted() {
    for server in [stdio(&json!({})), http(&json!({"sandbox": {"isolation": "NetworkPolicy", "egress": []}}))] {
        let barrier = barrier(&server, &Facts::default(), &settings());
        assert_eq!(barrier["ingress"], json!([{"ports": [{"port": 8443, "protocol": "TCP"}]}]));
        assert_eq!(barrier["podSelector"]["matchLabels"], json!({"toolgate.dev/server": "files"}));
        assert_eq!(barrier["policyTypes"][0], "Ingress");
    }
}

#[test]
fn egress_is_limited_to_what_is_asked_for_and_what_the_gateway_needs() {
    let asked = http(&json!({"sandbox": {"egress": [{"cidr": "140.82.112.0/20", "port": 443}]}}));
    let nothing = http(&json!({"sandbox": {"egress": []}}));
    let silent = http(&json!({}));
    let strict = Settings { default_egress: Some(Vec::new()), ..settings() };

    let rules = barrier(&asked, &Facts::default(), &settings())["egress"].clone();
    let list = rules.as_array().unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(
        list[1]["to"][0]["namespaceSelector"]["matchLabels"],
        json!({"kubernetes.io/metadata.name": "toolgate"})
    );
    assert_eq!(list[1]["ports"], json!([{"port": 9443, "protocol": "TCP"}]));
    assert_eq!(
        list[2],
        json!({"to": [{"ipBlock": {"cidr": "140.82.112.0/20"}}], "ports": [{"port": 443, "protocol": "TCP"}]})
    );
    assert_eq!(barrier(&nothing, &Facts::default(), &settings())["egress"].as_array().unwrap().len(), 2);
    assert!(barrier(&silent, &Facts::default(), &settings()).get("egress").is_none());
    assert_eq!(barrier(&silent, &Facts::default(), &strict)["egress"].as_array().unwrap().len(), 2);
}

#[test]
fn a_gateway_that_fetches_keys_or_dials_elsewhere_may_do_so() {
    let gateway = serde_json::from_value(json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": "McpGateway", "metadata": {"name": "default"},
        "spec": {"issuers": [{"name": "a", "oidc": {"url": "https://login.example.com:8443"}}, {"name": "k", "serviceAccounts": {}}]},
    }))
    .unwrap();
    let upstream = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }))
    .unwrap();
    let around = Surroundings { gateway: Some(&gateway), upstream: Some(&upstream) };
    let facts = Facts { around, ..Facts::default() };
    let egress = |source: Value| {
        let server = server(json!({"source": source, "sandbox": {"egress": []}}));
        barrier(&server, &facts, &settings())["egress"].as_array().unwrap()[2..].to_vec()
    };

    assert_eq!(
        egress(json!({"service": {"name": "web", "port": 80}})),
        [
            json!({"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http", "protocol": "TCP"}]}),
            json!({"ports": [{"port": 8443, "protocol": "TCP"}]}),
        ]
    );
    assert_eq!(
        egress(json!({"remote": {"url": "https://a.example/mcp"}}))[0],
        json!({"ports": [{"port": 443, "protocol": "TCP"}]})
    );
}

#[test]
fn replicas_are_left_to_whoever_scales_unless_they_are_set() {
    let unset = plan(&stdio(&json!({})), &Facts::default(), &settings());
    let set = plan(&stdio(&json!({"replicas": 2})), &Facts::default(), &settings());

    assert_eq!(unset.deployment.unwrap().spec.unwrap().replicas, None);
    assert!(unset.disruption_budget.is_none());
    let spec = set.deployment.unwrap().spec.unwrap();
    assert_eq!(spec.replicas, Some(2));
    assert_eq!(spec.strategy.unwrap().rolling_update.unwrap().max_unavailable, Some(IntOrString::Int(0)));
    assert_eq!(set.disruption_budget.unwrap().spec.unwrap().max_unavailable, Some(IntOrString::Int(1)));
}

#[test]
fn everything_is_labelled_and_owned_so_that_it_goes_with_its_server() {
    let facts = Facts { boot: Some(b"snapshot"), offer: Some(&Offer::default()), ..Facts::default() };
    let Plan {
        service_account,
        ca,
        boot,
        catalogue,
        network_policy,
        service,
        disruption_budget,
        deployment,
        is_update_waiting,
        findings,
    } = plan(&stdio(&json!({"replicas": 2})), &facts, &settings());

    assert!(findings.is_empty() && !is_update_waiting);
    for meta in [
        service_account.metadata,
        boot.clone().unwrap().metadata,
        catalogue.unwrap().metadata,
        network_policy.metadata,
        service.metadata,
        disruption_budget.unwrap().metadata,
        deployment.unwrap().metadata,
    ] {
        let name = meta.name.unwrap();
        assert_eq!(meta.labels.unwrap(), labels::of_server("files"), "{name}");
        let owner = &meta.owner_references.unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
            ("McpServer", "u1", Some(true)),
            "{name}"
        );
        assert_eq!(owner.block_owner_deletion, None, "no right on finalizers is needed");
    }
    assert_eq!(boot.unwrap().binary_data.unwrap()["snapshot"].0, b"snapshot");
    assert_eq!((ca.metadata.name.as_deref(), ca.metadata.owner_references), (Some("toolgate-ca"), None));
    assert_eq!(ca.data.unwrap()["ca.crt"], "CA");
}

#[test]
fn a_server_on_a_port_of_the_gateway_is_told_and_not_run() {
    for port in [8443, 9901] {
        let server =
            server(json!({"source": {"container": {"image": "i", "transport": "StreamableHttp", "port": port}}}));
        let plan = plan(&server, &Facts::default(), &settings());
        assert!(plan.deployment.is_none());
        assert_eq!(plan.findings.iter().map(|finding| finding.reason).collect::<Vec<_>>(), ["PortTaken"]);
    }
}

/// What an operator of another version plans while this Deployment runs.
fn upgraded(server: &McpServer, running: &Deployment) -> Plan {
    let newer = Settings { gateway_image: "gateway:2".to_owned(), ..settings() };
    plan(server, &Facts { running: Some(running), ..Facts::default() }, &newer)
}

#[test]
fn on_rollout_another_gateway_waits_until_the_server_itself_changes() {
    let server = stdio(&json!({}));
    let first = plan(&server, &Facts::default(), &settings()).deployment.unwrap();

    let kept = upgraded(&server, &first);
    assert_eq!(kept.deployment.as_ref(), Some(&first), "not a byte changes, so that nothing rolls");
    assert!(kept.is_update_waiting);
    let scaled = upgraded(&stdio(&json!({"replicas": 3})), &first).deployment.unwrap();
    assert_eq!(scaled.spec.unwrap().template, first.spec.clone().unwrap().template, "to scale is no rollout");

    let changed = stdio(&json!({"podTemplate": {"metadata": {"annotations": {"a": "b"}}}}));
    let rolled = upgraded(&changed, &first);
    let text = serde_json::to_string(&rolled.deployment).unwrap();
    assert!(text.contains("gateway:2") && !text.contains("gateway:1") && !rolled.is_update_waiting);
}

#[test]
fn rolling_does_not_wait_and_neither_does_a_gateway_that_could_not_be_told_anything() {
    let rolling = stdio(&json!({"gatewayUpdate": "Rolling"}));
    let waiting = stdio(&json!({}));
    let first = plan(&waiting, &Facts::default(), &settings()).deployment.unwrap();
    let facts = Facts { running: Some(&first), ..Facts::default() };
    let other_ca = Settings { ca: "ANOTHER".to_owned(), ..settings() };

    let images = |plan: Plan| {
        assert!(!plan.is_update_waiting);
        serde_json::to_string(&plan.deployment).unwrap().matches("gateway:2").count()
    };
    assert!(images(upgraded(&rolling, &first)) > 0);
    let trusting = plan(&waiting, &facts, &other_ca).deployment.unwrap();
    assert_ne!(trusting.spec.unwrap().template, first.spec.unwrap().template);
}

/// An operator that computed it otherwise would roll every pod of the cluster when it is installed. Members may be added
/// to what is declared as long as they are left out where they are not set.
#[test]
fn the_digest_of_a_declaration_is_the_same_in_every_version() {
    assert_eq!(revision::declared(&stdio(&json!({})), &settings()), "4a7b247206d025915e4c68a25cc53c4f");
    assert_eq!(revision::declared(&http(&json!({})), &settings()), "7b8b55a13d85559a9388c4c84f357874");
    let remote = server(json!({"source": {"remote": {"url": "https://mcp.example.com/mcp"}}, "replicas": 2}));
    assert_eq!(revision::declared(&remote, &settings()), "bdf38761cb8d568dedd53856c610f93f");
}

/// A rollback meets what a newer operator wrote.
#[test]
fn a_revision_with_members_of_a_newer_version_is_read() {
    let mut running = plan(&stdio(&json!({})), &Facts::default(), &settings()).deployment.unwrap();
    let annotations = running.metadata.annotations.as_mut().unwrap();
    let mut written: Value = serde_json::from_str(&annotations[revision::ANNOTATION]).unwrap();
    written["since"] = json!("2");
    written["template"]["spec"]["schedulingGatesOfTomorrow"] = json!([]);
    annotations.insert(revision::ANNOTATION.to_owned(), written.to_string());

    assert!(upgraded(&stdio(&json!({})), &running).is_update_waiting);
}
