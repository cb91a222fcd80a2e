//! From a parsed expression to conjuncts that may be evaluated: everything is refused that is not known to be safe.

use std::collections::BTreeMap;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, SelectExpr, operators};
use regex::{Regex, RegexBuilder};

use super::values::Need;

/// The variables of a condition.
pub(super) const VARIABLES: [&str; 4] = ["identity", "arguments", "tool", "now"];
/// Deepest expression, so that evaluation fits on the stack of any thread.
const DEPTH: usize = 24;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES: usize = 256 << 10;

/// Functions by the way they are called: name, whether called on a value, number of arguments.
const FUNCTIONS: [(&str, bool, usize); 19] = [
    ("contains", true, 1),
    ("startsWith", true, 1),
    ("endsWith", true, 1),
    ("matches", true, 1),
    ("size", true, 0),
    ("size", false, 1),
    ("string", false, 1),
    ("int", false, 1),
    ("double", false, 1),
    ("timestamp", false, 1),
    ("duration", false, 1),
    ("getFullYear", true, 0),
    ("getMonth", true, 0),
    ("getDate", true, 0),
    ("getDayOfMonth", true, 0),
    ("getDayOfWeek", true, 0),
    ("getHours", true, 0),
    ("getMinutes", true, 0),
    ("getSeconds", true, 0),
];

/// Operators that the crate evaluates as CEL says.
const OPERATORS: [&str; 13] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

/// What `rewrite` makes of a condition.
pub(super) struct Rewritten {
    /// Expressions and what they read.
    pub(super) conjuncts: Vec<(IdedExpr, BTreeMap<&'static str, Need>)>,
    /// Patterns of `matches`, by number: the function is called `@matches<number>`.
    pub(super) patterns: Vec<Regex>,
}

/// Splits at the top-level `&&` and rewrites each conjunct.
pub(super) fn rewrite(expression: IdedExpr) -> Result<Rewritten, String> {
    let mut operands = Vec::new();
    split(expression, &mut operands);
    let mut patterns = Vec::new();
    let mut conjuncts = Vec::new();
    for operand in operands {
        let mut rewriter = Rewriter { needs: BTreeMap::new(), patterns: &mut patterns, variables: Vec::new() };
        let expression = rewriter.expression(operand, 0)?;
        conjuncts.push((expression, rewriter.needs));
    }
    Ok(Rewritten { conjuncts, patterns })
}

fn split(expression: IdedExpr, operands: &mut Vec<IdedExpr>) {
    match expression.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => {
            call.args.into_iter().for_each(|operand| split(operand, operands));
        }
        _ => operands.push(expression),
    }
}

struct Rewriter<'a> {
    needs: BTreeMap<&'static str, Need>,
    patterns: &'a mut Vec<Regex>,
    /// Names bound by the enclosing macro: its variable and its accumulator. Empty outside of a macro.
    variables: Vec<String>,
}

