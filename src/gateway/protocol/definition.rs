//! The digest of a tool's definition: what an McpTool pins.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Integers beyond this are not the same number to every reader (RFC 8785 section 3.2.2.3).
const EXACT: u64 = 1 << 53;

/// SHA-256 over the RFC 8785 form of a Tool object as its server sent it, every member, but of `_meta` only `ui`:
/// `sha256:` and hex. `None` where readers could disagree about it: a number beyond ±2^53, or no object.
pub fn digest(tool: &Value) -> Option<String> {
    use std::fmt::Write as _;
    let mut tool = tool.as_object()?.clone();
    if let Some(meta) = tool.remove("_meta") {
        let ui = meta.get("ui").map(|ui| Map::from_iter([("ui".to_owned(), ui.clone())]));
        tool.extend(ui.map(|ui| ("_meta".to_owned(), Value::Object(ui))));
    }
    let tool = Value::Object(tool);
    if !is_exact(&tool) {
        return None;
    }
    let canonical = serde_json_canonicalizer::to_vec(&tool).ok()?;
    Some(Sha256::digest(canonical).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    }))
}

/// Whether every number is one that all readers agree on. A value that was parsed nests within bounds.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => number <= EXACT,
            (None, Some(number), _) => number.unsigned_abs() <= EXACT,
            // 2^53 as a double, exactly. Larger integers are parsed as doubles.
            (None, None, number) => number.is_some_and(|number| number.abs() <= 9_007_199_254_740_992.0),
        },
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &str) -> Option<String> {
        digest(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn it_is_the_digest_of_the_canonical_form() {
        // printf '{"inputSchema":{"type":"object"},"name":"a"}' | sha256sum
        let expected = Some("sha256:60d4353e9a5499b483d09f13d9e28060e70f34edf787bb7040ba30bd390f85af".to_owned());
        let found = of(r#"{ "name": "\u0061", "inputSchema": {"type": "object"} }"#);

        assert_eq!(found, of(r#"{"inputSchema":{"type":"object"},"name":"a"}"#));
        assert_eq!(found, expected);
    }

    #[test]
    fn every_member_counts_but_of_meta_only_ui() {
        let plain = json!({"name": "a", "description": "b"});
        let with = |meta: Value| {
            let mut tool = plain.clone();
            tool["_meta"] = meta;
            digest(&tool)
        };

        assert_ne!(digest(&plain), digest(&json!({"name": "a", "description": "b", "x-new": 1})));
        assert_eq!(digest(&plain), with(json!({"trace": "1"})));
        assert_eq!(with(json!({"ui": {"a": 1}})), with(json!({"trace": "2", "ui": {"a": 1}})));
        assert_ne!(with(json!({"ui": {"a": 1}})), with(json!({"ui": {"a": 2}})));
        assert_ne!(digest(&plain), with(json!({"ui": {"a": 1}})));
    }

    #[test]
    fn numbers_that_readers_disagree_about_have_no_digest() {
        for number in ["9007199254740992", "-9007199254740992", "0.5", "1e3"] {
            assert!(of(&format!(r#"{{"a":[{{"b":{number}}}]}}"#)).is_some(), "{number}");
        }
        for number in ["9007199254740993", "-9007199254740993", "99999999999999999999999", "1e300"] {
            assert_eq!(of(&format!(r#"{{"a":[{{"b":{number}}}]}}"#)), None, "{number}");
        }
        assert_eq!(of("[]"), None);
    }
}
