//! The schema that a pack gives for its values: a JSON schema, as a Helm chart's `values.schema.json`.
//!
//! Source: <https://helm.sh/docs/topics/charts/#schema-files>

use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

/// The most problems that are told at once.
const MOST: usize = 10;

/// Checks values by a schema. Nothing is fetched: a `$ref` leads to the schema itself or nowhere.
///
/// # Errors
/// For each problem the value's path below the values (`.port`) and what is wrong (`"x" is not of type "integer"`).
pub(super) fn check(schema: &Value, values: &Map<String, Value>) -> Result<(), Vec<(String, String)>> {
    let validator = jsonschema::validator_for(schema).map_err(|e| {
        vec![(String::new(), format!("values.schema.json is no JSON schema that can be used: {e}"))]
    })?;
    let values = Value::Object(values.clone());
    let problems = validator.iter_errors(&values).take(MOST).flat_map(|e| {
        let path: String = e.instance_path().to_string().replace('/', ".");
        match e.kind() {
            // The validator's own words leave out all but two.
            ValidationErrorKind::Enum { options } => {
                let options: Vec<String> =
                    options.as_array().into_iter().flatten().map(Value::to_string).collect();
                vec![(path, format!("{} is not one of {}", e.instance(), options.join(", ")))]
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let unknown = "there is no such value; mend its name, or take it out";
                unexpected.iter().map(|name| (format!("{path}.{name}"), unknown.to_owned())).collect()
            }
            _ => vec![(path, e.to_string())],
        }
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
        let wanted = [
            (".port", "\"x\" is not of type"),
            (".pull", "\"Alway\" is not one of \"\", \"Always\""),
            (".prot", "there is no such value"),
            (".deep.list.1", "2"),
        ];
        for (path, what) in wanted {
            let found = problems.iter().any(|(at, problem)| at == path && problem.contains(what));
            assert!(found, "{path}: {problems:?}");
        }
    }

    #[test]
    fn a_schema_that_leads_elsewhere_is_refused() {
        let schema = json!({"$ref": "https://schemas.example/x.json"});
        let (path, problem) = check(&schema, &Map::new()).unwrap_err().remove(0);
        assert_eq!(path, "");
        assert!(problem.starts_with("values.schema.json is no JSON schema"), "{problem}");
    }
}
