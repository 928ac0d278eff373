//! The pod's own container of an injected container's name: it wins, field by field, and is kept in an annotation so
//! that it wins again when the pod is injected again.
//!
//! Source: <https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#customizing-injection>

use outrigger_contract::PROXY_CONTAINER;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::{Added, Status};
use crate::merge;

/// Annotation that keeps the containers.
pub(super) const ANNOTATION: &str = "proxy.istio.io/overrides";
/// An image that stands for the injected one: a container must name an image.
const AUTO: &str = "auto";

/// Containers of the pod's author that an injection has merged with its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Overrides {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Value>,
}

impl Overrides {
    /// Those that an earlier injection has kept.
    pub(super) fn kept(pod: &Value) -> Result<Self, String> {
        let Some(kept) = pod["metadata"]["annotations"][ANNOTATION].as_str() else {
            return Ok(Self::default());
        };
        serde_json::from_str(kept).map_err(|e| {
            let why = if e.is_eof() { "unexpected end of JSON input".to_owned() } else { e.to_string() };
            format!("{why} (in the annotation {ANNOTATION}, which the injector writes; remove it)")
        })
    }

    fn list(&self, list: &str) -> &[Value] {
        if list == "containers" { &self.containers } else { &self.init_containers }
    }

    fn find(&self, list: &str, name: &Value) -> Option<&Value> {
        self.list(list).iter().find(|container| container["name"] == *name)
    }

    /// Puts the kept containers back into a pod from which injection's were taken, for the templates to see.
    pub(super) fn reinsert(&self, pod: &mut Value) {
        for list in ["containers", "initContainers"] {
            for container in self.list(list) {
                // A native sidecar's override was among the containers, unless it says that it was none of them.
                let native = container["name"] == PROXY_CONTAINER && container["restartPolicy"] != "Always";
                let into = if native { "containers" } else { list };
                let Some(spec) = pod["spec"].as_object_mut() else { return };
                let Some(items) = spec.entry(into).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()
                else {
                    continue;
                };
                if !items.iter().any(|item| item["name"] == container["name"]) {
                    items.push(container.clone());
                }
            }
        }
    }

    /// Merges what a pod already has of the injected containers over them, and gives the author's own.
    ///
    /// `sent` is the pod before injection, `added` what the templates gave. A container that `status` lists was
    /// injected earlier: it too stays as it is, so that injecting twice changes nothing and what another webhook has
    /// made of it since is not undone, but it is no author's.
    pub(super) fn apply(
        mut self,
        pod: &mut Value,
        sent: &Value,
        added: &Added,
        status: Option<&Status>,
    ) -> Self {
        for list in ["containers", "initContainers"] {
            for name in added.containers(list) {
                let Some(mut theirs) = find_in(sent, list, name).cloned() else { continue };
                if theirs["image"] == AUTO
                    && let Some(fields) = theirs.as_object_mut()
                {
                    fields.shift_remove("image");
                }
                let target =
                    pod["spec"][list].as_array_mut().and_then(|c| c.iter_mut().find(|c| c["name"] == *name));
                if let Some(target) = target {
                    merge::own_container(target, &theirs);
                }
                if !status.is_some_and(|status| status.lists(name)) {
                    let into =
                        if list == "containers" { &mut self.containers } else { &mut self.init_containers };
                    into.retain(|container| container["name"] != *name);
                    into.push(theirs);
                }
            }
        }
        self
    }

    /// The annotation's value; `None` where there is nothing to keep.
    pub(super) fn to_annotation(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).ok()).flatten()
    }

    /// The author's own sidecar container.
    pub(super) fn sidecar(&self) -> Option<&Value> {
        let name = Value::from(PROXY_CONTAINER);
        self.find("containers", &name).or_else(|| self.find("initContainers", &name))
    }
}

/// The author's container: an injected init container may be one of their containers, as a native sidecar is.
fn find_in<'a>(pod: &'a Value, list: &str, name: &Value) -> Option<&'a Value> {
    let lists: &[&str] =
        if list == "containers" { &["containers"] } else { &["containers", "initContainers"] };
    lists
        .iter()
        .find_map(|list| pod["spec"][*list].as_array()?.iter().find(|container| container["name"] == *name))
}
