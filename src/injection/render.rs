//! A pod's templates, rendered.

use std::sync::{Mutex, PoisonError};

use handlebars::Context;
use outrigger_contract::PROXY_CONTAINER;
use serde_json::{Map, Value, json};

use super::data::{self, About};
use super::status::Added;
use super::{Error, Injector, TEMPLATES_ANNOTATION};
use crate::merge;

/// What the templates of one pod rendered.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) overlays: Vec<Value>,
    /// What all of them add.
    pub(super) added: Added,
}

/// Data of pods that were rendered, to be used again: most of it is the same for all pods. There are as many as pods
/// were rendered at once.
#[derive(Debug, Default)]
pub(super) struct Contexts(Mutex<Vec<Context>>);

impl Contexts {
    fn take(&self, base: &Map<String, Value>) -> Context {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| Context::from(Value::Object(base.clone())))
    }

    fn put_back(&self, context: Context) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(context);
    }
}

impl Injector {
    /// The overlays that templates make of a pod, which is as it was afterwards.
    pub(super) fn render(&self, pod: &mut Value, names: &[&str], about: &About) -> Result<Rendered, Error> {
        let refuse = |e: String| Error::Refused(format!("failed to run injection template: {e}"));
        for name in names {
            if !self.templates.names().iter().any(|known| known == name) {
                let have = self.templates.names().join(", ");
                return Err(refuse(format!("requested template {name:?} not found; have {have}")));
            }
        }
        let own = data::own(&self.base["values"]["global"], &self.mesh, pod, about).map_err(refuse)?;
        let mut context = self.contexts.take(&self.base);
        data::set(context.data_mut(), own);
        data::exchange(context.data_mut(), pod);
        let rendered = self.render_all(names, &context);
        data::exchange(context.data_mut(), pod);
        self.contexts.put_back(context);
        rendered
    }

    fn render_all(&self, names: &[&str], context: &Context) -> Result<Rendered, Error> {
        let render =
            |name: &str| self.templates.render(name, context).map_err(|e| Error::Internal(e.to_string()));
        let mut overlays = Vec::with_capacity(names.len());
        let mut all = json!({});
        for name in names {
            let mut overlay = match render(name)? {
                // Nothing to add; merged, it would take the pod away.
                Value::Null => json!({}),
                overlay @ Value::Object(_) => overlay,
                _ => {
                    return Err(Error::Internal(format!(
                        "template {name:?}: renders no object, and must render a part of a pod, such as spec and what stands \
                         under it"
                    )));
                }
            };
            if let ([_], true) = (names, merge::is_clean(&overlay)) {
                let added = Added::by(&overlay);
                return Ok(Rendered { overlays: vec![overlay], added });
            }
            // A template that adds to the sidecar need not know where another one has put it.
            if has_sidecar(&all, "initContainers") {
                move_sidecar(&mut overlay);
            }
            merge::pod(&mut all, overlay.clone())
                .map_err(|e| Error::Internal(format!("template {name:?}: {e}")))?;
            overlays.push(overlay);
        }
        Ok(Rendered { overlays, added: Added::by(&all) })
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
