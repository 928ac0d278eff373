//! Packs of the operator's own, what a pack would break, and the flags of linkerd-inject as values.

use serde_json::{Value, json};

use super::{containers, fixture, folder, outrigger, outrigger_reads, path, pod, template};

const LOGS: &str = "spec:\n  containers:\n  - name: log\n    image: log:1\n    args: ['--level={{values.level}}', '--hub={{values.global.hub}}']\n";
const SCHEMA: &str = r#"{"type": "object", "properties": {"level": {"enum": ["info", "debug"]}}}"#;

/// A folder `logs` that is a pack, and a ConfigMap `audit.yaml` that is another.
fn packs() -> tempfile::TempDir {
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "audit"}, "data": {
        "sidecar.yaml.hbs": "metadata:\n  annotations:\n    {{> mark}}\n", "_mark.yaml.hbs": "audited: {{json (text values.how)}}\n",
        "values.yaml": "how: all\n"}});
    let folder = folder(&[("audit.yaml", &config_map.to_string())]);
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    for (name, text) in [
        ("sidecar.yaml.hbs", LOGS),
        ("values.yaml", "level: info\nglobal: {hub: own}\n"),
        ("values.schema.json", SCHEMA),
    ] {
        std::fs::write(folder.path().join("logs").join(name), text).unwrap();
    }
    folder
}

fn inject(arguments: &[&str]) -> Value {
    let run =
        outrigger_reads(&[&["inject", "-f", "-", "--format", "json"], arguments].concat(), &pod("p", ""));
    assert_eq!(run.code, 0, "{}", run.err);
    run.json()
}

#[test]
fn a_pack_comes_from_a_folder_or_from_a_config_map() {
    let packs = packs();
    let own = inject(&["--pack", &path(&packs, "logs")]);
    assert_eq!(own["spec"]["containers"][0]["args"], json!(["--level=info", "--hub=own"]));
    let own = inject(&["--pack", &path(&packs, "audit.yaml"), "--set", "how=some"]);
    assert_eq!(own["metadata"]["annotations"]["audited"], "some");
}

#[test]
fn several_packs_have_templates_and_values_of_their_own() {
    let packs = packs();
    let (logs, audit) = (path(&packs, "logs"), path(&packs, "audit.yaml"));
    let both = ["--pack", "outrigger", "--pack", &logs, "--pack", &audit];
    let templates = ["--template", "sidecar", "--template", "logs/sidecar", "--template", "audit/sidecar"];
    let values = ["--set", "logs.level=debug,global.hub=everybodys"];
    let pod = inject(&[&both[..], &templates, &values].concat());
    assert_eq!(containers(&pod), ["istio-init", "istio-proxy", "log", "app"]);
    assert_eq!(pod["spec"]["containers"][0]["args"], json!(["--level=debug", "--hub=everybodys"]));
    assert_eq!(pod["metadata"]["annotations"]["audited"], "all");
    // A pod may ask for them, and for nothing else.
    let asks = pod_that_asks("logs/sidecar");
    let run = outrigger_reads(&[&["inject", "-f", "-", "--format", "json"], &both[..]].concat(), &asks);
    assert_eq!(containers(&run.json()), ["log", "app"], "{}", run.err);
    let run = outrigger_reads(&[&["inject", "-f", "-"], &both[..]].concat(), &pod_that_asks("logs/other"));
    assert_eq!(run.code, 1);
    let message = "requested template \"logs/other\" not found; have audit/sidecar, logs/sidecar, sidecar";
    assert!(run.err.contains(message), "{}", run.err);
    let run = outrigger_reads(
        &["inject", "-f", "-", "--pack", "outrigger", "--pack", &logs, "--pack", &logs],
        &asks,
    );
    assert!(run.err.contains("--pack: there are two of the name \"logs\""), "{}", run.err);
}

fn pod_that_asks(templates: &str) -> String {
    pod("p", &format!(", annotations: {{inject.istio.io/templates: {templates}}}"))
}

#[test]
fn values_hold_to_the_schema_of_their_pack() {
    let packs = packs();
    let (logs, pod) = (path(&packs, "logs"), pod("p", ""));
    for arguments in [
        &["--pack", &logs, "--set", "level=loud"][..],
        &["--pack", "outrigger", "--pack", &logs, "--set", "logs.level=loud"],
    ] {
        let run = outrigger_reads(&[&["inject", "-f", "-"], arguments].concat(), &pod);
        assert_eq!((run.code, run.out.as_str()), (1, ""));
        assert!(run.err.contains("level: \"loud\" is not one of"), "{}", run.err);
        assert!(run.err.contains("(by the schema of pack \"logs\")"), "{}", run.err);
    }
    for (pack, value, problem) in [
        ("outrigger", "imagePullPolicy=Alway", "values.imagePullPolicy: \"Alway\" is not one of"),
        (
            "outrigger",
            "images.prxy=x",
            "values.images.prxy: there is no such value; mend its name, or take it out",
        ),
        (
            "istio",
            "global.proxy.statusPort=99999",
            "values.global.proxy.statusPort: 99999 is greater than the maximum",
        ),
        ("linkerd-daemonset", "port=x", "values.port: \"x\" is not of type \"integer\""),
    ] {
        let run = outrigger_reads(&["inject", "-f", "-", "--pack", pack, "--set", value], &pod);
        assert_eq!(run.code, 1, "{pack}");
        assert!(run.err.starts_with(&format!("error: {problem}")), "{}", run.err);
        assert!(run.err.contains(&format!("(by the schema of pack {pack:?})")), "{}", run.err);
    }
}

