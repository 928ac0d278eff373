//! The settings of an installation, which its ConfigMap keeps under one key.

use serde_json::Value;

use crate::settings::Settings;

/// The key; the Deployment mounts it as a file of this name.
const KEY: &str = "config.yaml";

/// The settings that a ConfigMap keeps.
///
/// # Errors
/// The key is missing, or [`Settings::parse`] refuses what is under it; as a message that names the ConfigMap.
pub fn settings(map: &Value) -> Result<Settings, String> {
    let place = settings_place(map);
    let Some(text) = map["data"][KEY].as_str() else {
        return Err(format!("{place}: is missing; apply the installation again: outrigger install --apply"));
    };
    Settings::parse(text, &place).map_err(|e| e.to_string())
}

/// Where a ConfigMap keeps them, as messages say it: `ConfigMap outrigger-system/outrigger, config.yaml`.
pub fn settings_place(map: &Value) -> String {
    let [namespace, name] =
        ["namespace", "name"].map(|field| map["metadata"][field].as_str().unwrap_or_default());
    format!("ConfigMap {namespace}/{name}, {KEY}")
}

/// The text of the settings in an object of the manifests that keeps any.
pub(super) fn text(object: &mut Value) -> Option<&mut String> {
    match object.get_mut("data")?.get_mut(KEY)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}
