//! Server-side apply, and deletion, of objects as they stand in manifests.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/>.

use serde_json::{Value, json};

use super::{Change, Cluster, Error};

/// The owner of the fields that are applied. The caBundle of a registration is never among them.
pub(crate) const FIELD_MANAGER: &str = "outrigger";
/// The owner of fields that `kubectl apply` wrote.
const KUBECTL: &str = "kubectl-client-side-apply";

/// The owner of replicas that are an autoscaler's from now on, until it writes them.
const HANDOVER: &str = "handover-to-hpa";

/// How often an object is read and changed that others change, too.
const TRIES: usize = 10;

/// What came of an object that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was not there.
    Created,
    /// It was there, and is another now.
    Configured,
    /// It is as it was.
    Unchanged,
}

impl Cluster {
    /// Applies an object: the fields that it has become so, those that it had before and has no more go, and those of
    /// others stay. What `kubectl apply` wrote before is taken over. `dry_run`: nothing is stored.
    ///
    /// # Errors
    /// As [`Cluster::get`]; 404 where its namespace or its kind is not there.
    pub async fn apply(&self, object: &Value, dry_run: bool) -> Result<Applied, Error> {
        let path = path(object);
        let before = match self.get(&path).await {
            Ok(before) => Some(before),
            Err(error) if error.is(404) => None,
            Err(error) => return Err(error),
        };
        if before.is_some() && !dry_run {
            self.change(&path, take_over).await?;
        }
        if let Some(replicas) =
            before.as_ref().and_then(|before| hand_over(before, object)).filter(|_| !dry_run)
        {
            self.patch(&format!("{path}?fieldManager={HANDOVER}&force=true"), &Change::Apply(&replicas))
                .await?;
        }
        let dry = if dry_run { "&dryRun=All" } else { "" };
        let query = format!("{path}?fieldManager={FIELD_MANAGER}&force=true{dry}");
        let after = self.patch(&query, &Change::Apply(object)).await?;
        Ok(match before {
            None => Applied::Created,
            Some(before) if meant(&before) == meant(&after) => Applied::Unchanged,
            Some(_) => Applied::Configured,
        })
    }