#[test]
fn misspelt_names_in_values_and_mesh_configuration_are_warnings() {
    let mesh = folder(&[("mesh.yaml", "trustDomian: x\ndefaultConfig: {concurency: 1}\nnewField: kept\n")]);
    let run = outrigger_reads(
        &[
            "inject",
            "-f",
            "-",
            "--mesh-config",
            &path(&mesh, "mesh.yaml"),
            "--set",
            "global.proxy.statusport=1",
        ],
        &pod("p", ""),
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let warnings: Vec<&str> = run.err.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    let want = [
        "meshConfig.trustDomian is not known and has no effect; did you mean trustDomain?",
        "meshConfig.defaultConfig.concurency is not known and has no effect; did you mean concurrency?",
        "values.global.proxy.statusport is not known and has no effect; did you mean statusPort?",
    ];
    assert_eq!(warnings, want);
}

#[test]
fn what_cannot_be_a_pack_is_refused_by_name() {
    let folder = folder(&[("pod.yaml", &pod("p", "")), ("nameless.yaml", "kind: ConfigMap\ndata: {}\n")]);
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for (pack, message) in [
        ("pod.yaml", "a file must be the manifest of a ConfigMap"),
        ("nameless.yaml", "the ConfigMap has no metadata.name"),
        ("empty", "holds no template (a file NAME.yaml.hbs)"),
        (
            "nowhere",
            "there is no such pack, folder or file; the packs are istio, linkerd-daemonset, outrigger",
        ),
    ] {
        let pack = path(&folder, pack);
        let run = outrigger(&["check", "--pack", &pack]);
        assert_eq!(run.code, 1);
        assert!(run.err.contains(&format!("--pack: {pack:?}: ")) && run.err.contains(message), "{}", run.err);
    }
}

#[test]
fn check_says_what_a_pack_would_break() {
    let packs = packs();
    let run = outrigger(&["check", "--pack", &path(&packs, "logs"), "-o", "json"]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let report = run.json();
    assert_eq!(report["templates"], json!(["sidecar"]));
    let mut codes: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    codes.sort();
    codes.dedup();
    assert_eq!(codes, ["job_never_ends", "no_resources", "pod_security"]);
}

#[test]
fn check_fails_where_something_would_break() {
    let bad = folder(&[("sidecar.yaml.hbs", "spec: {dnsPolicy: Default, nodeSelector: {disk: hdd}}\n")]);
    let pack = bad.path().display().to_string();
    let run = outrigger(&["check", "--pack", &pack]);
    assert_eq!(run.code, 1);
    let first = "break changes_the_pods_own: spec.nodeSelector.disk is the pod's own, and is changed\n  template sidecar; scheduled\n";
    assert!(run.out.starts_with(first), "{}", run.out);
    assert!(run.out.contains(": 11 pods with the templates sidecar\n"), "{}", run.out);
    assert_eq!(outrigger(&["check", "-o", "wide"]).code, 2);
}

/// What linkerd-inject did: its kinds, its flags (as values), its mark, and no change the second time.
#[test]
fn the_linkerd_daemonset_is_reached_from_every_kind_and_by_every_flag() {
    let pack = ["inject", "--pack", "linkerd-daemonset", "--format", "yaml"];
    let run = outrigger(&[&pack[..], &["-f", &fixture("kinds.yaml")]].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    let mut kinds = Vec::new();
    for document in run.documents() {
        let kind = document["kind"].as_str().unwrap();
        let template = template(&document);
        assert_eq!(containers(template), ["init-linkerd", "app"], "{kind}");
        assert_eq!(template["metadata"]["annotations"]["alpha.istio.io/linkerd-daemonset"], "injected");
        kinds.push(kind.to_owned());
    }
    for kind in ["Job", "DaemonSet", "ReplicaSet", "Deployment", "ReplicationController"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind}");
    }
    let again = outrigger_reads(&[&pack[..], &["-f", "-"]].concat(), &run.out);
    assert_eq!((again.code, again.out), (0, run.out));

    let flags = "image=mine:1,imagePullPolicy=Always,port=5140,serviceName=LINKERD,useServiceVip=true,privileged=true";
    let pod = inject(&["--pack", "linkerd-daemonset", "--set", flags]);
    let want = json!([{"name": "init-linkerd", "image": "mine:1", "imagePullPolicy": "Always",
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "args": ["-p", "5140", "-s", "LINKERD", "-m", "true"],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}, "privileged": true}}]);
    assert_eq!(pod["spec"]["initContainers"], want);
    let pod = inject(&["--pack", "linkerd-daemonset", "--template", "http-proxy"]);
    let want = json!([{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "http_proxy", "value": "$(NODE_NAME):4140"}]);
    assert_eq!(pod["spec"]["containers"][0]["env"], want);
}
