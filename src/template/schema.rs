//! The schema that a pack gives for its values: a JSON schema, as a Helm chart's `values.schema.json`.
//!
//! Source: <https://helm.sh/docs/topics/charts/#schema-files>

use serde_json::{Map, Value};

/// The most problems that are told at once.
const MOST: usize = 10;

/// Checks values by a schema. Nothing is fetched: a `$ref` leads to the schema itself or nowhere.
///
/// # Errors
/// One line a problem, each with the value's path: `values.port: "x" is not of type "integer"`.
pub(super) fn check(schema: &Value, values: &Map<String, Value>) -> Result<(), Vec<String>> {
    let validator = jsonschema::validator_for(schema)
        .map_err(|e| vec![format!("values.schema.json is no JSON schema that can be used: {e}")])?;
    let values = Value::Object(values.clone());
    let problems = validator.iter_errors(&values).take(MOST).map(|e| {
        let path: String = e.instance_path().to_string().replace('/', ".");
        format!("values{path}: {e}")
    });
    match problems.collect::<Vec<_>>() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_hold_to_the_schema_is_named_with_its_path() {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {
            "port": {"type": "integer"}, "pull": {"enum": ["", "Always"]}, "deep": {"properties": {"list": {"items": {"type": "string"}}}}}});
        let check = |values: Value| check(&schema, values.as_object().unwrap());
        assert_eq!(check(json!({"port": 1, "pull": ""})), Ok(()));
        let problems =
            check(json!({"port": "x", "pull": "Alway", "prot": 1, "deep": {"list": ["a", 2]}})).unwrap_err();
        let starts = [
            "values.port: \"x\" is not of type",
            "values.pull: \"Alway\"",
            "values: ",
            "values.deep.list.1: 2",
        ];
        for start in starts {
            assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}: {problems:?}");
        }
        assert!(problems.iter().any(|problem| problem.contains("prot")), "{problems:?}");
    }

    #[test]
    fn a_schema_that_leads_elsewhere_is_refused() {
        let schema = json!({"$ref": "https://schemas.example/x.json"});
        assert!(
            check(&schema, &Map::new()).unwrap_err()[0].starts_with("values.schema.json is no JSON schema")
        );
    }
}
