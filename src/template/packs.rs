//! Packs: templates by name, the partials they share, and the default values they need.
//!
//! A pack is a folder: `NAME.yaml.hbs` is a template, `_NAME.yaml.hbs` a partial, `values.yaml` the defaults. Those
//! under `templates/` come with the program.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::yaml;

const TEMPLATE: &str = ".yaml.hbs";
const VALUES: &str = "values.yaml";

/// A file of a pack: its name, its text.
type File = (&'static str, &'static str);

/// The packs that come with the program, by name.
const BUILT_IN: &[(&str, &[File])] = &[
    (
        "istio",
        &[
            ("gateway.yaml.hbs", include_str!("../../templates/istio/gateway.yaml.hbs")),
            ("grpc-agent.yaml.hbs", include_str!("../../templates/istio/grpc-agent.yaml.hbs")),
            ("grpc-simple.yaml.hbs", include_str!("../../templates/istio/grpc-simple.yaml.hbs")),
            ("sidecar.yaml.hbs", include_str!("../../templates/istio/sidecar.yaml.hbs")),
            (VALUES, include_str!("../../templates/istio/values.yaml")),
            ("_annotations.yaml.hbs", include_str!("../../templates/istio/_annotations.yaml.hbs")),
            ("_args.yaml.hbs", include_str!("../../templates/istio/_args.yaml.hbs")),
            ("_env_config.yaml.hbs", include_str!("../../templates/istio/_env_config.yaml.hbs")),
            ("_env_identity.yaml.hbs", include_str!("../../templates/istio/_env_identity.yaml.hbs")),
            ("_env_limits.yaml.hbs", include_str!("../../templates/istio/_env_limits.yaml.hbs")),
            ("_env_mesh.yaml.hbs", include_str!("../../templates/istio/_env_mesh.yaml.hbs")),
            ("_env_metadata.yaml.hbs", include_str!("../../templates/istio/_env_metadata.yaml.hbs")),
            ("_init.yaml.hbs", include_str!("../../templates/istio/_init.yaml.hbs")),
            ("_labels.yaml.hbs", include_str!("../../templates/istio/_labels.yaml.hbs")),
            ("_mounts.yaml.hbs", include_str!("../../templates/istio/_mounts.yaml.hbs")),
            ("_probe_times.yaml.hbs", include_str!("../../templates/istio/_probe_times.yaml.hbs")),
            ("_proxy.yaml.hbs", include_str!("../../templates/istio/_proxy.yaml.hbs")),
            ("_pull_policy.yaml.hbs", include_str!("../../templates/istio/_pull_policy.yaml.hbs")),
            ("_pull_secrets.yaml.hbs", include_str!("../../templates/istio/_pull_secrets.yaml.hbs")),
            ("_resources.yaml.hbs", include_str!("../../templates/istio/_resources.yaml.hbs")),
            ("_volumes.yaml.hbs", include_str!("../../templates/istio/_volumes.yaml.hbs")),
            (
                "_workload_certificates.yaml.hbs",
                include_str!("../../templates/istio/_workload_certificates.yaml.hbs"),
            ),
            (
                "_workload_certificates_mount.yaml.hbs",
                include_str!("../../templates/istio/_workload_certificates_mount.yaml.hbs"),
            ),
        ],
    ),
    (
        "linkerd-daemonset",
        &[
            ("http-proxy.yaml.hbs", include_str!("../../templates/linkerd-daemonset/http-proxy.yaml.hbs")),
            ("sidecar.yaml.hbs", include_str!("../../templates/linkerd-daemonset/sidecar.yaml.hbs")),
            (VALUES, include_str!("../../templates/linkerd-daemonset/values.yaml")),
        ],
    ),
    (
        "outrigger",
        &[
            ("sidecar.yaml.hbs", include_str!("../../templates/outrigger/sidecar.yaml.hbs")),
            (VALUES, include_str!("../../templates/outrigger/values.yaml")),
            ("_init.yaml.hbs", include_str!("../../templates/outrigger/_init.yaml.hbs")),
            ("_metadata.yaml.hbs", include_str!("../../templates/outrigger/_metadata.yaml.hbs")),
            ("_proxy.yaml.hbs", include_str!("../../templates/outrigger/_proxy.yaml.hbs")),
            ("_pull_policy.yaml.hbs", include_str!("../../templates/outrigger/_pull_policy.yaml.hbs")),
        ],
    ),
];

/// Templates, partials and default values.
#[derive(Debug, Default, Clone)]
pub struct Pack {
    /// Templates by name, as text.
    pub templates: BTreeMap<String, String>,
    /// Partials by name, as text.
    pub partials: BTreeMap<String, String>,
    /// The values that templates see where the operator gives no others.
    pub values: Map<String, Value>,
}

/// Why a pack cannot be loaded: the pack, the file, what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("pack {pack:?}: {message}")]
pub struct Error {
    /// Name or folder.
    pub pack: String,
    /// What is wrong.
    pub message: String,
}

impl Pack {
    /// A pack that comes with the program, by name, or one of the operator's, by folder.
    ///
    /// # Errors
    /// There is no such pack or folder; a file cannot be read; the values are no YAML object; there is no template.
    pub fn load(name: &str) -> Result<Self, Error> {
        let error = |message: String| Error { pack: name.to_owned(), message };
        if let Some((_, files)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::from_files(files.iter().map(|(n, t)| (n.to_string(), t.to_string())))
                .map_err(error);
        }
        let folder = Path::new(name);
        if !folder.is_dir() {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(error(format!(
                "there is no such pack or folder; the packs are {}",
                known.join(", ")
            )));
        }
        let mut files = Vec::new();
        let entries = std::fs::read_dir(folder).map_err(|e| error(e.to_string()))?;
        for entry in entries {
            let entry = entry.map_err(|e| error(e.to_string()))?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(TEMPLATE) || file == VALUES {
                let text =
                    std::fs::read_to_string(entry.path()).map_err(|e| error(format!("{file}: {e}")))?;
                files.push((file, text));
            }
        }
        Self::from_files(files).map_err(error)
    }

    fn from_files(files: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut pack = Self::default();
        for (file, text) in files {
            match file.strip_suffix(TEMPLATE) {
                Some(name) => match name.strip_prefix('_') {
                    Some(partial) => pack.partials.insert(partial.to_owned(), text),
                    None => pack.templates.insert(name.to_owned(), text),
                },
                None => {
                    pack.values = match yaml::parse(&text).map_err(|e| format!("{file}: {e}"))? {
                        Value::Object(values) => values,
                        Value::Null => Map::new(),
                        other => return Err(format!("{file}: {other} is no object")),
                    };
                    continue;
                }
            };
        }
        if pack.templates.is_empty() {
            return Err(format!("holds no template (a file NAME{TEMPLATE})"));
        }
        Ok(pack)
    }
}

/// An operator's values over defaults: objects by field, lists and scalars replaced, null takes a default away (as
/// Helm does, <https://helm.sh/docs/chart_template_guide/values_files/>).
pub fn overlay_values(defaults: &mut Map<String, Value>, values: Map<String, Value>) {
    for (key, value) in values {
        match (defaults.get_mut(&key), value) {
            (_, Value::Null) => {
                defaults.shift_remove(&key);
            }
            (Some(Value::Object(defaults)), Value::Object(values)) => overlay_values(defaults, values),
            (_, value) => {
                defaults.insert(key, value);
            }
        }
    }
}
