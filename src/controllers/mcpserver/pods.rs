//! PURE. The pods of a server: its own container, the gateway beside it, and what they share.
//!
//! Owns what each container is given. The gateway's token, boot snapshot and state are mounted in the gateway alone;
//! the server has no ServiceAccount token at all. Every container meets the pod security standard *restricted*.

use serde_json::{Value, json};

use crate::api::{Container, Filesystem, McpServer, Object as _, Sessions, Source, Transport};
use crate::controllers::settings::Settings;
use crate::kubernetes::labels;
use crate::wire::AUDIENCE;

use super::names;

/// Seconds that the server's container waits before it is told to end: longer than its gateway drains (20 s at most).
/// Calls that still run then may finish for as long as the server takes to end; the gateway ends after it.
const DRAIN_SECONDS: i64 = 25;
/// Seconds until a pod that ends is killed, unless `podTemplate` says more: the wait, and time to end.
const GRACE_SECONDS: i64 = 45;
/// User and group of the gateway's image.
const GATEWAY_USER: i64 = 65532;
/// Where the shim's socket is.
const SOCKET: &str = "/run/toolgate/stdio.sock";
/// What the gateway keeps, and the socket by which it is told to drain.
const STATE: &str = "/var/lib/toolgate";
/// The certificate authorities of a remote server.
const UPSTREAM_CA: &str = "/etc/toolgate/upstream-ca";

/// The pod template of a server, before `podTemplate` is merged into it.
pub(super) fn template(server: &McpServer, settings: &Settings) -> Value {
    let source = &server.spec.source;
    let gateway = gateway(server, settings);
    let mut volumes = vec![
        json!({"name": "toolgate-boot", "configMap": {
            "name": names::boot_map(server.name()),
            "optional": true,
            "items": [{"key": names::BOOT_KEY, "path": names::BOOT_KEY}],
        }}),
        json!({"name": "toolgate-state", "emptyDir": {"sizeLimit": "32Mi"}}),
        json!({"name": "toolgate-token", "projected": {"sources": [
            {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": 600, "path": "token"}},
        ]}}),
    ];
    let mut spec = json!({
        "serviceAccountName": names::companion(server.name()),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {labels::SERVER: server.name()}},
        }],
    });
    if let Some(container) = &source.container {
        let mut init = Vec::new();
        if container.transport == Transport::Stdio {
            init.push(shim(settings));
            volumes.push(json!({"name": "toolgate-shim", "emptyDir": {"sizeLimit": "32Mi"}}));
            volumes.push(json!({"name": "toolgate-run", "emptyDir": {"sizeLimit": "1Mi"}}));
        }
        let mut sidecar = gateway;
        set(&mut sidecar, "restartPolicy", json!("Always")); // A native sidecar.
        init.push(sidecar);
        if filesystem(server) == Filesystem::Scratch {
            volumes.push(json!({"name": "toolgate-scratch", "emptyDir": {"sizeLimit": "1Gi"}}));
        }
        set(&mut spec, "initContainers", Value::Array(init));
        set(&mut spec, "containers", json!([main(server, container)]));
    } else {
        set(&mut spec, "containers", json!([gateway]));
        if let Some(bundle) = source.remote.as_ref().and_then(|remote| remote.ca_bundle.as_ref()) {
            let bundle = &bundle.config_map_ref;
            volumes.push(json!({"name": "toolgate-upstream-ca", "configMap": {
                "name": bundle.name,
                "items": [{"key": bundle.key, "path": names::CA_KEY}],
            }}));
        }
    }
    set(&mut spec, "volumes", Value::Array(volumes));
    if let Some(class) = server.spec.sandbox.as_ref().and_then(|sandbox| sandbox.runtime_class_name.as_ref()) {
        set(&mut spec, "runtimeClassName", json!(class));
    }
    json!({
        "metadata": {
            "labels": labels::of_server(server.name()),
            "annotations": {"kubectl.kubernetes.io/default-container": default_container(source)},
        },
        "spec": spec,
    })
}

fn default_container(source: &Source) -> &'static str {
    if source.container.is_some() { names::SERVER_CONTAINER } else { names::GATEWAY_CONTAINER }
}

fn filesystem(server: &McpServer) -> Filesystem {
    server.spec.sandbox.as_ref().map(crate::api::Sandbox::filesystem).unwrap_or_default()
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(field.to_owned(), value);
    }
}

/// What *restricted* asks of every container, and a root file system that nobody writes to.
pub(super) fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The same for our own image, whose user is known: a patch of the pod's `securityContext` does not reach it.
fn restricted_gateway() -> Value {
    let mut context = restricted();
    set(&mut context, "runAsUser", json!(GATEWAY_USER));
    set(&mut context, "runAsGroup", json!(GATEWAY_USER));
    context
}

