//! Decide, render, merge, finish: a pod as sent becomes a pod as injected.
//!
//! The steps are Istio's, in its order, one file each; a step acts on what is there, whichever pack put it there.

mod agent;
mod cluster;
mod cni;
mod data;
mod mesh;
mod order;
mod overrides;
mod probes;
mod prometheus;
mod proxy_config;
mod quantity;
mod render;
mod replicas;
mod sent;
mod status;
mod user;
mod validate;

use std::borrow::Cow;
use std::sync::Arc;

use outrigger_contract::STATUS_ANNOTATION;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::merge;
use crate::owner::Owner;
use crate::patch;
use crate::policy::{self, Decision, Facts, Reason};
use crate::settings::{NATIVE_SIDECARS_SINCE, OPENSHIFT, Settings, Unusable};
use crate::shape;
use crate::template::{Library, Sources};
use crate::uninject;
use mesh::Mesh;
use overrides::Overrides;
use proxy_config::ProxyConfig;
use render::{Contexts, Rendered};
pub use replicas::Patched;
use replicas::{Made, Patch, Replicas};
use sent::Sent;
use status::{Added, Status};
use user::User;

/// Annotation with which a pod chooses its templates, comma separated.
pub(crate) const TEMPLATES_ANNOTATION: &str = "inject.istio.io/templates";
/// Annotation with which a pod says whether its sidecar is a native one.
pub(crate) const NATIVE_ANNOTATION: &str = "sidecar.istio.io/nativeSidecar";
/// Annotation with which a pod configures its proxy, over the mesh's default.
pub(crate) const PROXY_CONFIG_ANNOTATION: &str = "proxy.istio.io/config";

/// What the injector knows about a pod besides the pod.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Request<'a> {
    /// Namespace of the request; empty where it is not known. The pod's own namespace, if set, comes first.
    pub namespace: &'a str,
    /// `metadata` of the Namespace object, where it is known.
    pub namespace_metadata: Option<&'a Value>,
    /// Environment by request path, as (name, value).
    pub environment: &'a [(String, String)],
    /// The revision's tag by which the pod was sent, if by any.
    pub tag: Option<&'a str>,
    /// The workload whose template the pod is; `None` for a pod, which knows its owner itself.
    pub owner: Option<&'a Owner>,
}

/// What injection may ask of a Namespace, out of its `metadata`, for [`Request::namespace_metadata`]: labels, and the
/// annotations of a platform. What else stands there, such as what `kubectl apply` leaves, is not worth its memory.
pub(crate) fn of_namespace(metadata: &Value) -> Value {
    let annotations = metadata["annotations"].as_object().into_iter().flatten();
    let annotations: Map<String, Value> = annotations
        .filter(|(key, _)| user::NAMESPACE_ANNOTATIONS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    json!({"labels": metadata["labels"], "annotations": annotations})
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
    /// What was sent is no JSON object.
    #[error("{0}")]
    NoObject(String),
}

impl Error {
    /// The same in other words.
    fn map(self, f: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Refused(message) => Self::Refused(f(message)),
            Self::Internal(message) => Self::Internal(f(message)),
            Self::NoObject(message) => Self::NoObject(f(message)),
        }
    }
}

/// Settings with their templates compiled; made once, used for every pod.
#[derive(Debug)]
pub struct Injector {
    settings: Settings,
    templates: Library,
    mesh: Mesh,
    /// The templates' data that is the same for all pods.
    base: Map<String, Value>,
    contexts: Contexts,
    /// Whether sidecars are native ones where a pod says nothing else.
    native: bool,
    replicas: Replicas,
    /// Whether the settings have nothing that could be taken for a name that [`Sent`] gives.
    names_are_free: bool,
}

impl Injector {
    /// Loads the packs, compiles their templates, and checks the values by the packs' schemas.
    ///
    /// # Errors
    /// A pack that is not there, a template that does not parse (with line and column), values or mesh configuration that
    /// cannot be used: each under its field.
    pub fn new(settings: Settings) -> Result<Self, Unusable> {
        Self::load(settings, true)
    }

