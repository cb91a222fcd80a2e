//! YAML (and JSON, which is YAML but for corner cases) to trees that know their lines.
//!
//! Owns bounds: nesting, nodes and aliases are limited by the reader's budget, so that a small file cannot become a
//! large tree.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Deepest nesting. Each level costs stack in the reader, up to 40 kB without optimisation, and threads have 2 MiB.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// 1-based line; of a member, the line of its key.
    pub(super) line: usize,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Scalar(Value),
    Sequence(Vec<Node>),
    /// Keys are unique: the reader refuses others.
    Mapping(Vec<(String, Node)>),
}

/// Why a file is no YAML.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SyntaxError {
    /// 1-based; 0 if unknown.
    pub(super) line: usize,
    /// One line.
    pub(super) message: String,
}

/// All documents of a file; empty ones are left out.
pub(super) fn read(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: 250_000, max_documents: 1_024, max_aliases: 1_000 },
    };
    let documents: Vec<Spanned<Content>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| line(&location));
            let message = error.without_snippet().to_string();
            let message = if message.starts_with("budget breached") {
                format!("too large, or nested deeper than {MAX_DEPTH} levels: split it ({message})")
            } else {
                message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
            };
            SyntaxError { line, message }
        })?;
    Ok(documents.into_iter().map(Node::from).collect())
}

fn line(location: &serde_saphyr::Location) -> usize {
    usize::try_from(location.line()).unwrap_or(0)
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        Self { line: line(&spanned.referenced), content: spanned.value }
    }
}

impl Node {
    /// The value without lines.
    pub(super) fn value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => Value::Array(items.iter().map(Self::value).collect()),
            Content::Mapping(members) => {
                Value::Object(members.iter().map(|(key, node)| (key.clone(), node.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The member of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Mapping(members) => members.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The items of a sequence.
    pub(super) fn items(&self) -> Option<&[Self]> {
        match &self.content {
            Content::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The line of what a JSON pointer names, or of the nearest thing around it that exists.
    pub(super) fn line_of(&self, pointer: &str) -> usize {
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.content {
                Content::Mapping(_) => node.get(&token),
                Content::Sequence(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
                Content::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node.line
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Content, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("numbers must be finite"))?;
        Ok(Content::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Content>>()? {
            items.push(Node::from(item));
        }
        Ok(Content::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut members: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value::<Spanned<Content>>()?;
            // The reader refuses equal keys as written; keys such as `1` and "1" are equal only here.
            if !seen.insert(key.value.clone()) {
                return Err(A::Error::custom(format!("duplicate key `{}`", key.value)));
            }
            members.push((key.value, Node { line: line(&key.referenced), content: value.value }));
        }
        Ok(Content::Mapping(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_keys_and_items_in_every_document() {
        let text = "# c\na: 1\nb:\n  - x: [1, 2]\n    y:\n      z: \"q\"\n---\nc:\n- d\n- e\n";
        let documents = read(text).unwrap();
        assert_eq!(documents.len(), 2);
        let first = &documents[0];
        for (pointer, line) in
            [("", 2), ("/a", 2), ("/b", 3), ("/b/0", 4), ("/b/0/x", 4), ("/b/0/y", 5), ("/b/0/y/z", 6), ("/b/0/w/v", 4)]
        {
            assert_eq!(first.line_of(pointer), line, "{pointer}");
        }
        assert_eq!(first.value(), serde_json::json!({"a": 1, "b": [{"x": [1, 2], "y": {"z": "q"}}]}));
        assert_eq!(documents[1].line_of("/c/1"), 10);
    }

    #[test]
    fn json_is_read_too() {
        let documents = read("{\n\t\"a\": {\"b\": null},\n\t\"c\": [true, \"yes\", yes]\n}\n").unwrap();
        assert_eq!(documents[0].value(), serde_json::json!({"a": {"b": null}, "c": [true, "yes", "yes"]}));
        assert_eq!(documents[0].line_of("/c"), 3);
    }

    #[test]
    fn syntax_errors_and_duplicate_keys_name_their_line() {
        let error = read("a: 1\nb: [1, 2\n").unwrap_err();
        assert!(error.line >= 2, "{error:?}");
        let error = read("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.line, 3, "{error:?}");
        assert!(error.message.contains("duplicate"), "{error:?}");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            text = format!("{text}a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
        }
        assert!(read(&text).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_before_it_overflows_the_stack() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        for text in [nested(MAX_DEPTH + 1), nested(10_000), "[".repeat(100_000), "a:\n ".repeat(50)] {
            assert!(read(&text).is_err());
        }
    }
}