    /// Changes the object at `path` by the JSON patch that `patch` makes of it, if it makes one; once more where the object
    /// has changed meanwhile, so that a test of the patch fails.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub async fn change(&self, path: &str, patch: impl Fn(&Value) -> Option<Value>) -> Result<(), Error> {
        let mut tries = TRIES;
        loop {
            let Some(patch) = patch(&self.get(path).await?) else { return Ok(()) };
            tries -= 1;
            match self.patch(path, &Change::Json(&patch)).await {
                Ok(_) => return Ok(()),
                Err(error) if tries > 0 && (error.is(409) || error.is(422)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes an object; whether it was there.
    ///
    /// # Errors
    /// As [`Cluster::get`], but for 404.
    pub async fn remove(&self, object: &Value) -> Result<bool, Error> {
        match self.delete(&path(object)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(404) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Where an object is.
pub fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let (version, kind, name) = (text(&object["apiVersion"]), text(&object["kind"]), text(&metadata["name"]));
    path_of(&version, &kind, metadata["namespace"].as_str(), &name)
}

/// Where the object of this name is. Its kind must be one whose plural is regular, as those of all manifests are, and of
/// all workloads.
pub(super) fn path_of(version: &str, kind: &str, namespace: Option<&str>, name: &str) -> String {
    let group = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let kind = kind.to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    match namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{group}/{plural}/{name}"),
    }
}

/// An object without what the API server counts and notes.
fn meant(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    object
}

/// The JSON patch by which the fields that `kubectl apply` wrote become ours, so that those which are not applied any
/// more go. `None` where it wrote none, or where we have applied before.
fn take_over(object: &Value) -> Option<Value> {
    let metadata = &object["metadata"];
    let managers = metadata["managedFields"].as_array()?;
    let ours = |entry: &Value| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply";
    if managers.iter().any(ours) {
        return None;
    }
    let index =
        managers.iter().position(|entry| entry["manager"] == KUBECTL && entry["operation"] == "Update")?;
    let entry = format!("/metadata/managedFields/{index}");
    Some(json!([
        // Others' entries may come before it meanwhile.
        {"op": "test", "path": entry, "value": managers[index]},
        {"op": "replace", "path": format!("{entry}/manager"), "value": FIELD_MANAGER},
        {"op": "replace", "path": format!("{entry}/operation"), "value": "Apply"},
    ]))
}

/// What another manager applies so that replicas stay as many as they are though `object` says nothing of them any more,
/// where it did before: else they would be one until the autoscaler looks. `None` where there is nothing to keep.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership>.
fn hand_over(before: &Value, object: &Value) -> Option<Value> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let replicas = &before["spec"]["replicas"];
    let ours = |entry: &Value| {
        let manager = &entry["manager"];
        (*manager == FIELD_MANAGER || *manager == KUBECTL)
            && entry["fieldsV1"]["f:spec"].get("f:replicas").is_some()
    };
    let owned = before["metadata"]["managedFields"].as_array()?.iter().any(ours);
    (object["kind"] == "Deployment" && spec["replicas"].is_null() && !replicas.is_null() && owned).then(
        || {
            json!({
                "apiVersion": object["apiVersion"],
                "kind": object["kind"],
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
                "spec": {"replicas": replicas},
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_are_no_longer_applied_stay() {
        let before = |manager: &str, fields: Value| {
            let entry = json!({"manager": manager, "fieldsV1": {"f:spec": fields}});
            json!({"metadata": {"managedFields": [entry]}, "spec": {"replicas": 3}})
        };
        let object = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "y", "labels": {}}, "spec": spec});
        let (owned, scaled) = (json!({"f:replicas": {}}), object(json!({"template": {}})));
        let kept = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "y"}, "spec": {"replicas": 3}});
        for manager in [FIELD_MANAGER, KUBECTL] {
            assert_eq!(hand_over(&before(manager, owned.clone()), &scaled).as_ref(), Some(&kept));
        }
        assert_eq!(hand_over(&before(FIELD_MANAGER, owned.clone()), &object(json!({"replicas": 2}))), None);
        assert_eq!(hand_over(&before("kube-controller-manager", owned), &scaled), None);
        assert_eq!(hand_over(&before(FIELD_MANAGER, json!({})), &scaled), None);
    }

    #[test]
    fn objects_are_found_by_kind_and_name() {
        for (version, kind, namespace, expected) in [
            ("v1", "Namespace", None, "/api/v1/namespaces/x"),
            ("v1", "ConfigMap", Some("mesh"), "/api/v1/namespaces/mesh/configmaps/x"),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                Some("mesh"),
                "/apis/networking.k8s.io/v1/namespaces/mesh/networkpolicies/x",
            ),
            (
                "rbac.authorization.k8s.io/v1",
                "ClusterRole",
                None,
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/x",
            ),
        ] {
            let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
            if let Some(namespace) = namespace {
                object["metadata"]["namespace"] = namespace.into();
            }
            assert_eq!(path(&object), expected);
        }
    }

    #[test]
    fn what_kubectl_applied_is_taken_over_once() {
        let managed = |entries: &[(&str, &str)]| {
            let entries: Vec<_> =
                entries.iter().map(|(m, o)| json!({"manager": m, "operation": o})).collect();
            json!({"metadata": {"managedFields": entries}})
        };
        let kubectl = (KUBECTL, "Update");
        assert_eq!(take_over(&managed(&[("kubectl-patch", "Update")])), None);
        assert_eq!(take_over(&managed(&[kubectl, (FIELD_MANAGER, "Apply")])), None);
        // The writer of the caBundle goes by the same name.
        let patch = take_over(&managed(&[(FIELD_MANAGER, "Update"), kubectl])).unwrap();
        let entry = json!({"manager": KUBECTL, "operation": "Update"});
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/managedFields/1", "value": entry}));
        assert_eq!(patch[1]["path"], "/metadata/managedFields/1/manager");
    }
}
