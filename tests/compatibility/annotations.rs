//! Annotations and labels of pods: each is put on a pod, and the two pods are compared after injection.

use serde_json::{Value, json};

use crate::{PACKS, comes_of, document, injector, outcome};

/// Something to try.
struct Trial {
    /// The annotation, or label, and its value.
    name: &'static str,
    value: &'static str,
    /// Settings under which it means something, as JSON.
    settings: &'static str,
    /// Why nothing comes of it, with pack `istio` and with pack `outrigger`; or what comes of it that Istio has not.
    notes: [&'static str; 2],
}

const fn trial(name: &'static str, value: &'static str) -> Trial {
    Trial { name, value, settings: "{}", notes: ["", ""] }
}

impl Trial {
    const fn under(self, settings: &'static str) -> Trial {
        Trial { settings, ..self }
    }

    const fn noted(self, istio: &'static str, outrigger: &'static str) -> Trial {
        Trial { notes: [istio, outrigger], ..self }
    }
}

/// A pod of whose parts each annotation finds the one that it is about.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
        "spec": {"containers": [{"name": "web", "image": "web:1", "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]},
    })
}

/// Whether the pod comes out otherwise with it than without, but for the word itself.
fn has_effect(trial: &Trial, kind: &str, pack: &str) -> bool {
    let settings: Value = serde_json::from_str(trial.settings).unwrap();
    let injector = injector(pack, &settings);
    let bare = pod();
    let mut with = pod();
    with["metadata"][kind][trial.name] = json!(trial.value);
    let namespace = json!({"labels": {}});
    let (before, after) = (comes_of(&injector, &bare, &namespace), comes_of(&injector, &with, &namespace));
    match (serde_json::from_str::<Value>(&before), serde_json::from_str::<Value>(&after)) {
        (Ok(before), Ok(mut after)) => {
            let own = after["metadata"][kind].as_object_mut().unwrap();
            // Where injection sets it too, that the author's own is kept is what comes of it.
            if before["metadata"][kind].get(trial.name).is_none() {
                own.shift_remove(trial.name);
            }
            without_record(before) != without_record(after)
        }
        _ => before != after,
    }
}

/// The status says how to take injection back, and so it differs whenever the author's own does.
fn without_record(mut pod: Value) -> Value {
    pod["metadata"]["annotations"].as_object_mut().unwrap().shift_remove("sidecar.istio.io/status");
    pod
}

fn rows(trials: &[Trial], kind: &str) -> Vec<Vec<String>> {
    let row = |trial: &Trial| {
        let mut cells = vec![format!("`{}`", trial.name)];
        for (pack, note) in PACKS.into_iter().zip(trial.notes) {
            cells.push(outcome(has_effect(trial, kind, pack), &format!("{} with {pack}", trial.name), note));
        }
        let [istio, outrigger] = trial.notes;
        cells.push(match (istio, outrigger) {
            (istio, outrigger) if istio == outrigger => istio.to_owned(),
            ("", outrigger) => format!("`outrigger`: {outrigger}"),
            (istio, "") => format!("`istio`: {istio}"),
            (istio, outrigger) => format!("`istio`: {istio}; `outrigger`: {outrigger}"),
        });
        cells
    };
    trials.iter().map(row).collect()
}

#[test]
fn the_page_on_annotations_says_what_each_does() {
    let head = ["annotation of a pod", "pack `istio`", "pack `outrigger`", ""];
    let mut text = String::from(
        "# Annotations\n\nEach was put on a pod, and the pod that came out compared with the one that comes out without it.\n\n",
    );
    text += &document::table(&head, &rows(ANNOTATIONS, "annotations"));
    text += "\n## Labels of pods\n\n";
    text += &document::table(&["label of a pod", head[1], head[2], ""], &rows(LABELS, "labels"));
    document::holds("annotations.md", &text);
}

const ENVOY: &str = "a matter of Envoy, which `outrigger-proxy` is not";
const OLD: &str = "of no effect in Istio's own templates either";
const AGAIN: &str = "injection writes it, and reads it on a pod that has been injected before";
const AGENT: &str = "stays on the pod, where Istio's agent reads it";
const NO_MTLS: &str = "`outrigger-proxy` speaks no mutual TLS";
const CNI: &str = r#"{"values": {"pilot": {"cni": {"enabled": true, "provider": "multus"}}}}"#;
const HBONE: &str =
    r#"{"meshConfig": {"defaultConfig": {"proxyMetadata": {"ISTIO_META_ENABLE_HBONE": "true"}}}}"#;

const ANNOTATIONS: &[Trial] = &[
    trial("sidecar.istio.io/inject", "false"),
    trial("inject.istio.io/templates", "gateway"),
    trial("proxy.istio.io/config", "{\"concurrency\": 3}"),
    trial("proxy.istio.io/overrides", r#"{"containers": [{"name": "istio-proxy", "image": "mine:1"}]}"#).noted(AGAIN, AGAIN),
    trial("sidecar.istio.io/status", "{\"containers\": [\"web\"]}"),
    trial("sidecar.istio.io/proxyImage", "mine/proxy:1").noted("", "it names an image of Envoy; a container `istio-proxy` of the pod's own, with an `image`, chooses another"),
    trial("sidecar.istio.io/proxyImageType", "debug").noted("", "there is one image, without a shell"),
    trial("sidecar.istio.io/proxyCPU", "123m"),
    trial("sidecar.istio.io/proxyCPULimit", "1234m"),
    trial("sidecar.istio.io/proxyMemory", "123Mi"),
    trial("sidecar.istio.io/proxyMemoryLimit", "1234Mi"),
    trial("sidecar.istio.io/nativeSidecar", "false"),
    trial("sidecar.istio.io/interceptionMode", "TPROXY"),
    trial("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
    trial("sidecar.istio.io/logLevel", "trace").noted("", "agent and proxy are one program, and `sidecar.istio.io/agentLogLevel` sets what it logs"),
    trial("sidecar.istio.io/componentLogLevel", "http:trace").noted("", ENVOY),
    trial("sidecar.istio.io/agentLogLevel", "default:debug"),
    trial("sidecar.istio.io/bootstrapOverride", "mine").noted("", ENVOY),
    trial("sidecar.istio.io/capNetBindService", "true"),
    trial("sidecar.istio.io/enableCoreDump", "true").noted(OLD, OLD),
    trial("sidecar.istio.io/userVolume", "{\"mine\": {\"emptyDir\": {}}}"),
    trial("sidecar.istio.io/userVolumeMount", "{\"mine\": {\"mountPath\": \"/mine\"}}"),
    trial("sidecar.istio.io/controlPlaneAuthPolicy", "NONE").noted(OLD, OLD),
    trial("sidecar.istio.io/discoveryAddress", "elsewhere:15012").noted(OLD, OLD),
    trial("sidecar.istio.io/statsInclusionPrefixes", "cluster").noted(AGENT, ENVOY),
    trial("sidecar.istio.io/statsInclusionSuffixes", "total").noted(AGENT, ENVOY),
    trial("sidecar.istio.io/statsInclusionRegexps", ".*").noted(AGENT, ENVOY),
    trial("sidecar.istio.io/statsHistogramBuckets", "{\"istio\": [1, 2]}").noted(AGENT, ENVOY),
    trial("sidecar.istio.io/statsCompression", "false").noted(AGENT, ENVOY),
    trial("sidecar.istio.io/extraStatTags", "mine").noted(AGENT, ENVOY),
    trial("status.sidecar.istio.io/port", "15099"),
    trial("readiness.status.sidecar.istio.io/initialDelaySeconds", "17"),
    trial("readiness.status.sidecar.istio.io/periodSeconds", "17"),
    trial("readiness.status.sidecar.istio.io/failureThreshold", "17"),
    trial("readiness.status.sidecar.istio.io/applicationPorts", "8080").noted(OLD, OLD),
    trial("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
    trial("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/8"),
    trial("traffic.sidecar.istio.io/includeOutboundPorts", "3306"),
    trial("traffic.sidecar.istio.io/excludeOutboundPorts", "3306"),
    trial("traffic.sidecar.istio.io/includeInboundPorts", "8080"),
    trial("traffic.sidecar.istio.io/excludeInboundPorts", "8080"),
    trial("traffic.sidecar.istio.io/excludeInterfaces", "eth1"),
    trial("traffic.sidecar.istio.io/kubevirtInterfaces", "eth1"),
    trial("istio.io/reroute-virtual-interfaces", "eth1"),
    trial("prometheus.istio.io/merge-metrics", "false"),
    trial("prometheus.istio.io/scrape-targets", "[{\"port\": 9000, \"path\": \"/m\"}]"),
    trial("prometheus.io/scrape", "false"),
    trial("prometheus.io/port", "9090"),
    trial("prometheus.io/path", "/mine"),
    trial("kubectl.kubernetes.io/default-container", "mine"),
    trial("kubectl.kubernetes.io/default-logs-container", "mine"),
    trial("k8s.v1.cni.cncf.io/networks", "mine").under(CNI).noted("", "the node's own chain of CNI plugins has ours in it, not Multus"),
];

const LABELS: &[Trial] = &[
    trial("sidecar.istio.io/inject", "false"),
    trial("istio.io/rev", "other"),
    trial("service.istio.io/canonical-name", "mine"),
    trial("service.istio.io/canonical-revision", "mine"),
    trial("service.istio.io/workload-name", "mine"),
    trial("app.kubernetes.io/name", "mine"),
    trial("app.kubernetes.io/version", "mine"),
    trial("app", "mine"),
    trial("version", "mine"),
    trial("topology.istio.io/network", "mine"),
    trial("security.istio.io/tlsMode", "disabled").noted("", NO_MTLS),
    trial("networking.istio.io/tunnel", "mine").under(HBONE).noted("", NO_MTLS),
    trial("istio.io/dataplane-mode", "none")
        .noted("of ambient mode, which has no sidecar", "of ambient mode, which has no sidecar"),
];
