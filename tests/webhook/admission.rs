//! Who is injected, and what the API server hears.

use outrigger::injection::{Injector, Request};
use outrigger::settings::Settings;
use serde_json::{Value, json};

use crate::client::{pod, review};
use crate::server::Server;

/// The pod as the library injects it.
fn expected(pod: &Value, environment: &[(String, String)]) -> Value {
    let injector = Injector::new(Settings::default()).unwrap();
    let request = Request { namespace: "shop", environment, ..Request::default() };
    injector.inject(pod, &request).unwrap().pod.unwrap()
}

#[test]
fn a_pod_is_injected_in_the_version_that_asked() {
    let server = Server::start("");
    let mut client = server.client();
    for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
        for dry_run in [json!(false), json!(true), Value::Null] {
            let mut review = review(&pod("cart"));
            review["apiVersion"] = json!(version);
            review["request"]["dryRun"] = dry_run;
            let answer = client.post("/inject", &review);
            let whole: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(whole["apiVersion"], version);
            assert_eq!(whole["kind"], "AdmissionReview");
            assert_eq!(whole["response"]["uid"], review["request"]["uid"]);
            assert_eq!(whole["response"]["auditAnnotations"]["reason"], "policy_enabled");
            assert_eq!(whole["response"].get("warnings"), None);
            assert_eq!(answer.injected(&pod("cart")).unwrap(), expected(&pod("cart"), &[]));
        }
    }
    assert_eq!(server.metric("sidecar_injection_requests_total"), 6.0);
    assert_eq!(server.metric("sidecar_injection_success_total{reason=\"policy_enabled\"}"), 6.0);
    assert_eq!(server.metric("sidecar_injection_time_seconds_count"), 6.0);
    let (sent, injected) = (pod("cart"), expected(&pod("cart"), &[]));
    let bytes = serde_json::to_string(&outrigger::patch::diff(&sent, &injected)).unwrap().len();
    assert_eq!(server.metric("outrigger_patch_size_bytes_count"), 6.0);
    assert_eq!(server.metric("outrigger_patch_size_bytes_sum"), 6.0 * bytes as f64);
    assert_eq!(server.metric("outrigger_requests_in_flight"), 0.0);
}

#[test]
fn fields_that_nobody_knows_survive() {
    let server = Server::start("");
    let mut sent = pod("cart");
    sent["spec"]["fieldOfTheFuture"] = json!({"a": [1, 2.50, null, {"b": "c"}]});
    sent["spec"]["containers"][0]["restartPolicyRules"] = json!([{"action": "Restart"}]);
    let injected = server.ask(&review(&sent)).injected(&sent).unwrap();
    assert_eq!(injected["spec"]["fieldOfTheFuture"], sent["spec"]["fieldOfTheFuture"]);
    let app = injected["spec"]["containers"].as_array().unwrap().iter().find(|c| c["name"] == "app").unwrap();
    assert_eq!(app["restartPolicyRules"], json!([{"action": "Restart"}]));
}

#[test]
fn the_second_call_changes_nothing() {
    let server = Server::start("");
    let injected = server.ask(&review(&pod("cart"))).injected(&pod("cart")).unwrap();
    let again = server.ask(&review(&injected));
    assert_eq!(again.injected(&injected), None);
    assert_eq!(server.metric("sidecar_injection_skip_total{reason=\"already_injected\"}"), 1.0);
    assert_eq!(server.metric("outrigger_patch_size_bytes_count"), 1.0);
}

#[test]
fn the_path_gives_environment() {
    let server = Server::start("");
    let environment = |list: &[(&str, &str)]| -> Vec<_> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let [cluster, network] = ["ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK"];
    for (path, list) in [
        ("/inject/", environment(&[])),
        ("/inject/cluster/east/net/blue", environment(&[(cluster, "east"), (network, "blue")])),
        ("/inject/cluster/a--slash--b/", environment(&[(cluster, "a/b")])),
        ("/inject/zone/a%20b", environment(&[("ZONE", "a b")])),
        ("/inject/:ENV:net=blue:ENV:zone=a/b", environment(&[(network, "blue"), ("ZONE", "a/b")])),
    ] {
        let answer = server.client().post(path, &review(&pod("cart")));
        let injected = answer.injected(&pod("cart")).unwrap();
        assert_eq!(injected, expected(&pod("cart"), &list), "{path}");
        for (name, value) in &list {
            let text = injected.to_string();
            assert!(text.contains(&json!({"name": name, "value": value}).to_string()), "{path}: {text}");
        }
    }
}

