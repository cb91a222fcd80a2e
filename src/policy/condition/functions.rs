//! The functions of a condition. Each is an error where a value has a type that it is not about.
#![allow(clippy::needless_pass_by_value)] // The crate calls functions with owned values.

use std::sync::Arc;

use cel::extractors::This;
use cel::objects::{Key, Value};
use cel::{Context, ExecutionError, functions};
use regex::Regex;

use super::values::ITEMS;

type Outcome<T> = Result<T, ExecutionError>;

/// The functions, with one `@matches<number>` a pattern.
pub(super) fn context(patterns: Vec<Regex>) -> Context<'static> {
    let mut context = Context::empty();
    context.add_function("@has", has);
    context.add_function("@equals", equals);
    context.add_function("@differs", |left: Value, right: Value| equals(left, right).map(|equal| !equal));
    context.add_function("@contained", contained);
    context.add_function("@items", items);
    context.add_function("contains", contains);
    context.add_function("size", size);
    context.add_function("int", int);
    context.add_function("double", double);
    context.add_function("string", functions::string);
    context.add_function("startsWith", |text: Arc<String>, part: Arc<String>| text.starts_with(part.as_str()));
    context.add_function("endsWith", |text: Arc<String>, part: Arc<String>| text.ends_with(part.as_str()));
    context.add_function("timestamp", functions::timestamp);
    context.add_function("duration", functions::duration);
    context.add_function("getFullYear", functions::time::timestamp_year);
    context.add_function("getMonth", functions::time::timestamp_month);
    context.add_function("getDate", functions::time::timestamp_date);
    context.add_function("getDayOfMonth", functions::time::timestamp_month_day);
    context.add_function("getDayOfWeek", functions::time::timestamp_weekday);
    context.add_function("getHours", functions::time::get_hours);
    context.add_function("getMinutes", functions::time::get_minutes);
    context.add_function("getSeconds", functions::time::get_seconds);
    for (number, pattern) in patterns.into_iter().enumerate() {
        context.add_function(&format!("@matches{number}"), move |text: Arc<String>| pattern.is_match(&text));
    }
    context
}

fn error<T>(function: &str, message: &str) -> Outcome<T> {
    Err(ExecutionError::function_error(function, message))
}

/// `has(a.b)`: of a map only.
fn has(map: Value, field: Arc<String>) -> Outcome<bool> {
    match map {
        Value::Map(map) => Ok(map.get(&Key::String(field)).is_some()),
        _ => error("has", "not a map"),
    }
}

/// Equality of one type; numbers are one type, and `null` compares with all.
fn equals(left: Value, right: Value) -> Outcome<bool> {
    if comparable(&left, &right) { Ok(left == right) } else { error("==", "different types") }
}

fn comparable(left: &Value, right: &Value) -> bool {
    let number = |value: &Value| matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_));
    matches!((left, right), (Value::Null, _) | (_, Value::Null))
        || (number(left) && number(right))
        || std::mem::discriminant(left) == std::mem::discriminant(right)
}

/// `a in list`, `"key" in map`.
fn contained(value: Value, container: Value) -> Outcome<bool> {
    match (value, container) {
        (value, Value::List(items)) => {
            if items.contains(&value) {
                Ok(true)
            } else if items.is_empty() || items.iter().any(|item| comparable(&value, item)) {
                Ok(false)
            } else {
                error("in", "different types")
            }
        }
        (Value::String(key), Value::Map(map)) => Ok(map.get(&Key::String(key)).is_some()),
        _ => error("in", "not a list or map"),
    }
}

/// What a macro loops over: the items of a list, or the keys of a map in order.
fn items(range: Value) -> Outcome<Value> {
    match range {
        Value::List(items) if items.len() <= ITEMS => Ok(Value::List(items)),
        Value::Map(map) if map.map.len() <= ITEMS => {
            let mut keys: Vec<&Key> = map.map.keys().collect();
            keys.sort();
            Ok(Value::List(Arc::new(keys.into_iter().map(Value::from).collect())))
        }
        Value::List(_) | Value::Map(_) => error("macro", "more than 1,000 items"),
        _ => error("macro", "not a list or map"),
    }
}

fn contains(text: Arc<String>, part: Arc<String>) -> bool {
    text.contains(part.as_str())
}

/// Characters of a string, items of a list or map.
fn size(value: Value) -> Outcome<i64> {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => return error("size", "not a string, list or map"),
    };
    i64::try_from(size).or_else(|_| error("size", "overflow"))
}

#[allow(clippy::cast_possible_truncation)] // Bounded to what an i64 holds; the fraction is dropped, as CEL says.
fn int(value: Value) -> Outcome<i64> {
    match value {
        Value::Int(integer) => Ok(integer),
        Value::UInt(integer) => i64::try_from(integer).or_else(|_| error("int", "overflow")),
        Value::Float(float) if float.abs() < 9_223_372_036_854_775_808.0 => Ok(float.trunc() as i64),
        Value::String(text) => text.parse().or_else(|_| error("int", "not an integer")),
        _ => error("int", "not a number in range"),
    }
}

#[allow(clippy::cast_precision_loss)] // What the conversion is for.
fn double(This(value): This<Value>) -> Outcome<f64> {
    let float = match value {
        Value::Int(integer) => integer as f64,
        Value::UInt(integer) => integer as f64,
        Value::Float(float) => float,
        Value::String(text) => text.parse().or_else(|_| error("double", "not a number"))?,
        _ => return error("double", "not a number"),
    };
    if float.is_finite() { Ok(float) } else { error("double", "not finite") }
}
