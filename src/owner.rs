//! Which workload a pod belongs to, as far as the pod itself tells.

use serde::Serialize;
use serde_json::Value;

/// The object that a pod was made from: a Deployment, a CronJob, or the Pod itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Its name; empty where the pod has none yet.
    pub name: String,
}

impl Owner {
    fn new(api_version: &str, kind: &str, name: impl Into<String>) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), name: name.into() }
    }

    /// The workload behind a pod's controller: the Deployment behind a ReplicaSet, the CronJob behind a Job, the
    /// DeploymentConfig behind a ReplicationController. A pod without `generateName` or without a controller is its
    /// own workload.
    pub(crate) fn of(pod: &Value) -> Self {
        let metadata = &pod["metadata"];
        let own = || Self::new("v1", "Pod", metadata["name"].as_str().unwrap_or_default());
        if metadata["generateName"].as_str().unwrap_or_default().is_empty() {
            return own();
        }
        let references = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(controller) = references.iter().find(|r| r["controller"] == true) else { return own() };
        let field = |name: &str| controller[name].as_str().unwrap_or_default();
        let (api_version, kind, name) = (field("apiVersion"), field("kind"), field("name"));
        let label = |key: &str| metadata["labels"][key].as_str().unwrap_or_default();
        match kind {
            "ReplicaSet" => {
                for (key, api_version, kind) in [
                    ("pod-template-hash", api_version, "Deployment"),
                    ("rollouts-pod-template-hash", "v1alpha1", "Rollout"),
                ] {
                    let hash = label(key);
                    let base = name.strip_suffix(hash).and_then(|n| n.strip_suffix('-'));
                    if let Some(base) = base.filter(|_| !hash.is_empty()) {
                        return Self::new(api_version, kind, base);
                    }
                }
                Self::new(api_version, kind, name)
            }
            "ReplicationController" if !label("deploymentconfig").is_empty() => {
                Self::new(api_version, "DeploymentConfig", label("deploymentconfig"))
            }
            "Job" => match cron_job(name) {
                Some(cron_job) => Self::new("batch/v1", "CronJob", cron_job),
                None => Self::new(api_version, kind, name),
            },
            _ => Self::new(api_version, kind, name),
        }
    }
}

/// The CronJob's name in `NAME-<8 to 10 digits>`, which the CronJob controller gives its Jobs.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let scheduled = (8..=10).contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit());
    (scheduled && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(labels: Value, api_version: &str, kind: &str, name: &str) -> Owner {
        let reference = json!({"apiVersion": api_version, "kind": kind, "name": name, "controller": true});
        Owner::of(
            &json!({"metadata": {"generateName": "x-", "labels": labels, "ownerReferences": [reference]}}),
        )
    }

    #[test]
    fn the_workload_behind_a_controller_is_found() {
        let hash = json!({"pod-template-hash": "5d4f8"});
        assert_eq!(
            owner(hash.clone(), "apps/v1", "ReplicaSet", "web-5d4f8"),
            Owner::new("apps/v1", "Deployment", "web")
        );
        assert_eq!(owner(hash, "apps/v1", "ReplicaSet", "web"), Owner::new("apps/v1", "ReplicaSet", "web"));
        let rollout = json!({"rollouts-pod-template-hash": "abc"});
        assert_eq!(
            owner(rollout, "apps/v1", "ReplicaSet", "web-abc"),
            Owner::new("v1alpha1", "Rollout", "web")
        );
        let job = |name| owner(json!({}), "batch/v1", "Job", name);
        assert_eq!(job("tidy-28123456"), Owner::new("batch/v1", "CronJob", "tidy"));
        assert_eq!(job("tidy-1234567"), Owner::new("batch/v1", "Job", "tidy-1234567"));
        assert_eq!(
            owner(json!({}), "apps/v1", "StatefulSet", "db"),
            Owner::new("apps/v1", "StatefulSet", "db")
        );
        let config = json!({"deploymentconfig": "dc"});
        let want = Owner::new("v1", "DeploymentConfig", "dc");
        assert_eq!(owner(config, "v1", "ReplicationController", "dc-1"), want);
    }

    #[test]
    fn a_pod_without_a_controller_is_its_own() {
        assert_eq!(Owner::of(&json!({"metadata": {"name": "p"}})), Owner::new("v1", "Pod", "p"));
        assert_eq!(Owner::of(&json!({"metadata": {"generateName": "p-"}})), Owner::new("v1", "Pod", ""));
        assert_eq!(Owner::of(&json!({})), Owner::new("v1", "Pod", ""));
    }
}
