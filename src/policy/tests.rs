use serde_json::{Value, json};

use super::{Facts, Reason, decide, explain};
use crate::settings::Settings;

fn settings(text: &str) -> Settings {
    Settings::parse(text, "test").unwrap()
}

fn reason(settings_text: &str, pod: &Value, namespace: &str, namespace_labels: Option<&Value>) -> Reason {
    decide(&Facts { pod, namespace, namespace_labels, tag: None }, &settings(settings_text)).reason
}

/// The table of the seeds: policy and the pod's annotation to injected or not.
#[test]
fn the_policy_table() {
    for (policy, annotation, want) in [
        ("off", None, Reason::PolicyOff),
        ("off", Some("false"), Reason::PolicyOff),
        ("off", Some("true"), Reason::PolicyOff),
        ("disabled", None, Reason::PolicyDisabled),
        ("disabled", Some("false"), Reason::InjectAnnotationFalse),
        ("disabled", Some("true"), Reason::InjectAnnotationTrue),
        ("enabled", None, Reason::PolicyEnabled),
        ("enabled", Some("false"), Reason::InjectAnnotationFalse),
        ("enabled", Some("true"), Reason::InjectAnnotationTrue),
    ] {
        let annotations = annotation.map_or(json!({}), |value| json!({"sidecar.istio.io/inject": value}));
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {}});
        let got = reason(&format!("policy: {policy}"), &pod, "shop", None);
        assert_eq!(got, want, "{policy} {annotation:?}");
        let injected =
            matches!((policy, annotation), ("disabled" | "enabled", Some("true")) | ("enabled", None));
        assert_eq!(got.injects(), injected, "{policy} {annotation:?}");
    }
}

#[test]
fn the_label_wins_over_the_annotation_even_when_it_says_nothing() {
    let pod = |label: &str, annotation: &str| {
        json!({"metadata": {"labels": {"sidecar.istio.io/inject": label},
            "annotations": {"sidecar.istio.io/inject": annotation}}, "spec": {}})
    };
    assert_eq!(reason("", &pod("false", "true"), "", None), Reason::InjectLabelFalse);
    assert_eq!(reason("", &pod("true", "false"), "", None), Reason::InjectLabelTrue);
    assert_eq!(reason("policy: disabled", &pod("", "true"), "", None), Reason::PolicyDisabled);
    assert_eq!(reason("", &pod("yes", "false"), "", None), Reason::PolicyEnabled);
}

#[test]
fn a_value_that_is_neither_true_nor_false_is_pointed_out() {
    let pod = json!({"metadata": {"labels": {"sidecar.istio.io/inject": "True"}}, "spec": {}});
    let facts = Facts { pod: &pod, namespace: "", namespace_labels: None, tag: None };
    assert_eq!(
        decide(&facts, &settings("")).warnings(),
        [
            "outrigger: the pod's label sidecar.istio.io/inject is \"True\", which is neither \"true\" nor \"false\" and \
          has no effect; use \"true\" or \"false\""
        ]
    );
}

