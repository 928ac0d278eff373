//! What is installed: the objects of `manifests/`, which are embedded, and what the options of `outrigger install` change
//! about them. Pure.
//!
//! ```text
//! parts ──> names ──> choices ──> objects
//! files     renamed   by option
//! ```
//!
//! The Helm chart and the kustomize overlays make the same objects; `tests/kubernetes/packaging.rs`
//! compares them.

mod choices;
mod names;
mod parts;
pub mod registration;
mod removal;
pub mod rollout;
mod settings;
mod sidecars;
mod tag;
mod trial_pod;
pub mod trust;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::settings::{INSTALLATION_NAMESPACE, KubernetesVersion};
use crate::{manifest, yaml};

pub use choices::{check_collector, check_signer};
pub use names::{Names, certificate_secret};
pub use parts::{Part, Repair};
pub use removal::{removal, tags_of};
pub use settings::{settings, settings_place};
pub use sidecars::Sidecars;
pub use tag::Tag;
pub(crate) use trial_pod::trial_pod;
pub use trial_pod::{TrialPod, verify};

/// Label of every object that belongs to an installation.
pub(crate) const PART_OF_LABEL: (&str, &str) = ("app.kubernetes.io/part-of", "outrigger");
/// The revision of an installation that names none.
pub const DEFAULT_REVISION: &str = "default";

/// Why nothing can be installed like this. Each names the option, its value and the fix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An option has a value that cannot be used, whatever the others are.
    #[error("{option} {value}: {why}")]
    Value {
        /// The option, as it is typed: `--revision`.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it, and what to write.
        why: String,
    },
    /// Options that do not go together, or settings that do not go with them.
    #[error("{0}")]
    Option(String),
    /// A manifest is not what the options expect of it: a fault of this program.
    #[error("the manifests of this program: {0}")]
    Manifest(String),
}

/// What can be chosen about an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the revision. Default: `default`, whose objects are called `outrigger`; those of another revision are
    /// called `outrigger-REVISION`.
    pub revision: String,
    /// Namespace of the objects. Default: `outrigger-system`.
    pub namespace: String,
    /// Where the three images come from, in place of `localhost`.
    pub registry: Option<String>,
    /// Replicas of the webhook; with [`Part::Hpa`] the fewest. Default: 3.
    pub replicas: Option<u32>,
    /// The settings (InjectorConfig), in place of those of the manifests.
    pub settings: Option<String>,
    /// The oldest kubelet of the cluster, where it is known: the settings of the manifests do with it.
    pub oldest_kubelet: Option<KubernetesVersion>,
    /// The `signerName` of the signer of the cluster who signs the certificate, in place of a CA of Outrigger's own.
    pub certificate_signer: Option<String>,
    /// URL of the collector that spans of admission requests are sent to.
    pub trace_collector: Option<String>,
    /// Whether capture is that of a CNI plugin on each node, which is installed, too.
    pub cni: bool,
    /// The controller for pods that came in without a sidecar.
    pub repair: Option<Repair>,
    /// What is installed besides.
    pub parts: BTreeSet<Part>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            revision: DEFAULT_REVISION.to_owned(),
            namespace: INSTALLATION_NAMESPACE.to_owned(),
            registry: None,
            replicas: None,
            settings: None,
            oldest_kubelet: None,
            certificate_signer: None,
            trace_collector: None,
            cni: false,
            repair: None,
            parts: BTreeSet::new(),
        }
    }
}

/// An object to install.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The object.
    pub value: Value,
    /// Its text in the manifests, with comments, where the options leave it as it is there.
    text: Option<&'static str>,
}

impl Object {
    fn made(value: Value) -> Self {
        Self { value, text: None }
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// Whether its kind is not Kubernetes' own.
    pub fn is_foreign(&self) -> bool {
        let version = self.value["apiVersion"].as_str().unwrap_or_default();
        version.split_once('/').is_some_and(|(group, _)| group.contains('.') && !group.ends_with(".k8s.io"))
    }

    /// As people name it: `Deployment outrigger-system/outrigger`.
    pub fn title(&self) -> String {
        let metadata = &self.value["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        match metadata["namespace"].as_str() {
            Some(namespace) => format!("{} {namespace}/{name}", self.kind()),
            None => format!("{} {name}", self.kind()),
        }
    }
}

/// The objects of an installation, in the order in which they are applied. The registration is the last.
///
/// # Errors
/// [`Error::Value`]: a name that Kubernetes does not take, or another value that cannot be used. [`Error::Option`]: settings
/// that are refused or that are another revision's, two options that exclude each other.
pub fn objects(options: &Options) -> Result<Vec<Object>, Error> {
    choices::check(options)?;
    all(options)
}

fn all(options: &Options) -> Result<Vec<Object>, Error> {
    let names = Names::new(&options.revision, &options.namespace)?;
    let mut objects = Vec::new();
    for text in parts::texts(options) {
        for document in manifest::split(text.as_bytes()) {
            let value = document.parse().map_err(|e| Error::Manifest(e.to_string()))?;
            let Some(original) = value else { continue };
            let mut value = original.clone();
            names.rename(&mut value);
            choices::choose(&mut value, options, &names)?;
            let source = std::str::from_utf8(document.source).map_err(|e| Error::Manifest(e.to_string()))?;
            let text = (value == original).then(|| source.strip_prefix("---\n").unwrap_or(source));
            objects.push(Object { value, text });
        }
    }
    Ok(objects)
}

/// The objects as a stream of YAML documents.
pub fn yaml(objects: &[Object]) -> String {
    let documents: Vec<String> = objects
        .iter()
        .map(|object| object.text.map_or_else(|| yaml::write(&object.value), str::to_owned))
        .collect();
    documents.join("---\n")
}

/// The objects as a List, in JSON.
pub fn json(objects: &[Object]) -> Value {
    let items: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
}

#[cfg(test)]
mod tests;
