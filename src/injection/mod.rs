//! Decide, render, merge, finish: a pod as sent becomes a pod as injected.

mod data;
mod order;
mod owner;
mod status;

use handlebars::Context;
use outrigger_contract::STATUS_ANNOTATION;
use serde_json::{Map, Value, json};

use crate::merge;
use crate::policy::{self, Decision, Facts, Reason};
use crate::settings::Settings;
use crate::template::Templates;
use crate::template::packs::{Pack, overlay_values};
use crate::uninject;
pub use owner::Owner;

/// Annotation with which a pod chooses its templates, comma separated.
pub const TEMPLATES_ANNOTATION: &str = "inject.istio.io/templates";
/// Annotation with which a pod says whether its sidecar is a native one.
pub const NATIVE_ANNOTATION: &str = "sidecar.istio.io/nativeSidecar";

/// What the injector knows about a pod besides the pod.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// Namespace of the request; empty where it is not known. The pod's own namespace, if set, comes first.
    pub namespace: &'a str,
    /// `metadata` of the Namespace object, where it is known.
    pub namespace_metadata: Option<&'a Value>,
    /// Environment by request path, as (name, value).
    pub environment: &'a [(String, String)],
    /// The workload whose template the pod is; `None` for a pod, which knows its owner itself.
    pub owner: Option<&'a Owner>,
}

/// What came of a pod.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Inject or not, and why.
    pub decision: Decision,
    /// The pod as injected; `None` where it stays as it was sent, because the decision is not to inject or because
    /// it carries everything already.
    pub pod: Option<Value>,
}

/// Why a pod that ought to be injected is not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod's author can mend it: a bad annotation, a template that is not there. Admission is denied.
    #[error("{0}")]
    Refused(String),
    /// The operator can mend it: a template that does not render. The webhook answers 500, so that
    /// `failurePolicy` decides.
    #[error("{0}")]
    Internal(String),
}

/// Why an injector cannot be made from its settings: a pack that is not there, a template that does not
/// parse (with line and column).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Settings with their templates compiled; made once, used for every pod.
#[derive(Debug)]
pub struct Injector {
    settings: Settings,
    templates: Templates,
    /// The templates' data that is the same for all pods.
    base: Map<String, Value>,
}

impl Injector {
    /// Loads the pack and compiles its templates.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let pack = Pack::load(&settings.pack).map_err(|e| SetupError(e.to_string()))?;
        let templates =
            Templates::compile(&pack, &settings.templates).map_err(|e| SetupError(e.to_string()))?;
        let known = |name: &String| templates.names().contains(name) || settings.aliases.contains_key(name);
        if let Some(missing) = settings.default_templates.iter().find(|name| !known(name)) {
            return Err(SetupError(format!(
                "defaultTemplates: there is no template {missing:?}; have {}",
                templates.names().join(", ")
            )));
        }
        let mut values = pack.values;
        overlay_values(&mut values, settings.values.clone());
        let base = json!({
            "contract": data::contract(),
            "values": values,
            "meshConfig": settings.mesh_config,
            "revision": settings.revision,
        });
        let base = base.as_object().cloned().unwrap_or_default();
        Ok(Self { settings, templates, base })
    }

    /// The settings that it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Inject or not.
    pub fn decide(&self, pod: &Value, request: &Request) -> Decision {
        policy::decide(&facts(pod, request), &self.settings)
    }

    /// Every rule of the truth table with what it would decide by itself, in order: see [`policy::explain`].
    pub fn rules(&self, pod: &Value, request: &Request) -> Vec<(&'static str, Option<(Reason, String)>)> {
        policy::explain(&facts(pod, request), &self.settings)
    }

    /// The pod as injected. Injecting an injected pod changes nothing.
    ///
    /// # Errors
    /// [`Error`]; nothing of the injection is then kept.
    pub fn inject(&self, pod: &Value, request: &Request) -> Result<Injection, Error> {
        let decision = self.decide(pod, request);
        if !decision.inject() {
            return Ok(Injection { decision, pod: None });
        }
        shape(pod).map_err(|message| Error::Refused(format!("{}: {message}", subject(pod, request))))?;
        let rendered = self.render(pod, request)?;
        let mut injected = pod.clone();
        for overlay in rendered.overlays {
            merge::pod(&mut injected, overlay)
                .map_err(|e| Error::Internal(format!("{}: {e}", subject(pod, request))))?;
        }
        self.finish(&mut injected, &rendered.all);
        // Pack `istio` promises the very pods that Istio makes.
        if self.settings.pack != "istio" {
            uninject::leave_record(pod, &mut injected);
        }
        let pod = (injected != *pod).then_some(injected);
        Ok(Injection { decision, pod })
    }

    fn render(&self, pod: &Value, request: &Request) -> Result<Rendered, Error> {
        let subject = || subject(pod, request);
        let stripped = status::strip(pod);
        let sent = stripped.as_ref().unwrap_or(pod);
        let own = Owner::of(sent);
        let pod_data = data::PodData {
            pod: sent,
            namespace: facts(pod, request).namespace,
            workload: request.owner.unwrap_or(&own),
            native: self.native(sent),
            environment: request.environment,
        };
        let context = Context::from(data::data(&self.base, &pod_data));
        let mut rendered = Rendered { overlays: Vec::new(), all: json!({}) };
        for name in self.template_names(sent) {
            if !self.templates.names().iter().any(|known| known == name) {
                let have = self.templates.names().join(", ");
                return Err(Error::Refused(format!(
                    "{}: requested template {name:?} not found; have {have}",
                    subject()
                )));
            }
            let overlay = self
                .templates
                .render(name, &context)
                .map_err(|e| Error::Internal(format!("{}: {e}", subject())))?;
            merge::pod(&mut rendered.all, overlay.clone())
                .map_err(|e| Error::Internal(format!("{}: template {name:?}: {e}", subject())))?;
            rendered.overlays.push(overlay);
        }
        Ok(rendered)
    }

    /// The templates of a pod: those it names, or the default ones; aliases stand for several.
    pub fn template_names<'a>(&'a self, pod: &'a Value) -> Vec<&'a str> {
        let named = match pod["metadata"]["annotations"][TEMPLATES_ANNOTATION].as_str() {
            Some(names) => names.split(',').map(str::trim).collect(),
            None => self.settings.default_templates.iter().map(String::as_str).collect::<Vec<_>>(),
        };
        named
            .into_iter()
            .flat_map(|name| match self.settings.aliases.get(name) {
                Some(names) => names.iter().map(String::as_str).collect(),
                None => vec![name],
            })
            .collect()
    }

    fn native(&self, pod: &Value) -> bool {
        match pod["metadata"]["annotations"][NATIVE_ANNOTATION].as_str() {
            Some("true") => true,
            Some("false") => false,
            _ => self.settings.native_sidecars(),
        }
    }

    fn finish(&self, pod: &mut Value, rendered: &Value) {
        order::order(pod, order::Place::First);
        let annotations = &mut pod["metadata"]["annotations"];
        annotations[STATUS_ANNOTATION] = Value::from(status::of(rendered, &self.settings.revision));
        for (key, value) in &self.settings.injected_annotations {
            annotations[key] = Value::from(value.as_str());
        }
    }
}

