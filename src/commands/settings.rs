//! The settings that a command line asks for: a file, and what its flags lay over it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use outrigger::injection::Injector;
use outrigger::settings::{KubernetesVersion, Settings, import, layers};
use outrigger::yaml;
use serde_json::{Map, Value};

/// Where settings come from. The names that istioctl kube-inject gives its flags work too.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct SettingsFlags {
    /// The settings: an InjectorConfig, or a ConfigMap that an Istio installation left [default: none]
    #[arg(long, value_name = "FILE", alias = "injectConfigFile")]
    config: Option<PathBuf>,
    /// The templates to use: outrigger, istio, linkerd-daemonset, a folder, or the file of a ConfigMap; give it again
    /// for further packs, whose templates are PACK/TEMPLATE
    #[arg(long = "pack", value_name = "NAME|DIR", value_parser = NonEmptyStringValueParser::new())]
    packs: Vec<String>,
    /// Template for pods that name none; give it several times for several, in order
    #[arg(long = "template", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    templates: Vec<String>,
    /// Values for the templates, over those of the settings; give it several times, the last wins
    #[arg(long, value_name = "FILE", alias = "valuesFile")]
    values: Vec<PathBuf>,
    /// A value for the templates, over the files: a.b=1,c={x,y},d[0]=z
    #[arg(long, value_name = "K=V", value_parser = assignments)]
    set: Vec<String>,
    /// Mesh configuration, over that of the settings
    #[arg(long, value_name = "FILE", alias = "meshConfigFile")]
    mesh_config: Option<PathBuf>,
    /// Name of this installation's revision
    #[arg(short, long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    revision: Option<String>,
    /// The oldest kubelet of the cluster, which decides whether sidecars are native
    #[arg(long, value_name = "X.Y")]
    kubernetes_version: Option<KubernetesVersion>,
    /// Of istioctl's; known so that the refusal can say what to do instead.
    #[arg(long = "injectConfigMapName", hide = true, value_name = "NAME", value_parser = write_to_file("--config"))]
    _inject_config_map: Option<Infallible>,
    #[arg(long = "meshConfigMapName", hide = true, value_name = "NAME", value_parser = write_to_file("--mesh-config"))]
    _mesh_config_map: Option<Infallible>,
}

impl SettingsFlags {
    /// Whether a pack, or what goes into one, is named.
    pub(crate) fn names_pack(&self) -> bool {
        let Self { config, packs, templates, values, set, .. } = self;
        config.is_some() || [packs, templates, set].iter().any(|list| !list.is_empty()) || !values.is_empty()
    }

    /// The revision that is named.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// An injector of [`Self::settings`], or of those of [`Self::settings_over`], which are of a `place`.
    ///
    /// # Errors
    /// Fields whose value cannot be used: under the name of the flag that gave it, or that of the file or place.
    pub(crate) fn injector(&self, settings: Settings, place: Option<&str>) -> Result<Injector, String> {
        Injector::new(settings).map_err(|e| e.said(|field| self.origin(field, place)))
    }

    /// Where the value of a field comes from.
    fn origin(&self, field: &str, place: Option<&str>) -> String {
        let overlaid = match field.split('.').next().unwrap_or(field) {
            "pack" if !self.packs.is_empty() => return "--pack".to_owned(),
            "packs" if self.packs.len() > 1 => return "--pack".to_owned(),
            "defaultTemplates" if !self.templates.is_empty() => return "--template".to_owned(),
            "values" => !self.values.is_empty() || !self.set.is_empty(),
            "meshConfig" => self.mesh_config.is_some(),
            _ => false,
        };
        let place = match &self.config {
            Some(file) => Some(file.display().to_string()),
            None => place.map(str::to_owned),
        };
        match place {
            // Of several layers it is not known which has it.
            Some(place) if !overlaid => format!("{place}: {field}"),
            _ => field.to_owned(),
        }
    }

    /// Whether a file of settings is named.
    pub(crate) fn names_file(&self) -> bool {
        self.config.is_some()
    }

    /// The settings, or why there are none: one line a problem.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        self.settings_over(Settings::default)
    }

    /// [`Self::settings`]; `otherwise` gives those that the flags go over where no file is named.
    pub(crate) fn settings_over(&self, otherwise: impl FnOnce() -> Settings) -> Result<Settings, String> {
        let mut settings = match &self.config {
            Some(file) => {
                let pack = self.packs.first().map(String::as_str);
                Settings::load(file, pack).map_err(|e| e.to_string())?
            }
            None => otherwise(),
        };
        if let [pack, further @ ..] = self.packs.as_slice() {
            settings.pack.clone_from(pack);
            if !further.is_empty() {
                settings.packs = further.to_vec();
            }
        }
        if !self.templates.is_empty() {
            settings.default_templates.clone_from(&self.templates);
        }
        for file in &self.values {
            layers::lay(&mut settings.values, object(file, "--values", "values")?);
        }
        for assignments in &self.set {
            layers::set(&mut settings.values, assignments)
                .map_err(|e| format!("--set {assignments}: {e}"))?;
        }
        if let Some(file) = &self.mesh_config {
            layers::lay(&mut settings.mesh_config, object(file, "--mesh-config", "mesh")?);
        }
        if let Some(revision) = &self.revision {
            settings.revision.clone_from(revision);
        }
        if let Some(version) = self.kubernetes_version {
            settings.kubernetes_version = version;
        }
        Ok(settings)
    }
}

/// Refuses the name of a ConfigMap, and says how it becomes a file for `flag`.
fn write_to_file(flag: &'static str) -> impl Fn(&str) -> Result<Infallible, String> + Clone + Send + Sync {
    move |name| {
        Err(format!(
            "ConfigMaps are not read from a cluster here; write it to a file with `kubectl -n istio-system get configmap \
             {name} -o yaml > {name}.yaml`, and give {flag} {name}.yaml"
        ))
    }
}

/// What `--set` is given, if it can be read.
fn assignments(text: &str) -> Result<String, String> {
    layers::set(&mut Map::new(), text).map(|()| text.to_owned())
}

/// A file that holds one YAML or JSON object, or a ConfigMap that holds one under a key.
fn object(file: &Path, flag: &str, key: &str) -> Result<Map<String, Value>, String> {
    let place = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| format!("{flag}: cannot read {place}: {e}"))?;
    match yaml::parse(&text).map_err(|e| format!("{flag}: {place}: {e}"))? {
        value if import::is_config_map(&value) => {
            import::entry(&value, key).map_err(|e| format!("{flag}: {place}: {e}"))
        }
        Value::Object(fields) => Ok(fields),
        // What a command that failed was to write.
        _ if text.trim().is_empty() => {
            Err(format!("{flag}: {place}: is empty; leave {flag} out for nothing"))
        }
        Value::Null => Ok(Map::new()),
        _ => Err(format!("{flag}: {place}: is no object; write name: value in it")),
    }
}
