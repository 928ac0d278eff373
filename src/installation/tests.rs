use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::json;

use super::*;
use crate::settings::{NATIVE_SIDECARS_SINCE, Settings};
use crate::telemetry::Metrics;

fn all_parts() -> BTreeSet<Part> {
    Part::value_variants().iter().copied().collect()
}

fn canary() -> Options {
    Options {
        revision: "canary".to_owned(),
        namespace: "mesh".to_owned(),
        parts: all_parts(),
        ..Options::default()
    }
}

/// The same, with a certificate by a signer, and with repair.
fn signed() -> Options {
    let mut parts = all_parts();
    parts.remove(&Part::CertManager);
    Options {
        certificate_signer: Some("example.com/serving".to_owned()),
        repair: Some(Repair::Restart),
        parts,
        ..canary()
    }
}

fn of_kind<'a>(objects: &'a [Object], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object.kind() == kind).map(|object| &object.value).collect()
}

#[test]
fn without_options_the_texts_are_those_of_the_manifests() {
    let objects = objects(&Options { parts: all_parts(), ..Options::default() }).unwrap();
    let changed: Vec<_> = objects.iter().filter(|object| object.text.is_none()).map(Object::kind).collect();
    // Replicas are the autoscaler's, and the certificate is cert-manager's.
    assert_eq!(changed, ["Deployment", "MutatingWebhookConfiguration"]);
    let printed = yaml(&objects);
    let read: Vec<Value> =
        manifest::split(printed.as_bytes()).iter().filter_map(|document| document.parse().unwrap()).collect();
    assert_eq!(read, objects.iter().map(|object| object.value.clone()).collect::<Vec<_>>());
    assert!(printed.contains("# What the webhook may do, verb by verb."));
}

#[test]
fn the_registration_comes_last_and_holds_no_bundle() {
    let objects = objects(&Options::default()).unwrap();
    assert_eq!(objects.last().unwrap().kind(), "MutatingWebhookConfiguration");
    assert!(!json(&objects).to_string().contains("caBundle"));
}

