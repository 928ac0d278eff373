//! The `outrigger` command as a black box: the real binary, its exit codes, what goes to standard output and what
//! to standard error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod packs;
mod running;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What came of a command.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    /// Standard output as one JSON document.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }

    fn documents(&self) -> Vec<Value> {
        let documents = outrigger::manifest::split(self.out.as_bytes());
        documents.iter().filter_map(|d| d.parse().unwrap()).collect()
    }
}

fn outrigger(arguments: &[&str]) -> Run {
    outrigger_reads(arguments, "")
}

fn outrigger_reads(arguments: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may close it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests").join(name).display().to_string()
}

fn text_of(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn pod(name: &str, metadata: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}{metadata}}}\nspec: {{containers: [{{name: app, image: 'app:1'}}]}}\n"
    )
}

/// The names of all containers of a pod or template.
fn containers(pod: &Value) -> Vec<&str> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    lists.into_iter().flatten().flatten().map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn every_kind_is_injected_in_order() {
    let run = outrigger(&["inject", "-f", &fixture("kinds.yaml")]);
    assert_eq!(run.code, 0, "{}", run.err);
    let documents = run.documents();
    assert_eq!(documents.len(), 19);
    let report: Vec<&str> = run.err.lines().collect();
    for (document, line) in documents.iter().zip(&report) {
        let kind = document["kind"].as_str().unwrap();
        let name = document["metadata"]["name"].as_str().unwrap();
        assert_eq!(*line, format!("{kind} default/{name}: injected (policy_enabled)"));
        let template = match kind {
            "Pod" => document,
            "CronJob" => &document["spec"]["jobTemplate"]["spec"]["template"],
            _ => &document["spec"]["template"],
        };
        assert_eq!(containers(template), ["istio-init", "istio-proxy", "app"], "{kind}");
        assert!(template["metadata"]["annotations"]["sidecar.istio.io/status"].is_string());
        if kind != "Pod" {
            assert_eq!(document["metadata"], json!({"name": name}), "the workload's own metadata stays");
            let sidecar = template["spec"]["initContainers"][1]["env"].as_array().unwrap();
            let workload = sidecar.iter().find(|e| e["name"] == "ISTIO_META_WORKLOAD_NAME").unwrap();
            assert_eq!(workload["value"], name);
        }
    }
    assert_eq!(report[19..], ["19 workloads: 19 injected, 0 unchanged, 0 failed"]);
}

