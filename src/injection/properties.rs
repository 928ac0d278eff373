//! What holds for every pod, on pods made up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{Injector, Request};
use crate::patch;
use crate::settings::Settings;

/// A key that no pod has: what stands under it must come through.
const UNKNOWN: &str = "zUnknown";

fn unknown() -> impl Strategy<Value = Value> {
    select(vec![json!(null), json!(1.5), json!("x"), json!({"a": [1, {"b": null}]}), json!([[], {}])])
}

fn probe() -> impl Strategy<Value = Value> {
    let kind = select(vec![
        json!({"httpGet": {"path": "/healthz", "port": 8080}}),
        json!({"httpGet": {"path": "/", "port": "http", "scheme": "HTTPS", "host": "h", "httpHeaders": [{"name": "A", "value": "b"}]}}),
        json!({"httpGet": {"path": "/agent", "port": 15020}}),
        json!({"httpGet": {"path": "/unknown", "port": "nowhere"}}),
        json!({"tcpSocket": {"port": 9000}}),
        json!({"grpc": {"port": 9000, "service": "s"}}),
        json!({"exec": {"command": ["true"]}}),
    ]);
    (kind, 0..3, unknown()).prop_map(|(mut probe, timeout, unknown)| {
        if timeout > 0 {
            probe["timeoutSeconds"] = json!(timeout);
        }
        probe[UNKNOWN] = unknown;
        probe
    })
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let fields = (
        prop::option::of(probe()),
        prop::option::of(probe()),
        prop::option::of(probe()),
        prop::option::of(select(vec![0, 5, 1000])),
        subsequence(vec![("http", 8080), ("dns", 53), ("dns-udp", 53)], 0..=3),
        subsequence(vec!["A", "POD_NAME", "ISTIO_META_CLUSTER_ID"], 0..=3),
        unknown(),
    );
    fields.prop_map(move |(readiness, liveness, hook, user, ports, env, unknown)| {
        let mut container = json!({"name": name, "image": "registry.example/app:1", UNKNOWN: unknown});
        for (field, probe) in [("readinessProbe", readiness), ("livenessProbe", liveness)] {
            if let Some(probe) = probe {
                container[field] = probe;
            }
        }
        if let Some(mut hook) = hook {
            hook.as_object_mut().unwrap().retain(|field, _| field != "grpc" && field != "timeoutSeconds");
            container["lifecycle"] = json!({"preStop": hook});
        }
        if let Some(user) = user {
            container["securityContext"] = json!({"runAsUser": user, UNKNOWN: user});
        }
        if !ports.is_empty() {
            let protocol = |name: &str| if name == "dns-udp" { "UDP" } else { "TCP" };
            let port = |(name, port): &(&str, i32)| json!({"name": name, "containerPort": port, "protocol": protocol(name)});
            container["ports"] = ports.iter().map(port).collect();
        }
        if !env.is_empty() {
            container["env"] = env.iter().map(|name| json!({"name": name, "value": "v"})).collect();
        }
        container
    })
}

