//! PURE. The answers to discovery, read where they lie: entry by entry, so that a list of 16 MiB costs its own bytes and
//! those of one entry, not a tree of values of ten times that.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The members of a response that are read.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// A JSON-RPC error.
#[derive(Deserialize)]
pub(super) struct Fault<'a> {
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

/// The members of an entry that are read.
#[derive(Deserialize)]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "uriTemplate")]
    template: Option<&'a RawValue>,
    #[serde(borrow)]
    description: Option<&'a RawValue>,
}

/// An object as one of the structures above. A list is none, although serde would read it as the fields in their order.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_ascii_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        Err(serde_json::Error::custom("not an object"))
    }
}

fn string(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

impl Fault<'_> {
    pub(super) fn code(&self) -> Option<i64> {
        serde_json::from_str(self.code?.get()).ok()
    }

    pub(super) fn message(&self) -> Option<String> {
        string(self.message)
    }
}

impl Entry<'_> {
    /// What rules match: `name`, `uri` or `uriTemplate`.
    pub(super) fn key(&self, key: &str) -> Option<String> {
        string(match key {
            "uri" => self.uri,
            "uriTemplate" => self.template,
            _ => self.name,
        })
    }

    pub(super) fn description(&self) -> Option<String> {
        string(self.description)
    }
}

/// What a page says besides its entries.
pub(super) struct Page<'a> {
    /// Whether the list was there.
    pub(super) is_list: bool,
    /// `nextCursor`.
    pub(super) next: Option<&'a RawValue>,
}

/// Hands each entry of `result`'s list `member` to `take`, as JSON text, in order; its error ends the reading.
pub(super) fn read<'a, E>(
    result: &'a str,
    member: &str,
    mut take: impl FnMut(&'a str) -> Result<(), E>,
) -> Result<Page<'a>, Result<E, serde_json::Error>> {
    let mut failed = None;
    let mut each = |entry: &'a RawValue| match take(entry.get()) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    };
    let read = serde_json::Deserializer::from_str(result).deserialize_map(Members { member, each: &mut each });
    match (failed, read) {
        (Some(error), _) => Err(Ok(error)),
        (None, read) => read.map_err(Err),
    }
}

/// Takes an entry; false: no more of them.
type Each<'e, 'de> = &'e mut dyn FnMut(&'de RawValue) -> bool;

struct Members<'e, 'de> {
    member: &'e str,
    each: Each<'e, 'de>,
}

impl<'de> Visitor<'de> for Members<'_, 'de> {
    type Value = Page<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page<'de>, A::Error> {
        let mut page = Page { is_list: false, next: None };
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == self.member {
                map.next_value_seed(Entries(self.each))?;
                page.is_list = true;
            } else if key == "nextCursor" {
                page.next = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(page)
    }
}

struct Entries<'e, 'de>(Each<'e, 'de>);

impl<'de> DeserializeSeed<'de> for Entries<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<&'de RawValue>()? {
            if !(self.0)(entry) {
                return Err(A::Error::custom("an entry was refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(result: &str) -> (Vec<&str>, bool, Option<&str>) {
        let mut found = Vec::new();
        let page = read(result, "tools", |entry| {
            found.push(entry);
            Ok::<(), ()>(())
        });
        let page = page.map_err(|_| ()).unwrap();
        (found, page.is_list, page.next.map(RawValue::get))
    }

    #[test]
    fn entries_come_in_order_and_the_cursor_with_them() {
        assert_eq!(
            entries(r#"{"nextCursor":"a","x":[1],"tools":[{"name":"a"}, 7 ]}"#),
            (vec![r#"{"name":"a"}"#, "7"], true, Some("\"a\""))
        );
        assert_eq!(entries("{}"), (vec![], false, None));
    }

    #[test]
    fn an_entry_that_is_refused_ends_the_reading() {
        let mut seen = 0;
        let read = read(r#"{"tools":[1,2,3]}"#, "tools", |entry| {
            seen += 1;
            if entry == "2" { Err("no") } else { Ok(()) }
        });

        assert!(matches!(read, Err(Ok("no"))));
        assert_eq!(seen, 2);
    }

    #[test]
    fn what_is_no_list_in_an_object_is_an_error() {
        for bad in ["[]", "7", r#"{"tools":{}}"#, r#"{"tools":[1"#] {
            assert!(matches!(read(bad, "tools", |_| Ok::<(), ()>(())), Err(Err(_))), "{bad}");
        }
        assert!(object::<Entry<'_>>(r#"["a"]"#).is_err());
        let entry = object::<Entry<'_>>(r#"{"name":7,"uri":"file:\u002f"}"#).unwrap();
        assert_eq!((entry.key("name"), entry.key("uri").as_deref()), (None, Some("file:/")));
    }
}
