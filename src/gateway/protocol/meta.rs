//! `_meta`: keys of our own are ours alone, and a few that we add.
//!
//! `toolgate.dev/` keys from either side are removed, at every depth: nobody may forge what the gateway says.

use memchr::memmem;

use super::forged;
use super::json::{self, members, range_in, splice};

/// Prefix of the gateway's own keys.
pub const OWN: &str = "toolgate.dev/";

/// `text` without forged keys, or `None` if it has none. The common case costs one search, any other one pass.
pub fn strip_own(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    // An escape could hide the prefix, so a text with escapes is walked as well.
    if memmem::find(bytes, OWN.as_bytes()).is_none() && memmem::find(bytes, b"\\u").is_none() {
        return None;
    }
    let edits: Vec<_> = forged::find(text).cuts.into_iter().map(|cut| (cut, String::new())).collect();
    (!edits.is_empty()).then(|| splice(text, &edits))
}

/// `object` (JSON text of an object) with `key: value` in its `_meta`, which is added if there is none.
pub fn with_meta(object: &str, key: &str, value: &str) -> Option<String> {
    let entry = format!("{}:{value}", json::quote(key));
    let all = members(object)?;
    match all.iter().find(|(key, _)| key == "_meta") {
        Some((_, meta)) => {
            let inner = with_member(meta.get(), &entry)?;
            Some(splice(object, &[(range_in(object, meta.get()), inner)]))
        }
        None => with_member(object, &format!("\"_meta\":{{{entry}}}")),
    }
}

/// `object` with one more member at its end.
fn with_member(object: &str, entry: &str) -> Option<String> {
    let body = object.trim_end().strip_suffix('}')?;
    let comma = if members(object)?.is_empty() { "" } else { "," };
    Some(format!("{body}{comma}{entry}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_keys_go_and_all_else_stays_byte_for_byte() {
        let text = r#"{"result": {"_meta": {"a" : 1e2, "toolgate.dev/x": true}, "n":12345678901234567890123}}"#;

        assert_eq!(strip_own(text).unwrap(), r#"{"result": {"_meta": {"a" : 1e2}, "n":12345678901234567890123}}"#);
    }

    #[test]
    fn forged_keys_go_wherever_they_stand() {
        let forged = r#""toolgate.dev/x":{"_meta":{"toolgate.dev/y":[1,"}"]}}"#;
        for (text, clean) in [
            (format!(r#"{{"_meta":{{{forged}}}}}"#), r#"{"_meta":{}}"#),
            (format!(r#"{{"_meta":{{{forged},"k":1}}}}"#), r#"{"_meta":{"k":1}}"#),
            (format!(r#"{{"_meta":{{"k":1,{forged}}}}}"#), r#"{"_meta":{"k":1}}"#),
            (format!(r#"{{"_meta":{{"k":1,{forged},{forged},"l":2,{forged}}}}}"#), r#"{"_meta":{"k":1,"l":2}}"#),
            (format!(r#"{{"_meta":{{{forged},{forged},"k":1}}}}"#), r#"{"_meta":{"k":1}}"#),
            (format!(r#"[{{"_meta":1,"_meta":{{{forged}}}}}]"#), r#"[{"_meta":1,"_meta":{}}]"#),
            (format!(r#"{{"_meta":{{"k":{{"_meta":{{{forged}}}}},{forged}}}}}"#), r#"{"_meta":{"k":{"_meta":{}}}}"#),
            (format!(r#"{{"_Meta":{{{forged}}}}}"#), r#"{"_Meta":{}}"#), // Some readers ignore case.
        ] {
            assert_eq!(strip_own(&text).as_deref(), Some(clean), "{text}");
        }
    }

    #[test]
    fn an_escaped_key_does_not_hide() {
        let text = "{\"_meta\":{\"toolgate\\u002edev/x\":1}}";

        assert_eq!(strip_own(text).unwrap(), r#"{"_meta":{}}"#);
    }

    #[test]
    fn the_prefix_outside_of_meta_stays() {
        assert_eq!(strip_own(r#"{"text":"see toolgate.dev/docs","_meta":{"b":1}}"#), None);
    }

    #[test]
    fn a_key_is_added_with_and_without_meta() {
        assert_eq!(with_meta("{}", "k", "1").unwrap(), r#"{"_meta":{"k":1}}"#);
        assert_eq!(with_meta(r#"{"a":1}"#, "k", "1").unwrap(), r#"{"a":1,"_meta":{"k":1}}"#);
        assert_eq!(with_meta(r#"{"_meta":{"z":2},"a":1}"#, "k", "1").unwrap(), r#"{"_meta":{"z":2,"k":1},"a":1}"#);
    }
}