#[test]
fn a_list_keeps_its_order_and_its_other_items() {
    let run = outrigger(&["inject", "-f", &fixture("list.yaml"), "--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let [list] = &run.documents()[..] else { panic!("one document") };
    let before = outrigger::yaml::parse(&text_of("list.yaml")).unwrap();
    assert_eq!(list["items"][0], before["items"][0]);
    assert_eq!(list["items"][2]["items"][1], before["items"][2]["items"][1]);
    assert_eq!(containers(&list["items"][1]["spec"]["template"]).len(), 3);
    assert_eq!(containers(&list["items"][2]["items"][0]).len(), 3);
    assert_eq!(containers(&list["items"][3]["items"][0]["spec"]["template"]).len(), 3);
    assert_eq!(
        run.err,
        "Deployment shop/second: injected (policy_enabled)\nPod default/third: injected (policy_enabled)\n\
         Deployment default/fifth: injected (policy_enabled)\n\
         3 workloads: 3 injected, 0 unchanged, 0 failed; 2 other objects passed through\n"
    );
}

#[test]
fn what_is_not_injected_passes_byte_for_byte() {
    for text in [
        text_of("awkward.yaml"),
        text_of("awkward.yaml").replace('\n', "\r\n"),
        text_of("objects.json"),
        text_of("list.yaml"),
    ] {
        let file = folder(&[("off.yaml", "policy: off\n")]);
        let run = outrigger_reads(&["inject", "-f", "-", "--config", &path(&file, "off.yaml")], &text);
        assert_eq!((run.code, run.out), (0, text), "{}", run.err);
        assert!(run.err.contains("not injected (policy_off): the mesh policy is off"), "{}", run.err);
    }
}

#[test]
fn only_the_injected_documents_of_a_stream_change() {
    let text = text_of("awkward.yaml");
    let run = outrigger_reads(&["inject", "-f", "-"], &text);
    assert_eq!(run.code, 0, "{}", run.err);
    let untouched = &text[..text.find("apiVersion: apps/v1").unwrap()];
    assert!(run.out.starts_with(untouched));
    assert!(run.out.ends_with("# A comment behind the last document.\n"));
    let deployment = &run.documents()[1];
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["futureField"]["deep"], json!([1, 2.5, null, null, {"deeper": true}]));
    assert_eq!(container["env"][0]["value"], "0644");
    assert_eq!(deployment["metadata"]["labels"], json!({"app": "anchors", "on": "off"}));
}

#[test]
fn windows_line_ends_stay() {
    let run = outrigger_reads(&["inject", "-f", "-"], &pod("p", "").replace('\n', "\r\n"));
    assert_eq!(run.code, 0);
    assert_eq!(run.out.matches('\n').count(), run.out.matches("\r\n").count());
    assert_eq!(containers(&run.documents()[0]), ["istio-init", "istio-proxy", "app"]);
}

#[test]
fn json_comes_out_as_json_and_yaml_as_yaml_unless_told() {
    let objects = fixture("objects.json");
    let run = outrigger(&["inject", "-f", &objects]);
    assert_eq!(run.code, 0, "{}", run.err);
    let values: Vec<Value> =
        serde_json::Deserializer::from_str(&run.out).into_iter().map(Result::unwrap).collect();
    assert_eq!(values.len(), 3);
    assert!(run.out.starts_with("{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Service\""));
    let second = run.out.lines().find(|line| line.contains("\"second\"")).unwrap();
    assert!(second.starts_with('{') && second.contains("istio-proxy"), "one line stays one line: {second}");
    let yaml = outrigger(&["inject", "-f", &objects, "--format", "yaml"]);
    assert_eq!(yaml.documents(), values);
    assert!(
        yaml.out
            .starts_with("apiVersion: v1\nkind: Service\nmetadata:\n  name: first\n---\napiVersion: v1\n")
    );
    let json = outrigger_reads(&["inject", "-f", "-", "--format", "json"], &pod("p", ""));
    assert_eq!(containers(&json.json()), ["istio-init", "istio-proxy", "app"]);
}

#[test]
fn injecting_again_changes_nothing() {
    for name in ["kinds.yaml", "list.yaml", "awkward.yaml", "objects.json"] {
        let once = outrigger(&["inject", "-f", &fixture(name)]);
        let twice = outrigger_reads(&["inject", "-f", "-"], &once.out);
        assert_eq!((twice.code, &twice.out), (0, &once.out), "{name}");
        assert!(twice.err.contains(": already injected\n"), "{}", twice.err);
        assert!(!twice.err.contains(": injected"), "{}", twice.err);
    }
}

#[test]
fn a_bad_document_is_reported_and_the_rest_is_written() {
    let bad = fixture("bad.yaml");
    let run = outrigger(&["inject", "-f", &bad]);
    assert_eq!(run.code, 1);
    let names: Vec<_> = run.documents().iter().map(|d| d["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["before", "after"]);
    assert_eq!(containers(&run.documents()[1]), ["istio-init", "istio-proxy", "app"]);
    for line in [
        format!("error: {bad}, document 2, line 12: "),
        format!("error: {bad}, document 3, line 17: column 3: the key \"name\" stands twice in one mapping"),
        format!(
            "error: {bad}, document 4, line 19: the document is a string, and must be an object with apiVersion and kind"
        ),
        format!(
            "error: {bad}, document 5, line 25: Pod default/number: spec is a number, and must be an object"
        ),
        format!(
            "error: {bad}, document 6, line 32: Pod default/empty: spec.containers is empty, and a pod needs a container"
        ),
        format!(
            "error: {bad}, document 7, line 42: Job default/unquoted: spec.template.metadata.annotations\
             [\"sidecar.istio.io/inject\"] is a boolean, and must be a string; write it in quotes: \"false\""
        ),
        format!(
            "error: {bad}, document 8, line 52: Deployment default/no-template: spec.template is missing, and must be an object"
        ),
        "5 workloads: 1 injected, 0 unchanged, 4 failed; 1 other object passed through".to_owned(),
    ] {
        assert!(run.err.lines().any(|l| l.starts_with(&line)), "{line}\nis not in\n{}", run.err);
    }
}

#[test]
fn a_bad_item_is_left_out_of_its_list() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {"containers": []}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worse"}, "spec": 1},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "good"}, "spec": {"containers": [{"name": "app"}]}},
    ]});
    let run = outrigger_reads(&["inject", "-f", "-"], &list.to_string());
    assert_eq!(run.code, 1);
    let items = &run.json()["items"];
    assert_eq!((items[0]["metadata"]["name"].as_str(), items.as_array().unwrap().len()), (Some("other"), 2));
    assert_eq!(containers(&items[1]), ["istio-init", "istio-proxy", "app"]);
}

