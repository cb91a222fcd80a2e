//! PURE. `podTemplate`: a strategic merge patch of the pods, which cannot reach the gateway.
//!
//! Owns how the patch is merged and what it must not do. Fails closed: the merged template is checked as a whole, so
//! that a way to write a patch that nobody thought of is refused all the same.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

use crate::kubernetes::labels;

use super::names::{self, AUDIENCE};
use super::pods;

/// Lists that are merged by a key; all others are replaced.
const KEYED: [(&str, &str); 9] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("topologySpreadConstraints", "topologyKey"),
    ("hostAliases", "ip"),
];
/// Kinds of volumes that *restricted* knows.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Merges a patch into a template. The error says which field must go.
pub(super) fn merge(base: &Value, patch: &Map<String, Value>) -> Result<PodTemplateSpec, String> {
    let patch = Value::Object(patch.clone());
    check_patch(&patch, "")?;
    let mut merged = base.clone();
    merge_into(&mut merged, &patch, "");
    complete(&mut merged);
    check(base, &merged)?;
    let typed: PodTemplateSpec =
        serde_json::from_value(merged.clone()).map_err(|error| format!("is no pod template: {error}"))?;
    let known = serde_json::to_value(&typed).map_err(|error| format!("is no pod template: {error}"))?;
    // A field that the types do not know would silently have no effect.
    match lost(&merged, &known, "") {
        Some(path) => Err(format!("`{path}` is not a field of a pod template: remove it")),
        None => Ok(typed),
    }
}

/// What the patch itself must not say.
fn check_patch(patch: &Value, path: &str) -> Result<(), String> {
    match patch {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}/{name}");
                if name.starts_with('$') {
                    return Err(format!("`{path}` is a directive, which is not supported: remove it"));
                }
                if path.split('/').count() == 2 && !["metadata", "spec"].contains(&name.as_str()) {
                    return Err(format!("`{path}` is not a field of a pod template: only metadata and spec are"));
                }
                if path.starts_with("/metadata/") && !path.starts_with("/metadata/labels") {
                    let is_known = path.starts_with("/metadata/annotations");
                    if !is_known {
                        return Err(format!("`{path}` cannot be set: only labels and annotations can"));
                    }
                }
                check_patch(value, &path)?;
            }
            Ok(())
        }
        Value::Array(items) => {
            let list = path.rsplit('/').next().unwrap_or_default();
            let key = key_of(list);
            for (index, item) in items.iter().enumerate() {
                if let Some(key) = key {
                    let Some(name) = item.get(key).and_then(Value::as_str) else {
                        return Err(format!("`{path}/{index}` needs `{key}`: entries are merged by it"));
                    };
                    if ["containers", "initContainers", "volumes"].contains(&list) && name.starts_with(names::RESERVED)
                    {
                        return Err(format!("`{path}` touches `{name}`, which belongs to the gateway: remove it"));
                    }
                }
                check_patch(item, &format!("{path}/{index}"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn key_of(list: &str) -> Option<&'static str> {
    KEYED.iter().find(|(name, _)| *name == list).map(|(_, key)| *key)
}

/// Strategic merge: objects by field, keyed lists by key, null removes, everything else replaces.
fn merge_into(target: &mut Value, patch: &Value, field: &str) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    target.remove(name);
                } else {
                    merge_into(target.entry(name.clone()).or_insert(Value::Null), value, name);
                }
            }
        }
        (Value::Array(target), Value::Array(patch)) if key_of(field).is_some() => {
            let key = key_of(field).unwrap_or_default();
            for item in patch {
                match target.iter_mut().find(|old| old.get(key) == item.get(key)) {
                    Some(old) => merge_into(old, item, ""),
                    None => target.push(without_nulls(item)),
                }
            }
        }
        (target, patch) => *target = without_nulls(patch),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        value => value.clone(),
    }
}

/// Containers that the patch adds are as restricted as the server's unless they say otherwise.
fn complete(merged: &mut Value) {
    for list in ["initContainers", "containers"] {
        let containers = merged.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mut context = pods::restricted();
            let said = container.remove("securityContext").unwrap_or_default();
            if said.is_object() {
                merge_into(&mut context, &said, "");
            }
            container.insert("securityContext".to_owned(), context);
        }
    }
}

