//! Conditions on single arguments: what they mean, and how a refusal words them.
//!
//! A value is compared as it is; nothing is coerced. JSON has one type of number, so `1e2` equals 100; a decimal is
//! read as the nearest IEEE 754 double, as servers do, and compared with an integer without rounding it further.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Number, Value};

use super::snapshot::{ArgumentRule, Scalar};
use super::truth::Truth;

/// Checks the syntax of a JSON pointer (RFC 6901 section 3).
pub(super) fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.len() > 256 {
        return Err("path is longer than 256 bytes".to_owned());
    }
    if !pointer.starts_with('/') {
        return Err(format!("path {pointer:?} is no JSON pointer; start it with \"/\", for example \"/environment\""));
    }
    let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if escapes { Ok(()) } else { Err(format!("path {pointer:?} has \"~\" that is not \"~0\" or \"~1\"")) }
}

/// Checks a folder of `below`.
pub(super) fn check_folder(folder: &str) -> Result<(), String> {
    match segments(folder) {
        Some(_) => Ok(()),
        None => Err(format!(
            "folder {folder:?} is empty or has \".\", \"..\" or empty segments, a backslash or a NUL; write it out"
        )),
    }
}

/// Checks a whole condition.
pub(super) fn check(rule: &ArgumentRule) -> Result<(), String> {
    check_pointer(&rule.path)?;
    if let (Some(minimum), Some(maximum)) = (rule.minimum, rule.maximum)
        && minimum > maximum
    {
        return Err(format!("minimum {minimum} is above maximum {maximum} at {:?}", rule.path));
    }
    rule.below.iter().try_for_each(|folder| check_folder(folder))
}

/// Judges one condition. `Unknown` means that the question does not arise: no such path, or a value of another type.
/// An Allow rule takes that as a failure, a Deny rule as a match.
pub(super) fn judge(rule: &ArgumentRule, arguments: &Value) -> Truth {
    let Some(value) = arguments.pointer(&rule.path) else { return Truth::Unknown };
    let mut truth = Truth::True;
    if !rule.one_of.is_empty() {
        truth = truth.and(one_of(&rule.one_of, value));
    }
    if !rule.below.is_empty() {
        truth = truth.and(below(&rule.below, value));
    }
    let bounds = [(rule.minimum, Ordering::Less), (rule.maximum, Ordering::Greater)];
    for (bound, outside) in bounds {
        if let Some(bound) = bound {
            truth = truth.and(match value {
                Value::Number(number) => Truth::from(compare(number, bound) != outside),
                _ => Truth::Unknown,
            });
        }
    }
    truth
}

fn one_of(options: &[Scalar], value: &Value) -> Truth {
    let mut comparable = false;
    for option in options {
        let equal = match (option, value) {
            (Scalar::String(want), Value::String(got)) => want == got,
            (Scalar::Integer(want), Value::Number(got)) => compare(got, *want) == Ordering::Equal,
            _ => continue,
        };
        if equal {
            return Truth::True;
        }
        comparable = true;
    }
    if comparable { Truth::False } else { Truth::Unknown }
}

/// A path from the root and one from the server's working directory cannot be compared: either may name the other.
fn below(folders: &[String], value: &Value) -> Truth {
    let Some(path) = value.as_str().and_then(segments) else { return Truth::Unknown };
    let is_absolute = |path: &[&str]| path.first() == Some(&"");
    let mut comparable = true;
    for folder in folders.iter().filter_map(|folder| segments(folder)) {
        if path.starts_with(&folder) {
            return Truth::True;
        }
        comparable &= is_absolute(&path) == is_absolute(&folder);
    }
    if comparable { Truth::False } else { Truth::Unknown }
}

