//! What may be patched into the pods of an McpServer, and what may not.
//!
//! A template that could remove the gateway, read what belongs to it, or leave the pod security standard *restricted*
//! would be a way around every policy. So what is permitted is listed, and the rest is refused with its place. Judges
//! the patch alone: nothing here knows how pods are planned.

use std::collections::BTreeMap;

#[cfg(feature = "operator")]
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

/// JSON Schema of a pod template, for programs that only read manifests: what knows its types is ten times as large.
pub const SCHEMA: &str = include_str!("pod_template/schema.json");
/// Name of the container in which the server's image runs.
pub const SERVER_CONTAINER: &str = "server";
/// Containers and volumes that begin with this are the gateway's.
pub const RESERVED_PREFIX: &str = "toolgate-";
/// Audience of the token by which a gateway proves who it is. No other container may have one.
pub const POLICY_AUDIENCE: &str = "toolgate-policy";
/// Labels and annotations that begin with this are the operator's.
const OWN_PREFIX: &str = "toolgate.dev/";
/// Labels that select the pods.
const SELECTING: &[&str] = &["app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/name"];
/// Least time for a pod to end, in seconds: its gateway drains for up to 20, and the server ends after that.
const GRACE_SECONDS: i64 = 30;
/// Largest template, in bytes of JSON.
const BYTES: usize = 65_536;
/// Most faults that are told.
const FAULTS: usize = 16;

