//! The four lists, filtered and overridden by splicing: an entry that stays keeps its bytes.

use std::ops::Range;

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

/// The answer holds no list where one must be.
#[derive(Debug, Eq, PartialEq)]
pub struct NoList;

impl List {
    /// Member of the result that holds the entries, and member of an entry that rules match.
    const fn members(self) -> (&'static str, &'static str) {
        match self {
            Self::Tools => ("tools", "name"),
            Self::Prompts => ("prompts", "name"),
            Self::Resources => ("resources", "uri"),
            Self::Templates => ("resourceTemplates", "uriTemplate"),
        }
    }
}

/// Runs `judge(name, entry)` over the entries of `result` (JSON text of a list's result). `None`: nothing changed.
///
/// Entries without a name, or with two, are dropped: nobody can say what they are.
pub fn filter(list: List, result: &str, mut judge: impl FnMut(&str, &str) -> Entry) -> Result<Option<String>, NoList> {
    let (key, name_key) = list.members();
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut found = false;
    for (_, array) in members(result).ok_or(NoList)?.iter().filter(|(member, _)| member == key) {
        found = true;
        let mut changed = false;
        let mut kept: Vec<std::borrow::Cow<'_, str>> = Vec::new();
        for item in items(array.get()).ok_or(NoList)? {
            match name_of(item.get(), name_key).map_or(Entry::Drop, |name| judge(&name, item.get())) {
                Entry::Keep => kept.push(item.get().into()),
                Entry::Drop => changed = true,
                Entry::Replace(text) => {
                    changed = true;
                    kept.push(text.into());
                }
            }
        }
        if changed {
            edits.push((range_in(result, array.get()), format!("[{}]", kept.join(","))));
        }
    }
    if !found {
        return Err(NoList);
    }
    Ok((!edits.is_empty()).then(|| splice(result, &edits)))
}

fn name_of(item: &str, key: &str) -> Option<String> {
    let all = members(item)?;
    let mut named = all.iter().filter(|(member, _)| member == key);
    let (_, raw) = named.next()?;
    if named.next().is_some() {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
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
    fn an_entry_with_two_names_or_none_goes() {
        let filtered = filter(List::Tools, r#"{"tools":[{"name":"a","name":"b"},{},3]}"#, |_, _| Entry::Keep);

        assert_eq!(filtered.unwrap().unwrap(), r#"{"tools":[]}"#);
    }

    #[test]
    fn a_second_list_in_one_result_is_filtered_too() {
        let filtered = filter(List::Tools, r#"{"tools":[],"tools":[{"name":"b"}]}"#, |_, _| Entry::Drop);

        assert_eq!(filtered.unwrap().unwrap(), r#"{"tools":[],"tools":[]}"#);
    }

    #[test]
    fn an_answer_without_a_list_is_refused() {
        assert_eq!(filter(List::Tools, r#"{"tool":[]}"#, |_, _| Entry::Keep), Err(NoList));
        assert_eq!(filter(List::Tools, r#"{"tools":{}}"#, |_, _| Entry::Keep), Err(NoList));
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