    /// [`Self::new`] without the schemas: for experiments with values that they would refuse.
    pub(crate) fn unchecked(settings: Settings) -> Result<Self, Unusable> {
        Self::load(settings, false)
    }

    fn load(settings: Settings, strict: bool) -> Result<Self, Unusable> {
        let sources = Sources {
            pack: &settings.pack,
            further: &settings.packs,
            templates: &settings.templates,
            values: &settings.values,
            strict,
        };
        let (templates, values) = Library::load(&sources)?;
        let known = |name: &String| templates.names().contains(name) || settings.aliases.contains_key(name);
        if let Some(missing) = settings.default_templates.iter().find(|name| !known(name)) {
            let names: Vec<&str> =
                templates.names().iter().chain(settings.aliases.keys()).map(String::as_str).collect();
            let problem = format!("there is no template {missing:?}; have {}", names.join(", "));
            return Err(Unusable::new("defaultTemplates", problem));
        }
        let mesh = Mesh::new(&settings.mesh_config)?;
        let since = values.get("nativeSidecarsSince").and_then(Value::as_str);
        let since =
            since.map(str::parse).transpose().map_err(|e| Unusable::new("values.nativeSidecarsSince", e))?;
        let native = settings.native_sidecars_since(since.unwrap_or(NATIVE_SIDECARS_SINCE));
        let base = json!({
            "contract": data::contract(),
            "values": values,
            "meshConfig": mesh::with_defaults(&settings.mesh_config),
            "revision": settings.revision,
            "compliancePolicy": settings.compliance_policy,
        });
        let base = base.as_object().cloned().unwrap_or_default();
        let names_are_free = !sent::may_hold_private(&format!("{settings:?}"));
        let (contexts, replicas) = (Contexts::default(), Replicas::default());
        Ok(Self { settings, templates, mesh, base, contexts, native, replicas, names_are_free })
    }

    /// The settings that it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The names of the templates that a pod may ask for, sorted.
    pub(crate) fn templates(&self) -> &[String] {
        self.templates.names()
    }

    /// Whether a pod gets a record of what injection did, by which it is undone. Pack `istio` promises the very pods
    /// that Istio makes, and Istio keeps none.
    pub fn keeps_record(&self) -> bool {
        self.settings.pack != "istio"
    }

