//! Words for what a schema refuses, and the paths in them.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::{Map, Value};

/// One violation of the schema, in words that say what to write.
pub(super) fn of(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::Type { kind } => format!("must be {}, not {}", types(kind), type_of(error.instance())),
        Kind::Required { property } => match property.as_str() {
            Some(property) => format!("`{property}` is missing: add it"),
            None => short(&error.to_string()),
        },
        Kind::Enum { options } => one_of(options, error.instance()),
        Kind::MaxLength { limit } => format!("is longer than {limit} characters: shorten it"),
        Kind::MinLength { .. } => "is too short or empty: write a value, or remove the field".to_owned(),
        Kind::MaxItems { limit } => format!("has more than {limit} items: split it"),
        Kind::MinItems { .. } => "is empty: add an item, or remove the field".to_owned(),
        Kind::MaxProperties { limit: 0 } => "has no members: write `{}`".to_owned(),
        Kind::MaxProperties { limit } => format!("has more than {limit} members: remove some"),
        Kind::MinProperties { .. } => "is empty: set at least one member, or remove the field".to_owned(),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::Pattern { pattern } => format!("{} must match {pattern}", short(&error.instance().to_string())),
        Kind::Format { format } if format == "date-time" => {
            "must be an RFC 3339 time such as 2027-03-01T00:00:00Z".to_owned()
        }
        _ => short(&error.to_string()),
    }
}

/// A message may quote what a manifest says: its control characters neither break the line nor reach a terminal.
pub(super) fn one_line(message: &str) -> String {
    let escaped = |one: char| if one.is_control() { one.escape_default().to_string() } else { one.to_string() };
    message.chars().map(escaped).collect()
}

fn types(kind: &TypeKind) -> String {
    let name = |kind: &str| match kind {
        "object" => "a mapping".to_owned(),
        "array" => "a list".to_owned(),
        "integer" => "an integer".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => format!("a {other}"),
    };
    match kind {
        TypeKind::Single(kind) => name(&kind.to_string()),
        TypeKind::Multiple(kinds) => {
            let names: Vec<String> = kinds.iter().map(|kind| name(&kind.to_string())).collect();
            names.join(" or ")
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string (quotes decide)",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn one_of(options: &Value, got: &Value) -> String {
    let names: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let got = got.as_str().map_or_else(|| short(&got.to_string()), |text| format!("`{}`", short(text)));
    let hint = nearest(&got, &names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("must be one of {}, not {got}{hint}", names.join(", "))
}

/// A field that the schema does not have.
pub(super) fn unknown_field(name: &str, properties: &Map<String, Value>) -> String {
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    match nearest(name, &names) {
        Some(known) => format!("unknown field `{}`, did you mean `{known}`?", short(name)),
        None => format!("unknown field `{}`: remove it; there are {}", short(name), names.join(", ")),
    }
}

/// The name that was probably meant, if one is near enough to say so.
pub(super) fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let folded = name.trim_matches('`').to_lowercase();
    if folded.chars().count() > 64 {
        return None;
    }
    let (distance, best) =
        names.iter().map(|known| (distance(&folded, &known.to_lowercase()), *known)).min_by_key(|(d, _)| *d)?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((above, pair), y) in row.iter().skip(1).zip(&row).zip(&b) {
            let left = next.last().copied().unwrap_or(i + 1);
            next.push((pair + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// At most 80 characters, so that a message stays on its line.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

/// `spec.rules[0].tools` as `/spec/rules/0/tools`.
pub(super) fn pointer(path: &str) -> String {
    let steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty());
    steps.flat_map(|step| ["/".to_owned(), escape(step)]).collect()
}

/// `/spec/rules/0/tools` as `spec.rules[0].tools`, as users write it.
pub(super) fn path(pointer: &str) -> String {
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if token.bytes().all(|byte| byte.is_ascii_digit()) && !token.is_empty() {
            path.extend(["[", &token, "]"]);
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path += &short(&token);
        }
    }
    path
}

/// A token of a JSON pointer (RFC 6901 section 4).
pub(super) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("tool", &["tools", "rules"]), Some("tools"));
        assert_eq!(nearest("toolselector", &["tools", "toolSelector"]), Some("toolSelector"));
        assert_eq!(nearest("frobnicate", &["tools", "rules"]), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn paths_and_pointers_are_inverse() {
        for (text, there) in [("spec.rules[0].tools[12]", "/spec/rules/0/tools/12"), ("", "")] {
            assert_eq!(pointer(text), there);
            assert_eq!(path(there), text);
        }
        assert_eq!(pointer(".metadata.name"), "/metadata/name");
    }
}
