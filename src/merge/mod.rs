//! Kubernetes' strategic merge of a partial pod into a pod, on raw JSON, pure.
//!
//! Objects merge by field; lists that the API names merge by key ([`schema`]), others are replaced; null takes a
//! field away. The directives `$patch` (`replace`, `delete`, `merge`), `$retainKeys`, `$setElementOrder/…` and
//! `$deleteFromPrimitiveList/…` are honoured.
//!
//! Source: <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>

pub mod schema;

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use schema::{Kind, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// An overlay that cannot be merged: the field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub(crate) struct Error {
    /// `spec.containers`.
    pub field: String,
    /// What is wrong there.
    pub message: String,
}

/// Merges a partial pod into a pod.
///
/// # Errors
/// An item of a keyed list without its key, or a directive that does not exist.
pub(crate) fn pod(pod: &mut Value, overlay: Value) -> Result<(), Error> {
    merge(pod, overlay, schema::POD, &Path { parent: None, field: "" })
}

/// Puts a pod's own container over an injected one: what it says wins, by the same keys. It is no overlay: null says
/// nothing, and directives mean nothing, so that an author cannot take away what was injected.
pub(crate) fn own_container(injected: &mut Value, own: &Value) {
    keep(injected, own, schema::CONTAINER);
}

fn keep(into: &mut Value, own: &Value, of: Type) {
    let (Value::Object(into), Value::Object(own)) = (&mut *into, own) else {
        *into = own.clone();
        return;
    };
    for (field, value) in own {
        match (schema::kind(of, field), into.get_mut(field), value) {
            (_, Some(_), Value::Null) => {}
            (Some(Kind::List(key, item)), Some(Value::Array(existing)), Value::Array(items)) => {
                keep_list(existing, items, key, item);
            }
            (Some(Kind::Object(of)), Some(existing), value) => keep(existing, value, of),
            (_, Some(existing @ Value::Object(_)), Value::Object(_)) => keep(existing, value, &[]),
            _ => {
                into.insert(field.clone(), value.clone());
            }
        }
    }
}

fn keep_list(existing: &mut Vec<Value>, items: &[Value], key: &str, of: Type) {
    let mut index = by_key(existing, key);
    for item in items {
        match key_of(item, key).and_then(|key| index.get_mut(&key)?.pop_front()) {
            Some(at) => keep(&mut existing[at], item, of),
            None => existing.push(item.clone()),
        }
    }
}

/// Where the items of a list stand, by their keys. A key may stand more than once: its first item in one list meets its
/// first in the other, and so on.
fn by_key(items: &[Value], key: &str) -> HashMap<Key, VecDeque<usize>> {
    let mut index: HashMap<Key, VecDeque<usize>> = HashMap::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        if let Some(key) = key_of(item, key) {
            index.entry(key).or_default().push_back(i);
        }
    }
    index
}

/// Where a merge is, kept as links so that the happy path makes no strings.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    field: &'a str,
}

impl Path<'_> {
    fn child<'a>(&'a self, field: &'a str) -> Path<'a> {
        Path { parent: Some(self), field }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        let mut fields = vec![self.field];
        let mut at = self;
        while let Some(parent) = at.parent {
            fields.push(parent.field);
            at = parent;
        }
        fields.retain(|f| !f.is_empty());
        fields.reverse();
        Error { field: fields.join("."), message: message.into() }
    }
}

fn merge(into: &mut Value, overlay: Value, of: Type, path: &Path) -> Result<(), Error> {
    match (into, overlay) {
        (Value::Object(into), Value::Object(overlay)) => merge_object(into, overlay, of, path),
        (into, overlay) => {
            *into = clean(overlay, path)?;
            Ok(())
        }
    }
}

