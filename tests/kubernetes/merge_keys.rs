//! The merge keys that we go by are those that the API server publishes.

use std::collections::BTreeSet;

use outrigger::merge::schema::{Kind, POD, Type};
use serde_json::Value;

use crate::cluster::kubectl;

#[test]
fn the_merge_keys_are_the_api_servers() {
    let document = kubectl(&["get", "--raw", "/openapi/v3/api/v1"]).json();
    let schemas = &document["components"]["schemas"];
    let mut theirs = BTreeSet::new();
    published(schemas, "io.k8s.api.core.v1.Pod", "", &mut theirs);
    assert!(theirs.contains("/spec/containers name"), "{theirs:?}");
    let mut ours = BTreeSet::new();
    table(POD, "", &mut ours);
    assert_eq!(ours, theirs);
}

/// Every list that merges, with its key, in a type and in what it holds without a list that is replaced between.
fn published(schemas: &Value, name: &str, path: &str, found: &mut BTreeSet<String>) {
    let Some(fields) = schemas[name]["properties"].as_object() else { return };
    for (field, schema) in fields {
        let path = format!("{path}/{field}");
        let merges = schema["x-kubernetes-patch-strategy"].as_str().is_some_and(|s| s.starts_with("merge"));
        if merges {
            let key = schema["x-kubernetes-patch-merge-key"].as_str().unwrap_or("(set)");
            found.insert(format!("{path} {key}"));
        }
        let holds = if merges { &schema["items"] } else { schema };
        if let Some(reference) = holds["allOf"][0]["$ref"].as_str().or(holds["$ref"].as_str()) {
            published(schemas, reference.trim_start_matches("#/components/schemas/"), &path, found);
        }
    }
}

fn table(of: Type, path: &str, found: &mut BTreeSet<String>) {
    for (field, kind) in of {
        let path = format!("{path}/{field}");
        match kind {
            Kind::Object(of) => table(of, &path, found),
            Kind::List(key, of) => {
                found.insert(format!("{path} {key}"));
                table(of, &path, found);
            }
            Kind::Set => {
                found.insert(format!("{path} (set)"));
            }
        }
    }
}
