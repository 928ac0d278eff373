//! The mesh-wide policy, as settings have it.

use serde::Deserialize;
use serde_json::Value;

/// The mesh-wide default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing is injected, whatever a pod asks for.
    Off,
    /// Only pods that ask for it are injected.
    Disabled,
    /// All pods are injected but those that refuse it.
    Enabled,
}

impl<'de> Deserialize<'de> for Policy {
    /// A plain `off` is the boolean false in the YAML that Kubernetes reads.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(false) => Ok(Self::Off),
            Value::String(word) if word == "off" => Ok(Self::Off),
            Value::String(word) if word == "disabled" => Ok(Self::Disabled),
            Value::String(word) if word == "enabled" => Ok(Self::Enabled),
            other => Err(serde::de::Error::custom(format!("{other} is none of off, disabled, enabled"))),
        }
    }
}