fn annotations() -> impl Strategy<Value = Value> {
    let all = vec![
        ("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "cache"),
        ("istio.io/reroute-virtual-interfaces", "net1"),
        ("k8s.v1.cni.cncf.io/networks", "[{\"name\": \"a\"}]"),
        ("kubectl.kubernetes.io/default-container", "b"),
        ("prometheus-io/path", "/m"),
        ("prometheus.io/port", "8080"),
        ("prometheus.io/scrape", "true"),
        ("prometheus.istio.io/scrape-targets", "8080:/m,9090"),
        (
            "proxy.istio.io/config",
            "statusPort: 15099\nproxyMetadata: {POD_NAME: dup, Z: z}\nholdApplicationUntilProxyStarts: true",
        ),
        ("sidecar.istio.io/bootstrapOverride", "boot"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("sidecar.istio.io/proxyCPU", "3"),
        ("sidecar.istio.io/proxyMemoryLimit", "16Mi"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "true"),
        ("sidecar.istio.io/userVolume", "{\"tmp\": {\"emptyDir\": {}}}"),
        ("sidecar.istio.io/userVolumeMount", "{\"tmp\": {\"mountPath\": \"/tmp\"}}"),
        ("status.sidecar.istio.io/port", "15033"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "4, 15020"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "25"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
    ];
    let count = all.len();
    subsequence(all, 0..=count)
        .prop_map(|some| some.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect())
}

fn pod() -> impl Strategy<Value = Value> {
    let proxy = container("istio-proxy").prop_map(|mut proxy| {
        proxy["image"] = json!("auto");
        // No application's: a collision is refused.
        if proxy.get("securityContext").is_some() {
            proxy["securityContext"]["runAsUser"] = json!(2000);
        }
        proxy
    });
    let parts = (
        annotations(),
        subsequence(vec![("app", "web"), ("version", "v1"), ("topology.istio.io/network", "net9")], 0..=3),
        container("a"),
        prop::option::of(container("b")),
        prop::option::of(container("setup")),
        prop::option::of(proxy),
        any::<bool>(),
        unknown(),
    );
    parts.prop_map(|(annotations, labels, a, b, setup, proxy, proxy_first, unknown)| {
        let mut containers: Vec<Value> = [a].into_iter().chain(b).collect();
        if let Some(proxy) = proxy {
            containers.insert(if proxy_first { 0 } else { containers.len() }, proxy);
        }
        let labels: Value = labels.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", UNKNOWN: unknown,
            "metadata": {"name": "web", "annotations": annotations, "labels": labels, UNKNOWN: unknown},
            "spec": {"containers": containers, UNKNOWN: unknown,
                     "volumes": [{"name": "cache", "emptyDir": {UNKNOWN: unknown}}]}});
        if let Some(setup) = setup {
            pod["spec"]["initContainers"] = json!([setup]);
        }
        pod
    })
}

fn settings() -> impl Strategy<Value = String> {
    let packs = vec![
        ("outrigger", "sidecar"),
        ("istio", "sidecar"),
        ("istio", "gateway"),
        ("istio", "grpc-agent"),
        ("istio", "grpc-simple"),
        ("linkerd-daemonset", "sidecar"),
        ("linkerd-daemonset", "http-proxy"),
    ];
    (select(packs), any::<bool>(), any::<bool>()).prop_map(|((pack, template), native, cni)| {
        let values = json!({"global": {"network": "net1", "multiCluster": {"clusterName": "c1"}},
            "pilot": {"cni": {"enabled": cni, "provider": "multus"}}});
        format!("pack: {pack}\ndefaultTemplates: [{template}]\nnativeSidecars: {native}\nvalues: {values}\n")
    })
}

fn under_unknown(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(UNKNOWN).cloned());
            fields.values().for_each(|value| under_unknown(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| under_unknown(value, found)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn injection_is_lossless_idempotent_and_deterministic_and_its_patch_applies(pod in pod(), settings in settings()) {
        let injector = || Injector::new(Settings::parse(&settings, "test").unwrap()).unwrap();
        let request = Request { namespace: "shop", ..Request::default() };
        let first = injector();
        let injected = first.inject(&pod, &request).unwrap().pod.unwrap();

        let again = first.inject(&injected, &request).unwrap().pod;
        let difference = again.as_ref().map(|again| serde_json::to_string(&patch::diff(&injected, again)).unwrap());
        prop_assert_eq!(difference, None, "injected: {}", injected);

        let other = injector().inject(&pod, &request).unwrap().pod.unwrap();
        prop_assert_eq!(injected.to_string(), other.to_string());

        let operations = serde_json::to_value(patch::diff(&pod, &injected)).unwrap();
        let operations: json_patch::Patch = serde_json::from_value(operations).unwrap();
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &operations).unwrap();
        prop_assert_eq!(&patched, &injected);

        let (mut before, mut after) = (Vec::new(), Vec::new());
        under_unknown(&pod, &mut before);
        under_unknown(&injected, &mut after);
        for value in &before {
            let count = |all: &[Value]| all.iter().filter(|known| *known == value).count();
            prop_assert!(count(&after) >= count(&before), "{} is lost: {}", value, injected);
        }
    }
    #[test]
    fn a_replicas_patch_is_what_injection_alone_would_have_made(pod in pod(), settings in settings(), app in 0..2_usize) {
        let injector = || Injector::new(Settings::parse(&settings, "test").unwrap()).unwrap();
        let first = injector();
        for (namespace, random, time) in [("shop", "aaaaa", 1), ("shop", "zz9z9", 2), ("till", "aaaaa", 2), ("shop", "aaaaa", 3)] {
            let sent = sent(&pod, app, random, time);
            let request = Request { namespace, ..Request::default() };
            let patched = first.patch(&sent.to_string(), &request).unwrap();
            let alone = injector().inject(&sent, &request).unwrap();
            prop_assert_eq!(patched.decision(), &alone.decision);
            let encoded: String = serde_json::from_str(patched.patch().unwrap().get()).unwrap();
            let operations = STANDARD.decode(encoded).unwrap();
            prop_assert_eq!(operations.len(), patched.patch_bytes());
            let operations: json_patch::Patch = serde_json::from_slice(&operations).unwrap();
            let mut injected = sent.clone();
            json_patch::patch(&mut injected, &operations).unwrap();
            prop_assert_eq!(Some(injected), alone.pod);
        }
    }
}

/// A pod as the API server sends it: with the volume of the service account's token, and managed fields.
fn sent(pod: &Value, app: usize, random: &str, time: u32) -> Value {
    let mut sent = json!({"kind": "Pod", "apiVersion": "v1"});
    for (field, value) in pod.as_object().unwrap() {
        sent[field] = value.clone();
    }
    let volume = format!("kube-api-access-{random}");
    sent["metadata"]["managedFields"] = json!([{"manager": "m", "time": time}]);
    sent["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": volume, "projected": {}}));
    let containers = sent["spec"]["containers"].as_array_mut().unwrap();
    let app = app.min(containers.len() - 1);
    containers[app]["volumeMounts"] = json!([{"name": volume, "mountPath": "/token"}]);
    sent
}
