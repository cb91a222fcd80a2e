//! PURE. `podTemplate`: a strategic merge patch of the pods, which cannot reach the gateway.
//!
//! What a patch may say is judged in `api::pod_template`; this merges it and then looks at the whole, so that a patch
//! which changes what is the gateway's in a way that nobody thought of is refused all the same.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use crate::api::pod_template;

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

/// Merges a patch into a template. The error says what must go.
pub(super) fn merge(base: &Value, patch: &BTreeMap<String, Value>) -> Result<PodTemplateSpec, String> {
    if let Some(fault) = pod_template::faults(patch).first() {
        return Err(format!("{}: {}", fault.pointer, fault.message));
    }
    let mut merged = base.clone();
    merge_into(&mut merged, &Value::Object(patch.clone().into_iter().collect()), "");
    complete(&mut merged);
    check(base, &merged)?;
    serde_json::from_value(merged).map_err(|error| format!("is no pod template: {error}"))
}

fn key_of(list: &str) -> Option<&'static str> {
    KEYED.iter().find(|(name, _)| *name == list).map(|(_, key)| *key)
}

/// Strategic merge: objects by field, keyed lists by key, everything else replaces.
fn merge_into(target: &mut Value, patch: &Value, field: &str) {
    match (target, patch, key_of(field)) {
        (Value::Object(target), Value::Object(patch), _) => {
            for (name, value) in patch {
                merge_into(target.entry(name.clone()).or_insert(Value::Null), value, name);
            }
        }
        (Value::Array(target), Value::Array(patch), Some(key)) => {
            for item in patch {
                match target.iter_mut().find(|old| old.get(key) == item.get(key)) {
                    Some(old) => merge_into(old, item, ""),
                    None => target.push(item.clone()),
                }
            }
        }
        (target, patch, _) => *target = patch.clone(),
    }
}

/// Containers that the patch adds are as restricted as the server's unless they say otherwise.
fn complete(merged: &mut Value) {
    for list in ["/spec/initContainers", "/spec/containers"] {
        let containers = merged.pointer_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mut context = pods::restricted();
            if let Some(said) = container.get("securityContext") {
                merge_into(&mut context, said, "");
            }
            container.insert("securityContext".to_owned(), context);
        }
    }
}

/// What must hold of the whole, however the patch came to it.
fn check(base: &Value, merged: &Value) -> Result<(), String> {
    for path in ["/spec/initContainers", "/spec/containers", "/spec/volumes"] {
        let is_same = reserved(base, path).eq(reserved(merged, path));
        if !is_same {
            return Err(format!("{path}: what is the gateway's would change: remove it"));
        }
    }
    for path in ["/spec/automountServiceAccountToken", "/spec/restartPolicy", "/spec/shareProcessNamespace"] {
        if base.pointer(path) != merged.pointer(path) {
            return Err(format!("{path}: cannot be changed: remove it"));
        }
    }
    for path in ["/spec/initContainers", "/spec/containers"] {
        for container in items(merged, path).filter(|item| !is_reserved(item)) {
            let before = items(base, path).find(|item| item.get("name") == container.get("name"));
            check_container(container, before)
                .map_err(|problem| format!("{path}: container `{}` {problem}", name(container)))?;
        }
    }
    Ok(())
}

fn items<'a>(owner: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    owner.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn is_reserved(item: &Value) -> bool {
    name(item).starts_with(pod_template::RESERVED_PREFIX)
}

/// What is the gateway's of a list, in order: an init container that came before the gateway would run without it.
fn reserved<'a>(template: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    items(template, path).filter(|item| is_reserved(item))
}

/// `before` is the server's container as it was planned.
fn check_container(container: &Value, before: Option<&Value>) -> Result<(), String> {
    let context = container.get("securityContext").unwrap_or(&Value::Null);
    let is = |member: &str, wanted: bool| context.get(member) == Some(&Value::Bool(wanted));
    if !is("allowPrivilegeEscalation", false) || !is("runAsNonRoot", true) || is("privileged", true) {
        return Err("must keep allowPrivilegeEscalation: false and runAsNonRoot: true".to_owned());
    }
    if !items(context, "/capabilities/drop").any(|dropped| dropped == "ALL") {
        return Err("must drop all capabilities".to_owned());
    }
    let Some(before) = before else { return Ok(()) };
    if !is("readOnlyRootFilesystem", true) {
        return Err("must keep readOnlyRootFilesystem: true: mount a volume where it writes".to_owned());
    }
    let lost =
        items(before, "/volumeMounts").find(|mount| !items(container, "/volumeMounts").any(|kept| kept == *mount));
    match lost {
        Some(mount) => Err(format!("must keep its mount of `{}`: use another mountPath", name(mount))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
