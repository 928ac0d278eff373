use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::certificates::{make, unix_now};

const METRICS: &str = "outrigger_settings_info{hash=\"0123\"} 1\n";

/// A sound installation.
fn facts() -> Facts {
    let names = Names::new("default", "outrigger-system").unwrap();
    let made = make(&["outrigger.outrigger-system.svc".to_owned()], 90, unix_now()).unwrap();
    let encoded = |text: &str| STANDARD.encode(text);
    let service = json!({"name": "outrigger", "namespace": "outrigger-system"});
    let registration = json!({
        "metadata": {"name": "outrigger", "labels": {"app.kubernetes.io/part-of": "outrigger"}},
        "webhooks": [{"name": "a", "clientConfig": {"service": service, "caBundle": encoded(&made.ca)}}],
    });
    let namespace = json!({"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}});
    let node = json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {"kubeletVersion": "v1.34.1", "kernelVersion": "6.1.0-18"}}});
    let status = json!({"readyReplicas": 3, "updatedReplicas": 3});
    let container = json!({"image": "localhost/outrigger:0.1.0"});
    let deployment =
        json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [container]}}}, "status": status});
    let settings = "values: {images: {init: init, proxy: proxy}}";
    let secret = json!({"data": {"tls.crt": encoded(&made.certificate), "tls.key": encoded(&made.key)}});
    let injected = json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}});
    Facts {
        names,
        now: unix_now(),
        version: Ok(json!({"gitVersion": "v1.34.1"})),
        nodes: Ok(vec![node]),
        permissions: Ok(vec![("patch namespaces".to_owned(), true)]),
        registrations: Ok(vec![registration]),
        namespaces: Ok(vec![namespace]),
        deployment: Ok(Some(deployment)),
        secret: Ok(Some(secret)),
        settings: Ok(Some(json!({"data": {"config.yaml": settings}}))),
        replicas: Ok(vec![
            ("a".to_owned(), Ok(METRICS.to_owned())),
            ("b".to_owned(), Ok(METRICS.to_owned())),
        ]),
        trial: None,
        samples: vec![("shop".to_owned(), Ok(injected))],
        pods: Ok(Vec::new()),
    }
}

