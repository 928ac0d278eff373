//! A running pod, and the objects that decide what becomes of it.

use serde_json::{Map, Value};

use super::apply::path_of;
use super::{Cluster, Error};
use crate::policy;

/// A pod and what is around it, as objects with kind and API version.
#[derive(Debug, Clone)]
pub struct Running {
    /// The pod.
    pub pod: Value,
    /// Its namespace; `None` where it may not be read.
    pub namespace: Option<Value>,
    /// The workloads that own it, the nearest first: a ReplicaSet, its Deployment.
    pub owners: Vec<Value>,
    /// The Services of its namespace.
    pub services: Vec<Value>,
}

/// The kinds of owners that are workloads.
const WORKLOADS: [&str; 8] = [
    "ReplicaSet",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ReplicationController",
    "DeploymentConfig",
];
/// Owners that are looked for above one another: a Job and its CronJob, and no cycle.
const MOST_OWNERS: usize = 4;

impl Running {
    /// Reads a pod and what is around it. Owners of kinds that are no workloads, or that may not be read, are left out.
    ///
    /// # Errors
    /// The pod or the Services cannot be read.
    pub async fn read(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self, Error> {
        let pod = cluster.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await?;
        let services = cluster.get(&format!("/api/v1/namespaces/{namespace}/services")).await?;
        let services = services["items"].as_array().cloned().unwrap_or_default();
        let around = cluster.get(&format!("/api/v1/namespaces/{namespace}")).await.ok();
        let mut owners: Vec<Value> = Vec::new();
        while owners.len() < MOST_OWNERS {
            let owned = owners.last().unwrap_or(&pod);
            let Some(path) = controller(owned, namespace) else { break };
            let Ok(owner) = cluster.get(&path.path).await else { break };
            owners.push(of_kind(owner, &path.api_version, &path.kind));
        }
        Ok(Self {
            pod: of_kind(pod, "v1", "Pod"),
            namespace: around.map(|namespace| of_kind(namespace, "v1", "Namespace")),
            owners,
            services: services.into_iter().map(|service| of_kind(service, "v1", "Service")).collect(),
        })
    }

    /// The revision, or the tag of one, that the pod is to be injected by: its namespace's, or its own.
    pub fn asks_for(&self) -> Option<&str> {
        let labels = self.namespace.as_ref().map(|namespace| &namespace["metadata"]["labels"]);
        policy::asked_revision(&self.pod, labels).map(|(_, revision)| revision)
    }

    /// All of them, the pod first.
    pub fn objects(&self) -> Vec<Value> {
        let around = self.owners.iter().chain(&self.namespace).chain(&self.services);
        std::iter::once(&self.pod).chain(around).cloned().collect()
    }
}

/// Where an owner is.
struct Place {
    api_version: String,
    kind: String,
    path: String,
}

/// The controller of an object, where it is a workload.
fn controller(object: &Value, namespace: &str) -> Option<Place> {
    let references = object["metadata"]["ownerReferences"].as_array()?;
    let reference = references.iter().find(|reference| reference["controller"] == true)?;
    let text = |field: &str| reference[field].as_str();
    let (api_version, kind, name) = (text("apiVersion")?, text("kind")?, text("name")?);
    if !WORKLOADS.contains(&kind) {
        return None;
    }
    let path = path_of(api_version, kind, Some(namespace), name);
    Some(Place { api_version: api_version.to_owned(), kind: kind.to_owned(), path })
}

/// The object with its kind and API version, which the items of a list do not have.
fn of_kind(object: Value, api_version: &str, kind: &str) -> Value {
    let mut whole = Map::from_iter([
        ("apiVersion".to_owned(), Value::from(api_version)),
        ("kind".to_owned(), Value::from(kind)),
    ]);
    if let Value::Object(fields) = object {
        whole.extend(fields);
    }
    Value::Object(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_controller_is_found_where_it_is_a_workload() {
        let owned = |api_version: &str, kind: &str, controller: bool| {
            let reference =
                json!({"apiVersion": api_version, "kind": kind, "name": "x", "controller": controller});
            controller_path(&json!({"metadata": {"ownerReferences": [reference]}}))
        };
        fn controller_path(object: &Value) -> Option<String> {
            controller(object, "shop").map(|place| place.path)
        }
        let path = |path: &str| Some(path.to_owned());
        assert_eq!(owned("apps/v1", "ReplicaSet", true), path("/apis/apps/v1/namespaces/shop/replicasets/x"));
        assert_eq!(
            owned("v1", "ReplicationController", true),
            path("/api/v1/namespaces/shop/replicationcontrollers/x")
        );
        assert_eq!(owned("batch/v1", "CronJob", true), path("/apis/batch/v1/namespaces/shop/cronjobs/x"));
        assert_eq!(owned("apps/v1", "ReplicaSet", false), None);
        assert_eq!(owned("v1", "Node", true), None);
        assert_eq!(controller_path(&json!({})), None);
    }
}