/// The segments of a path, the first of which is empty for an absolute one; one slash at the end is no segment.
/// `None` for a path that could lead elsewhere than its text says.
fn segments(path: &str) -> Option<Vec<&str>> {
    if path == "/" {
        return Some(vec![""]);
    }
    let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
    let plain = |(i, segment): (usize, &&str)| match *segment {
        "" => i == 0 && segments.len() > 1,
        "." | ".." => false,
        other => !other.contains(['\\', '\0']),
    };
    segments.iter().enumerate().all(plain).then_some(segments)
}

/// Compares a JSON number with an integer, exactly.
#[allow(clippy::cast_possible_truncation)] // Within ±2^63, where truncation keeps the integral part exactly.
fn compare(number: &Number, bound: i64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    if let Some(integer) = number.as_i64() {
        return integer.cmp(&bound);
    }
    if number.is_u64() {
        return Ordering::Greater; // Beyond every i64.
    }
    match number.as_f64() {
        Some(float) if float >= LIMIT => Ordering::Greater,
        Some(float) if float < -LIMIT => Ordering::Less,
        Some(float) => (float.trunc() as i64).cmp(&bound).then(float.fract().total_cmp(&0.0)),
        None => Ordering::Greater, // Not reached: every serde_json number without arbitrary precision is an f64.
    }
}

/// What a condition permits, as a phrase: `one of "a", "b"`, `below /srv/data`, `at most 10`.
pub(super) fn permitted(rule: &ArgumentRule) -> String {
    let mut parts = Vec::new();
    match rule.one_of.as_slice() {
        [] => {}
        [only] => parts.push(scalar(only)),
        several => parts.push(format!("one of {}", several.iter().map(scalar).collect::<Vec<_>>().join(", "))),
    }
    if !rule.below.is_empty() {
        parts.push(format!("below {}", rule.below.join(" or ")));
    }
    match (rule.minimum, rule.maximum) {
        (Some(minimum), Some(maximum)) => parts.push(format!("from {minimum} to {maximum}")),
        (Some(minimum), None) => parts.push(format!("at least {minimum}")),
        (None, Some(maximum)) => parts.push(format!("at most {maximum}")),
        (None, None) => {}
    }
    if parts.is_empty() { "any value".to_owned() } else { parts.join(" and ") }
}

/// What is there now, for `explain`: shortened, because it may be a whole document.
pub(super) fn found(rule: &ArgumentRule, arguments: &Value) -> String {
    let Some(value) = arguments.pointer(&rule.path) else { return "is missing".to_owned() };
    let text = value.to_string();
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        let _ = write!(short, "…"); // Writing to a String cannot fail.
    }
    format!("is {short}")
}