#[test]
fn namespaces_are_exempt_selected_or_excluded() {
    let asks = json!({"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}, "spec": {}});
    for namespace in
        ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "outrigger-system"]
    {
        assert_eq!(reason("", &asks, namespace, None), Reason::NamespaceExempt, "{namespace}");
    }
    assert_eq!(reason("installationNamespace: mesh", &asks, "mesh", None), Reason::NamespaceExempt);
    assert_eq!(reason("namespaces: [a]", &asks, "b", None), Reason::NamespaceNotSelected);
    assert_eq!(reason("namespaces: [a]", &asks, "a", None), Reason::InjectLabelTrue);
    assert_eq!(reason("namespaces: [a, \"\"]", &asks, "b", None), Reason::InjectLabelTrue);
    assert_eq!(reason("excludeNamespaces: [b]", &asks, "b", None), Reason::NamespaceExcluded);
    assert_eq!(reason("excludeNamespaces: [b]", &asks, "a", None), Reason::InjectLabelTrue);
}

#[test]
fn host_network_and_namespace_labels_come_before_what_the_pod_asks() {
    let asks =
        json!({"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}, "spec": {"hostNetwork": true}});
    assert_eq!(reason("", &asks, "a", None), Reason::HostNetworkEnabled);
    let asks = json!({"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}, "spec": {}});
    let disabled = json!({"istio-injection": "disabled"});
    assert_eq!(reason("", &asks, "a", Some(&disabled)), Reason::NamespaceInjectionDisabled);
}

/// `istio-injection=enabled` beats `istio.io/rev`; the namespace's revision beats the pod's.
#[test]
fn the_revision_table() {
    let pod = |revision: Option<&str>| match revision {
        Some(revision) => json!({"metadata": {"labels": {"istio.io/rev": revision}}, "spec": {}}),
        None => json!({"metadata": {}, "spec": {}}),
    };
    let ours = Reason::PolicyEnabled;
    let other = Reason::RevisionMismatch;
    for (installed, namespace, pod_revision, want) in [
        ("default", None, None, ours),
        ("default", None, Some("canary"), other),
        ("canary", None, Some("canary"), ours),
        ("default", Some(json!({"istio.io/rev": "canary"})), Some("default"), other),
        ("canary", Some(json!({"istio.io/rev": "canary"})), Some("default"), ours),
        (
            "default",
            Some(json!({"istio-injection": "enabled", "istio.io/rev": "canary"})),
            Some("canary"),
            ours,
        ),
        ("canary", Some(json!({"istio-injection": "enabled"})), Some("canary"), other),
        ("canary", Some(json!({})), None, ours),
    ] {
        let settings = format!("revision: {installed}");
        let got = reason(&settings, &pod(pod_revision), "shop", namespace.as_ref());
        assert_eq!(got, want, "{installed} {namespace:?} {pod_revision:?}");
    }
}

#[test]
fn never_comes_before_always_and_both_after_the_pods_word() {
    let both =
        "neverInjectSelector: [{matchLabels: {app: a}}]\nalwaysInjectSelector: [{matchLabels: {app: a}}]";
    let pod = json!({"metadata": {"labels": {"app": "a"}}, "spec": {}});
    assert_eq!(reason(both, &pod, "", None), Reason::NeverInjectSelector);
    let always = "policy: disabled\nalwaysInjectSelector: [{matchExpressions: [{key: app, operator: In, values: [a]}]}]";
    assert_eq!(reason(always, &pod, "", None), Reason::AlwaysInjectSelector);
    let asks = json!({"metadata": {"labels": {"app": "a", "sidecar.istio.io/inject": "true"}}, "spec": {}});
    assert_eq!(reason(both, &asks, "", None), Reason::InjectLabelTrue);
}

#[test]
fn selectors_match_as_kubernetes_has_it() {
    for (expression, labels, want) in [
        ("{key: a, operator: NotIn, values: [x]}", json!({}), true),
        ("{key: a, operator: NotIn, values: [x]}", json!({"a": "x"}), false),
        ("{key: a, operator: Exists}", json!({"a": ""}), true),
        ("{key: a, operator: DoesNotExist}", json!({}), true),
        ("{key: a, operator: DoesNotExist}", json!({"a": "x"}), false),
        ("{key: a, operator: In, values: [x, z]}", json!({"a": "z"}), true),
        ("{key: a, operator: In, values: [x, z]}", json!({}), false),
    ] {
        let settings =
            format!("policy: disabled\nalwaysInjectSelector: [{{matchExpressions: [{expression}]}}]");
        let pod = json!({"metadata": {"labels": labels}, "spec": {}});
        assert_eq!(reason(&settings, &pod, "", None).injects(), want, "{expression} {labels}");
    }
    let empty = "neverInjectSelector: [{}]";
    assert_eq!(reason(empty, &json!({"metadata": {}, "spec": {}}), "", None), Reason::PolicyEnabled);
}

#[test]
fn every_rule_is_explained_and_the_first_that_answers_decides() {
    let pod =
        json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}, "spec": {"hostNetwork": true}});
    let facts = Facts { pod: &pod, namespace: "a", namespace_labels: None, tag: None };
    let settings = settings("");
    let outcomes = explain(&facts, &settings);
    let answered: Vec<Reason> =
        outcomes.iter().filter_map(|(_, o)| o.as_ref().map(|(reason, _)| *reason)).collect();
    assert_eq!(answered, [Reason::HostNetworkEnabled, Reason::InjectLabelFalse, Reason::PolicyEnabled]);
    assert_eq!(decide(&facts, &settings).reason, answered[0]);
}

#[test]
fn every_reason_has_a_code_of_its_own() {
    let codes: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes.len(), Reason::ALL.len());
}

#[test]
fn a_tag_is_another_name_of_the_revision() {
    let (pod, labels) = (json!({"metadata": {}, "spec": {}}), json!({"istio.io/rev": "prod"}));
    let facts = |tag| Facts { pod: &pod, namespace: "a", namespace_labels: Some(&labels), tag };
    let settings = settings("revision: canary");
    for (tag, expected) in [
        (Some("prod"), Reason::PolicyEnabled),
        (Some("test"), Reason::RevisionMismatch),
        (None, Reason::RevisionMismatch),
    ] {
        assert_eq!(decide(&facts(tag), &settings).reason, expected, "{tag:?}");
    }
}

#[test]
fn every_reason_is_in_the_book() {
    let book = include_str!("../../docs/troubleshoot.md");
    for reason in Reason::ALL {
        assert!(book.contains(&format!("`{}`", reason.code())), "{}", reason.code());
    }
}
