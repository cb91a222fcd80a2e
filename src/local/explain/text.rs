//! PURE. Answers as text.

use std::fmt::Write as _;

use super::super::access::Access;
use super::super::table::Table;
use super::{Call, Caller, Matrix, RoleOf, RuleOf, Who};

/// What the words of a matrix mean.
const MATRIX_LEGEND: &str = "yes: always, with any arguments    if: under conditions    -: looks as if it did not exist
not now: the rule has a time window, and it is closed";

pub(super) fn matrix(matrix: &Matrix) -> String {
    let titles = ["SERVER", "TOOL"].map(str::to_owned).into_iter().chain(matrix.identities.iter().cloned());
    let mut table = Table::with_titles(titles.collect());
    // Equal conditions have one number, whoever they are about.
    let mut notes: Vec<&Vec<String>> = Vec::new();
    for row in &matrix.tools {
        let mut cells = vec![row.server.clone(), row.tool.clone()];
        for name in &matrix.identities {
            let mut cell = match row.access.get(name) {
                Some(Access::No) | None => "-".to_owned(),
                Some(access) => access.to_string(),
            };
            if let Some(conditions) = row.conditions.get(name) {
                let number = notes.iter().position(|known| *known == conditions).unwrap_or_else(|| {
                    notes.push(conditions);
                    notes.len() - 1
                });
                let _ = write!(cell, " [{}]", number + 1); // Writing to a String cannot fail.
            }
            cells.push(cell);
        }
        table.row(cells);
    }
    let mut text = format!("{}\n{MATRIX_LEGEND}\n", table.render());
    for (number, conditions) in (1..).zip(notes) {
        let indent = format!("\n{:1$}", "", format!("[{number}] ").len());
        let _ = write!(text, "\n[{number}] {}\n", conditions.join(&indent));
    }
    text
}

pub(super) fn caller(caller: &Caller) -> String {
    let mut text = head(&caller.identity, &caller.roles);
    let mut tools = Table::new(["SERVER", "TOOL", "MAY USE", "BECAUSE"]);
    for tool in &caller.tools {
        let name = match &tool.exposed_name {
            Some(exposed) => format!("{exposed} (is {})", tool.tool),
            None => tool.tool.clone(),
        };
        let mut first = [tool.server.clone(), name, tool.access.to_string()];
        if let Some(reason) = &tool.reason {
            tools.row(first.iter().cloned().chain([reason.clone()]).collect());
        }
        for rule in &tool.rules {
            tools.row(first.iter().cloned().chain([line(rule)]).collect());
            first = Default::default(); // Further rules stand below the first, without repeating the tool.
        }
    }
    if tools.is_empty() {
        text.push_str("\nno tool is declared\n");
    } else {
        let _ = write!(text, "\n{}", tools.render()); // Writing to a String cannot fail.
    }
    let mut others = Table::new(["SERVER", "KIND", "PATTERN", "EFFECT", "RULE"]);
    for other in &caller.others {
        let effect = if other.conditional { format!("{} if", other.effect) } else { other.effect.clone() };
        let cells = [&other.server, other.kind, &other.pattern, &effect, &other.rule];
        others.row(cells.into_iter().map(ToOwned::to_owned).collect());
    }
    if !others.is_empty() {
        let _ = write!(text, "\n{}", others.render());
    }
    for note in &caller.notes {
        let _ = write!(text, "\n{note}");
    }
    text
}

pub(super) fn call(call: &Call) -> String {
    let mut text = head(&call.identity, &call.roles);
    let verdict = if call.allowed { "ALLOWED" } else { "REFUSED" };
    let _ = writeln!(text, "\n{verdict}: {} at {}: {}", call.tool, call.server, call.answer);
    let _ = writeln!(text, "reason: {}", call.reason);
    if let Some(rule) = &call.rule {
        let _ = writeln!(text, "decided by: {rule}");
    }
    let mut rules = Table::new(["RULE", "EFFECT", "MATCHES", "BECAUSE"]);
    for rule in &call.rules {
        let matches = if rule.matched { "yes" } else { "no" };
        rules.row(vec![rule.rule.clone(), rule.effect.clone(), matches.to_owned(), rule.because.clone()]);
    }
    if !rules.is_empty() {
        let _ = write!(text, "\n{}", rules.render());
    }
    text
}

fn head(who: &Who, roles: &[RoleOf]) -> String {
    let mut text = format!("{}: subject {} of issuer {}", who.name, who.subject, who.issuer);
    for (what, list) in [("groups", &who.groups), ("scopes", &who.scopes)] {
        if !list.is_empty() {
            let _ = write!(text, ", {what} {}", list.join(" "));
        }
    }
    text.push('\n');
    let mut table = Table::new(["ROLE", "BECAUSE"]);
    for role in roles {
        table.row(vec![role.role.clone(), role.because.clone()]);
    }
    if table.is_empty() {
        text.push_str("\nno role\n");
    } else {
        let _ = write!(text, "\n{}", table.render());
    }
    text
}

fn line(rule: &RuleOf) -> String {
    let effect = if rule.matched { rule.effect.clone() } else { format!("({})", rule.effect) };
    if rule.because.is_empty() {
        format!("{effect} {}", rule.rule)
    } else {
        format!("{effect} {}: {}", rule.rule, rule.because)
    }
}
