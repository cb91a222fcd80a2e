//! The four lists, filtered and overridden by splicing: an entry that stays keeps its bytes.

use std::ops::Range;

use super::fields::{self, Unclear};
use super::json::{self, items, members, range_in, splice};
use super::methods::List;

/// What becomes of one entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// Stays as it is.
    Keep,
    /// Goes.
    Drop,
    /// Becomes this JSON text.
    Replace(String),
}

/// Why a list cannot be filtered.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoList {
    /// The answer holds no list where one must be.
    #[error("it holds no list")]
    Missing,
    /// Readers could find another list in it.
    #[error("in its result {0}")]
    Result(Unclear),
    /// Readers could take an entry for another.
    #[error("in its entry {0} {1}")]
    Entry(usize, Unclear),
}

impl List {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// Member of the result that holds the entries, and member of an entry that rules match.
    const fn members(self) -> (&'static str, &'static str) {
        match self {
            Self::Tools => ("tools", "name"),
            Self::Prompts => ("prompts", "name"),
            Self::Resources => ("resources", "uri"),
            Self::Templates => ("resourceTemplates", "uriTemplate"),
        }
    }

    /// Whether `result`, JSON text, holds this list, to some reader.
    pub fn is_in(self, result: &str) -> bool {
        let (key, _) = self.members();
        fields::find(result, &[key])
            .is_ok_and(|found| found.unclear.is_some() || found.values.iter().any(Option::is_some))
    }
}

/// Runs `judge(name, entry)` over the entries of a list's result, which lies at `result` in `whole`, and gives `whole`
/// with what is left of them. `None`: nothing changed. However large the list is, one copy is made of it.
///
/// Entries without a name are dropped: nobody can say what they are. A list that readers could read in two ways is
/// refused as a whole: where it is so on purpose, nothing of it can be trusted.
pub fn filter(
    list: List,
    whole: &str,
    result: Range<usize>,
    mut judge: impl FnMut(&str, &str) -> Entry,
) -> Result<Option<String>, NoList> {
    let (key, name_key) = list.members();
    let [array] = fields::read(whole.get(result).unwrap_or_default(), &[key]).map_err(|unclear| match unclear {
        Unclear::NoObject => NoList::Missing,
        unclear => NoList::Result(unclear),
    })?;
    let array = array.ok_or(NoList::Missing)?;
    let place = range_in(whole, array.get());
    let items = items(array.get()).ok_or(NoList::Missing)?;
    // The copy, once an entry changed, and where its entries begin.
    let mut copy: Option<(String, usize)> = None;
    for (at, item) in items.iter().enumerate() {
        // What overrides replace must be clear as well, or a reader would find the server's own text.
        let named = match fields::read(item.get(), &[name_key, "title", "description"]) {
            Ok([name, ..]) => name.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()),
            Err(Unclear::NoObject) => None,
            Err(unclear) => return Err(NoList::Entry(at, unclear)),
        };
        let entry = named.map_or(Entry::Drop, |name| judge(&name, item.get()));
        if copy.is_none() && entry != Entry::Keep {
            let mut out = String::with_capacity(whole.len());
            out.push_str(whole.get(..place.start).unwrap_or_default());
            out.push('[');
            let begin = out.len();
            items.iter().take(at).for_each(|kept| push(&mut out, begin, kept.get()));
            copy = Some((out, begin));
        }
        match (&mut copy, entry) {
            (None, _) | (Some(_), Entry::Drop) => {}
            (Some((out, begin)), Entry::Keep) => push(out, *begin, item.get()),
            (Some((out, begin)), Entry::Replace(text)) => push(out, *begin, &text),
        }
    }
    Ok(copy.map(|(mut out, _)| {
        out.push(']');
        out.push_str(whole.get(place.end..).unwrap_or_default());
        out
    }))
}

/// Puts an entry behind those that begin at `begin`.
fn push(out: &mut String, begin: usize, entry: &str) {
    if out.len() > begin {
        out.push(',');
    }
    out.push_str(entry);
}

/// What callers read instead of what the server says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Override {
    /// `name`.
    pub name: Option<String>,
    /// `title`.
    pub title: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// Text that is put behind the description.
    pub notice: Option<String>,
}