/// Members of the pod's spec that may be patched.
const POD: &[&str] = &[
    "affinity",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "preemptionPolicy",
    "priorityClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
/// Members of the server's own container that may be patched. Image, command and the like are in `source.container`.
const SERVER: &[&str] = &[
    "env",
    "envFrom",
    "imagePullPolicy",
    "livenessProbe",
    "name",
    "readinessProbe",
    "securityContext",
    "startupProbe",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
/// Kinds of volumes that the standard *restricted* permits.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "name",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Something that cannot be patched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) below `spec.podTemplate`.
    pub pointer: String,
    /// Lower case, says what is wrong and what to do.
    pub message: String,
}

/// Everything in the template that may not be there; at most 16 faults. A template with a fault must not be used.
pub fn faults(template: &BTreeMap<String, Value>) -> Vec<Fault> {
    if template.is_empty() {
        return Vec::new();
    }
    let template = Value::Object(template.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
    let mut judge = Judge::default();
    let size = template.to_string().len();
    if size > BYTES {
        judge.add("", format!("the template has {size} bytes of JSON, more than {BYTES}: make it smaller"));
        return judge.faults;
    }
    // What is said of a field that is misspelt or of another type would mislead.
    judge.directives(&template, "");
    #[cfg(feature = "operator")] // Elsewhere `SCHEMA` has told it already.
    if judge.faults.is_empty() {
        judge.types(&template);
    }
    if judge.faults.is_empty() {
        judge.template(&template);
    }
    judge.faults.truncate(FAULTS);
    judge.faults
}

#[derive(Default)]
struct Judge {
    faults: Vec<Fault>,
}

impl Judge {
    fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.faults.push(Fault { pointer: pointer.into(), message: message.into() });
    }

    /// A patch adds and replaces; null and the directives of a strategic merge remove.
    fn directives(&mut self, value: &Value, pointer: &str) {
        match value {
            Value::Null => self.add(pointer, "null would remove a field: leave it out"),
            Value::Object(members) => {
                for (name, member) in members {
                    let pointer = format!("{pointer}/{}", escape(name));
                    if name.starts_with('$') {
                        self.add(pointer, format!("`{name}` is a directive, which could remove what is the gateway's"));
                    } else {
                        self.directives(member, &pointer);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.directives(item, &format!("{pointer}/{index}"));
                }
            }
            _ => {}
        }
    }

    /// Types, and fields that no pod template has: they get lost when it is read and written.
    #[cfg(feature = "operator")]
    fn types(&mut self, template: &Value) {
        match serde_json::from_value::<PodTemplateSpec>(template.clone()) {
            Ok(typed) => match serde_json::to_value(&typed) {
                Ok(kept) => self.lost(template, &kept, ""),
                Err(error) => self.add("", format!("is no pod template ({error}): correct it")),
            },
            Err(error) => self.add("", format!("is no pod template ({error}): correct it; quantities are quoted text")),
        }
    }

    #[cfg(feature = "operator")]
    fn lost(&mut self, written: &Value, kept: &Value, pointer: &str) {
        match (written, kept) {
            (Value::Object(written), Value::Object(kept)) => {
                for (name, member) in written {
                    let pointer = format!("{pointer}/{}", escape(name));
                    match kept.get(name) {
                        Some(kept) => self.lost(member, kept, &pointer),
                        None => self.add(pointer, format!("a pod template has no field `{name}` here: remove it")),
                    }
                }
            }
            (Value::Array(written), Value::Array(kept)) => {
                for (index, (written, kept)) in written.iter().zip(kept).enumerate() {
                    self.lost(written, kept, &format!("{pointer}/{index}"));
                }
            }
            _ => {}
        }
    }

    fn template(&mut self, template: &Value) {
        self.only(template, "", &["metadata", "spec"], "only metadata and spec can be patched");
        if let Some(metadata) = template.get("metadata") {
            self.only(metadata, "/metadata", &["annotations", "labels"], "only annotations and labels can be patched");
            for member in ["annotations", "labels"] {
                for (name, _) in members(metadata, member) {
                    if name.starts_with(OWN_PREFIX) || SELECTING.contains(&name.as_str()) {
                        let pointer = format!("/metadata/{member}/{}", escape(name));
                        self.add(pointer, format!("`{name}` is the operator's: use another name"));
                    }
                }
            }
        }
        let Some(spec) = template.get("spec") else { return };
        let why = "cannot be patched: the pods keep the standard restricted, and what is the gateway's";
        self.only(spec, "/spec", POD, why);
        self.security(spec, "/spec");
        let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
        if grace.is_some_and(|grace| grace < GRACE_SECONDS) {
            let why = format!("must be at least {GRACE_SECONDS}, so that running calls finish: raise or remove it");
            self.add("/spec/terminationGracePeriodSeconds", why);
        }
        for (index, volume) in list(spec, "volumes") {
            self.volume(volume, &format!("/spec/volumes/{index}"));
        }
        for member in ["containers", "initContainers"] {
            for (index, container) in list(spec, member) {
                self.container(container, &format!("/spec/{member}/{index}"), member == "containers");
            }
        }
    }

    fn only(&mut self, value: &Value, pointer: &str, permitted: &[&str], why: &str) {
        let Value::Object(found) = value else { return };
        for name in found.keys().filter(|name| !permitted.contains(&name.as_str())) {
            self.add(format!("{pointer}/{}", escape(name)), format!("`{name}` {why}"));
        }
    }

    fn reserved(&mut self, named: &Value, member: &str, pointer: &str) {
        let name = named.get(member).and_then(Value::as_str).unwrap_or_default();
        if name.starts_with(RESERVED_PREFIX) {
            self.add(format!("{pointer}/{member}"), format!("`{name}` is the gateway's: use another name"));
        }
    }

    fn container(&mut self, container: &Value, pointer: &str, is_main: bool) {
        self.reserved(container, "name", pointer);
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        match name {
            "" => self.add(format!("{pointer}/name"), "the container has no name, so none is meant: set name"),
            SERVER_CONTAINER if is_main => {
                self.only(
                    container,
                    pointer,
                    SERVER,
                    "of the server's container is set in source.container: remove it",
                );
            }
            SERVER_CONTAINER => self.add(format!("{pointer}/name"), "`server` is no init container: use another name"),
            _ => {}
        }
        self.security(container, pointer);
        for member in ["volumeMounts", "volumeDevices"] {
            for (index, mount) in list(container, member) {
                self.reserved(mount, "name", &format!("{pointer}/{member}/{index}"));
            }
        }
        for (index, port) in list(container, "ports") {
            if port.get("hostPort").is_some_and(|port| port.as_i64() != Some(0)) {
                let message = "a port of the node goes around the gateway: remove it";
                self.add(format!("{pointer}/ports/{index}/hostPort"), message);
            }
        }
    }

    fn volume(&mut self, volume: &Value, pointer: &str) {
        self.reserved(volume, "name", pointer);
        self.only(volume, pointer, VOLUMES, "volumes are not permitted by the standard restricted: use another kind");
        let sources = volume.get("projected").map(|projected| list(projected, "sources").collect::<Vec<_>>());
        for (index, source) in sources.unwrap_or_default() {
            if source.pointer("/serviceAccountToken/audience").and_then(Value::as_str) == Some(POLICY_AUDIENCE) {
                let pointer = format!("{pointer}/projected/sources/{index}/serviceAccountToken/audience");
                self.add(pointer, "only the gateway may have a token of this audience: use another");
            }
        }
    }

    /// What the standard *restricted* forbids in a security context, of a pod or of a container.
    fn security(&mut self, owner: &Value, pointer: &str) {
        let Some(context) = owner.get("securityContext") else { return };
        let pointer = format!("{pointer}/securityContext");
        let is = |member: &str, value: bool| context.get(member).and_then(Value::as_bool) == Some(value);
        let why = "is not permitted by the pod security standard restricted: remove it";
        let text = |at: &str| context.pointer(at).and_then(Value::as_str);
        for (member, broken) in [
            ("privileged", is("privileged", true)),
            ("allowPrivilegeEscalation", is("allowPrivilegeEscalation", true)),
            ("runAsNonRoot", is("runAsNonRoot", false)),
            ("runAsUser", context.get("runAsUser").and_then(Value::as_i64) == Some(0)),
            ("procMount", text("/procMount").is_some_and(|mount| mount != "Default")),
            ("seccompProfile", text("/seccompProfile/type") == Some("Unconfined")),
            ("appArmorProfile", text("/appArmorProfile/type") == Some("Unconfined")),
            ("seLinuxOptions", context.get("seLinuxOptions").is_some()),
            ("windowsOptions", context.get("windowsOptions").is_some()),
            ("sysctls", context.get("sysctls").is_some()),
        ] {
            if broken {
                self.add(format!("{pointer}/{member}"), format!("`{member}` with this value {why}"));
            }
        }
        for (index, capability) in context.get("capabilities").map(|c| list(c, "add")).into_iter().flatten() {
            if capability.as_str() != Some("NET_BIND_SERVICE") {
                self.add(format!("{pointer}/capabilities/add/{index}"), format!("this capability {why}"));
            }
        }
    }
}

fn list<'a>(owner: &'a Value, member: &str) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    owner.get(member).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn members<'a>(owner: &'a Value, member: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    owner.get(member).and_then(Value::as_object).unwrap_or(&NONE).iter()
}

/// A member's name as a token of a JSON pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
