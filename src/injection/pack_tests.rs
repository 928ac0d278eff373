//! What the packs do with what a pod and its operator ask for.

use serde_json::{Value, json};

use super::tests::{injected, injector, names, web};
use super::{Error, Request};

fn annotated(annotations: Value) -> Value {
    let mut pod = web();
    pod["metadata"]["annotations"] = annotations;
    pod
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists =
        ["containers", "initContainers"].into_iter().flat_map(|list| pod["spec"][list].as_array()).flatten();
    lists.into_iter().find(|c| c["name"] == name).unwrap_or(&Value::Null)
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    container["env"].as_array()?.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

fn argument<'a>(container: &'a Value, flag: &str) -> &'a str {
    let args = container["args"].as_array().unwrap();
    args[args.iter().position(|arg| arg == flag).unwrap() + 1].as_str().unwrap()
}

#[test]
fn an_annotation_changes_the_resource_that_it_names_and_no_other() {
    let pod = annotated(json!({"sidecar.istio.io/proxyCPU": "500m"}));
    let ours = injected(&injector(""), &pod);
    let want =
        json!({"requests": {"cpu": "500m", "memory": "24Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}});
    assert_eq!(container(&ours, "istio-proxy")["resources"], want);
    let istios = injected(&injector("pack: istio"), &pod);
    assert_eq!(container(&istios, "istio-proxy")["resources"], json!({"requests": {"cpu": "500m"}}));
}

#[test]
fn a_default_gives_way_to_an_annotation_that_contradicts_it() {
    let resources = |annotations: Value| {
        container(&injected(&injector(""), &annotated(annotations)), "istio-proxy")["resources"].clone()
    };
    let more =
        resources(json!({"sidecar.istio.io/proxyCPU": "3", "sidecar.istio.io/proxyMemoryLimit": "16Mi"}));
    let want = json!({"requests": {"cpu": "3", "memory": "16Mi"}, "limits": {"cpu": "3", "memory": "16Mi"}});
    assert_eq!(more, want);
}

#[test]
fn transparent_interception_needs_root_and_keeps_the_group() {
    let pod = injected(&injector(""), &annotated(json!({"sidecar.istio.io/interceptionMode": "TPROXY"})));
    assert_eq!(argument(container(&pod, "istio-init"), "-m"), "TPROXY");
    let context = &container(&pod, "istio-proxy")["securityContext"];
    assert_eq!(context["capabilities"], json!({"add": ["NET_ADMIN"], "drop": ["ALL"]}));
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(0), &json!(1337)));
    let pod = injected(&injector(""), &annotated(json!({"sidecar.istio.io/interceptionMode": "NONE"})));
    assert_eq!(container(&pod, "istio-init"), &Value::Null);
}

#[test]
fn both_programs_are_told_of_dns_capture() {
    let settings = "meshConfig: {defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}}";
    let pod = injected(&injector(settings), &web());
    for name in ["istio-init", "istio-proxy"] {
        assert_eq!(variable(container(&pod, name), "ISTIO_META_DNS_CAPTURE"), Some("true"), "{name}");
    }
}

#[test]
fn probes_of_every_kind_are_turned_to_the_agent() {
    let mut pod = web();
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTPS"}, "timeoutSeconds": 3});
    pod["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 7});
    pod["spec"]["containers"][0]["startupProbe"] = json!({"grpc": {"port": 9000}});
    pod["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"httpGet": {"path": "/bye", "port": 8080}}});
    pod["spec"]["containers"][1]["readinessProbe"] = json!({"exec": {"command": ["true"]}});
    let pod = injected(&injector(""), &pod);
    let web = container(&pod, "web");
    let turned = |path: &str| json!({"path": path, "port": 15020});
    let mut ready = turned("/app-health/web/readyz");
    ready["scheme"] = json!("HTTP");
    assert_eq!(web["readinessProbe"], json!({"httpGet": ready, "timeoutSeconds": 3}));
    assert_eq!(web["livenessProbe"], json!({"httpGet": turned("/app-health/web/livez"), "periodSeconds": 7}));
    assert_eq!(web["startupProbe"], json!({"httpGet": turned("/app-health/web/startupz")}));
    assert_eq!(web["lifecycle"]["preStop"], json!({"httpGet": turned("/app-lifecycle/web/prestopz")}));
    assert_eq!(container(&pod, "log")["readinessProbe"], json!({"exec": {"command": ["true"]}}));
    let told: Value =
        serde_json::from_str(variable(container(&pod, "istio-proxy"), "ISTIO_KUBE_APP_PROBERS").unwrap())
            .unwrap();
    let want = json!({
        "/app-health/web/readyz": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 3},
        "/app-health/web/livez": {"tcpSocket": {"port": 8080}},
        "/app-health/web/startupz": {"grpc": {"port": 9000, "service": null}},
        "/app-lifecycle/web/prestopz": {"httpGet": {"path": "/bye", "port": 8080}},
    });
    assert_eq!(told, want);
}

#[test]
fn what_is_injected_has_no_right_that_it_does_not_need() {
    let pod = injected(&injector(""), &web());
    for (name, user, capabilities) in [
        ("istio-init", 0, json!({"add": ["NET_ADMIN"], "drop": ["ALL"]})),
        ("istio-proxy", 1337, json!({"drop": ["ALL"]})),
    ] {
        let container = container(&pod, name);
        let context = &container["securityContext"];
        assert_eq!(context["capabilities"], capabilities, "{name}");
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(user), &json!(user)), "{name}");
        assert_eq!(context["runAsNonRoot"], user != 0, "{name}");
        for (field, value) in
            [("allowPrivilegeEscalation", false), ("privileged", false), ("readOnlyRootFilesystem", true)]
        {
            assert_eq!(context[field], value, "{name}: {field}");
        }
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}), "{name}");
        assert_eq!(container["volumeMounts"], Value::Null, "{name}");
    }
    let before = web();
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes", "serviceAccountName"] {
        assert_eq!(pod["spec"][field], before["spec"][field], "{field}");
    }
}