fn scalar(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Integer(integer) => integer.to_string(),
        Scalar::String(string) => Value::from(string.as_str()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(text: Value) -> ArgumentRule {
        serde_json::from_value(text).unwrap()
    }

    fn judged(condition: Value, arguments: &Value) -> Truth {
        judge(&rule(condition), arguments)
    }

    #[test]
    fn nothing_is_coerced() {
        let strings = || json!({"path": "/a", "in": ["1", "x"]});
        assert_eq!(judged(strings(), &json!({"a": "x"})), Truth::True);
        assert_eq!(judged(strings(), &json!({"a": "y"})), Truth::False);
        for other in [json!({"a": 1}), json!({"a": ["x"]}), json!({"a": null}), json!({"a": true}), json!({})] {
            assert_eq!(judged(strings(), &other), Truth::Unknown, "{other}");
        }
        assert_eq!(judged(json!({"path": "/a", "minimum": 1}), &json!({"a": "2"})), Truth::Unknown);
        assert_eq!(judged(json!({"path": "/a/b", "in": ["x"]}), &json!({"a": {"b": "x"}})), Truth::True);
    }

    #[test]
    fn numbers_compare_by_value_at_every_size() {
        let arguments: Value = serde_json::from_str(
            r#"{"e": 1e2, "big": 18446744073709551615, "huge": 12345678901234567890123, "low": -1e30, "half": 10.5,
                "edge": 9007199254740993, "minus": -0.5}"#,
        )
        .unwrap();
        assert_eq!(judged(json!({"path": "/e", "in": [100]}), &arguments), Truth::True);
        assert_eq!(judged(json!({"path": "/e", "maximum": 99}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/big", "maximum": i64::MAX}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/huge", "maximum": i64::MAX}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/low", "minimum": i64::MIN}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/half", "maximum": 10}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/half", "minimum": 10}), &arguments), Truth::True);
        assert_eq!(judged(json!({"path": "/edge", "maximum": 9_007_199_254_740_992_i64}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/minus", "minimum": 0}), &arguments), Truth::False);
        assert_eq!(judged(json!({"path": "/minus", "maximum": 0}), &arguments), Truth::True);
    }

    #[test]
    fn below_holds_by_whole_segments_and_for_plain_paths_only() {
        let inside = |path: &str| judged(json!({"path": "/p", "below": ["/srv/data/", "notes"]}), &json!({"p": path}));
        for path in ["/srv/data", "/srv/data/", "/srv/data/a/b.txt", "notes", "notes/today.md", "/srv/data/..a"] {
            assert_eq!(inside(path), Truth::True, "{path}");
        }
        let absolute = |path: &str| judged(json!({"path": "/p", "below": ["/srv/data/"]}), &json!({"p": path}));
        for path in ["/srv/database", "/srv", "/notes", "/"] {
            assert_eq!(absolute(path), Truth::False, "{path}");
        }
        for path in ["srv/data/x", "note", "~/notes"] {
            assert_eq!(absolute(path), Truth::Unknown, "{path}: the server may resolve it to anywhere");
        }
        let relative = |path: &str| judged(json!({"path": "/p", "below": ["notes"]}), &json!({"p": path}));
        for path in ["srv/data/x", "note", "~/notes"] {
            assert_eq!(relative(path), Truth::False, "{path}");
        }
        assert_eq!(relative("/notes"), Truth::Unknown);
        for path in
            ["", "/srv/data/../x", "/srv/data/./x", "/srv//data", "/srv/data//", "//srv/data", "/srv/data\\..\\x"]
        {
            assert_eq!(inside(path), Truth::Unknown, "{path}");
        }
        assert_eq!(inside("/srv/data/a\0b"), Truth::Unknown);
        assert_eq!(judged(json!({"path": "/p", "below": ["/"]}), &json!({"p": "/etc"})), Truth::True);
        assert_eq!(judged(json!({"path": "/p", "below": ["/"]}), &json!({"p": "etc"})), Truth::Unknown);
    }

    #[test]
    fn phrases_say_what_to_send() {
        let phrase = |condition| permitted(&rule(condition));
        assert_eq!(phrase(json!({"path": "/a", "in": ["b", "c"]})), r#"one of "b", "c""#);
        assert_eq!(phrase(json!({"path": "/a", "in": [3]})), "3");
        assert_eq!(phrase(json!({"path": "/a", "below": ["/srv/data"]})), "below /srv/data");
        assert_eq!(phrase(json!({"path": "/a", "maximum": 10})), "at most 10");
        assert_eq!(phrase(json!({"path": "/a", "minimum": 1, "maximum": 10})), "from 1 to 10");
    }

    #[test]
    fn bad_conditions_say_what_is_wrong() {
        for (condition, part) in [
            (json!({"path": "a"}), "start it with"),
            (json!({"path": ""}), "start it with"),
            (json!({"path": "/a~2"}), "~0"),
            (json!({"path": "/a", "below": ["./data"]}), "./data"),
            (json!({"path": "/a", "below": [""]}), "empty"),
            (json!({"path": "/a", "minimum": 2, "maximum": 1}), "above"),
        ] {
            let message = check(&rule(condition)).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(check_pointer("/a~0b/~1c/0"), Ok(()));
    }
}
