//! The ports that a pod's containers declare.

use serde_json::{Map, Value};

use super::Input;

/// A declared port's fields, in the order of the API's.
const FIELDS: [&str; 5] = ["name", "hostPort", "containerPort", "protocol", "hostIP"];

/// The value of ISTIO_META_POD_PORTS: a JSON list, one port a line.
pub(super) fn declared(input: &Input) -> String {
    let ports = input.containers().iter().filter_map(|container| container["ports"].as_array()).flatten();
    let ports: Vec<String> = ports
        .map(|port| {
            let set = |field: &&str| {
                port.get(*field).filter(|value| **value != 0 && **value != "" && !value.is_null())
            };
            let fields: Map<String, Value> =
                FIELDS.iter().filter_map(|f| set(f).map(|value| ((*f).to_owned(), value.clone()))).collect();
            Value::Object(fields).to_string()
        })
        .collect();
    if ports.is_empty() {
        return "[\n]".to_owned();
    }
    format!("[\n    {}\n]", ports.join("\n    ,"))
}
