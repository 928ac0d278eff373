//! A pod's fields as people write them: `spec.containers[app].env[LEVEL].value`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::merge::schema::{self, Kind, Type};

/// A pod's leaves by field, in order. A list that Kubernetes does not merge by a key is a leaf.
pub(crate) struct Flat<'a> {
    leaves: Vec<(String, &'a Value)>,
    index: BTreeMap<String, usize>,
}

impl<'a> Flat<'a> {
    /// All of them, in order.
    pub(crate) fn leaves(&self) -> &[(String, &'a Value)] {
        &self.leaves
    }

    /// One of them.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.index.get(field).map(|&i| self.leaves[i].1)
    }
}

/// The leaves of a pod.
pub(crate) fn flat(pod: &Value) -> Flat<'_> {
    let mut leaves = Vec::new();
    flatten(pod, String::new(), Kind::Object(schema::POD), &mut leaves);
    let index = leaves.iter().enumerate().map(|(i, (field, _))| (field.clone(), i)).collect();
    Flat { leaves, index }
}

/// Items of lists that Kubernetes merges by a key are named by it; other lists are looked at whole.
fn flatten<'a>(value: &'a Value, field: String, kind: Kind, leaves: &mut Vec<(String, &'a Value)>) {
    match (value, kind) {
        (Value::Object(fields), Kind::Object(of)) if !fields.is_empty() => {
            for (key, value) in fields {
                flatten(value, child(&field, key), kind_of(of, key), leaves);
            }
        }
        (Value::Array(items), Kind::List(key, of)) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                let name = match &item[key] {
                    Value::String(name) => name.clone(),
                    Value::Null => i.to_string(),
                    other => other.to_string(),
                };
                flatten(item, format!("{field}[{name}]"), Kind::Object(of), leaves);
            }
        }
        _ => leaves.push((field, value)),
    }
}

fn kind_of(of: Type, key: &str) -> Kind {
    schema::kind(of, key).unwrap_or(Kind::Object(&[]))
}

fn child(field: &str, key: &str) -> String {
    match (field.is_empty(), key.contains(['.', '/'])) {
        (_, true) => format!("{field}[{key}]"),
        (true, false) => key.to_owned(),
        (false, false) => format!("{field}.{key}"),
    }
}
