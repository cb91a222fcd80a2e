//! PURE. Whether an object is already as declared.
//!
//! The API server adds defaults, other writers add fields of theirs, and lists with keys get entries from elsewhere:
//! none of that is a difference. What was declared once and is not any more is invisible here; the annotation
//! [`APPLIED`](super::labels::APPLIED) tells it.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Lists whose entries have a key, and the field that is it. Others must agree entry by entry.
const KEYED: [(&str, &str); 8] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("ownerReferences", "uid"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Whether everything that `wanted` declares is so in `live`.
pub(super) fn is_so(wanted: &Value, live: &Value) -> bool {
    holds("", wanted, Some(live))
}

fn holds(field: &str, wanted: &Value, live: Option<&Value>) -> bool {
    match (wanted, live) {
        (Value::Null, live) => live.is_none_or(Value::is_null),
        (Value::Object(wanted), Some(Value::Object(live))) => {
            wanted.iter().all(|(name, wanted)| holds(name, wanted, live.get(name)))
        }
        (Value::Array(wanted), Some(Value::Array(live))) => {
            let key = KEYED.iter().find(|(list, _)| *list == field).map(|(_, key)| *key);
            match key {
                Some(key) => wanted.iter().all(|wanted| {
                    let of_key = live.iter().find(|live| live.get(key) == wanted.get(key));
                    of_key.is_some_and(|live| holds("", wanted, Some(live)))
                }),
                None => {
                    wanted.len() == live.len()
                        && wanted.iter().zip(live).all(|(wanted, live)| holds("", wanted, Some(live)))
                }
            }
        }
        // The server leaves out what is empty.
        (Value::Array(wanted), None) => wanted.is_empty(),
        (Value::String(wanted), None) => wanted.is_empty(),
        (wanted, live) => live == Some(wanted),
    }
}

/// `sha256:…` over the RFC 8785 form.
pub(super) fn digest(value: &Value) -> Result<String, serde_json::Error> {
    use std::fmt::Write as _;
    let bytes = serde_json_canonicalizer::to_vec(value)?;
    Ok(Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    }))
}

/// What of a live object a writer could have meant: all but status and what the server keeps about it.
pub(super) fn substance(live: &Value) -> Value {
    let Some(object) = live.as_object() else { return Value::Null };
    let mut kept: Map<String, Value> = object.clone();
    kept.remove("status");
    let metadata = kept.remove("metadata").unwrap_or_default();
    let of_metadata = |name: &str| metadata.get(name).cloned().unwrap_or_default();
    let applied = metadata.get("annotations").and_then(|all| all.get(super::labels::APPLIED)).cloned();
    kept.insert("labels".to_owned(), of_metadata("labels"));
    kept.insert("ownerReferences".to_owned(), of_metadata("ownerReferences"));
    kept.insert("applied".to_owned(), applied.unwrap_or_default());
    Value::Object(kept)
}

/// Whether two statuses say the same, whenever they began to.
pub(super) fn same_but_for_times(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let rest = |name: &&String| *name != "lastTransitionTime";
            a.keys().filter(rest).all(|name| same_field(a.get(name), b.get(name)))
                && b.keys().filter(rest).all(|name| a.contains_key(name) || same_field(None, b.get(name)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_but_for_times(a, b))
        }
        (a, b) => a == b,
    }
}

/// A field that is null, or an empty list or object, says no more than none.
fn same_field(a: Option<&Value>, b: Option<&Value>) -> bool {
    let said = |value: Option<&Value>| {
        value
            .filter(|value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(object) => !object.is_empty(),
                _ => true,
            })
            .cloned()
    };
    match (said(a), said(b)) {
        (Some(a), Some(b)) => same_but_for_times(&a, &b),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_or_others_add_is_no_difference() {
        let wanted = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"volumes": [{"name": "x", "emptyDir": {}}],
            "containers": [{"name": "c", "env": [{"name": "E", "value": ""}], "args": []}]}});
        let live = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "uid": "u"}, "spec": {"replicas": 1,
            "volumes": [{"name": "y"}, {"name": "x", "emptyDir": {}}],
            "containers": [{"name": "i"}, {"name": "c", "env": [{"name": "E"}], "terminationMessagePath": "/dev"}]}});

        assert!(is_so(&wanted, &live));
    }

    #[test]
    fn what_was_changed_by_hand_is_a_difference() {
        let wanted = json!({"data": {"ca.crt": "A"}, "spec": {"egress": [{"ports": [{"port": 53}]}],
            "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "x", "emptyDir": {}}]}});
        for (pointer, value) in [
            ("/data/ca.crt", json!("B")),
            ("/data", json!({})),
            ("/spec/containers/0/image", json!("j")),
            ("/spec/containers/0/name", json!("d")),
            ("/spec/volumes/0", json!({"name": "x", "hostPath": {"path": "/"}})),
            ("/spec/egress", json!([{"ports": [{"port": 53}]}, {}])),
            ("/spec/egress", json!([])),
        ] {
            let mut live = wanted.clone();
            *live.pointer_mut(pointer).unwrap() = value;
            assert!(!is_so(&wanted, &live), "{pointer}: {live}");
        }
        assert!(is_so(&wanted, &wanted));
    }

    #[test]
    fn statuses_differ_by_what_they_say_and_not_by_when() {
        let a = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1"}], "tools": 1});
        let mut later = a.clone();
        later["conditions"][0]["lastTransitionTime"] = json!("2");
        later["undeclaredTools"] = json!([]);
        assert!(same_but_for_times(&a, &later) && same_but_for_times(&later, &a));

        for other in [
            json!({"conditions": [{"type": "Ready", "status": "False"}], "tools": 1}),
            json!({"conditions": [], "tools": 1}),
            json!({"conditions": [{"type": "Ready", "status": "True"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True"}], "tools": 1, "more": 2}),
        ] {
            assert!(!same_but_for_times(&a, &other) && !same_but_for_times(&other, &a), "{other}");
        }
    }
}
