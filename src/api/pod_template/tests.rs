//! Each way to take the gateway out of a pod, or to get at what is its own.

use serde_json::json;

use super::*;

fn told(template: &Value) -> Vec<String> {
    let template = serde_json::from_value(template.clone()).unwrap();
    faults(&template).into_iter().map(|fault| fault.pointer).collect()
}

fn spec(spec: &Value) -> Vec<String> {
    told(&json!({"spec": spec}))
}

#[test]
fn what_users_need_can_be_patched() {
    let template = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"example.com/scrape": "true"}},
        "spec": {
            "serviceAccountName": "reader",
            "imagePullSecrets": [{"name": "registry"}],
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "terminationGracePeriodSeconds": 60,
            "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "api", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "api"}}]}},
            ],
            "containers": [
                {
                    "name": "server",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "securityContext": {"readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_BIND_SERVICE"]}},
                },
                {"name": "helper", "image": "x", "ports": [{"containerPort": 9000}], "resources": {"limits": {"cpu": "1"}}},
            ],
            "initContainers": [{"name": "prepare", "image": "x"}],
        },
    });
    assert_eq!(told(&template), Vec::<String>::new());
    assert_eq!(told(&json!({})), Vec::<String>::new());
}

#[test]
fn nothing_removes_a_field() {
    assert_eq!(spec(&json!({"containers": [{"name": "server", "image": null}]})), ["/spec/containers/0/image"]);
    assert_eq!(
        spec(&json!({"initContainers": [{"name": "toolgate-gateway", "$patch": "delete"}]})),
        ["/spec/initContainers/0/$patch"]
    );
    assert_eq!(spec(&json!({"$retainKeys": ["volumes"]})), ["/spec/$retainKeys"]);
}

#[test]
fn the_gateway_and_what_is_its_own_are_out_of_reach() {
    assert_eq!(
        spec(&json!({"initContainers": [{"name": "toolgate-gateway", "image": "x"}]})),
        ["/spec/initContainers/0/name"]
    );
    let mount = json!({"name": "server", "volumeMounts": [{"name": "toolgate-token", "mountPath": "/t"}]});
    assert_eq!(spec(&json!({"containers": [mount]})), ["/spec/containers/0/volumeMounts/0/name"]);
    assert_eq!(spec(&json!({"volumes": [{"name": "toolgate-state", "emptyDir": {}}]})), ["/spec/volumes/0/name"]);
    let token = json!({"serviceAccountToken": {"path": "t", "audience": "toolgate-policy"}});
    assert_eq!(
        spec(&json!({"volumes": [{"name": "t", "projected": {"sources": [token]}}]})),
        ["/spec/volumes/0/projected/sources/0/serviceAccountToken/audience"]
    );
    for label in ["toolgate.dev/server", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by"] {
        assert_eq!(told(&json!({"metadata": {"labels": {label: "x"}}})).len(), 1, "{label}");
    }
    assert_eq!(told(&json!({"metadata": {"name": "x"}})), ["/metadata/name"]);
}

#[test]
fn the_host_stays_out() {
    for member in [
        json!({"hostNetwork": true}),
        json!({"hostPID": true}),
        json!({"hostIPC": true}),
        json!({"shareProcessNamespace": true}),
        json!({"automountServiceAccountToken": true}),
        json!({"restartPolicy": "Never"}),
        json!({"runtimeClassName": "x"}),
        json!({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}),
        json!({"containers": [{"name": "helper", "image": "x", "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
    ] {
        assert_eq!(spec(&member).len(), 1, "{member}");
    }
}

#[test]
fn the_standard_restricted_holds_for_pods_and_containers() {
    for context in [
        json!({"runAsNonRoot": false}),
        json!({"runAsUser": 0}),
        json!({"seccompProfile": {"type": "Unconfined"}}),
        json!({"seLinuxOptions": {"type": "x"}}),
    ] {
        assert_eq!(spec(&json!({"securityContext": context})).len(), 1, "pod: {context}");
        let container = json!({"name": "helper", "image": "x", "securityContext": context});
        assert_eq!(spec(&json!({"containers": [container]})).len(), 1, "container: {context}");
    }
    for context in [
        json!({"privileged": true}),
        json!({"allowPrivilegeEscalation": true}),
        json!({"procMount": "Unmasked"}),
        json!({"capabilities": {"add": ["SYS_PTRACE"]}}),
    ] {
        let container = json!({"name": "server", "securityContext": context});
        assert_eq!(spec(&json!({"containers": [container]})).len(), 1, "{context}");
    }
}

#[test]
fn the_servers_own_container_is_not_set_twice() {
    for member in [json!({"image": "x"}), json!({"command": ["x"]}), json!({"lifecycle": {}}), json!({"resources": {}})]
    {
        let mut container = json!({"name": "server"});
        container.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        assert_eq!(spec(&json!({"containers": [container]})).len(), 1, "{member}");
    }
    assert_eq!(spec(&json!({"initContainers": [{"name": "server", "image": "x"}]})), ["/spec/initContainers/0/name"]);
    assert_eq!(spec(&json!({"containers": [{"image": "x"}]})), ["/spec/containers/0/name"]);
}

#[test]
fn what_is_no_pod_template_is_told() {
    assert_eq!(spec(&json!({"nodeSelektor": {"disk": "ssd"}})), ["/spec/nodeSelektor"]);
    assert_eq!(
        spec(&json!({"containers": [{"name": "server", "volumeMount": []}]})),
        ["/spec/containers/0/volumeMount"]
    );
    assert_eq!(spec(&json!({"containers": "server"})), [""]);
    assert_eq!(told(&json!({"metadata": {"annotations": {"a": "x".repeat(BYTES)}}})), [""]);
    assert_eq!(spec(&json!({"containers": vec![json!({"image": "x"}); 40]})).len(), FAULTS);
}

/// The schema of Kubernetes' own types, without what only people read.
fn derived() -> Value {
    fn conform(schema: &mut Value) {
        match schema {
            Value::Object(members) => {
                members
                    .retain(|name, member| !(matches!(name.as_str(), "description" | "title") && member.is_string()));
                members.values_mut().for_each(conform);
            }
            Value::Array(items) => items.iter_mut().for_each(conform),
            _ => {}
        }
    }
    let settings = schemars::generate::SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<PodTemplateSpec>().to_value();
    conform(&mut schema);
    schema
}

/// With `WRITE_CRDS` in the environment it writes it: that is what `make crds` does.
#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let text = format!("{}\n", derived());
    if std::env::var_os("WRITE_CRDS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/pod_template/schema.json"), text).unwrap();
        return;
    }
    assert!(SCHEMA == text, "src/api/pod_template/schema.json differs from the types: run `make crds`");
}

#[test]
fn a_pod_has_time_to_end_after_its_gateway_has_drained() {
    assert_eq!(spec(&json!({"terminationGracePeriodSeconds": 29})), ["/spec/terminationGracePeriodSeconds"]);
    assert_eq!(spec(&json!({"terminationGracePeriodSeconds": 30})), Vec::<String>::new());
}