    /// What has no effect though it is accepted: selectors that match nothing, names that are hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.settings.warnings();
        warnings.extend(proxy_config::misspelt(&self.settings.mesh_config));
        warnings.extend_from_slice(self.templates.warnings());
        warnings
    }

    /// Inject or not.
    pub fn decide(&self, pod: &Value, request: &Request) -> Decision {
        policy::decide(&facts(pod, request), &self.settings)
    }

    /// Every rule of the truth table with what it would decide by itself, in order: see `policy::explain`.
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
        let mut injected = shape::pod(&shape::At::root(pod))
            .map_err(|problem| Error::Refused(problem.to_string()))
            .and_then(|()| self.run(pod, request))
            .map_err(|e| e.map(|message| format!("{}: {message}", subject(pod, request))))?;
        if self.keeps_record() {
            uninject::leave_record(pod, &mut injected);
        }
        let pod = (injected != *pod).then_some(injected);
        Ok(Injection { decision, pod })
    }

    /// The patch of a pod as the API server sent it: JSON, a Pod. The replicas of a workload get theirs at once.
    ///
    /// # Errors
    /// [`Error`].
    pub fn patch(&self, pod: &str, request: &Request) -> Result<Patched, Error> {
        let sent = Sent::new(pod, self.names_are_free);
        let internal = |e: serde_json::Error| Error::Internal(e.to_string());
        let seen = sent.seen(request).map_err(internal)?;
        let made = match self.replicas.get(&seen.text) {
            Some(made) => made,
            None => {
                let made = self.make(&sent, seen.pod(), request).map(Arc::new)?;
                self.replicas.keep(seen.text, &made);
                made
            }
        };
        Patched::new(made, &sent).map_err(internal)
    }

    fn make(&self, sent: &Sent, seen: &str, request: &Request) -> Result<Made, Error> {
        let pod: Value = serde_json::from_str(seen).map_err(|e| Error::NoObject(e.to_string()))?;
        if !pod.is_object() {
            return Err(Error::NoObject("it is no map".to_owned()));
        }
        let generate_name = pod["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
        let injection =
            self.inject(&pod, request).map_err(|e| e.map(|message| sent.join(&sent.parts(&message))))?;
        let Injection { decision, pod: injected } = injection;
        let operations = injected.as_ref().map(|injected| patch::diff(&pod, injected)).unwrap_or_default();
        let patch = (!operations.is_empty()).then(|| Patch::new(&operations, sent)).transpose();
        let patch = patch.map_err(|e| Error::Internal(format!("{}: {e}", subject(&pod, request))))?;
        Ok(Made { decision, generate_name, patch })
    }

    fn run(&self, pod: &Value, request: &Request) -> Result<Value, Error> {
        let bad_template_input = |e: String| Error::Refused(format!("failed to run injection template: {e}"));
        let internal = |e: merge::Error| Error::Internal(format!("failed to merge: {e}"));
        validate::annotations(pod["metadata"]["annotations"].as_object()).map_err(bad_template_input)?;
        let status = Status::of(pod);
        let sent = self.without_platforms_user(pod, request, status.as_ref());
        let kept = Overrides::kept(&sent).map_err(bad_template_input)?;
        let proxy_config = self.proxy_config(&sent).map_err(bad_template_input)?;
        let values = &self.base["values"];
        let environment =
            cluster::environment(&values["global"], request.environment, &sent["metadata"]["labels"]);
        let mut injected = sent.clone().into_owned();
        let mut before = status.as_ref().map(|status| self.without_injection(&sent, status, &kept));
        let seen = before.as_mut().unwrap_or(&mut injected);
        let own = Owner::of(seen);
        let about = data::About {
            namespace: facts(pod, request).namespace,
            workload: request.owner.unwrap_or(&own),
            native: self.native(seen),
            proxy_config: &proxy_config,
            user: User::new(&self.settings.platform, request.namespace_metadata),
        };
        let Rendered { overlays, added } = self.render(seen, &self.template_names(&sent), &about)?;

        for overlay in overlays {
            if added.has_native_sidecar() {
                render::move_sidecar(&mut injected);
            }
            merge::pod(&mut injected, overlay).map_err(internal)?;
        }
        // A template may render anything; what follows writes into a pod.
        shape::pod(&shape::At::root(&injected)).map_err(|problem| {
            let templates = self.template_names(&sent).join(", ");
            Error::Internal(format!("what the templates ({templates}) render makes no pod: {problem}"))
        })?;
        if let Some(status) = &status {
            status.keep_volumes(&mut injected, &sent);
        }
        let overrides = kept.clone().apply(&mut injected, &sent, &added, status.as_ref());
        if let Some(annotation) = overrides.to_annotation().filter(|_| overrides != kept) {
            injected["metadata"]["annotations"][overrides::ANNOTATION] = annotation.into();
        }
        if let Some(theirs) = overrides.sidecar() {
            user::adjust_init(&mut injected, theirs, &proxy_config);
        }
        if values["refuseUserCollisions"] == true {
            user::refuse_collision(&injected).map_err(Error::Refused)?;
        }

        let bad_pod = |e: String| Error::Refused(format!("failed to process pod: {e}"));
        cluster::apply(&mut injected, &environment);
        let agent = agent::free_port(&mut injected, &self.mesh, &proxy_config).map_err(bad_pod)?;
        if values["mergeMetricsWithoutSidecar"] == true || cluster::sidecar(&mut injected).is_some() {
            prometheus::merge(&mut injected, self.mesh.merges_metrics, agent).map_err(bad_pod)?;
        }
        prometheus::secure_port(&mut injected);
        let rewrites = values["sidecarInjectorWebhook"]["rewriteAppHTTPProbe"] == true;
        probes::rewrite(&mut injected, agent, rewrites);
        cni::tell(&mut injected);
        self.annotate(&mut injected, &added);
        order::order(&mut injected, self.place(&sent));
        Ok(injected)
    }

    /// The pod without the user that the platform gave its author's sidecar container.
    fn without_platforms_user<'a>(
        &self,
        pod: &'a Value,
        request: &Request,
        status: Option<&Status>,
    ) -> Cow<'a, Value> {
        let mut sent = Cow::Borrowed(pod);
        let openshift = self.settings.platform == OPENSHIFT && request.namespace_metadata.is_some();
        if openshift && status.is_none() {
            user::forget_platforms(sent.to_mut());
        }
        sent
    }

    /// The pod as its author sent it, as far as an earlier injection lets it be told.
    fn without_injection(&self, sent: &Value, status: &Status, kept: &Overrides) -> Value {
        let mut before = sent.clone();
        let agent = agent::port(&mut before, &self.mesh);
        status.strip(&mut before);
        if let Some(annotations) = before["metadata"]["annotations"].as_object_mut() {
            prometheus::strip(annotations, agent);
        }
        kept.reinsert(&mut before);
        before
    }

    fn proxy_config(&self, pod: &Value) -> Result<Cow<'_, ProxyConfig>, String> {
        let mut config = Cow::Borrowed(&self.mesh.proxies.effective);
        if let Some(annotation) = pod["metadata"]["annotations"][PROXY_CONFIG_ANNOTATION].as_str() {
            proxy_config::overlay(config.to_mut(), proxy_config::from_annotation(annotation)?);
            proxy_config::listeners(&config)
                .map_err(|e| format!("annotation {PROXY_CONFIG_ANNOTATION}: {e}"))?;
        }
        Ok(config)
    }

    /// Any text but `false` asks for a native sidecar, as in Istio's templates.
    fn native(&self, pod: &Value) -> bool {
        match pod["metadata"]["annotations"][NATIVE_ANNOTATION].as_str() {
            Some("") | None => self.native,
            Some(asked) => asked != "false",
        }
    }

    /// Where a sidecar that is no native one stands: before the application where that is held for it.
    fn place(&self, pod: &Value) -> order::Place {
        let annotation = pod["metadata"]["annotations"][PROXY_CONFIG_ANNOTATION].as_str();
        let config = annotation.and_then(|annotation| proxy_config::from_annotation(annotation).ok());
        let field = "holdApplicationUntilProxyStarts";
        let asked = config.as_ref().and_then(|config| config.get(field));
        let asked = asked.or_else(|| self.mesh.proxies.written.get(field));
        let hold = asked == Some(&Value::Bool(true)) || self.base["values"]["global"]["proxy"][field] == true;
        if hold { order::Place::First } else { order::Place::Last }
    }

    fn annotate(&self, pod: &mut Value, added: &Added) {
        let annotations = &mut pod["metadata"]["annotations"];
        annotations[STATUS_ANNOTATION] = added.record(&self.settings.revision).into();
        for (key, value) in &self.settings.injected_annotations {
            annotations[key] = Value::from(value.as_str());
        }
    }
}

fn facts<'a>(pod: &'a Value, request: &Request<'a>) -> Facts<'a> {
    let own = pod["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    Facts {
        pod,
        namespace: own.unwrap_or(request.namespace),
        namespace_labels: request.namespace_metadata.and_then(|m| m.get("labels")),
        tag: request.tag,
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

#[cfg(test)]
mod pack_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