#[test]
fn what_is_not_a_new_pod_is_let_through() {
    let server = Server::start("");
    let mut client = server.client();
    let plain = review(&pod("cart"));
    #[rustfmt::skip]
    let changes: &[(&str, &[(&str, Value)])] = &[
        ("not_created", &[("/request/operation", json!("UPDATE")), ("/request/oldObject", pod("cart"))]),
        ("not_created", &[("/request/operation", json!("DELETE")), ("/request/object", Value::Null)]),
        ("not_created", &[("/request/operation", json!("CONNECT")), ("/request/object", Value::Null)]),
        ("not_a_pod", &[("/request/kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"}))]),
        ("not_a_pod", &[("/request/kind", json!({"group": "example.org", "version": "v1", "kind": "Pod"}))]),
        ("not_a_pod", &[("/request/kind", json!({"group": "", "version": "v1", "kind": "Binding"}))]),
    ];
    for (reason, changes) in changes {
        let mut review = plain.clone();
        for (pointer, value) in *changes {
            *review.pointer_mut(pointer).unwrap() = value.clone();
        }
        let metric = format!("sidecar_injection_skip_total{{reason=\"{reason}\"}}");
        let before = server.metric(&metric);
        let response = client.post("/inject", &review).response();
        assert_eq!(response["allowed"], true, "{review}");
        assert_eq!(response.get("patch"), None, "{review}");
        assert_eq!(response.get("warnings"), None, "{review}");
        assert_eq!(server.metric(&metric), before + 1.0);
    }
    let mut eviction = plain.clone();
    eviction["request"]["subResource"] = json!("eviction");
    assert_eq!(client.post("/inject", &eviction).response().get("patch"), None);
    assert_eq!(server.metric("sidecar_injection_requests_total"), 7.0);
    assert_eq!(server.metric("sidecar_injection_success_total{reason=\"policy_enabled\"}"), 0.0);
}

#[test]
fn a_user_who_asked_in_vain_hears_why() {
    let server = Server::start("");
    let mut sent = pod("cart");
    sent["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("true");
    let mut asked = review(&sent);
    asked["request"]["namespace"] = json!("kube-system");
    let answer = server.ask(&asked);
    assert_eq!(answer.injected(&sent), None);
    let warning = answer.response()["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("namespace_exempt") && warning.contains("kube-system"), "{warning}");
    assert_eq!(answer.response()["auditAnnotations"]["reason"], "namespace_exempt");
    assert_eq!(server.metric("sidecar_injection_skip_total{reason=\"namespace_exempt\"}"), 1.0);
    let line = server.log("not injected", |_| true);
    assert_eq!(line["reason"], "namespace_exempt");
    assert_eq!(line["namespace"], "kube-system");
    assert_eq!(line["inject"], false);
    // A user who asked for nothing hears nothing.
    sent["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    let answer = server.ask(&review(&sent));
    assert_eq!(answer.injected(&sent), None);
    assert_eq!(answer.response().get("warnings"), None);
    assert_eq!(server.metric("sidecar_injection_skip_total{reason=\"inject_label_false\"}"), 1.0);
}

#[test]
fn a_warning_is_short_enough_for_the_api_server() {
    let server = Server::start("");
    let mut sent = pod("cart");
    sent["metadata"]["annotations"] = json!({"sidecar.istio.io/inject": "ja\n".repeat(1000)});
    let response = server.ask(&review(&sent)).response();
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.len() <= 256 && warning.ends_with('…'), "{warning}");
    assert!(!warning.contains('\n'), "{warning}");
}

#[test]
fn the_log_line_names_a_pod_without_a_name() {
    let server = Server::start("");
    let mut sent = pod("cart");
    sent["metadata"] = json!({"generateName": "cart-7d9f-"});
    let mut asked = review(&sent);
    asked["request"]["dryRun"] = json!(true);
    assert!(server.ask(&asked).injected(&sent).is_some());
    let line = server.log("injected", |_| true);
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["uid"], asked["request"]["uid"]);
    assert_eq!(line["namespace"], "shop");
    assert_eq!(line["name"], "cart-7d9f-");
    assert_eq!(line["operation"], "CREATE");
    assert_eq!(line["kind"], "Pod");
    assert_eq!(line["inject"], true);
    assert_eq!(line["reason"], "policy_enabled");
    assert_eq!(line["dry_run"], true);
    assert!(line["patch_bytes"].as_u64().unwrap() > 100, "{line}");
    assert!(line["microseconds"].as_u64().is_some(), "{line}");
}

#[test]
fn a_pod_with_two_megabytes_of_annotations_is_injected() {
    let server = Server::start("");
    let mut sent = pod("cart");
    sent["metadata"]["annotations"] = json!({"notes": "ä\"\n".repeat(500_000)});
    assert_eq!(server.ask(&review(&sent)).injected(&sent).unwrap(), expected(&sent, &[]));
}
