//! Label selectors as Kubernetes writes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A LabelSelector: all of `matchLabels` and all of `matchExpressions` must hold. An empty one matches
/// nothing, as in Istio's injector (Kubernetes' own would match everything).
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/>
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selector {
    /// Labels that must have just these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Labels that must be in, out of, there, or not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Expression>,
}

/// One requirement of a selector. `NotIn` and `DoesNotExist` hold where the label is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    key: String,
    operator: Operator,
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

/// How a label is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    #[serde(untagged)]
    Unknown(String),
}

/// A list, or null for an empty one.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Selector {
    /// What makes the selector invalid, and so match nothing, as in Istio's injector: an operator that does not
    /// exist, an empty key, values that are missing or too many.
    pub(crate) fn problem(&self) -> Option<String> {
        self.match_expressions.iter().find_map(Expression::problem)
    }

    /// Whether a pod's labels (an object of strings, or nothing) match.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        let empty = self.match_labels.is_empty() && self.match_expressions.is_empty();
        !empty
            && self.problem().is_none()
            && self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self.match_expressions.iter().all(|e| e.holds(label(&e.key)))
    }
}

impl Expression {
    fn problem(&self) -> Option<String> {
        let Self { key, operator, values } = self;
        match (operator, values.is_empty()) {
            _ if key.is_empty() => Some("key may not be empty".to_owned()),
            (Operator::Unknown(operator), _) => {
                Some(format!("{key}: {operator:?} is none of In, NotIn, Exists, DoesNotExist"))
            }
            (Operator::In | Operator::NotIn, true) => Some(format!("{key}: {operator:?} needs values")),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                Some(format!("{key}: {operator:?} takes no values"))
            }
            _ => None,
        }
    }

    fn holds(&self, label: Option<&str>) -> bool {
        let listed = label.is_some_and(|value| self.values.iter().any(|v| v == value));
        match &self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::Unknown(_) => false,
        }
    }
}

impl fmt::Display for Selector {
    /// As JSON, on one line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
