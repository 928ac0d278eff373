//! What a pod's author gives as JSON in an annotation: volumes, mounts, environment.

use serde_json::{Map, Value, json};

use super::{Input, text};

/// A list of named objects from an annotation that holds an object by name, or a list whose items have names.
pub(super) fn list(input: &Input, annotation: &str) -> Result<Value, String> {
    let Some(given) = input.annotation(annotation) else { return Ok(json!([])) };
    let wrong = |why: String| format!("invalid value for annotation '{annotation}': {why}");
    let given: Value = serde_json::from_str(given).map_err(|e| wrong(format!("it is no JSON: {e}")))?;
    let entries: Vec<(String, Value)> = match given {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries
        }
        Value::Array(items) => items.into_iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        _ => return Err(wrong("it must be a JSON object by name".to_owned())),
    };
    let named = entries.into_iter().map(|(name, item)| match item {
        Value::Object(fields) => {
            let mut named = Map::from_iter([("name".to_owned(), Value::from(name))]);
            named.extend(fields);
            Ok(Value::Object(named))
        }
        _ => Err(wrong(format!("{name:?} must be a JSON object"))),
    });
    named.collect()
}

/// The volumes that the cluster's autoscaler may lose, comma separated: those that the pod names itself, and the
/// emptyDirs among these. Empty where these hold none.
///
/// Source: <https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md>
pub(super) fn evictable(input: &Input, volumes: &Value) -> String {
    let local = volumes.as_array().into_iter().flatten().filter(|volume| volume.get("emptyDir").is_some());
    let local: Vec<&str> = local.filter_map(|volume| volume["name"].as_str()).collect();
    if local.is_empty() {
        return String::new();
    }
    let given =
        input.annotation("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes").unwrap_or_default();
    let mut names: Vec<&str> = given.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in local {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

/// Datadog's environment from its annotation, by name; empty where another tracer is used.
pub(super) fn environment(input: &Input) -> Value {
    if input.global["proxy"]["tracer"] != "datadog" {
        return json!({});
    }
    let given = input.annotation("apm.datadoghq.com/env").and_then(|given| serde_json::from_str(given).ok());
    let Some(Value::Object(mut given)) = given else { return json!({}) };
    given.sort_keys();
    given.into_iter().map(|(name, value)| (name, Value::from(text(&value)))).collect()
}
