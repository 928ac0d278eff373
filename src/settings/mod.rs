//! What the operator configures. Loads and validates; knows nothing of HTTP or clusters.
//!
//! One YAML document, `apiVersion: outrigger.dev/v1alpha1`, `kind: InjectorConfig`. It is strict: an unknown
//! field is an error that names its line. All errors are reported at once.

pub mod import;
pub mod layers;
pub(crate) mod misspelt;
mod policy;
mod said;
mod selector;
mod unusable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::yaml;
pub use policy::Policy;
pub use selector::Selector;
pub use unusable::Unusable;

/// `apiVersion` of the document.
const API_VERSION: &str = "outrigger.dev/v1alpha1";
/// `kind` of the document.
const KIND: &str = "InjectorConfig";

/// Namespaces that are never injected: the cluster's own.
pub(crate) const EXEMPT_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// Namespace of the installation, where nothing else is said.
pub const INSTALLATION_NAMESPACE: &str = "outrigger-system";

/// The platform that gives every namespace a range of users.
pub(crate) const OPENSHIFT: &str = "openshift";

/// Why settings are refused: one line a problem, each with its place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the settings {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The document is refused.
    #[error("{place}: {}", problems.join(&format!("\n{place}: ")))]
    Invalid {
        /// File or object.
        place: String,
        /// One line a problem, with line and column where known.
        problems: Vec<String>,
    },
}

/// When the sidecar is a native one (an init container with `restartPolicy: Always`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NativeSidecars {
    /// Where every node has them: `kubernetesVersion` decides.
    #[default]
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

impl<'de> Deserialize<'de> for NativeSidecars {
    /// `auto`, or a boolean, plain or quoted.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::True),
            Value::Bool(false) => Ok(Self::False),
            Value::String(s) if s == "auto" || s.is_empty() => Ok(Self::Auto),
            Value::String(s) if s == "true" => Ok(Self::True),
            Value::String(s) if s == "false" => Ok(Self::False),
            other => Err(serde::de::Error::custom(format!("{other} is none of auto, true, false"))),
        }
    }
}

/// A Kubernetes version, `1.34`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    /// `1` of `1.34`.
    pub major: u32,
    /// `34` of `1.34`.
    pub minor: u32,
}

impl std::fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for KubernetesVersion {
    type Err = String;

    /// `1.34`, `v1.34.4`, `1.34+`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.trim_start_matches('v').split('.');
        let mut number = || {
            let digits: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(format!("{text:?} is no Kubernetes version; write it as 1.34")),
        }
    }
}

impl<'de> Deserialize<'de> for KubernetesVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            // 1.34 without quotes is a number; 1.30 would have lost its zero.
            other => {
                return Err(serde::de::Error::custom(format!("{other} must be quoted, as in \"1.34\"")));
            }
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The settings, as DESIGN gives them; every field may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    api_version: String,
    kind: String,
    /// The mesh-wide default. Default: `enabled`.
    pub policy: Policy,
    /// Namespaces that are looked at; `""` is every namespace. Default: `[""]`. Not together with
    /// `excludeNamespaces`.
    pub namespaces: Vec<String>,
    /// Namespaces that are left alone.
    pub exclude_namespaces: Vec<String>,
    /// Pods whose labels match one of these are not injected unless they ask for it.
    pub never_inject_selector: Vec<Selector>,
    /// Pods whose labels match one of these are injected unless they refuse it.
    pub always_inject_selector: Vec<Selector>,
    /// Annotations that every injected pod gets.
    pub injected_annotations: BTreeMap<String, String>,
    /// Name of a pack that comes with Outrigger, a folder, or the file of a ConfigMap. Default: `outrigger`.
    pub pack: String,
    /// Further packs, whose templates are `PACK/TEMPLATE` and whose values stand under the pack's name.
    pub packs: Vec<String>,
    /// Templates of a pod that names none. Default: `[sidecar]`.
    pub default_templates: Vec<String>,
    /// More templates by name, as text.
    pub templates: BTreeMap<String, String>,
    /// A name for several templates.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Name of this installation's revision. Default: `default`.
    pub revision: String,
    /// Whether sidecars are native ones. Default: `auto`.
    pub native_sidecars: NativeSidecars,
    /// The oldest kubelet of the cluster. Default: `1.34`.
    pub kubernetes_version: KubernetesVersion,
    /// `openshift`, or empty.
    pub platform: String,
    /// `fips-140-2`, `fips-140-3`, or empty.
    pub compliance_policy: String,
    /// For the pack's templates, over the pack's defaults.
    pub values: Map<String, Value>,
    /// As in Istio's mesh ConfigMap.
    pub mesh_config: Map<String, Value>,
    /// Namespace of this installation, which is never injected. Default: `outrigger-system`.
    pub installation_namespace: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            policy: Policy::Enabled,
            namespaces: vec![String::new()],
            exclude_namespaces: Vec::new(),
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
            injected_annotations: BTreeMap::new(),
            pack: "outrigger".to_owned(),
            packs: Vec::new(),
            default_templates: vec!["sidecar".to_owned()],
            templates: BTreeMap::new(),
            aliases: BTreeMap::new(),
            revision: "default".to_owned(),
            native_sidecars: NativeSidecars::Auto,
            kubernetes_version: KubernetesVersion { major: 1, minor: 34 },
            platform: String::new(),
            compliance_policy: String::new(),
            values: Map::new(),
            mesh_config: Map::new(),
            installation_namespace: INSTALLATION_NAMESPACE.to_owned(),
        }
    }
}