#[test]
fn another_revision_has_names_of_its_own_everywhere() {
    let objects = [objects(&canary()).unwrap(), objects(&signed()).unwrap()].concat();
    for object in &objects {
        let metadata = &object.value["metadata"];
        let name = metadata["name"].as_str().unwrap();
        match object.kind() {
            "Namespace" => assert_eq!(name, "mesh"),
            _ => {
                let of = [
                    "",
                    "-certificate-signer",
                    "-dashboard",
                    "-ca",
                    "-repair",
                    "-repair-restart",
                    "-self-signed",
                ];
                assert!(of.iter().any(|suffix| name == format!("outrigger-canary{suffix}")), "{name}");
            }
        }
        let namespace = metadata["namespace"].as_str();
        assert!(namespace.is_none_or(|namespace| namespace == "mesh"), "{namespace:?}");
        // The namespace may be that of several installations.
        let own = (object.kind() != "Namespace").then_some(match name {
            "outrigger-canary-repair" | "outrigger-canary-repair-restart" => "outrigger-canary-repair",
            _ => "outrigger-canary",
        });
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"].as_str(), own, "{}", object.title());
        assert_eq!(metadata["labels"]["app.kubernetes.io/part-of"], "outrigger", "{}", object.title());
        assert!(!object.value.to_string().contains("outrigger-system"), "{}", object.title());
    }
    let webhook = of_kind(&objects, "Deployment")[0];
    let pod = &webhook["spec"]["template"];
    assert_eq!(
        webhook["spec"]["selector"]["matchLabels"],
        json!({"app.kubernetes.io/name": "outrigger-canary"})
    );
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "outrigger-canary");
    assert_eq!(pod["spec"]["serviceAccountName"], "outrigger-canary");
    assert_eq!(pod["spec"]["containers"][0]["name"], "outrigger");
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], "outrigger-canary");
    let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(arguments.windows(2).any(|pair| pair == [json!("--installation"), json!("outrigger-canary")]));
    let may: Vec<_> = ["ClusterRole", "Role"].iter().flat_map(|kind| of_kind(&objects, kind)).collect();
    let rules = may.iter().flat_map(|role| role["rules"].as_array().unwrap());
    let named: BTreeSet<_> = rules.filter_map(|rule| rule["resourceNames"][0].as_str()).collect();
    assert_eq!(named, BTreeSet::from(["outrigger-canary", "outrigger-canary-certificate"]));
    let settings = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().unwrap();
    assert!(settings.contains("\nrevision: canary\ninstallationNamespace: mesh\n"), "{settings}");
    let rules = of_kind(&objects, "PrometheusRule")[0].to_string();
    assert!(rules.contains(r#"{namespace=\"mesh\", service=\"outrigger-canary\"}"#), "{rules}");
}

#[test]
fn a_revision_is_asked_for_by_its_own_label_alone() {
    let objects = objects(&canary()).unwrap();
    let registration = of_kind(&objects, "MutatingWebhookConfiguration")[0];
    assert_eq!(registration["metadata"]["labels"]["istio.io/rev"], "canary");
    let webhooks = registration["webhooks"].as_array().unwrap();
    let names: Vec<_> = webhooks.iter().map(|webhook| webhook["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["rev.namespace.sidecar-injector.outrigger.dev", "rev.object.sidecar-injector.outrigger.dev"]
    );
    for (webhook, selector) in webhooks.iter().zip(["namespaceSelector", "objectSelector"]) {
        let expressions = webhook[selector]["matchExpressions"].as_array().unwrap();
        assert!(
            expressions.contains(&json!({"key": "istio.io/rev", "operator": "In", "values": ["canary"]})),
            "{webhook}"
        );
        let service = &webhook["clientConfig"]["service"];
        assert_eq!((&service["namespace"], &service["name"]), (&json!("mesh"), &json!("outrigger-canary")));
    }
}

#[test]
fn a_revision_may_be_called_as_the_namespace_is() {
    let options = Options { revision: "system".to_owned(), namespace: "mesh".to_owned(), ..canary() };
    let objects = objects(&options).unwrap();
    let rules = of_kind(&objects, "PrometheusRule")[0].to_string();
    assert!(rules.contains(r#"{namespace=\"mesh\", service=\"outrigger-system\"}"#), "{rules}");
    assert_eq!(of_kind(&objects, "Service")[0]["metadata"]["name"], "outrigger-system");
}

#[test]
fn images_come_from_the_registry_that_is_named() {
    let options = Options { registry: Some("registry.example/mesh/".to_owned()), ..Options::default() };
    let objects = objects(&options).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let image = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, json!(format!("registry.example/mesh/outrigger:{version}")));
    let settings = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().unwrap();
    for program in ["init", "proxy"] {
        let image = format!("{program}: registry.example/mesh/outrigger-{program}:{version}\n");
        assert!(settings.contains(&image), "{settings}");
    }
}

#[test]
fn replicas_are_the_deployments_or_the_fewest_of_the_autoscaler() {
    let replicas = |replicas, parts| {
        let objects = objects(&Options { replicas: Some(replicas), parts, ..Options::default() }).unwrap();
        let scaler = of_kind(&objects, "HorizontalPodAutoscaler");
        let scaler = scaler
            .first()
            .map(|scaler| (scaler["spec"]["minReplicas"].clone(), scaler["spec"]["maxReplicas"].clone()));
        (of_kind(&objects, "Deployment")[0]["spec"].get("replicas").cloned(), scaler)
    };
    assert_eq!(replicas(2, BTreeSet::new()), (Some(json!(2)), None));
    assert_eq!(replicas(2, all_parts()), (None, Some((json!(2), json!(10)))));
    assert_eq!(replicas(12, all_parts()), (None, Some((json!(12), json!(12)))));
}

#[test]
fn settings_of_a_file_stay_as_they_are_and_must_be_the_revisions() {
    let install = |settings: &str| {
        objects(&Options { settings: Some(settings.to_owned()), parts: BTreeSet::new(), ..canary() })
    };
    let text = "# ours\nrevision: canary\ninstallationNamespace: mesh\npolicy: disabled\n";
    let installed = install(text).unwrap();
    assert_eq!(of_kind(&installed, "ConfigMap")[0]["data"]["config.yaml"], text);
    for (text, expected) in [
        (
            "policy: disabled\n",
            "--config: revision is default, and --revision is canary; write `revision: canary` into the settings, or give --revision default",
        ),
        (
            "revision: canary\n",
            "--config: installationNamespace is outrigger-system, and --namespace is mesh; write `installationNamespace: mesh` into the settings, or give --namespace outrigger-system",
        ),
        ("polizy: off\n", "--config: line 1, column 1: polizy: there is no such field; did you mean policy?"),
    ] {
        let message = install(text).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn names_that_kubernetes_does_not_take_are_refused() {
    for (revision, namespace, expected) in [
        ("Canary", "mesh", "--revision Canary: is no name for Kubernetes"),
        ("1-2", "mesh", "--revision 1-2: is no name for Kubernetes"),
        ("a-", "mesh", "--revision a-: is no name for Kubernetes"),
        ("", "mesh", "--revision : is no name for Kubernetes"),
        ("tag-x", "mesh", "--revision tag-x: names that begin with tag- are those of tags"),
        ("canary", "a.b", "--namespace a.b: is no name for Kubernetes"),
    ] {
        let message = Names::new(revision, namespace).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    let long = "r".repeat(54);
    assert!(Names::new(&long, "mesh").unwrap_err().to_string().contains("longer than 53 characters"));
    assert_eq!(Names::new(&long[1..], "mesh").unwrap().name.len(), 63);
}

#[test]
fn a_tag_sends_pods_of_its_name_to_the_revisions_service() {
    let tag = Tag::new("prod", Names::new("canary", "mesh").unwrap()).unwrap();
    let objects = tag.objects().unwrap();
    let [registration] = of_kind(&objects, "MutatingWebhookConfiguration")[..] else { panic!("{objects:?}") };
    assert_eq!(registration["metadata"]["name"], "outrigger-tag-prod");
    let labels = &registration["metadata"]["labels"];
    assert_eq!((&labels["istio.io/rev"], &labels["istio.io/tag"]), (&json!("canary"), &json!("prod")));
    let may = &of_kind(&objects, "ClusterRole")[0]["rules"][0];
    assert_eq!((&may["resourceNames"], &may["verbs"]), (&json!(["outrigger-tag-prod"]), &json!(["patch"])));
    let account = &of_kind(&objects, "ClusterRoleBinding")[0]["subjects"][0];
    assert_eq!((&account["name"], &account["namespace"]), (&json!("outrigger-canary"), &json!("mesh")));
    let removed = tag.removal().unwrap();
    assert_eq!(
        removed.iter().map(Object::kind).collect::<Vec<_>>(),
        ["MutatingWebhookConfiguration", "ClusterRoleBinding", "ClusterRole"]
    );
    for webhook in registration["webhooks"].as_array().unwrap() {
        let service =
            json!({"namespace": "mesh", "name": "outrigger-canary", "path": "/inject/tag/prod", "port": 443});
        assert_eq!(webhook["clientConfig"], json!({"service": service}));
        assert!(
            webhook.to_string().contains(r#""key":"istio.io/rev","operator":"In","values":["prod"]"#),
            "{webhook}"
        );
    }
    for (tag, revision) in [("default", "canary"), ("canary", "canary")] {
        assert!(Tag::new(tag, Names::new(revision, "mesh").unwrap()).is_err(), "{tag}");
    }
}

#[test]
fn the_registration_for_a_url_has_all_webhooks_and_the_ca() {
    let registration = registration::at_url("https://127.0.0.1:8443/inject", "PEM\n", "mesh").unwrap();
    let webhooks = registration["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), 4);
    for webhook in webhooks {
        let expected = json!({"url": "https://127.0.0.1:8443/inject", "caBundle": "UEVNCg=="});
        assert_eq!(webhook["clientConfig"], expected);
        let exempt = &webhook["namespaceSelector"]["matchExpressions"][2]["values"];
        let exempt = exempt
            .as_array()
            .or_else(|| webhook["namespaceSelector"]["matchExpressions"][1]["values"].as_array());
        let wanted = crate::settings::EXEMPT_NAMESPACES.iter().chain(&["mesh"]).map(|n| json!(n));
        assert_eq!(*exempt.unwrap(), wanted.collect::<Vec<_>>());
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_are_there() {
    let metrics = Metrics::new();
    metrics.settings("0");
    let text = metrics.text().unwrap();
    let there: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let objects = objects(&Options { parts: all_parts(), ..Options::default() }).unwrap();
    let dashboard = of_kind(&objects, "ConfigMap");
    let dashboard = dashboard.iter().find_map(|map| map["data"]["outrigger.json"].as_str()).unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let asked = dashboard.to_string() + &of_kind(&objects, "PrometheusRule")[0]["spec"].to_string();
    let words = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<_> =
        words.filter(|word| word.starts_with("outrigger_") || word.starts_with("sidecar_")).collect();
    assert!(named.len() > 8, "{named:?}");
    assert_eq!(named.difference(&there).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn the_registration_goes_first_and_the_namespace_stays() {
    let names = Names::new("canary", "mesh").unwrap();
    let removed = removal(&names).unwrap();
    let kinds: Vec<_> = removed.iter().map(Object::kind).collect();
    assert_eq!(kinds[0], "MutatingWebhookConfiguration");
    assert!(!kinds.contains(&"Namespace"), "{kinds:?}");
    let installed = [objects(&canary()).unwrap(), objects(&signed()).unwrap()].concat();
    for object in installed.iter().filter(|object| object.kind() != "Namespace") {
        assert!(removed.iter().any(|removed| removed.title() == object.title()), "{}", object.title());
    }
    for made in ["Secret mesh/outrigger-canary-certificate", "Lease mesh/outrigger-canary"] {
        assert!(removed.iter().any(|removed| removed.title() == made), "{made}");
    }
}

#[test]
fn tags_that_point_to_an_installation_are_found() {
    let tag = |tag: &str, revision: &str| {
        let names = Names::new(revision, "mesh").unwrap();
        Tag::new(tag, names).unwrap().objects().unwrap().pop().unwrap().value
    };
    let own = objects(&canary()).unwrap().last().unwrap().value.clone();
    let registrations = [own, tag("prod", "canary"), tag("test", "blue")];
    assert_eq!(tags_of(&registrations, &Names::new("canary", "mesh").unwrap()), ["prod"]);
    assert_eq!(tags_of(&registrations, &Names::new("canary", "other").unwrap()), Vec::<String>::new());
}

#[test]
fn the_certificate_of_cert_manager_is_the_one_that_the_webhook_reads_and_the_registration_trusts() {
    for options in [canary(), Options { parts: all_parts(), ..Options::default() }] {
        let objects = objects(&options).unwrap();
        let Names { name, namespace, .. } = Names::new(&options.revision, &options.namespace).unwrap();
        let certificates = of_kind(&objects, "Certificate");
        let [ca, leaf] = certificates[..] else { panic!("{certificates:?}") };
        let issuers = of_kind(&objects, "Issuer");
        let [self_signed, by_ca] = issuers[..] else { panic!("{issuers:?}") };
        assert_eq!(ca["spec"]["issuerRef"]["name"], self_signed["metadata"]["name"]);
        assert_eq!(by_ca["spec"]["ca"]["secretName"], ca["spec"]["secretName"]);
        assert_eq!(leaf["spec"]["issuerRef"]["name"], by_ca["metadata"]["name"]);
        assert_eq!(leaf["spec"]["dnsNames"], json!([format!("{name}.{namespace}.svc")]));
        assert_eq!(of_kind(&objects, "Service")[0]["metadata"]["name"], json!(name));
        let injected = &of_kind(&objects, "MutatingWebhookConfiguration")[0]["metadata"]["annotations"];
        let from = format!("{namespace}/{}", leaf["metadata"]["name"].as_str().unwrap());
        assert_eq!(*injected, json!({"cert-manager.io/inject-ca-from": from}));
        let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
        let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "certificate");
        assert_eq!(volume.unwrap()["secret"]["secretName"], leaf["spec"]["secretName"]);
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let folder = mounts.iter().find(|mount| mount["name"] == "certificate").unwrap()["mountPath"]
            .as_str()
            .unwrap();
        let arguments = pod["containers"][0]["args"].as_array().unwrap();
        let (certificate, key) = (json!(format!("{folder}/tls.crt")), json!(format!("{folder}/tls.key")));
        assert!(arguments.ends_with(&[json!("--cert"), certificate, json!("--key"), key]), "{arguments:?}");
    }
}

#[test]
fn spans_go_to_the_collector_that_is_named() {
    let pod = |url: &str| {
        let options = Options { trace_collector: Some(url.to_owned()), ..canary() };
        let objects = objects(&options).unwrap();
        let egress = of_kind(&objects, "NetworkPolicy")[0]["spec"]["egress"].as_array().unwrap().clone();
        let pod = of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"].clone();
        (pod["containers"][0]["env"].clone(), pod["volumes"].clone(), egress.last().unwrap()["ports"].clone())
    };
    let endpoint = |url: &str| json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": url});
    let (environment, volumes, egress) = pod("http://collector:4318");
    assert_eq!(environment, json!([endpoint("http://collector:4318")]));
    assert!(!volumes.to_string().contains("trace"), "{volumes}");
    assert_eq!(egress, json!([{"port": 4318, "protocol": "TCP"}]));
    let (environment, volumes, egress) = pod("https://collector.example");
    let file = json!({"name": "OTEL_EXPORTER_OTLP_CERTIFICATE", "value": "/etc/outrigger-trace-ca/ca.crt"});
    assert_eq!(environment, json!([endpoint("https://collector.example"), file]));
    let volume = json!({"name": "trace-ca", "configMap": {"name": "outrigger-canary-trace-ca"}});
    assert!(volumes.as_array().unwrap().contains(&volume), "{volumes}");
    assert_eq!(egress, json!([{"port": 443, "protocol": "TCP"}]));
    for url in ["collector:4318", "collector", "ftp://collector", "http://", "http:// "] {
        let options = Options { trace_collector: Some(url.to_owned()), ..Options::default() };
        let message = super::objects(&options).unwrap_err().to_string();
        assert!(message.starts_with(&format!("--trace-collector {url}: is no URL")), "{message}");
    }
}

#[test]
fn the_signers_certificate_is_asked_for_by_the_webhook_and_its_ca_is_a_config_map() {
    let objects = objects(&signed()).unwrap();
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    let arguments = pod["containers"][0]["args"].as_array().unwrap();
    let asked = [
        "--certificate-signer",
        "example.com/serving",
        "--certificate-authority",
        "/etc/outrigger-ca/ca.crt",
    ];
    assert!(arguments.ends_with(&asked.map(|argument| json!(argument))), "{arguments:?}");
    let mount = json!({"name": "ca", "mountPath": "/etc/outrigger-ca", "readOnly": true});
    assert_eq!(pod["containers"][0]["volumeMounts"][1], mount);
    assert_eq!(pod["volumes"][1], json!({"name": "ca", "configMap": {"name": "outrigger-canary-ca"}}));
    let may = |objects: &[Object]| {
        let rules = of_kind(objects, "ClusterRole")
            .into_iter()
            .flat_map(|role| role["rules"].as_array().unwrap().clone());
        rules
            .filter(|rule| rule["apiGroups"][0] == "certificates.k8s.io")
            .map(|rule| rule["verbs"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(may(&objects), [json!(["create", "get"])]);
    assert_eq!(may(&super::objects(&canary()).unwrap()), Vec::<Value>::new());
    for (signer, parts, why) in [
        ("serving", BTreeSet::new(), "has the form DOMAIN/NAME"),
        ("example/serving", BTreeSet::new(), "has the form DOMAIN/NAME"),
        ("kubernetes.io/kubelet-serving", BTreeSet::new(), "Kubernetes' own signers"),
        ("example.com/serving", all_parts(), "choose one of them"),
    ] {
        let options = Options { certificate_signer: Some(signer.to_owned()), parts, ..canary() };
        let message = super::objects(&options).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("--certificate-signer {signer}: ")) && message.contains(why),
            "{message}"
        );
    }
}

#[test]
fn the_repair_controller_restarts_nothing_unless_it_is_told_to() {
    let installed = |repair| {
        let options = Options { registry: Some("registry.example".to_owned()), repair, ..canary() };
        objects(&options).unwrap()
    };
    let verbs = |objects: &[Object]| {
        let roles = of_kind(objects, "ClusterRole").into_iter();
        let roles = roles.filter(|role| role["metadata"]["name"].as_str().unwrap().contains("repair"));
        let rules = roles.flat_map(|role| role["rules"].as_array().unwrap().clone());
        let verbs = rules.flat_map(|rule| rule["verbs"].as_array().unwrap().clone());
        verbs.map(|verb| verb.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let container = |objects: &[Object]| {
        let deployment = of_kind(objects, "Deployment")[1].clone();
        assert_eq!(deployment["metadata"]["name"], "outrigger-canary-repair");
        // The webhook's Service must not lead to it.
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_ne!(
            labels["app.kubernetes.io/name"],
            of_kind(objects, "Service")[0]["spec"]["selector"]["app.kubernetes.io/name"]
        );
        assert_eq!(deployment["spec"]["replicas"], 1);
        deployment["spec"]["template"]["spec"]["containers"][0].clone()
    };
    assert_eq!(of_kind(&installed(None), "Deployment").len(), 1);
    let (report, restart) = (installed(Some(Repair::Report)), installed(Some(Repair::Restart)));
    let arguments = json!(["repair", "--namespace", "mesh", "--revision", "canary", "--every", "300"]);
    assert_eq!(container(&report)["args"], arguments);
    let image = format!("registry.example/outrigger:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(&report)["image"], json!(image));
    assert_eq!(verbs(&report), BTreeSet::from(["get", "list"].map(str::to_owned)));
    assert_eq!(container(&restart)["args"].as_array().unwrap().last(), Some(&json!("--restart")));
    assert_eq!(verbs(&restart), BTreeSet::from(["get", "list", "patch"].map(str::to_owned)));
}

#[test]
fn the_cni_plugin_is_one_for_all_revisions_and_the_settings_leave_capture_to_it() {
    let options = Options { cni: true, registry: Some("registry.example".to_owned()), ..canary() };
    let installed = objects(&options).unwrap();
    let plugin = of_kind(&installed, "DaemonSet")[0];
    assert_eq!(
        (&plugin["metadata"]["name"], &plugin["metadata"]["namespace"]),
        (&json!("outrigger-cni"), &json!("outrigger-cni"))
    );
    let image = format!("registry.example/outrigger-init:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(plugin["spec"]["template"]["spec"]["containers"][0]["image"], json!(image));
    // Before the settings that leave capture to it.
    let place = |kind: &str| installed.iter().position(|object| object.kind() == kind).unwrap();
    assert!(place("DaemonSet") < place("ConfigMap"));
    let settings = of_kind(&installed, "ConfigMap")[0]["data"]["config.yaml"].as_str().unwrap();
    assert!(Settings::parse(settings, "settings").unwrap().captures_by_cni(), "{settings}");
    let given = |text: &str| objects(&Options { settings: Some(text.to_owned()), ..options.clone() });
    let head = "revision: canary\ninstallationNamespace: mesh\n";
    let message = given(head).unwrap_err().to_string();
    assert!(message.starts_with("--config: does not capture by the CNI plugin"), "{message}");
    given(&format!("{head}values: {{pilot: {{cni: {{enabled: true}}}}}}\n")).unwrap();
    // Another installation may need it: it stays when this one goes.
    let removed = removal(&Names::new("canary", "mesh").unwrap()).unwrap();
    assert!(!removed.iter().any(|object| object.kind() == "DaemonSet"));
}

#[test]
fn the_settings_do_with_the_oldest_kubelet() {
    let installed = |oldest: Option<&str>, settings: Option<&str>| {
        let options = Options {
            oldest_kubelet: oldest.map(|oldest| oldest.parse().unwrap()),
            settings: settings.map(str::to_owned),
            ..Options::default()
        };
        let objects = objects(&options)?;
        let text = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().unwrap().to_owned();
        let settings = Settings::parse(&text, "settings").unwrap();
        Ok::<_, Error>((
            settings.kubernetes_version.to_string(),
            settings.native_sidecars_since(NATIVE_SIDECARS_SINCE),
        ))
    };
    assert_eq!(installed(None, None), Ok(("1.34".to_owned(), true)));
    assert_eq!(installed(Some("1.36"), None), Ok(("1.34".to_owned(), true)));
    assert_eq!(installed(Some("1.30"), None), Ok(("1.30".to_owned(), true)));
    assert_eq!(installed(Some("1.28"), None), Ok(("1.28".to_owned(), false)));
    assert_eq!(installed(Some("1.28"), Some("kubernetesVersion: \"1.27\"")), Ok(("1.27".to_owned(), false)));
    let refused = installed(Some("1.28"), Some("policy: disabled")).unwrap_err().to_string();
    assert!(refused.contains("write `kubernetesVersion: \"1.28\"` into the settings"), "{refused}");
}