impl Override {
    /// The entry with the overrides in it.
    pub fn apply(&self, item: &str) -> Option<String> {
        let all = members(item)?;
        let mut edits = Vec::new();
        let mut added = String::new();
        let mut set = |key: &str, value: Option<String>| {
            let Some(value) = value else { return };
            match all.iter().find(|(member, _)| member == key) {
                Some((_, raw)) => edits.push((range_in(item, raw.get()), json::quote(&value))),
                None => added.extend([",", &json::quote(key), ":", &json::quote(&value)]),
            }
        };
        set("name", self.name.clone());
        set("title", self.title.clone());
        let description = match (&self.description, &self.notice) {
            (described, Some(notice)) => {
                let own = all.iter().find(|(member, _)| member == "description");
                let own = own.and_then(|(_, raw)| serde_json::from_str::<String>(raw.get()).ok());
                let before = described.clone().or(own).unwrap_or_default();
                Some(format!("{before}{}{notice}", if before.is_empty() { "" } else { "\n\n" }))
            }
            (described, None) => described.clone(),
        };
        set("description", description);
        edits.sort_by_key(|(range, _)| range.start);
        let mut text = splice(item, &edits);
        if !added.is_empty() {
            let end = text.trim_end().strip_suffix('}')?.len();
            text.insert_str(end, &added);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A result that is the whole text.
    fn all(list: List, result: &str, judge: impl FnMut(&str, &str) -> Entry) -> Result<Option<String>, NoList> {
        filter(list, result, 0..result.len(), judge)
    }

    #[test]
    fn what_stands_around_the_result_keeps_its_bytes() {
        let whole = r#"{ "result": {"a":[9],"tools":[{"name":"a"}, {"name":"b"}],"y":[],"z": 1e2}, "id":1 }"#;
        let result = whole.find("{\"a\"").unwrap()..whole.rfind(", \"id\"").unwrap();

        let replace = |name: &str, _: &str| if name == "b" { Entry::Replace("{}".to_owned()) } else { Entry::Keep };
        let filtered = filter(List::Tools, whole, result, replace).unwrap().unwrap();

        assert_eq!(filtered, r#"{ "result": {"a":[9],"tools":[{"name":"a"},{}],"y":[],"z": 1e2}, "id":1 }"#);
    }

    #[test]
    fn what_stays_keeps_its_bytes() {
        let result = r#"{ "tools" : [ {"name":"a","x":1e2} , {"name":"b"},{"nam\u0065":"c"} ],"nextCursor":""}"#;

        let filtered = all(List::Tools, result, |name, _| if name == "b" { Entry::Drop } else { Entry::Keep });

        let expected = r#"{ "tools" : [{"name":"a","x":1e2},{"nam\u0065":"c"}],"nextCursor":""}"#;
        assert_eq!(filtered.unwrap().unwrap(), expected);
    }

    #[test]
    fn a_list_that_needs_no_change_is_not_touched() {
        assert_eq!(all(List::Prompts, r#"{"prompts":[{"name":"a"}]}"#, |_, _| Entry::Keep), Ok(None));
    }

    #[test]
    fn an_entry_without_a_name_goes() {
        let filtered = all(List::Tools, r#"{"tools":[{"name":null},{"name":1},{},3,["a"]]}"#, |_, _| Entry::Keep);

        assert_eq!(filtered.unwrap().unwrap(), r#"{"tools":[]}"#);
    }

    #[test]
    fn a_list_that_readers_could_read_otherwise_is_refused() {
        for result in [
            r#"{"tools":[],"tools":[{"name":"b"}]}"#,
            r#"{"tools":[],"Tools":[{"name":"b"}]}"#,
            r#"{"tools":[],"tool\u0073":[{"name":"b"}]}"#,
            r#"{"tools":[{"name":"a","name":"b"}]}"#,
            r#"{"tools":[{"name":"a","Name":"b"}]}"#,
            r#"{"tools":[{"name":"a","n\u0061me":"b"}]}"#,
            r#"{"tools":[{"name":"a","description":"","description":"the server's own"}]}"#,
        ] {
            let refused = all(List::Tools, result, |_, _| Entry::Keep);
            assert!(matches!(refused, Err(NoList::Result(_) | NoList::Entry(0, _))), "{result}: {refused:?}");
            assert!(List::Tools.is_in(result));
        }
        assert!(!List::Tools.is_in(r#"{"prompts":[]}"#));
    }

    #[test]
    fn an_answer_without_a_list_is_refused() {
        assert_eq!(all(List::Tools, r#"{"tool":[]}"#, |_, _| Entry::Keep), Err(NoList::Missing));
        assert_eq!(all(List::Tools, r#"{"tools":{}}"#, |_, _| Entry::Keep), Err(NoList::Missing));
        assert_eq!(all(List::Tools, "[]", |_, _| Entry::Keep), Err(NoList::Missing));
    }

    #[test]
    fn overrides_replace_or_add() {
        let change = Override {
            name: Some("n".into()),
            title: Some("T".into()),
            description: None,
            notice: Some("Deprecated.".into()),
        };

        assert_eq!(
            change.apply(r#"{"description":"d","name":"a","z":1}"#).unwrap(),
            r#"{"description":"d\n\nDeprecated.","name":"n","z":1,"title":"T"}"#
        );
    }
}