fn merge_object(
    into: &mut Map<String, Value>,
    mut overlay: Map<String, Value>,
    of: Type,
    path: &Path,
) -> Result<(), Error> {
    match directive(&mut overlay, path)? {
        Directive::Replace => {
            *into = clean_object(overlay, path)?;
            return Ok(());
        }
        Directive::Delete => {
            into.clear();
            return Ok(());
        }
        Directive::Merge => {}
    }
    if let Some(keep) = overlay.shift_remove(RETAIN_KEYS) {
        let keep = strings(&keep).ok_or_else(|| path.error("$retainKeys must be a list of field names"))?;
        into.retain(|key, _| keep.contains(&key.as_str()));
    }
    let orders = take_prefixed(&mut overlay, SET_ORDER);
    for (field, gone) in take_prefixed(&mut overlay, DELETE_FROM) {
        let Value::Array(gone) = gone else {
            return Err(path.child(&field).error("$deleteFromPrimitiveList must be a list"));
        };
        if let Some(Value::Array(items)) = into.get_mut(&field) {
            items.retain(|item| !gone.contains(item));
        }
    }
    for (field, value) in overlay {
        let path = path.child(&field);
        if value.is_null() {
            into.shift_remove(&field);
            continue;
        }
        let Some(existing) = into.get_mut(&field) else {
            let value = clean(value, &path)?;
            into.insert(field, value);
            continue;
        };
        match (schema::kind(of, &field), existing, value) {
            (Some(Kind::List(key, item)), Value::Array(existing), Value::Array(items)) => {
                merge_list(existing, items, key, item, &path)?;
            }
            (Some(Kind::Set), Value::Array(existing), Value::Array(items)) => merge_set(existing, items),
            (Some(Kind::Object(of)), existing, value) => merge(existing, value, of, &path)?,
            (_, existing, value) => merge(existing, value, &[], &path)?,
        }
    }
    for (field, order) in orders {
        if let (Value::Array(order), Some(Value::Array(items))) = (order, into.get_mut(&field)) {
            set_order(items, &order, schema::kind(of, &field));
        }
    }
    Ok(())
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(object: &mut Map<String, Value>, path: &Path) -> Result<Directive, Error> {
    match object.shift_remove(DIRECTIVE) {
        None => Ok(Directive::Merge),
        Some(Value::String(s)) if s == "merge" => Ok(Directive::Merge),
        Some(Value::String(s)) if s == "replace" => Ok(Directive::Replace),
        Some(Value::String(s)) if s == "delete" => Ok(Directive::Delete),
        Some(other) => Err(path.error(format!("$patch: {other} is none of replace, delete, merge"))),
    }
}

fn take_prefixed(object: &mut Map<String, Value>, prefix: &str) -> Vec<(String, Value)> {
    let keys: Vec<String> = object.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    keys.into_iter()
        .filter_map(|key| object.shift_remove(&key).map(|value| (key[prefix.len()..].to_owned(), value)))
        .collect()
}

fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// What a new value becomes: without nulls in objects and without directives.
fn clean(value: Value, path: &Path) -> Result<Value, Error> {
    if is_clean(&value) {
        return Ok(value);
    }
    Ok(match value {
        Value::Object(mut fields) => {
            if let Directive::Delete = directive(&mut fields, path)? {
                return Ok(Value::Object(Map::new()));
            }
            Value::Object(clean_object(fields, path)?)
        }
        Value::Array(items) => Value::Array(clean_items(items, path)?),
        scalar => scalar,
    })
}

/// Whether there is nothing to clean, as in most of what a template renders: merged into nothing, it is the same.
pub(crate) fn is_clean(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().all(|(key, value)| !key.starts_with('$') && !value.is_null() && is_clean(value))
        }
        Value::Array(items) => items.iter().all(is_clean),
        _ => true,
    }
}

fn clean_object(fields: Map<String, Value>, path: &Path) -> Result<Map<String, Value>, Error> {
    let directive =
        |key: &str| key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM);
    let mut cleaned = Map::with_capacity(fields.len());
    for (key, value) in fields {
        if !value.is_null() && !directive(&key) {
            let value = clean(value, &path.child(&key))?;
            cleaned.insert(key, value);
        }
    }
    Ok(cleaned)
}

/// Items that ask to be deleted, and directives for the whole list, are gone.
fn clean_items(items: Vec<Value>, path: &Path) -> Result<Vec<Value>, Error> {
    let mut cleaned = Vec::with_capacity(items.len());
    for item in items {
        let Value::Object(mut fields) = item else {
            cleaned.push(item);
            continue;
        };
        match (fields.contains_key(DIRECTIVE), directive(&mut fields, path)?) {
            (true, Directive::Delete) => {}
            (true, Directive::Replace) if fields.is_empty() => {}
            _ => cleaned.push(Value::Object(clean_object(fields, path)?)),
        }
    }
    Ok(cleaned)
}