/// What the templates of one pod rendered: one by one, and merged.
struct Rendered {
    overlays: Vec<Value>,
    all: Value,
}

fn facts<'a>(pod: &'a Value, request: &Request<'a>) -> Facts<'a> {
    let own = pod["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    Facts {
        pod,
        namespace: own.unwrap_or(request.namespace),
        namespace_labels: request.namespace_metadata.and_then(|m| m.get("labels")),
    }
}

/// The pod as messages name it: `pod shop/cart`, `pod shop/cart-* of Deployment cart`.
fn subject(pod: &Value, request: &Request) -> String {
    let namespace = facts(pod, request).namespace;
    let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let metadata = &pod["metadata"];
    match (metadata["name"].as_str(), metadata["generateName"].as_str(), request.owner) {
        (Some(name), _, _) => format!("pod {namespace}{name}"),
        (None, Some(prefix), _) => format!("pod {namespace}{prefix}*"),
        (None, None, Some(owner)) => format!("{} {namespace}{}", owner.kind, owner.name),
        (None, None, None) => format!("pod {namespace}(no name)"),
    }
}

/// Refuses what is no pod, naming the field.
fn shape(pod: &Value) -> Result<(), String> {
    let wrong =
        |field: &str, want: &str, got: &Value| Err(format!("{field} is {}, and must be {want}", kind(got)));
    for field in ["metadata", "spec"] {
        match &pod[field] {
            Value::Object(_) => {}
            Value::Null if field == "metadata" => {}
            other => return wrong(field, "an object", other),
        }
    }
    for field in ["labels", "annotations"] {
        match &pod["metadata"][field] {
            Value::Null => {}
            Value::Object(map) => {
                if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return wrong(&format!("metadata.{field}[{key:?}]"), "a string", value);
                }
            }
            other => return wrong(&format!("metadata.{field}"), "an object of strings", other),
        }
    }
    for list in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
        let items = match &pod["spec"][list] {
            Value::Null => &[],
            Value::Array(items) => items.as_slice(),
            other => return wrong(&format!("spec.{list}"), "a list", other),
        };
        if list == "containers" && items.is_empty() {
            return Err("spec.containers is empty, and a pod needs a container".to_owned());
        }
        for (i, item) in items.iter().enumerate() {
            if !item.is_object() {
                return wrong(&format!("spec.{list}[{i}]"), "an object", item);
            }
            if !item["name"].is_string() {
                return wrong(&format!("spec.{list}[{i}].name"), "a string", &item["name"]);
            }
            for field in ["env", "ports", "volumeMounts"] {
                if !matches!(item[field], Value::Null | Value::Array(_)) {
                    return wrong(&format!("spec.{list}[{i}].{field}"), "a list", &item[field]);
                }
            }
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "missing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
