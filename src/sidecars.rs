//! Which running pods have the sidecar that injection would give them now, and which workloads want a restart.
//!
//! A pod that was admitted while the webhook was away has none; one that was admitted before an upgrade has that of
//! then. Both are mended by their owner making them anew.

use std::collections::BTreeMap;

use outrigger_contract::{PROXY_CONTAINER, STATUS_ANNOTATION};
use serde::Serialize;
use serde_json::Value;

use crate::injection::{Injector, Request};
use crate::owner::Owner;
use crate::uninject::uninject;

/// Why a pod ought to be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Want {
    /// It has no sidecar, and would get one.
    Missing,
    /// Its sidecar has another image than it would get.
    Old,
}

/// A workload with pods that ought to be made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// The workload that makes the pods: `apps/v1`, `Deployment`.
    pub api_version: String,
    /// Its kind; `Pod` for one that nobody makes anew.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub want: Want,
    /// The names of the pods.
    pub pods: Vec<String>,
    /// The labels of one of them, by which a PodDisruptionBudget selects it.
    #[serde(skip)]
    pub labels: Value,
}

impl Workload {
    /// `Deployment shop/web`.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The workloads with pods that want a restart, of `pods` as an API server lists them. `namespace` gives the metadata
/// of a Namespace. Pods that have ended, or are about to, want nothing.
pub(crate) fn wanting<'a>(
    pods: &[Value],
    injector: &Injector,
    namespace: impl Fn(&str) -> Option<&'a Value>,
) -> Vec<Workload> {
    let mut workloads: BTreeMap<(String, String, String, Want), Workload> = BTreeMap::new();
    for pod in pods {
        let metadata = &pod["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if over || !metadata["deletionTimestamp"].is_null() {
            continue;
        }
        let request = Request {
            namespace: text("namespace"),
            namespace_metadata: namespace(text("namespace")),
            ..Request::default()
        };
        let Some(want) = want(pod, injector, &request) else { continue };
        let owner = Owner::of(pod);
        let key = (text("namespace").to_owned(), owner.kind.clone(), owner.name.clone(), want);
        let workload = workloads.entry(key).or_insert_with(|| Workload {
            namespace: text("namespace").to_owned(),
            api_version: owner.api_version,
            kind: owner.kind,
            name: owner.name,
            want,
            pods: Vec::new(),
            labels: metadata["labels"].clone(),
        });
        workload.pods.push(text("name").to_owned());
    }
    workloads.into_values().collect()
}

fn want(pod: &Value, injector: &Injector, request: &Request) -> Option<Want> {
    if !injector.decide(pod, request).inject() {
        return None;
    }
    let status = &pod["metadata"]["annotations"][STATUS_ANNOTATION];
    // Another webhook may have taken the annotations away, and would again: a restart would change nothing.
    if status.is_null() && image(pod).is_none() {
        return Some(Want::Missing);
    }
    let anew = injector.inject(&uninject(pod)?, request).ok()?.pod?;
    (image(&anew) != image(pod)).then_some(Want::Old)
}

/// The image of the sidecar, wherever it stands.
fn image(pod: &Value) -> Option<&str> {
    let lists = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array());
    let mut containers = lists.into_iter().flatten().flatten();
    containers.find(|container| container["name"] == PROXY_CONTAINER)?["image"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::Settings;

    fn injector(image: &str) -> Injector {
        let text = format!("values: {{images: {{init: init, proxy: {image}}}}}");
        Injector::new(Settings::parse(&text, "test").unwrap()).unwrap()
    }

    fn pod(name: &str, of: &str) -> Value {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{of}-5d4f8"), "controller": true});
        json!({
            "metadata": {
                "name": name, "namespace": "shop", "generateName": "x-",
                "labels": {"app": of, "pod-template-hash": "5d4f8"}, "ownerReferences": [owner],
            },
            "spec": {"containers": [{"name": "app", "image": "app"}]},
            "status": {"phase": "Running"},
        })
    }

    #[test]
    fn pods_without_a_sidecar_and_with_an_old_one_are_found_by_owner() {
        let (before, now) = (injector("proxy:1"), injector("proxy:2"));
        let request = Request { namespace: "shop", ..Request::default() };
        let injected = |by: &Injector, pod: &Value| by.inject(pod, &request).unwrap().pod.unwrap();
        let mut refusing = pod("c", "web");
        refusing["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
        let mut done = pod("d", "web");
        done["status"]["phase"] = json!("Succeeded");
        let mut going = pod("e", "web");
        going["metadata"]["deletionTimestamp"] = json!("2026-11-28T12:00:00Z");
        let mut stripped = injected(&now, &pod("h", "stripped"));
        stripped["metadata"]["annotations"].take();
        let bare = json!({"metadata": {"name": "bare", "namespace": "shop"}, "spec": {"containers": [{"name": "a"}]}});
        let pods = [
            pod("a", "web"),
            pod("b", "web"),
            refusing,
            done,
            going,
            injected(&before, &pod("f", "cart")),
            injected(&now, &pod("g", "cart")),
            stripped,
            bare,
        ];
        let found = wanting(&pods, &now, |_| None);
        let found: Vec<_> = found.iter().map(|w| (w.title(), w.want, w.pods.join(" "))).collect();
        let expected = [
            ("Deployment shop/cart", Want::Old, "f"),
            ("Deployment shop/web", Want::Missing, "a b"),
            ("Pod shop/bare", Want::Missing, "bare"),
        ];
        assert_eq!(found, expected.map(|(title, want, pods)| (title.to_owned(), want, pods.to_owned())));
    }
}
