//! The objects in a document, and the pod in each.

use serde_json::Value;

use crate::owner::Owner;
use crate::shape::{self, At, Problem};

/// An object of a document: the document itself, or an item of a List in it.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    /// `apps/v1`; empty where the object has none.
    pub api_version: &'a str,
    /// `Deployment`; empty where the object has none.
    pub kind: &'a str,
    /// `metadata.name`, or `metadata.generateName` where there is no name; else empty.
    pub name: &'a str,
    /// `metadata.namespace`; empty where it is not set.
    pub namespace: &'a str,
    /// The object.
    pub value: &'a Value,
    /// Where it stands in the document, as a JSON pointer.
    pub pointer: String,
}

/// A pod, or the pod template of a workload: an object with `metadata` and `spec`.
#[derive(Debug, Clone)]
pub struct Pod<'a> {
    /// The pod.
    pub value: &'a Value,
    /// Where it stands in the document, as a JSON pointer.
    pub pointer: String,
    /// The workload, where the pod is its template.
    pub owner: Option<Owner>,
}

/// The workloads: API groups, kind, and the way to the pod. A group's versions have all had the same shape.
const WORKLOADS: [(&[&str], &str, &[&str]); 9] = [
    (&[""], "Pod", &[]),
    (&["apps", "extensions"], "Deployment", &["spec", "template"]),
    (&["apps"], "StatefulSet", &["spec", "template"]),
    (&["apps", "extensions"], "DaemonSet", &["spec", "template"]),
    (&["apps", "extensions"], "ReplicaSet", &["spec", "template"]),
    (&[""], "ReplicationController", &["spec", "template"]),
    (&["batch", "extensions"], "Job", &["spec", "template"]),
    (&["batch"], "CronJob", &["spec", "jobTemplate", "spec", "template"]),
    (&["apps.openshift.io", ""], "DeploymentConfig", &["spec", "template"]),
];

/// The objects of a document in order: the items of a List (of Lists), or the document itself.
///
/// # Errors
/// A document, or an item, that is no object; `items` that is no list.
pub fn objects(document: &Value) -> Result<Vec<Object<'_>>, Problem> {
    let mut objects = Vec::new();
    collect(&At::root(document), ("", ""), &mut objects)?;
    Ok(objects)
}

/// `inherited`: API version and kind that a typed list gives to items that name none.
fn collect<'a>(
    at: &At<'a, '_>,
    inherited: (&'a str, &'a str),
    into: &mut Vec<Object<'a>>,
) -> Result<(), Problem> {
    let value = at.value;
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    if !value.is_object() {
        return Err(at.no_manifest());
    }
    let kind = if value["kind"].is_null() { inherited.1 } else { text(&value["kind"]) };
    let api_version = if value["apiVersion"].is_null() { inherited.0 } else { text(&value["apiVersion"]) };
    let Some(item_kind) = list_of(api_version, kind) else {
        let metadata = &value["metadata"];
        let name = [&metadata["name"], &metadata["generateName"]].map(text);
        into.push(Object {
            api_version,
            kind,
            name: if name[0].is_empty() { name[1] } else { name[0] },
            namespace: text(&metadata["namespace"]),
            value,
            pointer: at.pointer(),
        });
        return Ok(());
    };
    let inherited = if item_kind.is_empty() { ("", "") } else { (api_version, item_kind) };
    at.get("items").items()?.try_for_each(|item| collect(&item, inherited, into))
}

/// What a list holds: `""` for `v1` `List`, which holds anything; `Deployment` for `DeploymentList`.
fn list_of<'a>(api_version: &str, kind: &'a str) -> Option<&'a str> {
    let item_kind = kind.strip_suffix("List")?;
    let anything = item_kind.is_empty() && api_version == "v1";
    (anything || path_to_pod(api_version, item_kind).is_some()).then_some(item_kind)
}

fn path_to_pod(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    WORKLOADS.iter().find(|(groups, k, _)| *k == kind && groups.contains(&group)).map(|(_, _, path)| *path)
}

/// The pod at the end of a way, and its pointer.
fn pod_at<'a>(at: &At<'a, '_>, way: &[&str]) -> Result<(&'a Value, String), Problem> {
    let Some((key, rest)) = way.split_first() else {
        shape::pod(at)?;
        return Ok((at.value, at.pointer()));
    };
    let at = at.get(key);
    at.object()?;
    pod_at(&at, rest)
}

impl<'a> Object<'a> {
    /// Whether it is a workload: an object that holds a pod.
    pub fn is_workload(&self) -> bool {
        path_to_pod(self.api_version, self.kind).is_some()
    }

    /// The pod; `None` where the object is no workload.
    ///
    /// # Errors
    /// A field on the way to the pod, or in it, that is not what Kubernetes wants there.
    pub fn pod(&self) -> Result<Option<Pod<'a>>, Problem> {
        let Some(path) = path_to_pod(self.api_version, self.kind) else { return Ok(None) };
        let root = At::root(self.value);
        shape::metadata(&root.get("metadata"))?;
        let (value, pointer) = pod_at(&root, path)?;
        let owner = (!path.is_empty()).then(|| Owner {
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
            // A name still to be generated is known but for its end.
            name: self.name.trim_end_matches('-').to_owned(),
        });
        Ok(Some(Pod { value, pointer: format!("{}{pointer}", self.pointer), owner }))
    }

    /// Kind, namespace and name as reports show them: `Deployment default/web`.
    pub fn title(&self, namespace: &str) -> String {
        let kind = if self.kind.is_empty() { "object" } else { self.kind };
        let name = match self.name {
            "" => "(no name)".to_owned(),
            generated if generated.ends_with('-') => format!("{generated}*"),
            name => name.to_owned(),
        };
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }
}