#[test]
fn files_folders_and_standard_input_come_in_the_order_given() {
    let folder = folder(&[
        ("b.yml", &pod("b", "")),
        ("a.yaml", &pod("a", "")),
        ("c.json", "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"c\"}}"),
        ("README.md", "not a manifest"),
        ("single.txt", &pod("single", "")),
    ]);
    let run = outrigger_reads(
        &[
            "inject",
            "-f",
            &path(&folder, "single.txt"),
            "-f",
            "-",
            "-f",
            &folder.path().display().to_string(),
        ],
        &pod("stdin", ""),
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let names: Vec<_> = run.documents().iter().map(|d| d["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["single", "stdin", "a", "b", "c"]);
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_written() {
    let folder = folder(&[("pod.yaml", &pod("p", "")), ("utf16.yaml", ""), ("out.yaml", "as it was\n")]);
    std::fs::write(folder.path().join("utf16.yaml"), b"\xff\xfea\0:\0 \x001\0").unwrap();
    let (missing, utf16) = (path(&folder, "missing.yaml"), path(&folder, "utf16.yaml"));
    let run = outrigger(&[
        "inject",
        "-f",
        &missing,
        "-f",
        &utf16,
        "-f",
        "https://example.invalid/a.yaml",
        "-f",
        &path(&folder, "pod.yaml"),
    ]);
    assert_eq!((run.code, run.documents().len()), (1, 1));
    assert!(run.err.contains(&format!("error: cannot read {missing}: No such file")), "{}", run.err);
    assert!(run.err.contains(&format!("error: {utf16}: is UTF-16, and must be UTF-8")), "{}", run.err);
    assert!(run.err.contains("curl -fsSL 'https://example.invalid/a.yaml' | outrigger"), "{}", run.err);

    let out = path(&folder, "out.yaml");
    let run = outrigger(&["inject", "-f", &missing, "-o", &out]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "as it was\n",
        "nothing was read, so nothing is written"
    );
}

#[test]
fn an_output_file_is_replaced_whole_and_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder(&[("pod.yaml", &pod("p", ""))]);
    let file = path(&folder, "pod.yaml");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let link = folder.path().join("link.yaml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let run = outrigger(&["inject", "-f", &file, "-o", link.to_str().unwrap()]);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{}", run.err);
    assert!(link.is_symlink());
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("name: istio-proxy"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

    let new = path(&folder, "new.yaml");
    assert_eq!(outrigger(&["inject", "-f", &file, "-o", &new]).code, 0);
    assert_eq!(std::fs::read_to_string(&new).unwrap(), written);
    let left: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left.len(), 3, "no temporary file is left: {left:?}");

    let run = outrigger(&["inject", "-f", &file, "-o", &path(&folder, "no/such/folder.yaml")]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("error: cannot write "), "{}", run.err);
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["inject"][..],
        &["inject", "-f", "-", "--no-such-flag"],
        &["inject", "-f", "-", "--format", "toml"],
        &["inject", "-f", "-", "--kubernetes-version", "new"],
        &["inject", "-f", "-", "--revision", ""],
        &["explain"],
        &["explain", "-f", "-", "-o", "xml"],
        &["completions", "tcsh-deluxe"],
        &["no-such-command"],
    ] {
        let run = outrigger(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn settings_are_layered_file_then_values_then_set() {
    let folder = folder(&[
        (
            "config.yaml",
            "policy: disabled\nrevision: blue\nvalues: {a: {b: 1, c: 1, d: 1}}\ndefaultTemplates: [show]\ntemplates:\n  show: |\n    metadata:\n      annotations:\n        shown: {{values.a.b}}-{{values.a.c}}-{{values.a.d}}\n        revision: {{revision}}\n",
        ),
        ("values.yaml", "a: {c: 2, d: 2}\n"),
        ("pod.yaml", &pod("p", ", labels: {sidecar.istio.io/inject: 'true'}")),
    ]);
    let file = |name| path(&folder, name);
    let config = file("config.yaml");
    let base = ["inject", "-f", &file("pod.yaml"), "--format", "json", "--config", &config];
    let shown = |more: &[&str]| {
        let run = outrigger(&[&base[..], more].concat());
        assert_eq!(run.code, 0, "{}", run.err);
        let annotations = run.json()["metadata"]["annotations"].clone();
        (
            annotations["shown"].as_str().unwrap().to_owned(),
            annotations["revision"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(shown(&[]), ("1-1-1".to_owned(), "blue".to_owned()));
    assert_eq!(shown(&["--values", &file("values.yaml")]).0, "1-2-2");
    assert_eq!(shown(&["--valuesFile", &file("values.yaml"), "--set", "a.d=3"]).0, "1-2-3");
    assert_eq!(
        shown(&["--set", "a.b=x,a.d=y", "--revision", "green"]),
        ("x-1-y".to_owned(), "green".to_owned())
    );
}

#[test]
fn bad_settings_are_refused_with_their_place() {
    let folder = folder(&[("typo.yaml", "policy: enabled\npolcy: off\n"), ("list.yaml", "[1]\n")]);
    let (typo, list) = (path(&folder, "typo.yaml"), path(&folder, "list.yaml"));
    for (arguments, message) in [
        (vec!["--config", &typo], format!("error: {typo}: line 2, column 1: polcy: unknown field")),
        (
            vec!["--config", "/no/such/file"],
            "error: cannot read the settings /no/such/file: No such file".to_owned(),
        ),
        (vec!["--values", &list], format!("error: --values: {list}: holds no object")),
        (vec!["--set", "a"], "error: --set \"a\": a has no value; write a=value".to_owned()),
        (vec!["--pack", "no-such-pack"], "error: pack \"no-such-pack\": ".to_owned()),
        (
            vec!["--injectConfigMapName", "istio"],
            "error: --injectConfigMapName: ConfigMaps are not read".to_owned(),
        ),
    ] {
        let run = outrigger_reads(&[&["inject", "-f", "-"][..], &arguments].concat(), &pod("p", ""));
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{arguments:?}");
        assert!(run.err.starts_with(&message), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn namespaces_come_from_the_manifest_the_flag_and_the_input() {
    let folder = folder(&[(
        "ns.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: disabled}}\n",
    )]);
    let namespace = path(&folder, "ns.yaml");
    let reason = |arguments: &[&str], input: &str| {
        let run = outrigger_reads(&[&["explain", "-o", "json", "-f", "-"][..], arguments].concat(), input);
        assert_eq!(run.code, 0, "{}", run.err);
        let row = run.json()[0].clone();
        (row["namespace"].as_str().unwrap().to_owned(), row["reason"].as_str().unwrap().to_owned())
    };
    let is = |namespace: &str, reason: &str| (namespace.to_owned(), reason.to_owned());
    assert_eq!(reason(&[], &pod("p", "")), is("default", "policy_enabled"));
    assert_eq!(reason(&["-n", "kube-system"], &pod("p", "")), is("kube-system", "namespace_exempt"));
    assert_eq!(reason(&["-n", "kube-system"], &pod("p", ", namespace: own")), is("own", "policy_enabled"));
    assert_eq!(
        reason(&["--namespace-manifest", &namespace], &pod("p", "")),
        is("shop", "namespace_injection_disabled")
    );
    assert_eq!(
        reason(&["--namespace-manifest", &namespace, "-n", "shop"], &pod("p", "")),
        is("shop", "namespace_injection_disabled")
    );
    assert_eq!(
        reason(&["--namespace-manifest", &namespace], &pod("p", ", namespace: other")),
        is("other", "policy_enabled")
    );
    let both =
        format!("{}---\n{}", pod("p", ", namespace: shop"), std::fs::read_to_string(&namespace).unwrap());
    assert_eq!(reason(&[], &both), is("shop", "namespace_injection_disabled"));
}

#[test]
fn a_request_for_injection_that_is_not_met_is_a_warning() {
    let asks = pod("p", ", namespace: kube-system, labels: {sidecar.istio.io/inject: 'true'}");
    let run = outrigger_reads(&["inject", "-f", "-"], &asks);
    assert_eq!((run.code, &run.out), (0, &asks));
    assert!(run.err.contains("\nwarning: Pod kube-system/p: no sidecar was injected although sidecar.istio.io/inject is \"true\""), "{}", run.err);
    let run =
        outrigger_reads(&["inject", "-f", "-"], &pod("p", ", labels: {sidecar.istio.io/inject: 'yes'}"));
    assert!(
        run.err.contains("\nwarning: Pod default/p: the pod's label sidecar.istio.io/inject is \"yes\""),
        "{}",
        run.err
    );
}

#[test]
fn explain_says_which_rule_decides_and_what_it_overrules() {
    let text = pod("p", ", namespace: kube-system, labels: {app: p, sidecar.istio.io/inject: 'true'}");
    let run = outrigger_reads(
        &["explain", "-f", "-", "-o", "json"],
        &format!("{}---\n{text}", pod("q", ", labels: {app: q}")),
    );
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let rows = run.json();
    assert_eq!(rows[0]["adds"]["initContainers"], json!(["istio-init", "istio-proxy"]));
    assert_eq!(rows[0]["templates"], json!(["sidecar"]));
    assert_eq!(rows[0]["warnings"], json!([]));
    let row = &rows[1];
    assert_eq!(
        (&row["kind"], &row["namespace"], &row["name"], &row["inject"], &row["reason"], &row["line"]),
        (
            &json!("Pod"),
            &json!("kube-system"),
            &json!("p"),
            &json!(false),
            &json!("namespace_exempt"),
            &json!(6)
        )
    );
    assert_eq!(row["adds"], Value::Null);
    let rules = row["rules"].as_array().unwrap();
    let with = |field: &str, value: Value| -> Vec<&str> {
        rules.iter().filter(|r| r[field] == value).map(|r| r["rule"].as_str().unwrap()).collect()
    };
    assert_eq!(with("decides", json!(true)), ["exempt namespaces"]);
    assert_eq!(with("outcome", json!("inject")), ["pod's sidecar.istio.io/inject", "mesh policy"]);
    assert_eq!(rules.len(), 11);

    let run = outrigger_reads(&["explain", "-f", "-"], &text);
    assert!(
        run.out.starts_with(
            "Pod kube-system/p: not injected because namespace \"kube-system\" belongs to the cluster"
        ),
        "{}",
        run.out
    );
    assert!(run.out.contains("\n  => exempt namespaces  "), "{}", run.out);
    assert!(!run.out.contains('\u{1b}'), "no colours where nobody sees them");
}

#[test]
fn explain_points_out_the_classic_mistakes() {
    let run = outrigger_reads(
        &["explain", "-f", "-", "-o", "json"],
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {sidecar.istio.io/inject: 'false'}
spec:
  template:
    metadata:
      labels: {tier: front, istio-injection: enabled}
      annotations: {sidecar.istio.io/inject: 'no'}
    spec: {containers: [{name: app, image: 'app:1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {selector: {tier: front}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {selector: {tier: front}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: other}
spec: {selector: {tier: front}, ports: [{port: 80}]}
",
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let rows = run.json();
    let warnings: Vec<&str> =
        rows[0]["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let parts = [
        "the pod's annotation sidecar.istio.io/inject is \"no\", which is neither",
        "istio-injection stands in metadata.labels of the pod template",
        "the pod has no label app",
        "2 Services select the pod (one, two)",
        "port 80 of Service one has no name",
    ];
    assert_eq!(warnings.len(), parts.len(), "{warnings:#?}");
    for (warning, part) in warnings.iter().zip(parts) {
        assert!(warning.contains(part), "{warning} does not say {part}");
    }
}

#[test]
fn explain_reports_what_it_cannot_read_and_explains_the_rest() {
    let run = outrigger(&["explain", "-f", &fixture("bad.yaml"), "-o", "json"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.json().as_array().unwrap().len(), 1);
    assert_eq!(run.json()[0]["name"], "after");
    assert_eq!(run.err.matches("error: ").count(), 7, "{}", run.err);
}

#[test]
fn completions_are_printed_for_a_shell() {
    let run = outrigger(&["completions", "bash"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("_outrigger()") && run.out.contains("--namespace-manifest"));
}

#[test]
fn uninjecting_gives_back_what_was_injected() {
    let names = ["kinds.yaml", "list.yaml", "awkward.yaml", "objects.json"];
    let packs = [
        &["--pack", "outrigger"][..],
        &["--pack", "outrigger", "--kubernetes-version", "1.28"],
        &["--pack", "linkerd-daemonset"],
    ];
    for (name, pack) in names.into_iter().flat_map(|name| packs.map(|pack| (name, pack))) {
        let injected = outrigger(&[&["inject", "-f", &fixture(name)], pack].concat());
        let run = outrigger_reads(&["uninject", "-f", "-"], &injected.out);
        assert_eq!(run.code, 0, "{}", run.err);
        let before = Run { code: 0, out: text_of(name), err: String::new() };
        assert_eq!(run.documents(), before.documents(), "{name}");
        assert!(run.err.contains(": uninjected\n"), "{}", run.err);
        let again = outrigger_reads(&["uninject", "-f", "-"], &run.out);
        assert_eq!((again.code, &again.out), (0, &run.out));
        assert!(again.err.contains(": carries no injection\n"), "{}", again.err);
    }
}

#[test]
fn diff_shows_what_injection_would_change_and_nothing_else() {
    let run = outrigger(&["diff", "-f", &fixture("awkward.yaml")]);
    assert_eq!(run.code, 0, "{}", run.err);
    let file = fixture("awkward.yaml");
    assert!(
        run.out.starts_with(&format!("--- {file}, document 4\n+++ {file}, document 4, injected\n@@ ")),
        "{}",
        run.out
    );
    assert!(run.out.contains("\n+      - name: istio-proxy\n"), "{}", run.out);
    assert!(
        run.out.lines().skip(1).all(|line| !line.starts_with('-')),
        "injection takes nothing away: {}",
        run.out
    );
    assert!(!run.out.contains('\u{1b}'), "no colours where nobody sees them");
    assert!(run.err.ends_with(
        "1 workload: 1 would be injected, 0 unchanged, 0 failed; 1 other object passed through\n"
    ));

    let json = outrigger(&["diff", "-f", &fixture("awkward.yaml"), "-o", "json"]).json();
    let injected = outrigger(&["inject", "-f", &fixture("awkward.yaml")]);
    let mut document =
        Run { code: 0, out: text_of("awkward.yaml"), err: String::new() }.documents().remove(1);
    assert_eq!(json[0]["document"], 4);
    let patch: json_patch::Patch = serde_json::from_value(json[0]["patch"].clone()).unwrap();
    json_patch::patch(&mut document, &patch).unwrap();
    assert_eq!(document, injected.documents()[1]);

    let nothing = outrigger_reads(&["diff", "-f", "-"], &injected.out);
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{}", nothing.err);
}

#[test]
fn an_istio_installations_config_map_serves_as_settings_once_a_pack_is_named() {
    let config_map =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/settings/istio-sidecar-injector.yaml");
    let config_map = config_map.to_str().unwrap();
    let folder = folder(&[
        (
            "mesh.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {mesh: 'rootNamespace: root'}\n",
        ),
        ("pod.yaml", &pod("p", ", labels: {app: p}")),
    ]);
    let pod = path(&folder, "pod.yaml");
    let run = outrigger(&["explain", "-f", &pod, "-o", "json", "--injectConfigFile", config_map]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("is a Go template") && run.err.contains("--pack istio"), "{}", run.err);
    let run = outrigger(&[
        "explain",
        "-f",
        &pod,
        "-o",
        "json",
        "--injectConfigFile",
        config_map,
        "--pack",
        "outrigger",
    ]);
    assert_eq!((run.code, &run.json()[0]["reason"]), (0, &json!("policy_disabled")), "{}", run.err);

    let show =
        "metadata:\n  annotations:\n    root: {{meshConfig.rootNamespace}}\n    hub: {{values.global.hub}}\n";
    std::fs::create_dir(folder.path().join("pack")).unwrap();
    std::fs::write(folder.path().join("pack/sidecar.yaml.hbs"), show).unwrap();
    let run = outrigger(&[
        "inject",
        "-f",
        &pod,
        "--format",
        "json",
        "--pack",
        &path(&folder, "pack"),
        "--meshConfigFile",
        &path(&folder, "mesh.yaml"),
        "--valuesFile",
        config_map,
    ]);
    assert_eq!(run.code, 0, "{}", run.err);
    let annotations = &run.json()["metadata"]["annotations"];
    assert_eq!((&annotations["root"], &annotations["hub"]), (&json!("root"), &json!("docker.io/istio")));
}

#[test]
fn explain_says_where_every_field_comes_from() {
    let arguments = ["explain", "-f", "-", "--fields", "--set", "images.proxy=mine:1"];
    let run = outrigger_reads(&[&arguments[..], &["-o", "json"]].concat(), &pod("p", ", labels: {app: p}"));
    assert_eq!(run.code, 0, "{}", run.err);
    let fields = run.json()[0]["fields"].clone();
    let of = |name: &str| fields.as_array().unwrap().iter().find(|f| f["field"] == name).unwrap().clone();
    assert_eq!(
        of("spec.initContainers[istio-proxy].image"),
        json!({"field": "spec.initContainers[istio-proxy].image", "value": "mine:1", "before": null, "from": ["value images.proxy"]})
    );
    assert_eq!(of("spec.initContainers[istio-init].image")["from"], json!(["default images.init"]));
    let run = outrigger_reads(&arguments, &pod("p", ", labels: {app: p}"));
    assert!(
        run.out.contains(
            "\n     spec.initContainers[istio-proxy].image = \"mine:1\"  from value images.proxy\n"
        ),
        "{}",
        run.out
    );
}
