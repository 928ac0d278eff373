//! Whether a pod has the shape of one, as far as injection goes by it.

use serde_json::Value;

/// Refuses what is no pod, naming the field.
pub(super) fn check(pod: &Value) -> Result<(), String> {
    let wrong =
        |field: &str, want: &str, got: &Value| Err(format!("{field} is {}, and must be {want}", kind(got)));
    for field in ["metadata", "spec"] {
        match &pod[field] {
            Value::Object(_) => {}
            Value::Null if field == "metadata" => {}
            other => return wrong(field, "an object", other),
        }
    }
    for field in ["labels", "annotations"] {
        match &pod["metadata"][field] {
            Value::Null => {}
            Value::Object(map) => {
                if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return wrong(&format!("metadata.{field}[{key:?}]"), "a string", value);
                }
            }
            other => return wrong(&format!("metadata.{field}"), "an object of strings", other),
        }
    }
    for list in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
        let items = match &pod["spec"][list] {
            Value::Null => &[],
            Value::Array(items) => items.as_slice(),
            other => return wrong(&format!("spec.{list}"), "a list", other),
        };
        // A pod whose only container is the sidecar has none left when that becomes a native one.
        let others = pod["spec"]["initContainers"].as_array().is_some_and(|init| !init.is_empty());
        if list == "containers" && items.is_empty() && !others {
            return Err("spec.containers is empty, and a pod needs a container".to_owned());
        }
        for (i, item) in items.iter().enumerate() {
            if !item.is_object() {
                return wrong(&format!("spec.{list}[{i}]"), "an object", item);
            }
            if !item["name"].is_string() {
                return wrong(&format!("spec.{list}[{i}].name"), "a string", &item["name"]);
            }
            for field in ["env", "ports", "volumeMounts"] {
                if !matches!(item[field], Value::Null | Value::Array(_)) {
                    return wrong(&format!("spec.{list}[{i}].{field}"), "a list", &item[field]);
                }
            }
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "missing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
