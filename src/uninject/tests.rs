use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::undo::{apply, record};
use super::*;
use crate::injection::{Injector, Request};
use crate::settings::Settings;

fn comes_back(before: &Value, after: &Value) -> Value {
    let record = record(before, after);
    let mut undone = after.clone();
    apply(&mut undone, &record);
    assert_eq!(undone, *before, "{record}");
    record
}

#[test]
fn a_record_is_short_and_names_what_was_added() {
    let before = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "env": [{"name": "A"}]}]}});
    let after = json!({
        "metadata": {"labels": {"app": "web", "x": "y"}, "annotations": {"a": "b"}},
        "spec": {
            "initContainers": [{"name": "init", "args": ["-x"]}],
            "containers": [{"name": "proxy"}, {"name": "app", "env": [{"name": "A"}, {"name": "B"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    });
    assert_eq!(
        comes_back(&before, &after),
        json!({
            "metadata": {"labels": {"x": null}, "annotations": {"a": null, "": null}},
            "spec": {
                "initContainers": {"init": null, "": null},
                "containers": {"proxy": null, "app": {"env": {"B": null}}},
                "volumes": {"data": null, "": null},
            },
        })
    );
}

#[test]
fn what_was_replaced_moved_or_taken_away_comes_back() {
    let before = json!({"spec": {"a": 1, "gone": [1], "containers": [{"name": "p", "x": 1}, {"name": "q"}, {"name": "r"}]}});
    let after = json!({"spec": {"a": {"b": 2}, "containers": [{"name": "r"}, {"name": "q"}], "initContainers": [{"name": "p"}]}});
    let record = comes_back(&before, &after);
    assert_eq!(record["spec"]["a"], json!({"=": 1}));
    assert_eq!(
        record["spec"]["containers"],
        json!({"p": {"=": {"name": "p", "x": 1}}, "#": ["p", "q", "r"]})
    );
}

#[test]
fn what_others_did_in_between_stays() {
    let before = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
    let after = json!({"metadata": {"labels": {"ours": "1"}}, "spec": {
        "containers": [{"name": "app"}, {"name": "proxy"}], "volumes": [{"name": "ours"}]}});
    let record = record(&before, &after);
    let mut changed = json!({"metadata": {"labels": {"theirs": "2", "ours": "changed"}}, "spec": {
        "containers": [{"name": "other"}, {"name": "proxy", "defaulted": true}, {"name": "app", "imagePullPolicy": "Always"}],
        "volumes": [{"name": "token"}, {"name": "ours"}], "nodeName": "n"}});
    apply(&mut changed, &record);
    assert_eq!(
        changed,
        json!({"metadata": {"labels": {"theirs": "2"}}, "spec": {
            "containers": [{"name": "other"}, {"name": "app", "imagePullPolicy": "Always"}],
            "volumes": [{"name": "token"}], "nodeName": "n"}})
    );
    let mut odd = json!({"metadata": 1, "spec": {"containers": {}}});
    apply(&mut odd, &record);
    assert_eq!(odd, json!({"metadata": 1, "spec": {"containers": {}}}));
}

#[test]
fn names_of_the_record_itself_are_no_trap() {
    for name in ["", "=", "#"] {
        comes_back(
            &json!({"metadata": {"labels": {"a": "b"}}}),
            &json!({"metadata": {"labels": {"a": "b", name: "c"}}}),
        );
        comes_back(&json!({"metadata": {}}), &json!({"metadata": {"labels": {name: "c"}}}));
        comes_back(&json!({"spec": {}}), &json!({"spec": {"volumes": [{"name": name}]}}));
    }
    comes_back(
        &json!({"spec": {"volumes": []}}),
        &json!({"spec": {"volumes": [{"name": "a"}, {"name": "a"}]}}),
    );
    comes_back(&json!({"spec": {"volumes": [{"x": 1}]}}), &json!({"spec": {"volumes": [{"name": "a"}]}}));
}

#[test]
fn a_pod_that_istio_injected_is_taken_back_from_its_traces() {
    let before = json!({
        "metadata": {
            "labels": {"app": "web", "version": "v1"},
            "annotations": {"prometheus.io/port": "9090", "prometheus.io/scrape": "true", "mine": "stays"},
        },
        "spec": {
            "containers": [{
                "name": "app",
                "livenessProbe": {"httpGet": {"path": "/live", "port": 80}, "periodSeconds": 5},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "lifecycle": {"preStop": {"httpGet": {"path": "/stop", "port": 80}}},
            }],
            "volumes": [{"name": "data"}],
        },
    });
    let probers = json!({
        "/app-health/app/livez": {"httpGet": {"path": "/live", "port": 80}, "timeoutSeconds": 1},
        "/app-health/app/readyz": {"tcpSocket": {"port": 80}},
        "/app-lifecycle/app/prestopz": {"httpGet": {"path": "/stop", "port": 80}},
    });
    let status = json!({"initContainers": ["istio-init", "istio-proxy"], "containers": null,
        "volumes": ["istio-envoy"], "imagePullSecrets": ["pull"], "revision": "default"});
    let turned = |path: &str| json!({"path": path, "port": 15020});
    let after = json!({
        "metadata": {
            "labels": {"app": "web", "version": "v1", "security.istio.io/tlsMode": "istio",
                "service.istio.io/canonical-name": "web", "service.istio.io/canonical-revision": "v1"},
            "annotations": {"mine": "stays", "istio.io/rev": "default", "prometheus.io/port": "15020",
                "prometheus.io/path": "/stats/prometheus", "prometheus.io/scrape": "true",
                "kubectl.kubernetes.io/default-container": "app",
                "kubectl.kubernetes.io/default-logs-container": "app", STATUS_ANNOTATION: status.to_string()},
        },
        "spec": {
            "initContainers": [{"name": "istio-init"}, {"name": "istio-proxy", "env": [
                {"name": "ISTIO_PROMETHEUS_ANNOTATIONS", "value": "{\"scrape\":\"true\",\"path\":\"\",\"port\":\"9090\"}"},
                {"name": "ISTIO_KUBE_APP_PROBERS", "value": probers.to_string()}]}],
            "containers": [{
                "name": "app",
                "livenessProbe": {"httpGet": turned("/app-health/app/livez"), "periodSeconds": 5},
                "readinessProbe": {"httpGet": turned("/app-health/app/readyz")},
                "lifecycle": {"preStop": {"httpGet": turned("/app-lifecycle/app/prestopz")}},
            }],
            "volumes": [{"name": "istio-envoy"}, {"name": "data"}],
            "imagePullSecrets": [{"name": "pull"}],
        },
    });
    assert_eq!(uninject(&after), Some(before.clone()));
    assert_eq!(uninject(&before), None);
}

/// An API server fills `scheme: HTTP` into a probe that was turned; a probe without a port, which nobody takes, was left.
#[test]
fn a_turned_probe_that_an_api_server_has_filled_in_comes_back() {
    for pack in ["outrigger", "istio"] {
        let injector = Injector::new(Settings::parse(&format!("pack: {pack}"), "test").unwrap()).unwrap();
        for handler in [json!({"tcpSocket": {"port": 80}}), json!({"grpc": {"port": 80}})] {
            let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1", "readinessProbe": handler}]}});
            let mut injected = injector.inject(&pod, &Request::default()).unwrap().pod.unwrap();
            let turned = &mut injected["spec"]["containers"].as_array_mut().unwrap();
            let web = turned.iter_mut().find(|container| container["name"] == "web").unwrap();
            assert_eq!(web["readinessProbe"]["httpGet"]["path"], "/app-health/web/readyz");
            web["readinessProbe"]["httpGet"]["scheme"] = json!("HTTP");
            assert_eq!(uninject(&injected), Some(pod), "{pack}");
        }
    }
}

#[test]
fn overrides_give_the_users_containers_back() {
    let own = json!({"name": "istio-proxy", "image": "mine"});
    let status = json!({"initContainers": null, "containers": ["istio-proxy"]});
    let after = json!({
        "metadata": {"annotations": {
            STATUS_ANNOTATION: status.to_string(),
            "proxy.istio.io/overrides": json!({"containers": [own]}).to_string(),
        }},
        "spec": {"containers": [{"name": "istio-proxy", "image": "mine", "args": ["x"]}, {"name": "app"}]},
    });
    assert_eq!(uninject(&after), Some(json!({"spec": {"containers": [{"name": "app"}, own]}})));
}

#[test]
fn the_status_of_the_oldest_istio_is_understood() {
    let after = json!({
        "metadata": {"annotations": {STATUS_ANNOTATION: "injected-version-root@host-0.2.6-081ffece"}, "labels": {"app": "sleep"}},
        "spec": {"containers": [{"name": "sleep"}, {"name": "istio-proxy"}], "initContainers": [{"name": "istio-init"}]},
    });
    let before =
        json!({"metadata": {"labels": {"app": "sleep"}}, "spec": {"containers": [{"name": "sleep"}]}});
    assert_eq!(uninject(&after), Some(before));
}

/// Pods and what could become of them: few names, so that they meet.
fn pod() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(1)),
        Just(json!("x")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([1, "x"]))
    ];
    let names = || prop::sample::select(vec!["a", "b", "c", "", "=", "#", "env", "name"]);
    let value = leaf.prop_recursive(2, 8, 3, move |inner| {
        prop::collection::vec((names(), inner), 0..3)
            .prop_map(|f| Value::Object(f.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()))
    });
    let item = (prop::sample::select(vec!["a", "b", "c", "d", ""]), prop::option::of(value.clone()))
        .prop_map(|(name, env)| {
            env.map_or_else(|| json!({"name": name}), |env| json!({"name": name, "env": env, "x": env}))
        });
    let list = prop::option::of(prop::collection::vec(item, 0..4));
    let map = prop::option::of(value);
    (map.clone(), map.clone(), list.clone(), list.clone(), list, map).prop_map(|(labels, annotations, init, containers, volumes, other)| {
        let some = |fields: Vec<(&str, Option<Value>)>| -> Value {
            Value::Object(fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect())
        };
        let list = |items: Option<Vec<Value>>| items.map(Value::from);
        json!({
            "metadata": some(vec![("labels", labels), ("annotations", annotations)]),
            "spec": some(vec![("initContainers", list(init)), ("containers", list(containers)), ("volumes", list(volumes)), ("other", other)]),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_record_leads_back_from_anything_to_anything(before in pod(), after in pod()) {
        comes_back(&before, &after);
    }

    #[test]
    fn taking_back_any_pod_does_not_panic(mut pod in pod(), status in "[a-z{}\":,\\[\\]]{0,20}") {
        if let Some(annotations) = pod["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.insert(STATUS_ANNOTATION.to_owned(), status.into());
        }
        let _ = uninject(&pod);
    }
}

/// Pods that an API server would take, with everything that injection looks at.
fn valid_pod() -> impl Strategy<Value = Value> {
    let label = prop::sample::select(vec![
        ("app", "web"),
        ("version", "v1"),
        ("app.kubernetes.io/name", "shop"),
        ("security.istio.io/tlsMode", "istio"),
        ("service.istio.io/canonical-name", "web"),
        ("service.istio.io/canonical-revision", "latest"),
        ("x", "y"),
    ]);
    let annotation = prop::sample::select(vec![
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", "9090"),
        ("prometheus.io/path", "/m"),
        ("kubectl.kubernetes.io/default-container", "app"),
        ("kubectl.kubernetes.io/default-logs-container", "other"),
        ("istio.io/rev", "default"),
        ("sidecar.istio.io/proxyCPU", "100m"),
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "81"),
        ("mine", "1"),
    ]);
    let map = |pairs: Vec<(&str, &str)>| -> Value {
        pairs.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect::<Map<_, _>>().into()
    };
    let probe = prop::option::of(prop::sample::select(vec![
        json!({"httpGet": {"path": "/live", "port": 80}, "periodSeconds": 3}),
        json!({"httpGet": {"port": "http", "scheme": "HTTPS"}}),
        json!({"tcpSocket": {"port": 80}}),
        json!({"grpc": {"port": 80}}),
        json!({"exec": {"command": ["true"]}}),
    ]));
    let container = (prop::sample::select(vec!["app", "other", "web", "istio-proxy", "istio-init"]), probe.clone(), probe)
        .prop_map(|(name, live, ready)| {
            let mut c = json!({"name": name, "image": "app:1", "ports": [{"containerPort": 80, "name": "http"}],
                "env": [{"name": "A", "value": "b"}], "future": {"field": [1]}});
            let fields = c.as_object_mut().unwrap();
            fields.extend(live.map(|p| ("livenessProbe".to_owned(), p)));
            fields.extend(ready.map(|p| ("readinessProbe".to_owned(), p)));
            c
        });
    let distinct = |mut items: Vec<Value>| {
        let mut names = Vec::new();
        items.retain(|item| {
            !names.contains(&item["name"]) && {
                names.push(item["name"].clone());
                true
            }
        });
        items
    };
    let option_map = move |pairs: BoxedStrategy<(&'static str, &'static str)>| {
        prop::option::of(prop::collection::vec(pairs, 0..5).prop_map(map))
    };
    let spec = prop::sample::select(vec![
        json!({}),
        json!({"volumes": [{"name": "data", "emptyDir": {}}]}),
        json!({"volumes": []}),
        json!({"imagePullSecrets": [{"name": "pull"}]}),
        json!({"securityContext": {"fsGroup": 7}}),
        json!({"initContainers": []}),
    ]);
    (
        prop::option::of((option_map(label.boxed()), option_map(annotation.boxed()))),
        prop::collection::vec(container.clone(), 1..4),
        prop::collection::vec(container, 0..3),
        spec,
    )
        .prop_map(move |(metadata, containers, init, spec)| {
            let mut spec = spec;
            spec["containers"] = distinct(containers.clone()).into();
            let names: Vec<_> = containers.iter().map(|c| c["name"].clone()).collect();
            let init: Vec<_> = distinct(init).into_iter().filter(|c| !names.contains(&c["name"])).collect();
            if !init.is_empty() {
                spec["initContainers"] = init.into();
            }
            let mut pod = json!({"spec": spec});
            if let Some((labels, annotations)) = metadata {
                pod["metadata"] = json!({"name": "p"});
                let fields = pod["metadata"].as_object_mut().unwrap();
                fields.extend(labels.map(|l| ("labels".to_owned(), l)));
                fields.extend(annotations.map(|a| ("annotations".to_owned(), a)));
            }
            pod
        })
}

proptest! {
    #[test]
    fn uninjecting_an_injected_pod_gives_it_back(pod in valid_pod(), with in 0..RECORDED.len()) {
        let injector = Injector::new(Settings::parse(RECORDED[with], "test").unwrap()).unwrap();
        let request = Request::default();
        // A pod that is refused is not injected; what may be refused is not the matter here.
        if let Ok(injection) = injector.inject(&pod, &request) {
            let injected = injection.pod.unwrap();
            prop_assert_eq!(uninject(&injected), Some(pod));
            prop_assert_eq!(injector.inject(&injected, &request).unwrap().pod, None);
        }
    }
}

/// Settings whose injections leave a record.
const RECORDED: [&str; 5] = [
    "",
    "nativeSidecars: false",
    "pack: linkerd-daemonset",
    "pack: linkerd-daemonset\ndefaultTemplates: [http-proxy]",
    "packs: [linkerd-daemonset]\ndefaultTemplates: [sidecar, linkerd-daemonset/sidecar]",
];

/// A pod as pack `istio` injects it, taken back.
fn taken_back(settings: &str, pod: Value) -> Value {
    let settings = format!("pack: istio\n{settings}");
    let injector = Injector::new(Settings::parse(&settings, "test").unwrap()).unwrap();
    uninject(&injector.inject(&pod, &Request::default()).unwrap().pod.unwrap()).unwrap()
}

#[test]
fn what_istio_leaves_a_trace_of_comes_back() {
    let probed = json!({"name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}],
        "readinessProbe": {"httpGet": {"path": "/x", "port": "http"}}, "livenessProbe": {"tcpSocket": {"port": 81}},
        "startupProbe": {"grpc": {"port": 82}}});
    let cni = "values: {pilot: {cni: {enabled: true, provider: multus}}}";
    let networks = "k8s.v1.cni.cncf.io/networks";
    for (settings, annotations, spec) in [
        ("", json!({}), json!({"containers": [probed]})),
        (cni, json!({}), json!({"containers": [{"name": "web", "image": "web:1"}]})),
        (cni, json!({networks: "a, b"}), json!({"containers": [{"name": "web", "image": "web:1"}]})),
        (
            cni,
            json!({networks: "[{\"name\": \"a\"}]"}),
            json!({"containers": [{"name": "web", "image": "web:1"}]}),
        ),
        (
            cni,
            json!({"traffic.sidecar.istio.io/excludeInboundPorts": "4,5"}),
            json!({"containers": [{"name": "web", "image": "web:1"}]}),
        ),
        (
            "defaultTemplates: [gateway]",
            json!({}),
            json!({"containers": [{"name": "istio-proxy", "image": "auto"}]}),
        ),
        (
            "aliases: {g: [grpc-agent]}\ndefaultTemplates: [g]",
            json!({}),
            json!({"containers": [{"name": "web", "image": "web:1"}]}),
        ),
        (
            "defaultTemplates: [grpc-simple]",
            json!({}),
            json!({"containers": [{"name": "web", "image": "web:1"}]}),
        ),
    ] {
        let mut pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec});
        if annotations != json!({}) {
            pod["metadata"]["annotations"] = annotations;
        }
        let back = taken_back(settings, pod.clone());
        assert_eq!(back, pod, "{settings}");
    }
}

/// How many of the recorded injections come back whole; `docs/inject.md` says which do not, and why.
#[test]
fn the_recorded_injections_come_back_as_far_as_istio_leaves_a_trace() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/injection");
    let Ok(files) = std::fs::read_dir(folder) else { return };
    let (mut all, mut whole) = (0, 0);
    for file in files {
        let case: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        if !case["expected"].is_object() || case["expected"] == case["input"] {
            continue;
        }
        all += 1;
        let back = uninject(&case["expected"]).unwrap();
        whole += usize::from(meaning(back) == meaning(case["input"].clone()));
    }
    println!("{whole} of {all} recorded injections come back whole");
    assert!(whole * 100 >= all * 70, "only {whole} of {all} come back whole");
}

/// A pod without what says nothing: empty lists and objects, the status, the namespace, the order of fields.
fn meaning(value: Value) -> Value {
    fn plain(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = fields.into_iter().map(|(key, value)| (key, plain(value)));
                let mut kept: Map<_, _> = kept
                    .filter(|(_, v)| !matches!(v, Value::Null) && *v != json!({}) && *v != json!([]))
                    .collect();
                kept.sort_keys();
                Value::Object(kept)
            }
            Value::Array(items) => items.into_iter().map(plain).collect(),
            other => other,
        }
    }
    let mut pod = plain(value);
    for field in ["apiVersion", "kind", "status"] {
        pod.as_object_mut().unwrap().shift_remove(field);
    }
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.shift_remove("namespace");
    }
    pod
}
