//! JSON to CEL values: only what a condition reads, and no more than a bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::objects::{Key, Map};
use serde_json::Value;

/// Most items of one list or map that a condition may look at.
pub(super) const ITEMS: usize = 1000;
/// Most values that one conjunct may look at in one variable.
const VALUES: usize = 20_000;
/// Most text that one conjunct may look at in one variable, in bytes.
const TEXT_BYTES: usize = 256 << 10;

/// Which parts of a variable a conjunct reads.
#[derive(Debug, PartialEq)]
pub(in crate::policy) enum Need {
    /// Only these fields.
    Fields(BTreeMap<String, Self>),
    /// Everything below.
    All,
}

impl Default for Need {
    fn default() -> Self {
        Self::Fields(BTreeMap::new())
    }
}

impl Need {
    /// Adds a path.
    pub(in crate::policy) fn add(&mut self, path: &[String]) {
        match (&mut *self, path) {
            (Self::All, _) => {}
            (_, []) => *self = Self::All,
            (Self::Fields(fields), [field, rest @ ..]) => fields.entry(field.clone()).or_default().add(rest),
        }
    }
}

/// The needed parts of a JSON value; `None` if they are too much.
pub(super) fn project(value: &Value, need: &Need) -> Option<cel::Value> {
    select(value, need, &mut Budget { values: VALUES, bytes: TEXT_BYTES })
}

/// The instant as a CEL timestamp.
pub(super) fn timestamp(now: jiff::Timestamp) -> Option<cel::Value> {
    cel::functions::timestamp(Arc::new(now.to_string())).ok()
}

struct Budget {
    values: usize,
    bytes: usize,
}

impl Budget {
    fn spend(&mut self, values: usize, bytes: usize) -> Option<()> {
        self.values = self.values.checked_sub(values)?;
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(())
    }
}

fn select(value: &Value, need: &Need, budget: &mut Budget) -> Option<cel::Value> {
    match (need, value) {
        (Need::Fields(fields), Value::Object(object)) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (field, need) in fields {
                if let Some(value) = object.get(field) {
                    map.insert(Key::from(field.as_str()), select(value, need, budget)?);
                }
            }
            Some(map_of(map))
        }
        // Only fields of it are read, and a list has none: the error is the same without its items.
        (Need::Fields(_), Value::Array(_)) => Some(cel::Value::List(Arc::default())),
        _ => convert(value, budget),
    }
}

fn convert(value: &Value, budget: &mut Budget) -> Option<cel::Value> {
    budget.spend(1, 0)?;
    Some(match value {
        Value::Null => cel::Value::Null,
        Value::Bool(bool) => cel::Value::Bool(*bool),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => cel::Value::Int(integer),
            (None, Some(integer), _) => cel::Value::UInt(integer),
            (None, None, float) => cel::Value::Float(float?),
        },
        Value::String(text) => {
            budget.spend(0, text.len())?;
            cel::Value::String(Arc::new(text.clone()))
        }
        Value::Array(items) if items.len() <= ITEMS => {
            let items = items.iter().map(|item| convert(item, budget)).collect::<Option<Vec<_>>>()?;
            cel::Value::List(Arc::new(items))
        }
        Value::Object(fields) if fields.len() <= ITEMS => {
            let mut map = HashMap::with_capacity(fields.len());
            for (field, value) in fields {
                budget.spend(0, field.len())?;
                map.insert(Key::from(field.as_str()), convert(value, budget)?);
            }
            map_of(map)
        }
        Value::Array(_) | Value::Object(_) => return None,
    })
}

fn map_of(map: HashMap<Key, cel::Value>) -> cel::Value {
    cel::Value::Map(Map { map: Arc::new(map) })
}