/// Copies the shim to where the server's container can start it.
fn shim(settings: &Settings) -> Value {
    json!({
        "name": names::SHIM_CONTAINER,
        "image": settings.gateway_image,
        "command": ["/toolgate-shim", "install", "/toolgate/shim"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": restricted_gateway(),
        "volumeMounts": [{"name": "toolgate-shim", "mountPath": "/toolgate"}],
    })
}

fn gateway(server: &McpServer, settings: &Settings) -> Value {
    let source = &server.spec.source;
    let mut args = vec![
        "--namespace".to_owned(),
        server.namespace().to_owned(),
        "--server".to_owned(),
        server.name().to_owned(),
        "--policy-server".to_owned(),
        settings.policy_server.url.clone(),
        "--boot".to_owned(),
        "/etc/toolgate/boot/snapshot".to_owned(),
        "--state".to_owned(),
        STATE.to_owned(),
        "--token".to_owned(),
        "/var/run/toolgate/token/token".to_owned(),
    ];
    let mut mounts = vec![
        json!({"name": "toolgate-boot", "mountPath": "/etc/toolgate/boot", "readOnly": true}),
        json!({"name": "toolgate-state", "mountPath": STATE}),
        json!({"name": "toolgate-token", "mountPath": "/var/run/toolgate/token", "readOnly": true}),
    ];
    if let Some(container) = &source.container {
        match container.transport {
            Transport::Stdio => {
                let sessions = match container.sessions() {
                    Sessions::PerClient => "PerClient",
                    Sessions::Shared => "Shared",
                };
                args.extend(["--stdio-socket", SOCKET, "--sessions", sessions].map(str::to_owned));
                mounts.push(json!({"name": "toolgate-run", "mountPath": "/run/toolgate"}));
            }
            Transport::StreamableHttp => {
                let port = container.port.unwrap_or_default();
                args.extend(["--upstream".to_owned(), format!("http://127.0.0.1:{port}{}", container.path())]);
            }
        }
    } else if let Some(service) = &source.service {
        let host = format!("{}.{}.svc", service.name, server.namespace());
        args.extend(["--upstream".to_owned(), format!("http://{host}:{}{}", service.port, service.path())]);
    } else if let Some(remote) = &source.remote {
        args.extend(["--upstream".to_owned(), remote.url.clone(), "--upstream-is-remote".to_owned()]);
        if remote.ca_bundle.is_some() {
            args.extend(["--upstream-ca".to_owned(), format!("{UPSTREAM_CA}/{}", names::CA_KEY)]);
            mounts.push(json!({"name": "toolgate-upstream-ca", "mountPath": UPSTREAM_CA, "readOnly": true}));
        }
    }
    let probe = |path: &str, period: i32, failures: i32| {
        json!({
            "httpGet": {"path": path, "port": names::ADMIN_PORT},
            "periodSeconds": period,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": names::GATEWAY_CONTAINER,
        "image": settings.gateway_image,
        "command": ["/toolgate-gateway", "sidecar"],
        "args": args,
        "env": [
            {"name": "TOOLGATE_POLICY_CA", "value": settings.ca},
            {"name": "TOOLGATE_VERIFY_KEY", "value": settings.verify_key.to_string()},
            {"name": "TOOLGATE_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [
            {"name": "mcp", "containerPort": names::MCP_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": names::ADMIN_PORT, "protocol": "TCP"},
        ],
        "startupProbe": probe("/startupz", 1, 120),
        "readinessProbe": probe("/readyz", 2, 3),
        "livenessProbe": probe("/healthz", 10, 3),
        // Through a socket in the gateway's own volume. A port could be reached by the server, and by whoever makes it
        // fetch a URL, and a gateway that drains is taken out of service.
        "lifecycle": {"preStop": {"exec": {"command": ["/toolgate-gateway", "drain", "--state", STATE]}}},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": restricted_gateway(),
        "volumeMounts": mounts,
    })
}

fn main(server: &McpServer, container: &Container) -> Value {
    let mut main = json!({
        "name": names::SERVER_CONTAINER,
        "image": container.image,
        "env": container.env,
        // Both are told at once that the pod ends; the gateway needs its server while it drains.
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "securityContext": restricted(),
    });
    let mut mounts = Vec::new();
    match container.transport {
        Transport::Stdio => {
            let mut command = vec!["/toolgate/shim", "serve", "--socket", SOCKET, "--"];
            command.extend(container.command.iter().map(String::as_str));
            set(&mut main, "command", json!(command));
            mounts.push(json!({"name": "toolgate-shim", "mountPath": "/toolgate", "readOnly": true}));
            mounts.push(json!({"name": "toolgate-run", "mountPath": "/run/toolgate"}));
        }
        Transport::StreamableHttp if !container.command.is_empty() => {
            set(&mut main, "command", json!(container.command));
        }
        Transport::StreamableHttp => {}
    }
    if !container.args.is_empty() {
        set(&mut main, "args", json!(container.args));
    }
    if let Some(resources) = &container.resources {
        set(&mut main, "resources", json!(resources));
    }
    if filesystem(server) == Filesystem::Scratch {
        mounts.push(json!({"name": "toolgate-scratch", "mountPath": "/tmp"}));
    }
    if !mounts.is_empty() {
        set(&mut main, "volumeMounts", Value::Array(mounts));
    }
    main
}
