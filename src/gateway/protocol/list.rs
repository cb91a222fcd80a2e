//! The four lists, filtered and overridden by splicing: an entry that stays keeps its bytes.

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

/// Runs `judge(name, entry)` over the entries of `result` (JSON text of a list's result). `None`: nothing changed.
///
/// Entries without a name are dropped: nobody can say what they are. A list that readers could read in two ways is
/// refused as a whole: where it is so on purpose, nothing of it can be trusted.
pub fn filter(list: List, result: &str, mut judge: impl FnMut(&str, &str) -> Entry) -> Result<Option<String>, NoList> {
    let (key, name_key) = list.members();
    let [array] = fields::read(result, &[key]).map_err(|unclear| match unclear {
        Unclear::NoObject => NoList::Missing,
        unclear => NoList::Result(unclear),
    })?;
    let array = array.ok_or(NoList::Missing)?;
    let mut changed = false;
    let mut kept: Vec<std::borrow::Cow<'_, str>> = Vec::new();
    for (at, item) in items(array.get()).ok_or(NoList::Missing)?.into_iter().enumerate() {
        // What overrides replace must be clear as well, or a reader would find the server's own text.
        let named = match fields::read(item.get(), &[name_key, "title", "description"]) {
            Ok([name, ..]) => name.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()),
            Err(Unclear::NoObject) => None,
            Err(unclear) => return Err(NoList::Entry(at, unclear)),
        };
        match named.map_or(Entry::Drop, |name| judge(&name, item.get())) {
            Entry::Keep => kept.push(item.get().into()),
            Entry::Drop => changed = true,
            Entry::Replace(text) => {
                changed = true;
                kept.push(text.into());
            }
        }
    }
    Ok(changed.then(|| splice(result, &[(range_in(result, array.get()), format!("[{}]", kept.join(",")))])))
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

    #[test]
    fn what_stays_keeps_its_bytes() {
        let result = r#"{ "tools" : [ {"name":"a","x":1e2} , {"name":"b"},{"nam\u0065":"c"} ],"nextCursor":""}"#;

        let filtered = filter(List::Tools, result, |name, _| if name == "b" { Entry::Drop } else { Entry::Keep });

        let expected = r#"{ "tools" : [{"name":"a","x":1e2},{"nam\u0065":"c"}],"nextCursor":""}"#;
        assert_eq!(filtered.unwrap().unwrap(), expected);
    }

    #[test]
    fn a_list_that_needs_no_change_is_not_touched() {
        assert_eq!(filter(List::Prompts, r#"{"prompts":[{"name":"a"}]}"#, |_, _| Entry::Keep), Ok(None));
    }

    #[test]
    fn an_entry_without_a_name_goes() {
        let filtered = filter(List::Tools, r#"{"tools":[{"name":null},{"name":1},{},3,["a"]]}"#, |_, _| Entry::Keep);

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
            let refused = filter(List::Tools, result, |_, _| Entry::Keep);
            assert!(matches!(refused, Err(NoList::Result(_) | NoList::Entry(0, _))), "{result}: {refused:?}");
            assert!(List::Tools.is_in(result));
        }
        assert!(!List::Tools.is_in(r#"{"prompts":[]}"#));
    }

    #[test]
    fn an_answer_without_a_list_is_refused() {
        assert_eq!(filter(List::Tools, r#"{"tool":[]}"#, |_, _| Entry::Keep), Err(NoList::Missing));
        assert_eq!(filter(List::Tools, r#"{"tools":{}}"#, |_, _| Entry::Keep), Err(NoList::Missing));
        assert_eq!(filter(List::Tools, "[]", |_, _| Entry::Keep), Err(NoList::Missing));
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
