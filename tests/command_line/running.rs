//! `outrigger explain POD`, against a stand-in of an API server that answers a few paths.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::{folder, outrigger, path};

/// Answers each path with its object, and any other with 404, as long as the test runs. Gives the kubeconfig.
fn api_server(objects: Vec<(&'static str, Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(request) = lines.next() else { continue };
            // The rest of the head; a GET has no body.
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let asked = request.split(' ').nth(1).unwrap_or_default();
            let found = objects.iter().find(|(path, _)| *path == asked);
            let (status, body) = match found {
                Some((_, object)) => ("200 OK", object.to_string()),
                None => {
                    let message = format!("{asked} not found");
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "NotFound", "code": 404});
                    ("404 Not Found", status.to_string())
                }
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "other",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}, {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:0"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "mine", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
            {"name": "other", "context": {"cluster": "nowhere", "user": "u"}}]})
    .to_string()
}

fn shop() -> Vec<(&'static str, Value)> {
    let owned_by = |api_version: &str, kind: &str, name: &str| json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": "1", "controller": true}]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    vec![
        (
            "/api/v1/namespaces/shop/pods/web-5d4f8-x",
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web-5d4f8-x", "namespace": "shop", "labels": {"app": "web"},
                "ownerReferences": owned_by("apps/v1", "ReplicaSet", "web-5d4f8")}, "spec": template["spec"]}),
        ),
        (
            "/api/v1/namespaces/shop",
            json!({"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}),
        ),
        (
            "/apis/apps/v1/namespaces/shop/replicasets/web-5d4f8",
            json!({"metadata": {"name": "web-5d4f8", "namespace": "shop", "ownerReferences": owned_by("apps/v1", "Deployment", "web")}, "spec": {"template": template}}),
        ),
        (
            "/apis/apps/v1/namespaces/shop/deployments/web",
            json!({"metadata": {"name": "web", "namespace": "shop", "annotations": {"sidecar.istio.io/inject": "false"}}, "spec": {"template": template}}),
        ),
        (
            "/api/v1/namespaces/shop/services",
            json!({"items": [
                {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
                {"metadata": {"name": "other", "namespace": "shop"}, "spec": {"selector": {"app": "db"}, "ports": [{"port": 1}]}}]}),
        ),
    ]
}

#[test]
fn a_running_pod_is_explained_with_what_is_around_it() {
    let mut objects = shop();
    let config = "apiVersion: outrigger.dev/v1alpha1\nkind: InjectorConfig\npolicy: disabled\n";
    objects.push((
        "/api/v1/namespaces/outrigger-system/configmaps/outrigger",
        json!({"data": {"config.yaml": config}}),
    ));
    let folder = folder(&[("kubeconfig", &api_server(objects))]);
    let kubeconfig = path(&folder, "kubeconfig");
    let flags = ["--kubeconfig", &kubeconfig, "--context", "mine"];
    let run = outrigger(&[&["explain", "pod/web-5d4f8-x", "-o", "json"], &flags[..]].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    let explained = run.json();
    let [pod] = &explained.as_array().unwrap()[..] else {
        panic!("want the pod and nothing else: {explained}")
    };
    assert_eq!((&pod["namespace"], &pod["name"]), (&json!("shop"), &json!("web-5d4f8-x")));
    // The installation's own policy, not the default one; the namespace's label decides.
    assert_eq!((&pod["inject"], &pod["reason"]), (&json!(false), &json!("policy_disabled")));
    assert_eq!(run.err, "");

    let settings = "apiVersion: outrigger.dev/v1alpha1\nkind: InjectorConfig\n";
    let named = path(&folder, "settings.yaml");
    std::fs::write(&named, settings).unwrap();
    let run =
        outrigger(&[&["explain", "web-5d4f8-x", "-n", "shop", "--config", &named], &flags[..]].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.starts_with("Pod shop/web-5d4f8-x: injected because "), "{}", run.out);
    for warning in [
        "port 80 of Service web has no name",
        "sidecar.istio.io/inject stands in metadata.annotations of the Deployment",
        "the pod runs without a sidecar, but would get one if it were made now",
    ] {
        assert_eq!(run.out.matches(warning).count(), 1, "{warning}: {}", run.out);
    }
    assert!(!run.out.contains("Service other") && !run.out.contains(", line "), "{}", run.out);
}

#[test]
fn a_pod_is_explained_by_the_installation_that_its_namespace_asks_for() {
    let settings = |revision: &str, policy: &str| {
        let text = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: InjectorConfig\nrevision: {revision}\npolicy: {policy}\n"
        );
        json!({"data": {"config.yaml": text}})
    };
    let tag = json!({"webhooks": [{"clientConfig": {"service": {"namespace": "outrigger-system", "name": "outrigger-next"}}}]});
    for (asked, flags, reason) in [
        ("next", &[][..], "policy_disabled"),
        ("prod", &[], "policy_disabled"),
        // Another injector's: the default installation says that it is not asked.
        ("1-27", &[], "revision_mismatch"),
        ("1.27", &[], "revision_mismatch"),
        ("default", &[], "policy_enabled"),
        ("next", &["--revision", "default"], "revision_mismatch"),
    ] {
        let mut objects = shop();
        objects[1].1["metadata"]["labels"] = json!({"istio.io/rev": asked});
        objects.extend([
            ("/api/v1/namespaces/outrigger-system/configmaps/outrigger", settings("default", "enabled")),
            ("/api/v1/namespaces/outrigger-system/configmaps/outrigger-next", settings("next", "disabled")),
            (
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrigger-tag-prod",
                tag.clone(),
            ),
        ]);
        let folder = folder(&[("kubeconfig", &api_server(objects))]);
        let place = ["--kubeconfig", &path(&folder, "kubeconfig"), "--context", "mine", "--output", "json"];
        let run = outrigger(&[&["explain", "web-5d4f8-x"], &place[..], flags].concat());
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{asked} {flags:?}");
        assert_eq!(run.json()[0]["reason"], reason, "{asked} {flags:?}: {}", run.out);
    }
}

#[test]
fn settings_of_the_installation_that_cannot_be_used_are_named_with_their_place() {
    let mut objects = shop();
    objects.push((
        "/api/v1/namespaces/outrigger-system/configmaps/outrigger",
        json!({"metadata": {"namespace": "outrigger-system", "name": "outrigger"},
            "data": {"config.yaml": "defaultTemplates: [nope]"}}),
    ));
    let folder = folder(&[("kubeconfig", &api_server(objects))]);
    let run = outrigger(&[
        "explain",
        "web-5d4f8-x",
        "--kubeconfig",
        &path(&folder, "kubeconfig"),
        "--context",
        "mine",
    ]);
    let said = "error: ConfigMap outrigger-system/outrigger, config.yaml: defaultTemplates: there is no template \"nope\"";
    assert!(run.code == 1 && run.err.starts_with(said), "{}", run.err);
}

#[test]
fn what_cannot_be_asked_or_found_is_said() {
    let folder = folder(&[("kubeconfig", &api_server(shop()))]);
    let kubeconfig = path(&folder, "kubeconfig");
    let explain =
        |arguments: &[&str]| outrigger(&[&["explain", "--kubeconfig", &kubeconfig], arguments].concat());
    let run = explain(&["nobody", "--context", "mine"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("/api/v1/namespaces/shop/pods/nobody not found"), "{}", run.err);
    let run = explain(&["web"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("http://127.0.0.1:0/ does not answer: "), "{}", run.err);
    let run = explain(&["web", "--context", "none"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no cluster to ask: ") && run.err.contains("none"), "{}", run.err);
    let run = explain(&["deployment/web", "--context", "mine"]);
    assert!(run.err.contains("\"deployment/web\" is no pod; give its name, or pod/NAME"), "{}", run.err);
    // No installation there: that is said, and defaults are taken.
    let run = explain(&["web-5d4f8-x", "--context", "mine"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.err.contains("the ConfigMap outrigger-system/outrigger cannot be read in http://127.0.0.1:"),
        "{}",
        run.err
    );
    // A pod or manifests, and not both.
    assert_eq!(outrigger(&["explain"]).code, 2);
    assert_eq!(outrigger(&["explain", "web", "-f", "x.yaml"]).code, 2);
    assert_eq!(outrigger(&["inject"]).code, 2);
}