impl Settings {
    /// Whether pods are captured from the node, by the CNI plugin: `values.pilot.cni.enabled`, as Istio calls it.
    pub(crate) fn captures_by_cni(&self) -> bool {
        self.values.get("pilot").is_some_and(|pilot| pilot["cni"]["enabled"] == true)
    }

    /// Reads and validates a file. `pack`: a pack that was named elsewhere; it goes over the document's, and stands for the
    /// Go templates of a ConfigMap that an Istio installation left.
    ///
    /// # Errors
    /// The file cannot be read, it is empty, or [`Settings::parse`] refuses it.
    pub fn load(path: &Path, pack: Option<&str>) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let place = path.display().to_string();
        // What a command that failed was to write: nobody means the defaults by it.
        if text.trim().is_empty() {
            let problem = "is empty; for the defaults, name no file".to_owned();
            return Err(Error::Invalid { place, problems: vec![problem] });
        }
        Self::parse_for(&text, &place, pack)
    }

    /// Reads and validates a document; `place` names it in errors. It is an InjectorConfig, or a ConfigMap that an
    /// Istio installation left (see [`import`]).
    ///
    /// # Errors
    /// No YAML, an unknown field, a value of the wrong kind, a Go template, or values that contradict each other:
    /// each with its line.
    pub fn parse(text: &str, place: &str) -> Result<Self, Error> {
        Self::parse_for(text, place, None)
    }

    /// [`Settings::parse`], where a pack was named elsewhere, as for [`Settings::load`].
    pub fn parse_for(text: &str, place: &str, pack: Option<&str>) -> Result<Self, Error> {
        let refuse = |problem: String| Error::Invalid { place: place.to_owned(), problems: vec![problem] };
        let (mut value, positions) = yaml::parse_with_positions(text).map_err(|e| refuse(e.to_string()))?;
        if value.is_null() {
            value = Value::Object(Map::new());
        }
        if !value.is_object() {
            return Err(refuse(format!(
                "settings are an object of kind {KIND}, not a list or a single value; write name: value, such as policy: \
                 enabled"
            )));
        }
        let document = if import::is_config_map(&value) {
            import::settings(&value, place, pack)
                .map_err(|(place, problem)| Error::Invalid { place, problems: vec![problem] })?
        } else {
            if let Some(Value::Object(templates)) = value.get("templates") {
                import::refuse_go_templates(templates, &positions).map_err(refuse)?;
            }
            import::Document { value, positions, place: place.to_owned() }
        };
        let mut settings = Self::of(document)?;
        if let Some(pack) = pack {
            pack.clone_into(&mut settings.pack);
        }
        Ok(settings)
    }

    fn of(document: import::Document) -> Result<Self, Error> {
        let import::Document { value, positions, place } = document;
        let settings: Self = serde_path_to_error::deserialize(value).map_err(|e| {
            let (field, pointer) = field_path(e.path());
            let at = positions.get(&pointer).map(|(line, column)| format!("line {line}, column {column}: "));
            let problem =
                format!("{}{field}: {}", at.unwrap_or_default(), said::said(&e.inner().to_string()));
            Error::Invalid { place: place.clone(), problems: vec![problem] }
        })?;
        match settings.problems(&positions) {
            problems if problems.is_empty() => Ok(settings),
            problems => Err(Error::Invalid { place, problems }),
        }
    }

    /// What has no effect though it is accepted, as Istio accepts it: selectors that are invalid and match nothing, a platform
    /// that is not known.
    pub fn warnings(&self) -> Vec<String> {
        let selectors = [
            ("neverInjectSelector", &self.never_inject_selector),
            ("alwaysInjectSelector", &self.always_inject_selector),
        ];
        let mut warnings = Vec::new();
        for (field, selectors) in selectors {
            for (i, selector) in selectors.iter().enumerate() {
                if let Some(problem) = selector.problem() {
                    warnings.push(format!("{field}[{i}] is invalid and matches nothing: {problem}"));
                }
            }
        }
        if !["", OPENSHIFT].contains(&self.platform.as_str()) {
            let platform = &self.platform;
            warnings
                .push(format!("platform: {platform:?} means nothing; write {OPENSHIFT:?}, or leave it out"));
        }
        warnings
    }

    /// Whether pods of this namespace are never injected: the cluster's own, and the installation's.
    pub(crate) fn is_exempt(&self, namespace: &str) -> bool {
        EXEMPT_NAMESPACES.contains(&namespace) || namespace == self.installation_namespace
    }

    /// Whether sidecars are native ones, by setting and version; a pod's annotation may say otherwise.
    pub(crate) fn native_sidecars(&self) -> bool {
        self.native_sidecars_since(NATIVE_SIDECARS_SINCE)
    }

    /// [`Self::native_sidecars`], for a pack that wants another version.
    pub(crate) fn native_sidecars_since(&self, since: KubernetesVersion) -> bool {
        match self.native_sidecars {
            NativeSidecars::True => true,
            NativeSidecars::False => false,
            NativeSidecars::Auto => self.kubernetes_version >= since,
        }
    }

    fn problems(&self, positions: &yaml::Positions) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: String| {
            let pointer = format!("/{}", field.replace('.', "/"));
            let at = positions.get(&pointer).map(|(line, column)| format!("line {line}, column {column}: "));
            problems.push(format!("{}{field}: {message}", at.unwrap_or_default()));
        };
        if self.api_version != API_VERSION {
            problem(
                "apiVersion",
                format!("{:?} is not {API_VERSION:?}; write that, or leave it out", self.api_version),
            );
        }
        if self.kind != KIND {
            problem("kind", format!("{:?} is not {KIND:?}; write that, or leave it out", self.kind));
        }
        if !self.exclude_namespaces.is_empty() && positions.contains_key("/namespaces") {
            problem(
                "excludeNamespaces",
                "cannot stand together with namespaces; keep one of them".to_owned(),
            );
        }
        if self.exclude_namespaces.iter().any(String::is_empty) {
            problem(
                "excludeNamespaces",
                "may not hold \"\" (every namespace); set policy: off to inject nothing".to_owned(),
            );
        }
        if self.revision.is_empty() {
            problem("revision", "may not be empty; leave it out for \"default\"".to_owned());
        }
        if !matches!(self.compliance_policy.as_str(), "" | "fips-140-2" | "fips-140-3") {
            problem(
                "compliancePolicy",
                format!("{:?} is none of \"\", \"fips-140-2\", \"fips-140-3\"", self.compliance_policy),
            );
        }
        if self.default_templates.is_empty() {
            problem("defaultTemplates", "may not be empty; leave it out for [sidecar]".to_owned());
        }
        problems
    }
}

/// Kubernetes has native sidecars on by default since this version
/// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>).
pub(crate) const NATIVE_SIDECARS_SINCE: KubernetesVersion = KubernetesVersion { major: 1, minor: 29 };

/// A path of serde's as people write it (`a.b[0]`) and as a JSON pointer.
fn field_path(path: &serde_path_to_error::Path) -> (String, String) {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer += &format!("/{index}"),
            Segment::Map { key } => pointer += &format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (path.to_string(), pointer)
}

#[cfg(test)]
mod tests;
