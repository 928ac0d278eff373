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
#[serde(try_from = "RawExpression")]
pub struct Expression {
    key: String,
    operator: Operator,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Option<Vec<String>>,
}

impl TryFrom<RawExpression> for Expression {
    type Error = String;

    fn try_from(raw: RawExpression) -> Result<Self, String> {
        let RawExpression { key, operator, values } = raw;
        let values = values.unwrap_or_default();
        match (operator, values.is_empty()) {
            _ if key.is_empty() => Err("key may not be empty".to_owned()),
            (Operator::In | Operator::NotIn, true) => Err(format!("{key}: {operator:?} needs values")),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                Err(format!("{key}: {operator:?} takes no values"))
            }
            _ => Ok(Self { key, operator, values }),
        }
    }
}

impl Selector {
    /// Whether a pod's labels (an object of strings, or nothing) match.
    pub fn matches(&self, labels: &Value) -> bool {
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        let empty = self.match_labels.is_empty() && self.match_expressions.is_empty();
        !empty
            && self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self.match_expressions.iter().all(|e| e.holds(label(&e.key)))
    }
}

impl Expression {
    fn holds(&self, label: Option<&str>) -> bool {
        let listed = label.is_some_and(|value| self.values.iter().any(|v| v == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    /// As JSON, on one line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
