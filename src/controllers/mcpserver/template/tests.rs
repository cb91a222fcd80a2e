use serde_json::json;

use super::*;

fn base() -> Value {
    json!({
        "metadata": {"labels": {"toolgate.dev/server": "a"}},
        "spec": {
            "automountServiceAccountToken": false,
            "initContainers": [{"name": "toolgate-gateway", "image": "g", "securityContext": gateway_context()}],
            "containers": [{
                "name": "server", "image": "i", "env": [{"name": "A", "value": "1"}],
                "securityContext": pods::restricted(),
                "volumeMounts": [{"name": "toolgate-shim", "mountPath": "/toolgate", "readOnly": true}],
            }],
            "volumes": [{"name": "toolgate-shim", "emptyDir": {}}],
        },
    })
}

fn gateway_context() -> Value {
    let mut context = pods::restricted();
    context["runAsUser"] = json!(65532);
    context
}

fn merged(patch: Value) -> Result<Value, String> {
    let patch = serde_json::from_value(patch).unwrap();
    merge(&base(), &patch).map(|template| serde_json::to_value(template).unwrap())
}

#[test]
fn a_patch_adds_volumes_environment_and_scheduling_to_the_servers_container() {
    let template = merged(json!({"metadata": {"annotations": {"team": "x"}}, "spec": {
        "nodeSelector": {"disk": "ssd"},
        "serviceAccountName": "mine",
        "securityContext": {"runAsUser": 1000},
        "containers": [{"name": "server", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
    }}))
    .unwrap();

    let server = &template["spec"]["containers"][0];
    assert_eq!(server["image"], "i");
    assert_eq!(server["env"], json!([{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]));
    assert_eq!(server["volumeMounts"].as_array().unwrap().len(), 2);
    assert_eq!(template["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(template["spec"]["nodeSelector"]["disk"], "ssd");
    assert_eq!(template["spec"]["serviceAccountName"], "mine");
    assert_eq!(template["metadata"]["labels"]["toolgate.dev/server"], "a");
    assert_eq!(template["spec"]["initContainers"][0]["securityContext"], gateway_context());
}

#[test]
fn a_container_that_is_added_is_restricted_like_the_server() {
    let template = merged(json!({"spec": {"containers": [{"name": "more", "image": "m"}]}})).unwrap();

    assert_eq!(template["spec"]["containers"][1]["securityContext"], pods::restricted());
}

#[test]
fn no_patch_reaches_the_gateway_or_leaves_the_restrictions() {
    let of_server = |member: Value| {
        let mut server = json!({"name": "server"});
        server.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        json!({"spec": {"containers": [server]}})
    };
    for patch in [
        json!({"spec": {"initContainers": [{"name": "toolgate-gateway", "image": "mine"}]}}),
        json!({"spec": {"initContainers": null}}),
        json!({"spec": {"containers": [{"$patch": "replace"}]}}),
        json!({"spec": {"volumes": [{"name": "toolgate-shim", "hostPath": {"path": "/"}}]}}),
        json!({"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}),
        json!({"spec": {"hostNetwork": true}}),
        json!({"spec": {"shareProcessNamespace": true}}),
        json!({"spec": {"automountServiceAccountToken": true}}),
        json!({"metadata": {"labels": {"toolgate.dev/server": "b"}}}),
        of_server(json!({"volumeMounts": [{"name": "toolgate-token", "mountPath": "/t"}]})),
        // Its mount would be another volume, and the shim one that the image brings.
        of_server(json!({"volumeMounts": [{"name": "x", "mountPath": "/toolgate"}]})),
        of_server(json!({"securityContext": {"capabilities": {"drop": []}}})),
        of_server(json!({"securityContext": {"readOnlyRootFilesystem": false}})),
        of_server(json!({"securityContext": {"allowPrivilegeEscalation": true}})),
        json!({"spec": {"containers": [{"name": "more", "image": "m", "securityContext": {"capabilities": {"drop": ["KILL"]}}}]}}),
    ] {
        assert!(merged(patch.clone()).is_err(), "{patch}");
    }
    assert!(merged(json!({})).is_ok());
}
