//! Asks a cluster for all that a diagnosis looks at.

use outrigger_contract::INJECT_KEY;
use serde_json::{Value, json};

use super::{Cluster, Error, REGISTRATIONS};
use crate::certificates::unix_now;
use crate::diagnosis::{Asked, Facts, asks};
use crate::installation::{self, Names, TrialPod, certificate_secret, tags_of, trial_pod};
use crate::settings::Settings;

/// Namespaces that a pod is sent to, at most.
const SAMPLES: usize = 50;

/// What whoever installs does: verb, group, resource.
const INSTALLS: [(&str, &str, &str); 11] = [
    ("patch", "", "namespaces"),
    ("patch", "", "serviceaccounts"),
    ("patch", "", "configmaps"),
    ("patch", "", "services"),
    ("patch", "apps", "deployments"),
    ("patch", "policy", "poddisruptionbudgets"),
    ("patch", "rbac.authorization.k8s.io", "clusterroles"),
    ("patch", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("patch", "rbac.authorization.k8s.io", "roles"),
    ("patch", "rbac.authorization.k8s.io", "rolebindings"),
    ("patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
];

/// Asks. What cannot be had is told in its place.
pub async fn survey(cluster: &Cluster, names: &Names) -> Facts {
    let namespace = &names.namespace;
    let (version, date) = match cluster.get_dated("/version").await {
        Ok((version, date)) => (Ok(version.unwrap_or_default()), date),
        Err(error) => (Err(error.to_string()), String::new()),
    };
    let list = async |path: &str| cluster.list(path).await.map_err(|e| e.to_string());
    let one = async |path: String| match cluster.get(&path).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is(404) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    let own = format!("/api/v1/namespaces/{namespace}");
    let registrations = list(REGISTRATIONS).await;
    let namespaces = list("/api/v1/namespaces").await;
    let deployment = one(format!("/apis/apps/v1/namespaces/{namespace}/deployments/{}", names.name)).await;
    let settings = one(format!("{own}/configmaps/{}", names.name)).await;
    let (mut samples, mut trial, mut pods) = (Vec::new(), None, Ok(Vec::new()));
    if let (Ok(Some(_)), Ok(namespaces), Ok(registrations)) = (&deployment, &namespaces, &registrations) {
        let tags = tags_of(registrations, names);
        let pod = trial_pod(&json!({INJECT_KEY: "true"}));
        let asking = namespaces.iter().filter(|namespace| asks(namespace, names, &tags));
        for name in asking.filter_map(|namespace| namespace["metadata"]["name"].as_str()) {
            if samples.len() < SAMPLES {
                let path = format!("/api/v1/namespaces/{name}/pods?dryRun=All");
                let sample = cluster.create(&path, &pod).await.map_err(|e| e.to_string());
                samples.push((name.to_owned(), sample));
            }
            let found = list(&format!("/api/v1/namespaces/{name}/pods")).await;
            pods = pods.and_then(|all: Vec<Value>| Ok([all, found?].concat()));
        }
        if samples.is_empty()
            && let Some(chosen) = of_map(settings.as_ref().ok())
                .and_then(|settings| TrialPod::choose(namespaces, &names.revision, &settings))
        {
            let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", chosen.namespace);
            let sent = cluster.create(&path, &chosen.pod).await.map_err(|e| e.to_string());
            trial = Some((chosen.namespace, sent));
        }
    }
    Facts {
        names: names.clone(),
        now: super::keeper::seconds(&date).unwrap_or_else(|_| unix_now()),
        version,
        nodes: list("/api/v1/nodes").await,
        permissions: permissions(cluster, namespace).await.map_err(|e| e.to_string()),
        registrations,
        namespaces,
        deployment,
        secret: one(format!("{own}/secrets/{}", certificate_secret(&names.name))).await,
        settings,
        replicas: replicas(cluster, names).await,
        samples,
        trial,
        pods,
    }
}

/// The settings in a ConfigMap, where they can be read.
fn of_map(map: Option<&Option<Value>>) -> Option<Settings> {
    installation::settings(map?.as_ref()?).ok()
}

async fn permissions(cluster: &Cluster, namespace: &str) -> Result<Vec<(String, bool)>, Error> {
    let mut found = Vec::new();
    for (verb, group, resource) in INSTALLS {
        let attributes = json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let answer =
            cluster.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?;
        found.push((format!("{verb} {resource}"), answer["status"]["allowed"] == true));
    }
    Ok(found)
}

/// The metrics of each replica, by way of the API server.
async fn replicas(cluster: &Cluster, names: &Names) -> Asked<Vec<(String, Asked<String>)>> {
    let path = format!(
        "/api/v1/namespaces/{}/pods?labelSelector=app.kubernetes.io/name%3D{}",
        names.namespace, names.name
    );
    let mut found = Vec::new();
    for pod in cluster.list(&path).await.map_err(|e| e.to_string())? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{name}:15014/proxy/metrics", names.namespace);
        found.push((name.to_owned(), cluster.text(&path).await.map_err(|e| e.to_string())));
    }
    Ok(found)
}
