//! Each kind of workload gets injected pods from its own controller.

use serde_json::{Value, json};

use crate::cluster::Namespace;
use crate::install::installed;
use crate::pods;

/// Creates the workload `app` of a kind in a namespace of its own; its pods must come injected, know the workload by its
/// own name, and belong to a controller of the kind `owner`.
fn assert_pods_injected(api: &str, kind: &str, owner: &str, spec: impl Fn(Value) -> Value) {
    installed();
    let namespace = Namespace::injected(&kind.to_lowercase());
    let template = pods::template(&json!({"app": "app"}));
    let metadata = json!({"name": "app"});
    let object = json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec(template)});
    namespace.create_object(&object);
    for pod in namespace.pods("app=app") {
        assert!(pods::injected(&pod), "{kind}: {pod:#}");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], owner, "{kind}");
        let sidecar = &pod["spec"]["initContainers"][1];
        let environment = sidecar["env"].as_array().expect("an environment");
        let workload = environment.iter().find(|e| e["name"] == "ISTIO_META_WORKLOAD_NAME");
        assert_eq!(workload.expect("a workload's name")["value"], "app", "{kind}");
    }
}

#[test]
fn the_pods_of_a_deployment_are_injected() {
    assert_pods_injected(
        "apps/v1",
        "Deployment",
        "ReplicaSet",
        |template| json!({"replicas": 2, "selector": {"matchLabels": {"app": "app"}}, "template": template}),
    );
}

#[test]
fn the_pods_of_a_stateful_set_are_injected() {
    assert_pods_injected(
        "apps/v1",
        "StatefulSet",
        "StatefulSet",
        |template| json!({"serviceName": "app", "selector": {"matchLabels": {"app": "app"}}, "template": template}),
    );
}

#[test]
fn the_pods_of_a_daemon_set_are_injected() {
    assert_pods_injected(
        "apps/v1",
        "DaemonSet",
        "DaemonSet",
        |template| json!({"selector": {"matchLabels": {"app": "app"}}, "template": template}),
    );
}

#[test]
fn the_pods_of_a_job_are_injected() {
    assert_pods_injected("batch/v1", "Job", "Job", job);
}

#[test]
fn the_pods_of_a_cron_job_are_injected() {
    assert_pods_injected(
        "batch/v1",
        "CronJob",
        "Job",
        |template| json!({"schedule": "* * * * *", "jobTemplate": {"spec": job(template)}}),
    );
}

fn job(mut template: Value) -> Value {
    template["spec"]["restartPolicy"] = json!("Never");
    json!({"template": template})
}
