//! `inject`: which documents come out, in which order and form, and where to.

use super::*;

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
        let template = template(document);
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