/// A key as it is compared: names are strings, ports are numbers.
#[derive(PartialEq, Eq, Hash, Clone)]
enum Key {
    Text(String),
    Number(String),
}

fn key_of(item: &Value, key: &str) -> Option<Key> {
    match item.get(key)? {
        Value::String(text) => Some(Key::Text(text.clone())),
        Value::Number(number) => Some(Key::Number(number.to_string())),
        _ => None,
    }
}

fn merge_list(
    existing: &mut Vec<Value>,
    items: Vec<Value>,
    key: &str,
    of: Type,
    path: &Path,
) -> Result<(), Error> {
    let mut patches = Vec::with_capacity(items.len());
    let mut replace = false;
    for item in items {
        let Value::Object(mut fields) = item else {
            return Err(path.error(format!("an item is {item}, which is no object with the key {key:?}")));
        };
        match directive(&mut fields, path)? {
            Directive::Replace if fields.is_empty() => replace = true,
            Directive::Delete => {
                let gone = Value::Object(fields);
                let gone = key_of(&gone, key).ok_or_else(|| {
                    path.error(format!("an item with $patch: delete lacks its key {key:?}"))
                })?;
                existing.retain(|item| key_of(item, key).as_ref() != Some(&gone));
            }
            _ => patches.push(Value::Object(fields)),
        }
    }
    if replace {
        *existing = clean_items(patches, path)?;
        return Ok(());
    }
    let mut index = by_key(existing, key);
    // For every item of the overlay, in its order: where it was in the list, if it was there.
    let mut order: Vec<Placed> = Vec::with_capacity(patches.len());
    for item in patches {
        let item_key = key_of(&item, key)
            .ok_or_else(|| path.error(format!("an item of the overlay lacks its key {key:?}")))?;
        match index.get_mut(&item_key).and_then(VecDeque::pop_front) {
            Some(at) => {
                merge(&mut existing[at], item, of, path)?;
                order.push(Placed { was: Some(at), item: None });
            }
            None => order.push(Placed { was: None, item: Some(clean(item, path)?) }),
        }
    }
    interleave(existing, order);
    Ok(())
}

/// An item of the overlay: where it was in the list, or, if it is new, the item.
struct Placed {
    was: Option<usize>,
    item: Option<Value>,
}

/// The order of a merged list: the overlay's items in the overlay's order; an item that only the list has comes
/// before the next of the overlay's items if it stood before it in the list, and after the new ones.
fn interleave(existing: &mut Vec<Value>, order: Vec<Placed>) {
    let mut slots: Vec<Option<Value>> = std::mem::take(existing).into_iter().map(Some).collect();
    let mut touched = vec![false; slots.len()];
    for placed in &order {
        if let Some(at) = placed.was {
            touched[at] = true;
        }
    }
    let mut own = (0..slots.len()).filter(|&i| !touched[i]).peekable();
    let mut merged = Vec::with_capacity(slots.len() + order.len());
    for placed in order {
        if let Some(was) = placed.was {
            while let Some(i) = own.next_if(|&i| i < was) {
                merged.extend(slots[i].take());
            }
            merged.extend(slots[was].take());
        } else {
            merged.extend(placed.item);
        }
    }
    for i in own {
        merged.extend(slots[i].take());
    }
    *existing = merged;
}

fn merge_set(existing: &mut Vec<Value>, items: Vec<Value>) {
    for item in items {
        if !existing.contains(&item) {
            existing.push(item);
        }
    }
}

/// `$setElementOrder`: the named items in the order given, each other item behind the one it followed.
fn set_order(items: &mut Vec<Value>, order: &[Value], kind: Option<Kind>) {
    let rank = |item: &Value| match kind {
        Some(Kind::List(key, _)) => {
            order.iter().position(|o| key_of(o, key).is_some() && key_of(o, key) == key_of(item, key))
        }
        _ => order.iter().position(|o| o == item),
    };
    let mut last = None;
    let mut ranked: Vec<(Option<usize>, Value)> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        last = rank(&item).or(last);
        ranked.push((last, item));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    *items = ranked.into_iter().map(|(_, item)| item).collect();
}

#[cfg(test)]
mod tests;
