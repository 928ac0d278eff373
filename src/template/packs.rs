//! Packs: templates by name, the partials they share, and the default values they need.
//!
//! A pack is a folder, or a manifest of a ConfigMap whose `data` has the same files: `NAME.yaml.hbs` is a template,
//! `_NAME.yaml.hbs` a partial, `values.yaml` the defaults, `values.schema.json` what the values must hold to. Those
//! under `templates/` come with the program.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::yaml;

const TEMPLATE: &str = ".yaml.hbs";
const VALUES: &str = "values.yaml";
const SCHEMA: &str = "values.schema.json";

/// A file of a pack: its name, its text.
type File = (&'static str, &'static str);

/// The files of a pack under `templates/`.
macro_rules! files {
    ($pack:literal: $($file:literal)*) => {
        ($pack, &[$(($file, include_str!(concat!("../../templates/", $pack, "/", $file)))),*])
    };
}

/// The packs that come with the program, by name.
const BUILT_IN: &[(&str, &[File])] = &[
    files!("istio":
        "gateway.yaml.hbs"
        "grpc-agent.yaml.hbs"
        "grpc-simple.yaml.hbs"
        "sidecar.yaml.hbs"
        "values.schema.json"
        "values.yaml"
        "_annotations.yaml.hbs"
        "_args.yaml.hbs"
        "_env_config.yaml.hbs"
        "_env_identity.yaml.hbs"
        "_env_limits.yaml.hbs"
        "_env_mesh.yaml.hbs"
        "_env_metadata.yaml.hbs"
        "_init.yaml.hbs"
        "_labels.yaml.hbs"
        "_mounts.yaml.hbs"
        "_probe_times.yaml.hbs"
        "_proxy.yaml.hbs"
        "_pull_policy.yaml.hbs"
        "_pull_secrets.yaml.hbs"
        "_resources.yaml.hbs"
        "_volumes.yaml.hbs"
        "_workload_certificates.yaml.hbs"
        "_workload_certificates_mount.yaml.hbs"
    ),
    files!("linkerd-daemonset":
        "http-proxy.yaml.hbs"
        "sidecar.yaml.hbs"
        "values.schema.json"
        "values.yaml"
    ),
    files!("outrigger":
        "sidecar.yaml.hbs"
        "values.schema.json"
        "values.yaml"
        "_init.yaml.hbs"
        "_metadata.yaml.hbs"
        "_proxy.yaml.hbs"
        "_pull_policy.yaml.hbs"
    ),
];

/// Templates, partials and default values.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pack {
    /// What it is called: its own name, its folder's, its ConfigMap's.
    pub(crate) name: String,
    /// Templates by name, as text.
    pub(crate) templates: BTreeMap<String, String>,
    /// Partials by name, as text.
    pub(crate) partials: BTreeMap<String, String>,
    /// The values that templates see where the operator gives no others.
    pub(crate) values: Map<String, Value>,
    /// The JSON schema of the values; `None` where everything goes.
    pub(crate) schema: Option<Value>,
}

/// Why a pack cannot be loaded: the pack, the file, what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{pack:?}: {message}")]
pub(crate) struct Error {
    /// Name or folder.
    pub(crate) pack: String,
    /// What is wrong.
    pub(crate) message: String,
}

impl Pack {
    /// A pack that comes with the program, by name, or one of the operator's, by folder or by the manifest of a
    /// ConfigMap.
    ///
    /// # Errors
    /// There is no such pack, folder or file; a file cannot be read; the values or their schema are no object; there
    /// is no template.
    pub(crate) fn load(pack: &str) -> Result<Self, Error> {
        let error = |message: String| Error { pack: pack.to_owned(), message };
        let (name, files) = files(pack).map_err(error)?;
        Self::from_files(name, files).map_err(error)
    }

    fn from_files(name: String, files: Vec<(String, String)>) -> Result<Self, String> {
        let mut pack = Self { name, ..Self::default() };
        for (file, text) in files {
            match (file.as_str(), file.strip_suffix(TEMPLATE)) {
                (VALUES, _) => pack.values = object(&text).map_err(|e| format!("{file}: {e}"))?,
                (SCHEMA, _) => {
                    let schema = object(&text).map_err(|e| format!("{file}: {e}"))?;
                    pack.schema = Some(Value::Object(schema));
                }
                (_, Some(name)) => {
                    match name.strip_prefix('_') {
                        Some(partial) => pack.partials.insert(partial.to_owned(), text),
                        None => pack.templates.insert(name.to_owned(), text),
                    };
                }
                _ => {}
            }
        }
        if pack.templates.is_empty() {
            return Err(format!("holds no template (a file NAME{TEMPLATE})"));
        }
        Ok(pack)
    }
}

/// What a pack is called, and its files by name, sorted.
pub type Files = (String, Vec<(String, String)>);

/// Reads the files of a pack.
///
/// # Errors
/// There is no such pack, folder or file; a file cannot be read, or is no manifest of a ConfigMap.
pub fn files(pack: &str) -> Result<Files, String> {
    if let Some((name, files)) = BUILT_IN.iter().find(|(known, _)| *known == pack) {
        let files = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        return Ok(((*name).to_owned(), files.collect()));
    }
    let path = Path::new(pack);
    if path.is_dir() {
        // The folder itself may be given as `.`, or by a link.
        let whole = path.canonicalize().map_err(|e| e.to_string())?;
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok((name, of_folder(path)?));
    }
    if path.is_file() {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        return of_config_map(&text);
    }
    let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    Err(format!("there is no such pack, folder or file; the packs are {}", known.join(", ")))
}

fn of_folder(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| e.to_string())? {
        let entry = entry.map_err(|e| e.to_string())?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.ends_with(TEMPLATE) || file == VALUES || file == SCHEMA {
            let text = std::fs::read_to_string(entry.path()).map_err(|e| format!("{file}: {e}"))?;
            files.push((file, text));
        }
    }
    files.sort();
    Ok(files)
}

fn of_config_map(text: &str) -> Result<Files, String> {
    let manifest = yaml::parse(text).map_err(|e| e.to_string())?;
    if manifest["kind"] != "ConfigMap" {
        return Err(
            "is a file, and a file must be the manifest of a ConfigMap that holds the pack".to_owned()
        );
    }
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err("the ConfigMap has no metadata.name, which is the pack's".to_owned());
    }
    let data = manifest["data"].as_object().into_iter().flatten();
    let mut files = data
        .map(|(file, text)| match text.as_str() {
            Some(text) => Ok((file.clone(), text.to_owned())),
            None => Err(format!("data.{file} is no text")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok((name.to_owned(), files))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match yaml::parse(text).map_err(|e| e.to_string())? {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        other => Err(format!("{other} is no object")),
    }
}

/// An operator's values over defaults: objects by field, lists and scalars replaced, null takes a default away (as
/// Helm does, <https://helm.sh/docs/chart_template_guide/values_files/>).
pub(super) fn overlay_values(defaults: &mut Map<String, Value>, values: Map<String, Value>) {
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