impl Rewriter<'_> {
    fn expression(&mut self, expression: IdedExpr, depth: usize) -> Result<IdedExpr, String> {
        if depth > DEPTH {
            return Err(format!("condition is nested more than {DEPTH} deep"));
        }
        if let Some((variable, path)) = self.path(&expression) {
            self.needs.entry(variable).or_default().add(&path);
        }
        self.node(expression, depth)
    }

    /// Rewrites a node without noting what it reads: for the inside of a path, whose end has been noted.
    fn node(&mut self, IdedExpr { id, expr }: IdedExpr, depth: usize) -> Result<IdedExpr, String> {
        let expr = match expr {
            Expr::Ident(name) => {
                if !VARIABLES.contains(&name.as_str()) && !self.variables.contains(&name) {
                    return Err(format!("condition reads {name:?}; there are identity, arguments, tool and now"));
                }
                Expr::Ident(name)
            }
            Expr::Literal(LiteralValue::Bytes(_)) => {
                return Err("condition has a bytes literal; use a string".to_owned());
            }
            Expr::Literal(literal) => Expr::Literal(literal),
            Expr::Select(select) => self.select(id, select, depth)?,
            Expr::List(list) => {
                let elements = list.elements.into_iter().map(|element| self.expression(element, depth + 1));
                Expr::List(ListExpr::new(elements.collect::<Result<_, _>>()?))
            }
            Expr::Call(call) => self.call(call, depth)?,
            Expr::Comprehension(comprehension) => self.comprehension(*comprehension, depth)?,
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                return Err("condition builds a map or a message; compare single values".to_owned());
            }
        };
        Ok(IdedExpr { id, expr })
    }

    fn select(&mut self, id: u64, select: SelectExpr, depth: usize) -> Result<Expr, String> {
        if select.field.starts_with('`') {
            return Err(format!("condition has a quoted field {}; write [\"…\"]", select.field));
        }
        let operand = self.operand(*select.operand, depth)?;
        let field = IdedExpr { id, expr: Expr::Literal(LiteralValue::String(select.field.as_str().into())) };
        // `_[_]` instead of a selection: what is no map, or has no such key, is then an error.
        let function = if select.test { "@has" } else { operators::INDEX };
        Ok(call(function, vec![operand, field]))
    }

    /// An operand of a selection: part of a path that has been noted, or an expression of its own.
    fn operand(&mut self, operand: IdedExpr, depth: usize) -> Result<IdedExpr, String> {
        if self.path(&operand).is_some() { self.nested(operand, depth) } else { self.expression(operand, depth + 1) }
    }

    fn nested(&mut self, node: IdedExpr, depth: usize) -> Result<IdedExpr, String> {
        if depth >= DEPTH {
            return Err(format!("condition is nested more than {DEPTH} deep"));
        }
        self.node(node, depth + 1)
    }

    fn call(&mut self, mut expr: CallExpr, depth: usize) -> Result<Expr, String> {
        let name = expr.func_name.clone();
        if let Some(target) = expr.target.take() {
            return self.function(&name, Some(*target), expr.args, depth);
        }
        if name == operators::INDEX
            && let Some(index) = expr.args.pop()
            && let Some(operand) = expr.args.pop()
        {
            let is_field = matches!(index.expr, Expr::Literal(LiteralValue::String(_)));
            let operand = if is_field { self.operand(operand, depth)? } else { self.expression(operand, depth + 1)? };
            return Ok(call(operators::INDEX, vec![operand, self.expression(index, depth + 1)?]));
        }
        let replaced = match name.as_str() {
            operators::EQUALS => "@equals",
            operators::NOT_EQUALS => "@differs",
            operators::IN => "@contained",
            operators::NEGATE => {
                return Err("condition negates with \"-\"; only numbers may have a sign, write 0 - x".to_owned());
            }
            operator if OPERATORS.contains(&operator) => operator,
            // Inside of a macro's expansion only; it cannot be written.
            operators::NOT_STRICTLY_FALSE if !self.variables.is_empty() => operators::NOT_STRICTLY_FALSE,
            _ => return self.function(&name, None, expr.args, depth),
        };
        let args = expr.args.into_iter().map(|arg| self.expression(arg, depth + 1)).collect::<Result<_, _>>()?;
        Ok(call(replaced, args))
    }

    fn function(
        &mut self,
        name: &str,
        target: Option<IdedExpr>,
        args: Vec<IdedExpr>,
        depth: usize,
    ) -> Result<Expr, String> {
        // The crate panics on missing arguments and ignores surplus ones, so the number must be right.
        if !FUNCTIONS.contains(&(name, target.is_some(), args.len())) {
            return Err(format!("condition calls {name}() with {} arguments; there is no such function", args.len()));
        }
        let literal = match args.as_slice() {
            [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }] => Some(text.inner().to_owned()),
            _ => None,
        };
        if name == "matches" {
            let pattern = literal.ok_or("condition calls matches() with a pattern that is no literal string")?;
            let regex = RegexBuilder::new(&pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
            let regex = regex.map_err(|error| format!("condition has a bad pattern {pattern:?}: {error}"))?;
            let target = target.map(|target| self.expression(target, depth + 1)).transpose()?;
            self.patterns.push(regex);
            return Ok(call(&format!("@matches{}", self.patterns.len() - 1), target.into_iter().collect()));
        }
        if name == "duration" {
            // The crate ignores what follows a duration that it can read.
            let whole = Regex::new("^([0-9]{1,6}(h|ms|m|s))+$").map_err(|error| error.to_string())?;
            if !literal.is_some_and(|text| whole.is_match(&text)) {
                return Err("condition calls duration() with other than a literal such as \"1h30m\"".to_owned());
            }
        }
        let args = target.into_iter().chain(args);
        let args = args.map(|arg| self.expression(arg, depth + 1)).collect::<Result<_, _>>()?;
        Ok(call(name, args))
    }

    fn comprehension(&mut self, comprehension: ComprehensionExpr, depth: usize) -> Result<Expr, String> {
        if !self.variables.is_empty() {
            return Err("condition has a macro inside of a macro".to_owned());
        }
        if VARIABLES.contains(&comprehension.iter_var.as_str()) {
            return Err(format!("condition names a loop variable {:?}; choose another name", comprehension.iter_var));
        }
        let range = self.expression(comprehension.iter_range, depth + 1)?;
        let accu_init = self.expression(comprehension.accu_init, depth + 1)?;
        self.variables = vec![comprehension.iter_var.clone(), comprehension.accu_var.clone()];
        let mut part = |expression| self.expression(expression, depth + 1);
        let (loop_cond, loop_step, result) =
            (part(comprehension.loop_cond)?, part(comprehension.loop_step)?, part(comprehension.result)?);
        self.variables.clear();
        let iter_range = IdedExpr { id: range.id, expr: call("@items", vec![range]) };
        Ok(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range,
            iter_var: comprehension.iter_var,
            iter_var2: comprehension.iter_var2,
            accu_var: comprehension.accu_var,
            accu_init,
            loop_cond,
            loop_step,
            result,
        })))
    }

    /// The path that an expression is, if it is one: a variable, then fields.
    fn path(&self, expression: &IdedExpr) -> Option<(&'static str, Vec<String>)> {
        let (operand, field) = match &expression.expr {
            Expr::Ident(name) => {
                let bound = self.variables.contains(name);
                let variable = VARIABLES.into_iter().find(|variable| !bound && variable == name)?;
                return Some((variable, Vec::new()));
            }
            Expr::Select(select) => (select.operand.as_ref(), select.field.clone()),
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::INDEX => {
                match args.as_slice() {
                    [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] => {
                        (operand, field.inner().to_owned())
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        let (variable, mut path) = self.path(operand)?;
        path.push(field);
        Some((variable, path))
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}