/// The API server says what is wrong with it, where the sidecar would not start.
#[test]
fn a_probe_that_no_api_server_takes_stays_as_it_is() {
    for probe in [
        json!({"grpc": {"service": "s"}}),
        json!({"grpc": {"port": "http"}}),
        json!({"tcpSocket": {"port": 70000}}),
        json!({"httpGet": {"port": 0}}),
        json!({"httpGet": {"port": 80, "path": 5}}),
        json!({"httpGet": {"port": 80}, "timeoutSeconds": -1}),
        json!({"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}),
    ] {
        let mut pod = web();
        pod["spec"]["containers"][0]["livenessProbe"] = probe.clone();
        let pod = injected(&injector(""), &pod);
        assert_eq!(container(&pod, "web")["livenessProbe"], probe);
        assert_eq!(variable(container(&pod, "istio-proxy"), "ISTIO_KUBE_APP_PROBERS"), None);
    }
}

#[test]
fn an_application_that_runs_as_the_sidecars_user_is_refused() {
    let mut pod = web();
    pod["spec"]["securityContext"] = json!({"runAsUser": 1337});
    let Err(Error::Refused(message)) = injector("").inject(&pod, &Request::default()) else {
        panic!("not refused")
    };
    assert!(
        message.starts_with("pod web: container \"web\" runs as user 1337, which is the sidecar's"),
        "{message}"
    );
    // The way out that the message names: the init container learns of it.
    let own = json!({"name": "istio-proxy", "image": "auto", "securityContext": {"runAsUser": 2000}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(own);
    let pod = injected(&injector(""), &pod);
    assert_eq!(container(&pod, "istio-proxy")["securityContext"]["runAsUser"], 2000);
    assert_eq!(argument(container(&pod, "istio-init"), "-u"), "2000");
}

#[test]
fn a_volume_is_safe_to_evict_where_it_was_added() {
    let key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    let pod = injected(&injector(""), &web());
    assert_eq!(pod["metadata"]["annotations"][key], Value::Null);
    assert_eq!(pod["spec"]["volumes"], Value::Null);
    let annotations = json!({key: "cache",
        "sidecar.istio.io/userVolume": r#"{"tmp": {"emptyDir": {}}, "ca": {"secret": {"secretName": "ca"}}}"#,
        "sidecar.istio.io/userVolumeMount": r#"{"tmp": {"mountPath": "/tmp"}}"#});
    let pod = injected(&injector(""), &annotated(annotations));
    assert_eq!(pod["metadata"]["annotations"][key], "cache,tmp");
    assert_eq!(container(&pod, "istio-proxy")["volumeMounts"], json!([{"name": "tmp", "mountPath": "/tmp"}]));
    let bad = annotated(json!({"sidecar.istio.io/userVolume": "[1]"}));
    let error = injector("").inject(&bad, &Request::default()).unwrap_err().to_string();
    assert!(
        error.contains(
            "invalid value for annotation 'sidecar.istio.io/userVolume': \"0\" must be a JSON object"
        ),
        "{error}"
    );
}

#[test]
fn openshifts_namespace_gives_the_user() {
    let namespace = json!({"annotations": {"openshift.io/sa.scc.uid-range": "1000620000/10000"}});
    let mut pod = web();
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1000620000});
    let own = json!({"name": "istio-proxy", "image": "auto", "securityContext": {"runAsUser": 1000620000, "runAsGroup": 5}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(own);
    let request = Request { namespace_metadata: Some(&namespace), ..Request::default() };
    let injector = injector("platform: openshift");
    let injected = injector.inject(&pod, &request).unwrap().pod.unwrap();
    let context = &container(&injected, "istio-proxy")["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(1000629999), &json!(1000629999)));
    assert_eq!(argument(container(&injected, "istio-init"), "-u"), "1000629999");
    assert_eq!(injector.inject(&injected, &request).unwrap().pod, None);
}

#[test]
fn a_pods_own_sidecar_container_wins_now_and_again() {
    let mut pod = web();
    let own = json!({"name": "istio-proxy", "image": "auto", "args": ["proxy", "mine"], "env": [{"name": "MINE", "value": "1"}],
        "resources": {"requests": {"cpu": "7m"}}});
    pod["spec"]["containers"].as_array_mut().unwrap().insert(0, own);
    for settings in ["pack: istio", "pack: istio\nnativeSidecars: false", ""] {
        let pod = injected(&injector(settings), &pod);
        let proxy = container(&pod, "istio-proxy");
        assert_eq!(proxy["args"], json!(["proxy", "mine"]));
        assert_eq!(proxy["resources"]["requests"]["cpu"], "7m");
        assert_eq!(variable(proxy, "MINE"), Some("1"));
        assert!(proxy["image"].as_str().unwrap().contains("proxy"));
        let kept = pod["metadata"]["annotations"]["proxy.istio.io/overrides"].as_str().unwrap();
        assert!(kept.contains(r#""args":["proxy","mine"]"#) && !kept.contains("auto"), "{kept}");
    }
}

#[test]
fn path_values_and_label_say_which_cluster_and_network() {
    let settings = "values: {global: {network: of-values, multiCluster: {clusterName: of-values}}}";
    let environment =
        [("ISTIO_META_CLUSTER_ID".to_owned(), "of-path".to_owned()), ("FOO".to_owned(), "bar".to_owned())];
    let request = Request { environment: &environment, ..Request::default() };
    let inject = |pod: &Value| injector(settings).inject(pod, &request).unwrap().pod.unwrap();
    let pod = inject(&web());
    let proxy = container(&pod, "istio-proxy");
    let seen =
        ["ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK", "FOO"].map(|name| variable(proxy, name).unwrap());
    assert_eq!(seen, ["of-path", "of-values", "bar"]);
    assert_eq!(pod["metadata"]["labels"]["topology.istio.io/network"], "of-values");
    let mut pod = web();
    pod["metadata"]["labels"]["topology.istio.io/network"] = json!("of-label");
    assert_eq!(variable(container(&inject(&pod), "istio-proxy"), "ISTIO_META_NETWORK"), Some("of-label"));
}

#[test]
fn another_template_adds_to_the_sidecar_wherever_it_stands() {
    let settings = "pack: istio\ndefaultTemplates: [sidecar, more]\ntemplates:\n  more: |\n    spec: {containers: [{name: istio-proxy, tty: true}]}\n";
    for native in [true, false] {
        let pod = injected(&injector(&format!("{settings}nativeSidecars: {native}\n")), &web());
        assert_eq!(container(&pod, "istio-proxy")["tty"], true);
        assert_eq!(names(&pod, "containers").contains(&"istio-proxy"), !native);
    }
}

#[test]
fn a_sidecar_that_is_not_held_comes_last() {
    let at = |settings: &str, pod: &Value| {
        names(&injected(&injector(settings), pod), "containers").iter().position(|n| *n == "istio-proxy")
    };
    let istio = "pack: istio\nnativeSidecars: false\n";
    assert_eq!(at(istio, &web()), Some(2));
    assert_eq!(
        at(
            &format!("{istio}values: {{global: {{proxy: {{holdApplicationUntilProxyStarts: true}}}}}}"),
            &web()
        ),
        Some(0)
    );
    assert_eq!(
        at(istio, &annotated(json!({"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"}))),
        Some(0)
    );
    assert_eq!(at("nativeSidecars: false", &web()), Some(0));
}

#[test]
fn the_nodes_linkerd_is_reached_by_capture_or_by_environment() {
    let pod = injected(&injector("pack: linkerd-daemonset"), &web());
    let want = json!({"name": "init-linkerd", "image": "linkerd/istio-init:v1", "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "args": ["-p", "4140", "-s", "L5D", "-m", "false"], "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}});
    assert_eq!(container(&pod, "init-linkerd"), &want);
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["alpha.istio.io/linkerd-daemonset"], "injected");
    assert_eq!(annotations["prometheus.io/port"], Value::Null);
    let settings = "pack: linkerd-daemonset\ndefaultTemplates: [http-proxy]\nvalues: {useServiceVip: true}";
    let pod = injected(&injector(settings), &web());
    assert_eq!(variable(container(&pod, "log"), "http_proxy"), Some("$(L5D_SERVICE_HOST):4140"));
}

/// Each place where the agent's port stands in an injected pod: what the sidecar is told, the drain hook, the
/// application's probe, Prometheus, and what capture leaves alone.
fn agent_ports(settings: &str, annotations: Value) -> [String; 5] {
    let mut pod = annotated(annotations);
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 80}});
    let pod = injected(&injector(settings), &pod);
    let proxy = container(&pod, "istio-proxy");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let after = |list: &Value, flag: &str| {
        let found = list.as_array().into_iter().flatten().find_map(|arg| arg.as_str()?.strip_prefix(flag));
        found.unwrap_or_default().to_owned()
    };
    [
        after(&proxy["args"], "--statusPort="),
        after(&proxy["lifecycle"]["preStop"]["exec"]["command"], "--debug-port="),
        container(&pod, "web")["readinessProbe"]["httpGet"]["port"].to_string(),
        text(&pod["metadata"]["annotations"]["prometheus.io/port"]),
        argument(container(&pod, "istio-init"), "-d").to_owned(),
    ]
}

#[test]
fn the_sidecar_listens_where_everybody_is_sent() {
    let everywhere = |port: &str| [port, port, port, port, &format!("15090,15021,{port}")].map(str::to_owned);
    let annotation = |port: &str| json!({"status.sidecar.istio.io/port": port});
    let config = || json!({"proxy.istio.io/config": "statusPort: 15055"});
    let value = "values: {global: {proxy: {statusPort: 15066}}}";
    let mesh = "meshConfig: {defaultConfig: {statusPort: 15077}}";
    assert_eq!(agent_ports("", json!({})), everywhere("15020"));
    assert_eq!(agent_ports("", annotation("15044")), everywhere("15044"));
    assert_eq!(agent_ports("", config()), everywhere("15055"));
    assert_eq!(agent_ports(value, json!({})), everywhere("15066"));
    assert_eq!(agent_ports(mesh, json!({})), everywhere("15077"));
    // The nearest to the pod wins.
    assert_eq!(agent_ports(mesh, config()), everywhere("15055"));
    assert_eq!(agent_ports(&format!("{value}\n{mesh}"), json!({})), everywhere("15077"));
    let mut both = config();
    both["status.sidecar.istio.io/port"] = json!("15044");
    assert_eq!(agent_ports(mesh, both), everywhere("15044"));
    // The value 0 takes the hook and the sidecar's own probes away; the application's go where the mesh says.
    let none = agent_ports("values: {global: {proxy: {statusPort: 0}}}", json!({}));
    assert_eq!(none, ["", "", "15020", "15020", "15090,15021"]);
    // Istio's sidecar is not told, and Prometheus is sent to the mesh's port, as with Istio.
    let istios = agent_ports("pack: istio", annotation("15044"));
    assert_eq!(istios, ["", "15044", "15044", "15020", "15090,15021,15044"]);
}

#[test]
fn a_status_port_that_the_sidecar_has_for_something_else_is_refused() {
    for (settings, annotations, message) in [
        (
            "",
            json!({"status.sidecar.istio.io/port": "15000"}),
            "the sidecar has --statusPort=15000: proxyAdminPort and statusPort are both 15000: give each its own",
        ),
        (
            "values: {global: {proxy: {statusPort: 15021}}}",
            json!({}),
            "the sidecar has --statusPort=15021: statusPort is 15021, the sidecar's port for readiness: choose another",
        ),
    ] {
        match injector(settings).inject(&annotated(annotations), &Request::default()) {
            Err(Error::Refused(got)) => assert!(got.ends_with(message), "{got}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn with_a_cni_plugin_no_container_needs_a_capability() {
    let settings = injector(
        "values: {pilot: {cni: {enabled: true}}}\n\
                             meshConfig: {defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}}",
    );
    let annotations = json!({
        "traffic.sidecar.istio.io/excludeOutboundPorts": "25,26",
        // What its author writes there does not count.
        "outrigger.dev/capture": "{}"
    });
    let pod = injected(&settings, &annotated(annotations));
    assert_eq!(names(&pod, "initContainers"), ["istio-validation", "istio-proxy", "migrate"]);
    let check = container(&pod, "istio-validation");
    let args = check["args"].as_array().unwrap();
    assert!(args.ends_with(&[json!("--skip-rule-apply"), json!("--run-validation")]), "{args:?}");
    let told: Value =
        serde_json::from_str(pod["metadata"]["annotations"]["outrigger.dev/capture"].as_str().unwrap())
            .unwrap();
    assert_eq!(told, json!({"args": args, "env": {"ISTIO_META_DNS_CAPTURE": "true"}}));
    assert_eq!(argument(check, "-o"), "25,26");
    // Pod Security `restricted`.
    for name in ["istio-validation", "istio-proxy"] {
        let context = &container(&pod, name)["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&json!(true), &json!(1337)), "{name}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    }
}

#[test]
fn the_plugin_is_told_of_the_sidecars_own_user() {
    let mut pod = web();
    let own = json!({"name": "istio-proxy", "image": "auto", "securityContext": {"runAsUser": 2000}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(own);
    let pod = injected(&injector("values: {pilot: {cni: {enabled: true}}}"), &pod);
    let check = container(&pod, "istio-validation");
    assert_eq!((argument(check, "-u"), &check["securityContext"]["runAsUser"]), ("2000", &json!(2000)));
    let told = pod["metadata"]["annotations"]["outrigger.dev/capture"].as_str().unwrap();
    assert!(told.contains(r#""-u","2000""#), "{told}");
}

#[test]
fn nothing_is_told_to_a_plugin_where_there_is_none() {
    let key = "outrigger.dev/capture";
    assert_eq!(injected(&injector(""), &web())["metadata"]["annotations"][key], Value::Null);
    // Istio's own plugin reads Istio's annotations.
    let istios = injected(&injector("pack: istio\nvalues: {pilot: {cni: {enabled: true}}}"), &web());
    assert_eq!(istios["metadata"]["annotations"][key], Value::Null);
    let none = annotated(json!({"sidecar.istio.io/interceptionMode": "NONE"}));
    let none = injected(&injector("values: {pilot: {cni: {enabled: true}}}"), &none);
    assert_eq!(none["metadata"]["annotations"][key], Value::Null);
    assert_eq!(names(&none, "initContainers"), ["istio-proxy", "migrate"]);
}
