//! A pod's templates, rendered.

use handlebars::Context;
use outrigger_contract::PROXY_CONTAINER;
use serde_json::{Value, json};

use super::data::{self, PodData};
use super::{Error, Injector, TEMPLATES_ANNOTATION};
use crate::merge;

/// What the templates of one pod rendered: one by one, and merged.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) overlays: Vec<Value>,
    pub(super) all: Value,
}

impl Rendered {
    /// Whether the sidecar is an init container.
    pub(super) fn has_native_sidecar(&self) -> bool {
        has_sidecar(&self.all, "initContainers")
    }
}

impl Injector {
    /// The overlays of a pod; those of a pod that differs from an earlier one in nothing that templates see are the
    /// same.
    pub(super) fn rendered(&self, pod: &PodData) -> Result<std::sync::Arc<Rendered>, Error> {
        self.cache.get_or_make(pod, || self.render(pod))
    }

    fn render(&self, pod: &PodData) -> Result<Rendered, Error> {
        let refuse = |e: String| Error::Refused(format!("failed to run injection template: {e}"));
        let context = Context::from(data::data(&self.base, &self.mesh, pod).map_err(refuse)?);
        let mut rendered = Rendered { overlays: Vec::new(), all: json!({}) };
        for name in self.template_names(pod.pod) {
            if !self.templates.names().iter().any(|known| known == name) {
                let have = self.templates.names().join(", ");
                return Err(refuse(format!("requested template {name:?} not found; have {have}")));
            }
            let mut overlay =
                self.templates.render(name, &context).map_err(|e| Error::Internal(e.to_string()))?;
            // A template that adds to the sidecar need not know where another one has put it.
            if rendered.has_native_sidecar() {
                move_sidecar(&mut overlay);
            }
            merge::pod(&mut rendered.all, overlay.clone())
                .map_err(|e| Error::Internal(format!("template {name:?}: {e}")))?;
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
}

fn has_sidecar(pod: &Value, list: &str) -> bool {
    pod["spec"][list].as_array().is_some_and(|items| items.iter().any(|c| c["name"] == PROXY_CONTAINER))
}

/// Moves a sidecar that stands among the containers to the end of the init containers.
pub(super) fn move_sidecar(pod: &mut Value) {
    if !has_sidecar(pod, "containers") {
        return;
    }
    let Some(containers) = pod["spec"]["containers"].as_array_mut() else { return };
    let (sidecars, others) =
        std::mem::take(containers).into_iter().partition(|c| c["name"] == PROXY_CONTAINER);
    let sidecars: Vec<Value> = sidecars;
    *containers = others;
    let init = &mut pod["spec"]["initContainers"];
    match init.as_array_mut() {
        Some(init) => init.extend(sidecars),
        None => *init = sidecars.into(),
    }
}
