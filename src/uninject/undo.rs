//! The record of an injection: how to come back from a pod as injected to the pod as sent.
//!
//! It is short, because injection mostly adds, and it holds when somebody else changes the pod in between, because
//! items of lists are named by Kubernetes' merge keys, not by their place. A record mirrors the pod:
//!
//! | record | meaning |
//! |---|---|
//! | `null` | take this away |
//! | `{"=": value}` | put this value here |
//! | `{"name": record, …}` | for each field, or item of a list by its key |
//! | `"": null` in such an object | and take the object or list itself away, if nothing is left in it |
//! | `"#": [names]` in such an object | and put the items into this order |

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::merge::schema::{self, Kind, Type};

const PUT: &str = "=";
const IF_EMPTY: &str = "";
const ORDER: &str = "#";

/// What a probe or a hook does: one of these. One that injection added goes whole, with what an API server filled in
/// (`scheme: HTTP`), since the rest of it would be no handler.
const HANDLERS: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];

/// The record that leads from `after` to `before`, two pods.
pub(crate) fn record(before: &Value, after: &Value) -> Value {
    changes(before, after, Shape::Object(schema::POD)).unwrap_or_else(|| json!({}))
}

/// Undoes what a record of [`record`] says. What is not there any more, or has another shape, is left alone.
pub(crate) fn apply(pod: &mut Value, record: &Value) {
    undo(pod, record, Shape::Object(schema::POD));
}

/// How a value is looked at.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Object(Type),
    /// A list whose items are told apart by this key.
    Keyed(&'static str, Type),
}

impl Shape {
    /// Of a field.
    fn of(self, field: &str) -> Self {
        let Self::Object(of) = self else { return Self::Object(&[]) };
        match schema::kind(of, field) {
            Some(Kind::Object(of)) => Self::Object(of),
            Some(Kind::List(key, of)) => Self::Keyed(key, of),
            Some(Kind::Set) | None => Self::Object(&[]),
        }
    }
}

/// `None` where the two are equal.
fn changes(before: &Value, after: &Value, shape: Shape) -> Option<Value> {
    if before == after {
        return None;
    }
    let fields = match (before, after, shape) {
        (Value::Object(before), Value::Object(after), Shape::Object(_)) => object(before, after, shape),
        (Value::Array(before), Value::Array(after), Shape::Keyed(key, of)) => list(before, after, key, of),
        _ => None,
    };
    Some(fields.map_or_else(|| json!({ PUT: before }), Value::Object))
}

/// What became of a field that was not there before.
fn addition(after: &Value, shape: Shape) -> Value {
    let empty = match (after, shape) {
        (Value::Object(_), Shape::Object(_)) => json!({}),
        (Value::Array(_), Shape::Keyed(..)) => json!([]),
        _ => return Value::Null,
    };
    let mut record = changes(&empty, after, shape).unwrap_or_else(|| json!({}));
    match record.as_object_mut() {
        Some(fields) if !fields.contains_key(PUT) => fields.insert(IF_EMPTY.to_owned(), Value::Null),
        _ => return Value::Null,
    };
    record
}

/// `None` where a name would be mistaken for one of the record's own.
fn object(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    shape: Shape,
) -> Option<Map<String, Value>> {
    let mut record = Map::new();
    for (name, now) in after {
        match before.get(name) {
            Some(value) => record.extend(changes(value, now, shape.of(name)).map(|r| (name.clone(), r))),
            None => {
                let whole = HANDLERS.contains(&name.as_str());
                let gone = if whole { Value::Null } else { addition(now, shape.of(name)) };
                record.insert(name.clone(), gone);
            }
        }
    }
    for (name, value) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
        record.insert(name.clone(), json!({ PUT: value }));
    }
    is_clear(&record).then_some(record)
}

/// `None` where the items cannot be told apart.
fn list(before: &[Value], after: &[Value], key: &str, of: Type) -> Option<Map<String, Value>> {
    let (before, after) = (named(before, key)?, named(after, key)?);
    let mut record = Map::new();
    let mut left = Vec::new();
    let old: HashMap<&str, &Value> = before.iter().map(|(name, item)| (name.as_str(), *item)).collect();
    for (name, now) in &after {
        match old.get(name.as_str()) {
            Some(item) => {
                left.push(name.as_str());
                record.extend(changes(item, now, Shape::Object(of)).map(|r| (name.clone(), r)));
            }
            None => {
                record.insert(name.clone(), Value::Null);
            }
        }
    }
    for (name, item) in before.iter().filter(|(name, _)| after.iter().all(|(now, _)| now != name)) {
        left.push(name);
        record.insert(name.clone(), json!({ PUT: item }));
    }
    if !is_clear(&record) {
        return None;
    }
    let order: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
    if left != order {
        record.insert(ORDER.to_owned(), json!(order));
    }
    Some(record)
}

fn is_clear(record: &Map<String, Value>) -> bool {
    [PUT, IF_EMPTY, ORDER].iter().all(|own| !record.contains_key(*own))
}

/// The items with their keys as text; `None` where one has no key, or two have the same.
fn named<'a>(items: &'a [Value], key: &str) -> Option<Vec<(String, &'a Value)>> {
    let mut names = HashSet::new();
    items
        .iter()
        .map(|item| {
            let name = name_of(item, key)?;
            names.insert(name.clone()).then_some((name, item))
        })
        .collect()
}

fn name_of(item: &Value, key: &str) -> Option<String> {
    match item.get(key)? {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether the value is to be taken away.
fn undo(value: &mut Value, record: &Value, shape: Shape) -> bool {
    let Value::Object(record) = record else { return record.is_null() };
    if let Some(put) = record.get(PUT) {
        *value = put.clone();
        return false;
    }
    let own = |name: &String| matches!(name.as_str(), IF_EMPTY | ORDER);
    let entries = record.iter().filter(|(name, _)| !own(name));
    match (value, shape) {
        (Value::Object(fields), Shape::Object(_)) => {
            for (name, record) in entries {
                let take_away = match fields.get_mut(name) {
                    Some(value) => undo(value, record, shape.of(name)),
                    None => {
                        fields.extend(record.get(PUT).map(|put| (name.clone(), put.clone())));
                        false
                    }
                };
                if take_away {
                    fields.shift_remove(name);
                }
            }
            fields.is_empty() && record.contains_key(IF_EMPTY)
        }
        (Value::Array(items), Shape::Keyed(key, of)) => {
            for (name, record) in entries {
                let at = items.iter().position(|item| name_of(item, key).as_ref() == Some(name));
                match at {
                    Some(at) => {
                        if undo(&mut items[at], record, Shape::Object(of)) {
                            items.remove(at);
                        }
                    }
                    None => items.extend(record.get(PUT).cloned()),
                }
            }
            if let Some(order) = record.get(ORDER).and_then(Value::as_array) {
                let place = |item: &Value| {
                    let name = name_of(item, key);
                    order.iter().position(|o| o.as_str() == name.as_deref()).unwrap_or(order.len())
                };
                items.sort_by_key(place);
            }
            items.is_empty() && record.contains_key(IF_EMPTY)
        }
        _ => false,
    }
}
