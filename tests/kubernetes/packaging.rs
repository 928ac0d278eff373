//! The ways to install have the same objects: `outrigger install`, `helm template`, `kubectl kustomize`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::cluster::{kubectl_path, program, repository};

/// Runs a program; what it prints on stdout.
fn printed(command: &mut Command) -> String {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn install(options: &[&str]) -> String {
    printed(Command::new(env!("CARGO_BIN_EXE_outrigger")).arg("install").args(options))
}

fn helm(namespace: &str, values: &[&str]) -> String {
    let template = ["template", "outrigger", "charts/outrigger", "--namespace", namespace];
    printed(Command::new(program("helm")).args(template).args(values))
}

fn kustomize(folder: &str) -> String {
    printed(Command::new(kubectl_path()).arg("kustomize").arg(repository(folder)))
}

/// The objects of a stream by kind and name, with their settings as values: text and comments may differ.
fn objects(stream: &str) -> BTreeMap<String, Value> {
    let documents = outrigger::manifest::split(stream.as_bytes());
    let objects = documents.iter().filter_map(|document| document.parse().expect("YAML"));
    objects
        .map(|mut object| {
            for text in object["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
                *text = outrigger::yaml::parse(text.as_str().expect("text")).expect("YAML");
            }
            let metadata = &object["metadata"];
            (format!("{} {} in {}", object["kind"], metadata["name"], metadata["namespace"]), object)
        })
        .collect()
}

#[track_caller]
fn assert_same(left: &str, right: &str) {
    let (left, right) = (objects(left), objects(right));
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (name, object) in &left {
        let differs = serde_json::to_string(&outrigger::patch::diff(object, &right[name])).unwrap();
        assert_eq!(differs, "[]", "{name}");
    }
}

/// Helm makes the namespace itself, before it looks at the chart; beside another installation it is there already.
fn without_namespace(stream: &str) -> String {
    let documents = outrigger::manifest::split(stream.as_bytes());
    // That of the CNI plugin is another one.
    let own = |object: &Value| object["kind"] == "Namespace" && object["metadata"]["name"] != "outrigger-cni";
    let others = documents.iter().filter(|d| d.parse().unwrap().is_some_and(|object| !own(&object)));
    others.map(|document| std::str::from_utf8(document.source).unwrap()).collect()
}

const PARTS: &str = "hpa,network-policy,service-monitor,prometheus-rule,dashboard";
const VALUES: &str = "hpa=true,networkPolicy=true,serviceMonitor=true,prometheusRule=true,dashboard=true";

#[test]
fn the_chart_has_the_objects_of_install() {
    assert_same(&helm("outrigger-system", &[]), &without_namespace(&install(&[])));
    let certificate = ["--with", "cert-manager"];
    assert_same(
        &helm("outrigger-system", &["--set", "certManager=true"]),
        &without_namespace(&install(&certificate)),
    );
    let signer = "signer.example/webhooks";
    assert_same(
        &helm("outrigger-system", &["--set", &format!("certificateSigner={signer}")]),
        &without_namespace(&install(&["--certificate-signer", signer])),
    );
    for url in ["http://collector:4318", "https://collector.example", "https://collector.example:4318/otlp"] {
        let set = format!("networkPolicy=true,traceCollector={url}");
        let installed = install(&["--with", "network-policy", "--trace-collector", url]);
        assert_same(&helm("outrigger-system", &["--set", &set]), &without_namespace(&installed));
    }
    let registry = ["--registry", "registry.example/mesh"];
    assert_same(
        &helm("outrigger-system", &["--set", "cni=true,registry=registry.example/mesh"]),
        &without_namespace(&install(&[&["--cni"], &registry[..]].concat())),
    );
    for repair in ["report", "restart"] {
        let set = format!("repair={repair},revision=canary,registry=registry.example/mesh");
        let which = ["--revision", "canary", "--namespace", "mesh", "--registry", "registry.example/mesh"];
        let installed = install(&[&which[..], &["--repair", repair]].concat());
        assert_same(&helm("mesh", &["--set", &set]), &without_namespace(&installed));
    }
    for replicas in ["2", "12"] {
        let set = format!(
            "{VALUES},certManager=true,revision=canary,registry=registry.example/mesh,replicas={replicas}"
        );
        let registry = ["--registry", "registry.example/mesh"];
        let which = [
            "--revision",
            "canary",
            "--namespace",
            "mesh",
            "--replicas",
            replicas,
            "--with",
            PARTS,
            "--with",
            "cert-manager",
        ];
        let installed = install(&[&which[..], &registry].concat());
        assert_same(&helm("mesh", &["--set", &set]), &without_namespace(&installed));
    }
}

#[test]
fn the_chart_takes_a_file_of_settings_and_tags() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = "revision: canary # ours\ninstallationNamespace: mesh\npolicy: disabled\n";
    std::fs::write(&file, settings).unwrap();
    let file = file.path().to_str().unwrap();
    let which = ["--revision", "canary", "--namespace", "mesh"];
    let installation = install(&[&which[..], &["--config", file]].concat());
    let tag = install(&[&which[..], &["--tag", "prod"]].concat());
    let values = ["--set", "revision=canary,tags={prod}", "--set-file"];
    let chart = helm("mesh", &[&values[..], &[&format!("settings={file}")]].concat());
    assert_same(&chart, &(without_namespace(&installation) + "---\n" + &tag));
}

#[test]
fn the_chart_refuses_what_install_refuses() {
    for (values, reason) in [
        ("revision=Canary", "revision"),
        ("revision=tag-x", "revision"),
        ("replicas=0", "replicas"),
        ("tags={default}", "tags"),
        ("tags={canary},revision=canary", "tags: canary is the revision's own name"),
        ("colour=blue", "colour"),
        ("repair=true", "repair"),
        (
            "cni=true,settings=installationNamespace: mesh",
            "settings: write `pilot: {cni: {enabled: true}}` under `values`",
        ),
        ("certificateSigner=serving", "certificateSigner"),
        ("certificateSigner=kubernetes.io/kubelet-serving", "certificateSigner"),
        ("certificateSigner=example.com/serving,certManager=true", "choose one of them"),
        ("traceCollector=collector:4318", "traceCollector"),
        ("settings=revision: canary", "settings: write `revision: default` into them"),
        ("settings=installationNamespace: other", "settings: write `installationNamespace: mesh` into them"),
    ] {
        let template = ["template", "outrigger", "charts/outrigger", "--namespace", "mesh", "--set", values];
        let output = Command::new(program("helm"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(template)
            .output()
            .expect("helm starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{values}: {said}");
    }
}

#[test]
fn the_kustomizations_have_the_objects_of_install() {
    assert_same(&kustomize("manifests"), &install(&[]));
    assert_same(&kustomize("overlays/production"), &install(&["--with", PARTS]));
    assert_same(&kustomize("overlays/cert-manager"), &install(&["--with", "cert-manager"]));
    let signer = ["--certificate-signer", "signer.example/webhooks"];
    assert_same(&kustomize("overlays/certificate-signer"), &install(&signer));
    let traces = ["--with", "network-policy", "--trace-collector", "http://collector.observability:4318"];
    assert_same(&kustomize("overlays/traces"), &install(&traces));
    assert_same(&kustomize("overlays/cni"), &install(&["--cni"]));
    assert_same(&kustomize("overlays/repair"), &install(&["--repair", "restart"]));
    assert_same(&kustomize("overlays/canary"), &without_namespace(&install(&["--revision", "canary"])));
}
