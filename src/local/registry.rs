//! PURE. What the running servers offer and who may use it: the table that `toolgate local` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use crate::gateway::catalogue::{Catalogue, Listed};
use crate::policy::snapshot::Registration;
use crate::policy::{Identity, Item, Policy};

use super::access::{self, Access};
use super::table::Table;

/// Changes that are told one by one; the rest is counted.
const CHANGES: usize = 20;

/// Everything that the servers offer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    entries: BTreeMap<Key, Entry>,
    notes: Vec<String>,
}

/// Server, kind and name of one thing.
type Key = (String, Kind, String);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Tool,
    Prompt,
    Resource,
    Template,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// Name for callers.
    shown: String,
    who: BTreeMap<String, Access>,
}

/// What is known of one server.
pub struct Known<'a> {
    /// Its policy in force.
    pub policy: &'a Policy,
    /// What it offers, or why that is not known; `None` while it is asked.
    pub catalogue: Option<&'a Result<Catalogue, String>>,
}

impl Registry {
    /// Asks policy about everything that the servers offer.
    pub fn new<'a>(
        servers: impl IntoIterator<Item = (&'a str, Known<'a>)>,
        identities: &BTreeMap<String, Identity>,
        now: Timestamp,
    ) -> Self {
        let mut registry = Self::default();
        for (name, known) in servers {
            match known.catalogue {
                Some(Ok(catalogue)) => registry.add(name, known.policy, catalogue, identities, now),
                Some(Err(error)) => registry.notes.push(format!("{name}: no answer: {error}")),
                None => registry.notes.push(format!("{name}: no answer yet")),
            }
        }
        registry
    }

    fn add(
        &mut self,
        server: &str,
        policy: &Policy,
        catalogue: &Catalogue,
        identities: &BTreeMap<String, Identity>,
        now: Timestamp,
    ) {
        let mut put = |kind: Kind, name: &str, shown: String| {
            let who = access::who(policy, identities, kind.item(name), now);
            self.entries.insert((server.to_owned(), kind, name.to_owned()), Entry { shown, who });
        };
        let auto = policy.snapshot().registration == Registration::Auto;
        let mut undeclared = 0_usize;
        for Listed { name, .. } in &catalogue.tools {
            match policy.tool(name).map(|tool| tool.exposed_name.as_deref()) {
                Some(Some(exposed)) if exposed != name => put(Kind::Tool, name, format!("{exposed} (is {name})")),
                Some(_) => put(Kind::Tool, name, name.clone()),
                None if auto => put(Kind::Tool, name, name.clone()),
                None => undeclared += 1,
            }
        }
        let lists = [
            (Kind::Prompt, &catalogue.prompts),
            (Kind::Resource, &catalogue.resources),
            (Kind::Template, &catalogue.templates),
        ];
        for (kind, list) in lists {
            for Listed { name, .. } in list {
                put(kind, name, name.clone());
            }
        }
        if undeclared > 0 {
            let things = if undeclared == 1 { "tool is" } else { "tools are" };
            let note = format!("{server}: {undeclared} more {things} not declared (registration: Declared)");
            self.notes.push(note);
        }
        let offered = |name: &str| catalogue.tools.iter().any(|tool| tool.name == name);
        for tool in policy.snapshot().tools.iter().filter(|tool| !offered(&tool.name)) {
            self.notes.push(format!("{server}: `{}` is declared, but the server does not offer it", tool.name));
        }
    }

    /// The tables and notes, as printed.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut tools = Table::new(["SERVER", "TOOL", "WHO MAY USE IT"]);
        let mut others = Table::new(["SERVER", "KIND", "NAME OR URI", "WHO MAY USE IT"]);
        for ((server, kind, _), entry) in &self.entries {
            let who = access::names(&entry.who);
            match kind {
                Kind::Tool => tools.row(vec![server.clone(), entry.shown.clone(), who]),
                // Prompts and resources need no declaration: those that nobody may use are noise.
                _ if entry.who.is_empty() => {}
                _ => others.row(vec![server.clone(), kind.word().to_owned(), entry.shown.clone(), who]),
            }
        }
        text.push_str(&tools.render());
        if !others.is_empty() {
            text.push('\n');
            text.push_str(&others.render());
        }
        let marked = |entry: &Entry| entry.who.values().any(|access| !access.mark().is_empty());
        if self.entries.values().any(marked) {
            let _ = writeln!(text, "\n{}", access::LEGEND); // Writing to a String cannot fail.
        }
        if !self.notes.is_empty() {
            let _ = write!(text, "\n{}\n", self.notes.join("\n"));
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// What is different now, one line for each thing.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let keys: std::collections::BTreeSet<&Key> = self.entries.keys().chain(new.entries.keys()).collect();
        let mut lines = Vec::new();
        for key in keys {
            let (old, new) = (self.entries.get(key), new.entries.get(key));
            let (server, kind, name) = key;
            let line = match (old, new) {
                (Some(old), Some(new)) if old.who == new.who => continue,
                (Some(old), Some(new)) => format!("{} -> {}", access::names(&old.who), access::names(&new.who)),
                (None, Some(new)) if *kind == Kind::Tool => format!("new: {}", access::names(&new.who)),
                (Some(_), None) if *kind == Kind::Tool => "gone".to_owned(),
                _ => continue, // Prompts and resources come and go with their server.
            };
            lines.push(format!("{server} {} {name}: {line}", kind.word()));
        }
        let rest = lines.len().saturating_sub(CHANGES);
        if rest > 0 {
            lines.truncate(CHANGES);
            lines.push(format!("and {rest} more changes"));
        }
        lines
    }
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "template",
        }
    }

    const fn item(self, name: &str) -> Item<'_> {
        match self {
            Self::Tool => Item::Tool(name),
            Self::Prompt => Item::Prompt(name),
            Self::Resource => Item::Resource(name),
            Self::Template => Item::ResourceTemplate(name),
        }
    }
}

#[cfg(test)]
mod tests;
