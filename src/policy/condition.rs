//! `when`: Common Expression Language (CEL), narrowed until it is total, deterministic and bounded.
//!
//! The crate `cel` 0.13 parses and evaluates. What a policy must not inherit from it is refused or replaced when a
//! condition is compiled (`rewrite`):
//!
//! - Its parser needs over 100 KiB of stack for one bracket in a debug build and panics on long chains of `?:`, so it
//!   runs on a thread of its own with a stack to match, and counts are bounded before it starts.
//! - It reads `!!x` as `!x` and `--x` as `-x`; `-x` of the smallest integer overflows. Both are refused.
//! - `a.b` of something that is no map is `false` there, and `contains` of other types is `false`; here they are
//!   errors. A comparison of different types is an error too (numbers are one type; `null` compares with all).
//! - Loops over a map run in the order of its keys, not at random. No loop in a loop; 1,000 items at most.
//! - `matches` takes a literal, compiled once by `regex` (linear time, bounded size).
//!
//! A condition is split at its top-level `&&`. A conjunct that reads no arguments is static: lists can judge it.

mod functions;
mod rewrite;
mod values;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::parser::Parser;
use cel::{Context, IdedExpr};
use jiff::Timestamp;
use serde_json::Value;

use super::truth::Truth;
use rewrite::Rewritten;
pub(super) use values::Need;

/// Longest source, in bytes.
const SOURCE_BYTES: usize = 1 << 10;
/// Most brackets of all kinds in a source, wherever they stand: a bound on nesting that no quoting can trick.
const BRACKETS: usize = 64;
/// Most question marks in a source: a bound on chained `?:`.
const QUESTIONS: usize = 32;
/// Stack for the parser, in bytes. It is reserved, and used as far as needed, while one condition compiles.
const PARSER_STACK: usize = 64 << 20;

/// A compiled condition.
pub(super) struct Condition {
    conjuncts: Vec<Conjunct>,
    functions: Context<'static>,
    source: String,
}

/// One operand of the top-level `&&`.
pub(super) struct Conjunct {
    expression: IdedExpr,
    /// By variable, what of it is read.
    needs: BTreeMap<&'static str, Need>,
}

/// The values of the variables.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// `identity`; absent for a caller without a token, and to read it is then an error.
    pub(super) identity: Option<&'a Value>,
    /// `arguments`, if they are an object.
    pub(super) arguments: Option<&'a Value>,
    /// `tool`; absent for prompts and resources.
    pub(super) tool: Option<&'a Value>,
    /// `now`.
    pub(super) now: Timestamp,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Condition").field(&self.source).finish()
    }
}

impl Condition {
    /// Compiles a source, or says what is wrong with it. Total, whatever the source.
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        check_bounds(source)?;
        let Rewritten { conjuncts, patterns } = on_a_deep_stack(|| {
            let parsed = Parser::new().parse(source).map_err(|errors| syntax_error(&errors))?;
            rewrite::rewrite(parsed)
        })?;
        let conjuncts = conjuncts.into_iter().map(|(expression, needs)| Conjunct { expression, needs }).collect();
        Ok(Self { conjuncts, functions: functions::context(patterns), source: source.to_owned() })
    }

    /// The condition as it was written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The conjuncts, in the order of the source.
    pub(super) fn conjuncts(&self) -> &[Conjunct] {
        &self.conjuncts
    }

    /// Whether some conjunct reads this variable.
    pub(super) fn reads(&self, variable: &str) -> bool {
        self.conjuncts.iter().any(|conjunct| conjunct.needs.contains_key(variable))
    }

    /// Whether some conjunct reads the scopes of the caller.
    pub(super) fn reads_scopes(&self) -> bool {
        self.conjuncts.iter().any(|conjunct| match conjunct.needs.get("identity") {
            Some(Need::All) => true,
            Some(Need::Fields(fields)) => fields.contains_key("scopes"),
            None => false,
        })
    }

    /// Judges one conjunct. `Unknown` is an error: a missing key or variable, another type, an overflow, too much.
    pub(super) fn judge(&self, conjunct: &Conjunct, inputs: &Inputs<'_>) -> Truth {
        let mut scope = self.functions.new_inner_scope();
        for (variable, need) in &conjunct.needs {
            let value = match *variable {
                "identity" => inputs.identity,
                "arguments" => inputs.arguments,
                "tool" => inputs.tool,
                _ => {
                    if let Some(now) = values::timestamp(inputs.now) {
                        scope.add_variable_from_value("now", now);
                    }
                    continue;
                }
            };
            // What is absent stays undeclared: to read it is an error, which `||` may absorb as CEL says.
            let Some(value) = value else { continue };
            // Too much to look at: nothing is evaluated.
            let Some(value) = values::project(value, need) else { return Truth::Unknown };
            scope.add_variable_from_value(*variable, value);
        }
        // chrono's `DateTime + TimeDelta` panics beyond the year 262,000, and cel 0.13 adds before it checks. That is
        // the one panic known to be left; it must not end the process, and it denies.
        let outcome = catch_unwind(AssertUnwindSafe(|| cel::Value::resolve(&conjunct.expression, &scope)));
        match outcome {
            Ok(Ok(cel::Value::Bool(value))) => Truth::from(value),
            _ => Truth::Unknown,
        }
    }
}

impl Conjunct {
    /// Whether it reads the arguments, so that a list cannot judge it.
    pub(super) fn is_dynamic(&self) -> bool {
        self.needs.contains_key("arguments")
    }

    /// Whether it reads nothing but `identity`, so that neither a call nor the time changes it.
    pub(super) fn reads_identity_alone(&self) -> bool {
        self.needs.keys().all(|variable| *variable == "identity")
    }

    /// What of the arguments it reads, if it does.
    pub(super) fn of_arguments(&self) -> Option<&Need> {
        self.needs.get("arguments")
    }
}

fn check_bounds(source: &str) -> Result<(), String> {
    let count = |set: &[char]| source.chars().filter(|c| set.contains(c)).count();
    if source.len() > SOURCE_BYTES {
        return Err(format!("condition is {} bytes long; at most {SOURCE_BYTES} are allowed", source.len()));
    }
    if count(&['(', '[', '{']) > BRACKETS {
        return Err(format!("condition has more than {BRACKETS} opening brackets"));
    }
    if count(&['?']) > QUESTIONS {
        return Err(format!("condition has more than {QUESTIONS} question marks"));
    }
    // The parser drops every second of a row of `!`, and its tree does not show it. A comment may stand between.
    let doubled = |(at, _): (usize, &str)| {
        let rest = source.get(at + 1..).unwrap_or_default().trim_start();
        rest.starts_with(['!', '/'])
    };
    if source.match_indices('!').any(doubled) {
        return Err("condition has \"!\" before \"!\" or a comment; write one \"!\" before an operand".to_owned());
    }
    Ok(())
}

/// Runs the parser where its recursion fits. The thread also turns a panic of the parser into an error.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel-parser".to_owned()).stack_size(PARSER_STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(handle) => handle.join().unwrap_or_else(|_| Err("condition cannot be parsed; simplify it".to_owned())),
            Err(error) => Err(format!("condition was not parsed, no thread: {error}")),
        }
    })
}

fn syntax_error(errors: &cel::ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) => format!("condition has a syntax error at {}:{}: {}", error.pos.0, error.pos.1, error.msg),
        None => "condition has a syntax error".to_owned(),
    }
}

#[cfg(test)]
mod tests;