/// The only line that is not good.
fn wrong(facts: &Facts) -> Line {
    let mut lines: Vec<Line> = diagnose(facts).into_iter().filter(|line| line.state != State::Ok).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

#[test]
fn a_sound_installation_has_nothing_but_good_lines() {
    let lines = diagnose(&facts());
    assert!(lines.iter().all(|line| line.state == State::Ok && line.remedy.is_none()), "{lines:#?}");
    assert_eq!(lines.len(), 14);
}

#[test]
fn without_an_installation_only_the_cluster_is_looked_at() {
    let line = wrong(&Facts { deployment: Ok(None), ..facts() });
    assert_eq!((line.check, line.state), ("installation", State::Warning));
}

#[test]
fn each_fault_has_its_line_with_a_remedy() {
    type Break = fn(&mut Facts);
    let table: &[(&str, State, &str, Break)] = &[
        ("version", State::Failed, "v1.27.3", |f| f.version = Ok(json!({"gitVersion": "v1.27.3"}))),
        ("version", State::Unknown, "refused", |f| f.version = Err("refused".to_owned())),
        ("kubelets", State::Failed, "the oldest kubelet is 1.30", |f| {
            f.nodes.as_mut().unwrap()[0]["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.30.0-eks");
        }),
        ("kernels", State::Warning, "n (4.19.0)", |f| {
            f.nodes.as_mut().unwrap()[0]["status"]["nodeInfo"]["kernelVersion"] = json!("4.19.0");
        }),
        ("permissions", State::Warning, "patch namespaces", |f| f.permissions.as_mut().unwrap()[0].1 = false),
        ("other-injectors", State::Warning, "istio-sidecar-injector", |f| {
            f.registrations.as_mut().unwrap().push(json!({"metadata": {"name": "istio-sidecar-injector"}}));
        }),
        ("pod-security", State::Warning, "shop", |f| {
            f.namespaces.as_mut().unwrap()[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] =
                json!("baseline");
        }),
        ("replicas", State::Failed, "0 of 3", |f| {
            f.deployment.as_mut().unwrap().as_mut().unwrap()["status"] = json!({});
        }),
        ("replicas", State::Warning, "2 of 3", |f| {
            f.deployment.as_mut().unwrap().as_mut().unwrap()["status"]["readyReplicas"] = json!(2);
        }),
        ("registration", State::Failed, "outrigger", |f| {
            f.registrations.as_mut().unwrap()[0]["webhooks"][0]["clientConfig"] =
                json!({"url": "https://elsewhere"});
        }),
        ("certificate", State::Failed, "caBundle of a", |f| {
            let other = make(&["x.svc".to_owned()], 1, unix_now()).unwrap().ca;
            f.registrations.as_mut().unwrap()[0]["webhooks"][0]["clientConfig"]["caBundle"] =
                json!(STANDARD.encode(other));
        }),
        ("certificate", State::Failed, "expired", |f| f.now += 91 * 86_400),
        ("certificate", State::Warning, "good until", |f| f.now += 75 * 86_400),
        ("certificate", State::Warning, "no Secret", |f| f.secret = Ok(None)),
        ("certificate", State::Warning, "for the next one waits", |f| {
            f.secret.as_mut().unwrap().as_mut().unwrap()["data"]["next.key"] = json!("a2V5");
        }),
        ("certificate", State::Failed, "no certificate yet", |f| {
            f.secret =
                Ok(Some(json!({"data": {"tls.crt": "", "tls.key": "", "next.crt": "", "next.key": "a2V5"}})));
        }),
        ("settings", State::Warning, "different settings", |f| {
            f.replicas.as_mut().unwrap()[0].1 = Ok(METRICS.replace("0123", "4567"));
        }),
        ("settings", State::Failed, "a refuses the ConfigMap's settings", |f| {
            let refuses = format!("{METRICS}outrigger_settings_last_reload_successful 0\n");
            f.replicas.as_mut().unwrap()[0].1 = Ok(refuses);
        }),
        ("settings", State::Unknown, "metrics of a: gone", |f| {
            f.replicas.as_mut().unwrap()[0].1 = Err("gone".to_owned());
        }),
        ("injection", State::Failed, "shop: no endpoints", |f| {
            f.samples[0].1 = Err("no endpoints".to_owned())
        }),
        ("injection", State::Failed, "without a sidecar", |f| f.samples[0].1 = Ok(json!({}))),
        ("injection", State::Warning, "no namespace", |f| f.samples.clear()),
        ("injection", State::Warning, "to namespace calm, came back injected", |f| {
            let status = r#"{"revision":"default"}"#;
            let pod = json!({"metadata": {"annotations": {"sidecar.istio.io/status": status}}});
            (f.samples, f.trial) = (Vec::new(), Some(("calm".to_owned(), Ok(pod))));
        }),
        ("injection", State::Failed, "calm: the pod came back as it was sent", |f| {
            (f.samples, f.trial) = (Vec::new(), Some(("calm".to_owned(), Ok(json!({})))));
        }),
        ("injection", State::Failed, "calm: no endpoints", |f| {
            (f.samples, f.trial) = (Vec::new(), Some(("calm".to_owned(), Err("no endpoints".to_owned()))));
        }),
        ("missing-sidecars", State::Warning, "Pod shop/bare", |f| {
            let spec = json!({"containers": [{"name": "app", "image": "app"}]});
            f.pods = Ok(vec![json!({"metadata": {"name": "bare", "namespace": "shop"}, "spec": spec})]);
        }),
    ];
    for (check, state, message, broken) in table {
        let mut facts = facts();
        broken(&mut facts);
        let line = wrong(&facts);
        assert_eq!((line.check, line.state), (*check, *state), "{line:?}");
        assert!(line.message.contains(message) && line.remedy.is_some(), "{line:?}");
    }
}

#[test]
fn remedies_are_about_the_installation_that_was_asked_about() {
    let remedy = |revision: &str, namespace: &str| {
        let facts =
            Facts { names: Names::new(revision, namespace).unwrap(), deployment: Ok(None), ..facts() };
        let lines = diagnose(&facts);
        lines.iter().find(|line| line.check == "installation").unwrap().remedy.clone().unwrap()
    };
    assert_eq!(remedy("default", "outrigger-system"), "install it: outrigger install --apply");
    assert_eq!(remedy("next", "mesh"), "install it: outrigger install --apply --revision next -n mesh");
}

#[test]
fn strict_namespaces_are_no_trouble_where_the_cni_plugin_captures() {
    let mut facts = facts();
    facts.namespaces.as_mut().unwrap()[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] =
        json!("restricted");
    let settings = "values: {images: {init: init, proxy: proxy}, pilot: {cni: {enabled: true}}}";
    facts.settings = Ok(Some(json!({"data": {"config.yaml": settings}})));
    assert!(diagnose(&facts).iter().all(|line| line.state == State::Ok));
}

#[test]
fn settings_that_parse_and_cannot_be_used_are_told_with_their_place() {
    let told = |settings: &str| {
        let metadata = json!({"namespace": "outrigger-system", "name": "outrigger"});
        let map = json!({"metadata": metadata, "data": {"config.yaml": settings}});
        let lines = diagnose(&Facts { settings: Ok(Some(map)), ..facts() });
        let line = |check| lines.iter().find(|line| line.check == check).unwrap();
        [line("settings"), line("missing-sidecars")].map(|line| (line.state, line.message.clone()))
    };
    let [(state, message), (_, missing)] = told("defaultTemplates: [nope]");
    let place =
        "ConfigMap outrigger-system/outrigger, config.yaml: defaultTemplates: there is no template \"nope\"";
    assert!(state == State::Failed && message.contains(place), "{state:?} {message}");
    assert!(missing.contains(place), "{missing}");
    // A folder of the replicas' is not here.
    assert_eq!(told("pack: /packs/ours")[0], (State::Ok, "good, and alike on 2 replicas".to_owned()));
}

#[test]
fn namespaces_ask_by_label_revision_or_tag() {
    let namespace = |labels: Value| json!({"metadata": {"labels": labels}});
    let (default, canary) = (Names::new("default", "a").unwrap(), Names::new("canary", "a").unwrap());
    let tags = ["prod".to_owned()];
    for (labels, by_default, by_canary) in [
        (json!({"istio-injection": "enabled"}), true, false),
        (json!({"istio-injection": "enabled", "istio.io/rev": "canary"}), true, false),
        (json!({"istio-injection": "disabled", "istio.io/rev": "canary"}), false, false),
        (json!({"istio.io/rev": "canary"}), false, true),
        (json!({"istio.io/rev": "prod"}), false, true),
        (json!({"istio.io/rev": "default"}), true, false),
        (json!({}), false, false),
    ] {
        let namespace = namespace(labels);
        assert_eq!(
            (asks(&namespace, &default, &[]), asks(&namespace, &canary, &tags)),
            (by_default, by_canary),
            "{namespace}"
        );
    }
}

#[test]
fn every_check_is_in_the_book() {
    let book = include_str!("../../docs/troubleshoot.md");
    for line in diagnose(&facts()) {
        assert!(book.contains(&format!("`{}`", line.check)), "{}", line.check);
    }
}