/// What must hold of the whole, however the patch came to it.
fn check(base: &Value, merged: &Value) -> Result<(), String> {
    for list in ["initContainers", "containers", "volumes"] {
        let path = format!("/spec/{list}");
        for ours in named(base, &path).filter(|item| is_reserved(item)) {
            let same = named(merged, &path).find(|item| item.get("name") == ours.get("name"));
            let complete = if list == "volumes" { ours.clone() } else { completed(ours) };
            if same != Some(&complete) {
                return Err(format!("`{path}` changes `{}`, which belongs to the gateway", name(ours)));
            }
        }
        let ours = named(base, &path).filter(|item| is_reserved(item)).count();
        if named(merged, &path).filter(|item| is_reserved(item)).count() != ours {
            return Err(format!("`{path}` has a name that begins with `{}`: choose another", names::RESERVED));
        }
    }
    for container in named(base, "/spec/containers") {
        if !named(merged, "/spec/containers").any(|item| item.get("name") == container.get("name")) {
            return Err(format!("`/spec/containers` removes `{}`", name(container)));
        }
    }
    check_metadata(base, merged)?;
    check_pod(base, merged)?;
    for list in ["initContainers", "containers"] {
        let path = format!("/spec/{list}");
        for container in named(merged, &path).filter(|item| !is_reserved(item)) {
            let before = named(base, &path).find(|item| item.get("name") == container.get("name"));
            check_container(container, before).map_err(|problem| {
                format!("`{path}`: container `{}` {problem}", name(container))
            })?;
        }
    }
    named(merged, "/spec/volumes").filter(|volume| !is_reserved(volume)).try_for_each(check_volume)
}

fn completed(container: &Value) -> Value {
    let mut whole = serde_json::json!({"spec": {"containers": [container]}});
    complete(&mut whole);
    whole.pointer("/spec/containers/0").cloned().unwrap_or_default()
}

fn named<'a>(template: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    template.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn is_reserved(item: &Value) -> bool {
    name(item).starts_with(names::RESERVED)
}

/// Labels by which pods are selected, and everything of ours.
fn check_metadata(base: &Value, merged: &Value) -> Result<(), String> {
    let none = Map::new();
    let of = |template: &'_ Value, what: &str| {
        template.pointer(&format!("/metadata/{what}")).and_then(Value::as_object).unwrap_or(&none).clone()
    };
    let is_ours = |name: &str| {
        name.split('/').next().is_some_and(|prefix| prefix == "toolgate.dev" || prefix.ends_with(".toolgate.dev"))
            || [labels::MANAGED_BY, labels::INSTANCE].contains(&name)
    };
    for what in ["labels", "annotations"] {
        let (before, after) = (of(base, what), of(merged, what));
        let changed = before.keys().chain(after.keys()).find(|name| is_ours(name) && before.get(*name) != after.get(*name));
        if let Some(name) = changed {
            return Err(format!("`/metadata/{what}` changes `{name}`, which is Toolgate's: remove it"));
        }
    }
    Ok(())
}

fn check_pod(base: &Value, merged: &Value) -> Result<(), String> {
    let field = |template: &Value, name: &str| template.pointer(&format!("/spec/{name}")).cloned();
    for name in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
        if field(merged, name).is_some_and(|value| value != Value::Bool(false)) {
            return Err(format!("`/spec/{name}` would let the server around its gateway, or out of its pod: remove it"));
        }
    }
    for name in ["automountServiceAccountToken", "restartPolicy", "ephemeralContainers"] {
        if field(merged, name) != field(base, name) {
            return Err(format!("`/spec/{name}` cannot be changed: remove it"));
        }
    }
    let context = merged.pointer("/spec/securityContext").unwrap_or(&Value::Null);
    check_context(context).map_err(|problem| format!("`/spec/securityContext` {problem}"))?;
    if context.get("sysctls").is_some_and(|sysctls| sysctls.as_array().is_none_or(|list| !list.is_empty())) {
        return Err("`/spec/securityContext/sysctls` is not possible in a restricted pod: remove it".to_owned());
    }
    Ok(())
}

