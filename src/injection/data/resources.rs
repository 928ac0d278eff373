//! What the injected containers ask of a node.

use serde_json::{Map, Value, json};

use super::Input;
use crate::injection::quantity;

/// Annotations, and the field that each sets.
const ANNOTATIONS: [(&str, &str, &str); 4] = [
    ("sidecar.istio.io/proxyCPU", "requests", "cpu"),
    ("sidecar.istio.io/proxyMemory", "requests", "memory"),
    ("sidecar.istio.io/proxyCPULimit", "limits", "cpu"),
    ("sidecar.istio.io/proxyMemoryLimit", "limits", "memory"),
];

/// `replaced`: what Istio gives, where one annotation takes the place of all values (null where nothing is set).
/// `merged`: the values, with the fields that annotations set. A default gives way where an annotation asks for more
/// than the default limit, or limits to less than the default request: Kubernetes takes no request over its limit.
/// Quantities are as Kubernetes writes them.
pub(super) fn resources(input: &Input) -> Value {
    let mut annotated = Map::new();
    for (annotation, kind, resource) in ANNOTATIONS {
        if let Some(quantity) = input.annotation(annotation) {
            let kind = annotated.entry(kind).or_insert_with(|| json!({}));
            kind[resource] = Value::from(quantity);
        }
    }
    let mut replaced = if annotated.is_empty() {
        without_nulls(&input.global["proxy"]["resources"]).unwrap_or(Value::Null)
    } else {
        Value::Object(annotated.clone())
    };
    let mut merged = merged(input, &annotated);
    canonical(&mut replaced);
    canonical(&mut merged);
    json!({"replaced": replaced, "merged": merged})
}

fn canonical(resources: &mut Value) {
    for kind in ["requests", "limits"] {
        for (_, quantity) in resources.get_mut(kind).and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(canonical) = quantity.as_str().and_then(quantity::canonical) {
                *quantity = canonical.into();
            }
        }
    }
}

fn merged(input: &Input, annotated: &Map<String, Value>) -> Value {
    let mut merged = without_nulls(&input.global["proxy"]["resources"]).unwrap_or_else(|| json!({}));
    for (_, kind, resource) in ANNOTATIONS {
        if let Some(quantity) = annotated.get(kind).and_then(|kind| kind.get(resource)) {
            merged[kind][resource] = quantity.clone();
        }
    }
    for resource in ["cpu", "memory"] {
        let set = |kind: &str| annotated.get(kind).is_some_and(|kind| kind.get(resource).is_some());
        let value = |kind: &str| merged[kind][resource].as_str().and_then(quantity::value);
        if let (Some(request), Some(limit)) = (value("requests"), value("limits"))
            && request > limit
        {
            match (set("requests"), set("limits")) {
                (true, false) => merged["limits"][resource] = merged["requests"][resource].clone(),
                (false, true) => merged["requests"][resource] = merged["limits"][resource].clone(),
                // Who sets both hears of it from Kubernetes.
                _ => {}
            }
        }
    }
    merged
}

/// A value without nulls at any depth, and without what they leave empty.
fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let kept: Map<String, Value> =
                fields.iter().filter_map(|(key, value)| Some((key.clone(), without_nulls(value)?))).collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) => {
            let kept: Vec<Value> = items.iter().filter_map(without_nulls).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other.clone()),
    }
}