/// What *restricted* says about the security context of a pod or a container.
fn check_context(context: &Value) -> Result<(), String> {
    let says = |name: &str| context.get(name);
    if says("runAsNonRoot").is_some_and(|value| value != &Value::Bool(true)) {
        return Err("must keep runAsNonRoot: true".to_owned());
    }
    if says("runAsUser").is_some_and(|user| user.as_i64().is_none_or(|user| user <= 0)) {
        return Err("must not run as root: set runAsUser to another number".to_owned());
    }
    let profile = context.pointer("/seccompProfile/type").and_then(Value::as_str);
    if says("seccompProfile").is_some() && !matches!(profile, Some("RuntimeDefault" | "Localhost")) {
        return Err("must have the seccompProfile RuntimeDefault or Localhost".to_owned());
    }
    if says("windowsOptions").is_some() {
        return Err("must not have windowsOptions".to_owned());
    }
    let selinux = says("seLinuxOptions").and_then(Value::as_object);
    if selinux.is_some_and(|options| {
        options.contains_key("user")
            || options.contains_key("role")
            || options.get("type").and_then(Value::as_str).is_some_and(|kind| {
                !["container_t", "container_init_t", "container_kvm_t", "container_engine_t"].contains(&kind)
            })
    }) {
        return Err("must not have these seLinuxOptions".to_owned());
    }
    let apparmor = context.pointer("/appArmorProfile/type").and_then(Value::as_str);
    if apparmor == Some("Unconfined") {
        return Err("must not be without AppArmor".to_owned());
    }
    Ok(())
}

/// `before` is the same container as we wrote it, if it is ours to write.
fn check_container(container: &Value, before: Option<&Value>) -> Result<(), String> {
    let context = container.get("securityContext").unwrap_or(&Value::Null);
    check_context(context)?;
    if context.get("allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        return Err("must keep allowPrivilegeEscalation: false".to_owned());
    }
    if context.get("privileged").is_some_and(|value| value != &Value::Bool(false)) {
        return Err("must not be privileged".to_owned());
    }
    if context.get("procMount").is_some_and(|value| value != "Default") {
        return Err("must not change procMount".to_owned());
    }
    let capabilities = |what: &str| -> Vec<&str> {
        let list = context.pointer(&format!("/capabilities/{what}")).and_then(Value::as_array);
        list.into_iter().flatten().map(|name| name.as_str().unwrap_or_default()).collect()
    };
    if !capabilities("drop").contains(&"ALL") || capabilities("add").iter().any(|name| *name != "NET_BIND_SERVICE") {
        return Err("must drop all capabilities, and may add NET_BIND_SERVICE alone".to_owned());
    }
    if named(container, "/ports").any(|port| port.get("hostPort").is_some_and(|port| port != 0)) {
        return Err("must not have a hostPort".to_owned());
    }
    let ours = |mount: &&Value| before.is_some_and(|before| named(before, "/volumeMounts").any(|own| own == *mount));
    if let Some(mount) = named(container, "/volumeMounts").filter(|mount| is_reserved(mount)).find(|mount| !ours(mount)) {
        return Err(format!("must not mount `{}`, which belongs to the gateway", name(mount)));
    }
    if named(container, "/volumeDevices").any(is_reserved) {
        return Err("must not use a volume of the gateway".to_owned());
    }
    for own in before.into_iter().flat_map(|before| named(before, "/volumeMounts")) {
        if !named(container, "/volumeMounts").any(|mount| mount == own) {
            return Err(format!("must keep its mount of `{}`", name(own)));
        }
    }
    if before.is_some() && context.get("readOnlyRootFilesystem") != Some(&Value::Bool(true)) {
        return Err("must keep readOnlyRootFilesystem: true: mount a volume where it writes".to_owned());
    }
    Ok(())
}

fn check_volume(volume: &Value) -> Result<(), String> {
    let fields = volume.as_object().into_iter().flatten().filter(|(field, _)| *field != "name");
    for (kind, _) in fields {
        if !VOLUMES.contains(&kind.as_str()) {
            return Err(format!(
                "`/spec/volumes`: `{}` is a {kind}, which a restricted pod cannot have: use another kind",
                name(volume)
            ));
        }
    }
    // With such a token the server could pass for its own gateway.
    let audience = |source: &Value| source.pointer("/serviceAccountToken/audience").cloned();
    if named(volume, "/projected/sources").any(|source| audience(source) == Some(Value::from(AUDIENCE))) {
        return Err(format!("`/spec/volumes`: `{}` asks for the gateway's token: use another audience", name(volume)));
    }
    Ok(())
}

/// The first field of `said` that `known` does not have.
fn lost(said: &Value, known: &Value, path: &str) -> Option<String> {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => said.iter().find_map(|(name, value)| {
            let path = format!("{path}/{name}");
            match known.get(name) {
                Some(known) => lost(value, known, &path),
                None => Some(path),
            }
        }),
        (Value::Array(said), Value::Array(known)) => {
            said.iter().zip(known).enumerate().find_map(|(index, (said, known))| {
                lost(said, known, &format!("{path}/{index}"))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
