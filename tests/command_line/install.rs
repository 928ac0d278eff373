//! `outrigger install` as a black box.

use std::path::Path;

use crate::{folder, outrigger, path};

/// The files of `manifests/`, in order, as one stream.
fn manifests() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    texts.join("---\n")
}

#[test]
fn without_options_the_manifests_are_printed_with_their_comments() {
    let run = outrigger(&["install"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(run.out, manifests());
}

#[test]
fn json_is_a_list_of_the_same_objects() {
    let list = outrigger(&["install", "-o", "json", "--revision", "canary"]).json();
    assert_eq!(list["kind"], "List");
    let documents = outrigger(&["install", "--revision", "canary"]).documents();
    assert_eq!(list["items"].as_array().unwrap(), &documents);
}

#[test]
fn settings_are_put_into_the_config_map_and_are_checked() {
    let files = folder(&[("good.yaml", "policy: disabled # ours\n"), ("bad.yaml", "policy: maybe\n")]);
    let run = outrigger(&["install", "--config", &path(&files, "good.yaml")]);
    assert_eq!(run.code, 0, "{}", run.err);
    let documents = run.documents();
    let map = documents.iter().find(|document| document["kind"] == "ConfigMap").unwrap();
    assert_eq!(map["data"]["config.yaml"], "policy: disabled # ours\n");
    let run = outrigger(&["install", "--config", &path(&files, "bad.yaml")]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.contains("--config: line 1, column 1: policy: \"maybe\" is none of "), "{}", run.err);
    let run = outrigger(&["install", "--config", &path(&files, "none.yaml")]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("--config: cannot read "), "{}", run.err);
}

#[test]
fn a_tag_takes_no_options_of_an_installation() {
    let run = outrigger(&["install", "--tag", "prod", "--replicas", "2"]);
    assert_eq!(run.code, 2, "{}", run.err);
    let run = outrigger(&["install", "--tag", "prod", "--revision", "prod"]);
    assert_eq!(run.code, 1, "{}", run.err);
}

#[test]
fn what_is_to_be_deleted_is_printed_in_order() {
    let run = outrigger(&["uninstall", "--revision", "canary", "--namespace", "mesh"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let objects = run.documents();
    let titles: Vec<_> = objects
        .iter()
        .map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', ""))
        .collect();
    assert_eq!(titles[0], "MutatingWebhookConfiguration outrigger-canary");
    for title in
        ["Deployment outrigger-canary", "Secret outrigger-canary-certificate", "Lease outrigger-canary"]
    {
        assert!(titles.iter().any(|known| known == title), "{title}: {titles:?}");
    }
    // kubectl could not find the kinds of operators that are not there.
    assert!(
        !run.out.contains("monitoring.coreos.com") && !run.out.contains("kind: Namespace"),
        "{}",
        run.out
    );
    assert!(run.err.contains("ServiceMonitor mesh/outrigger-canary"), "{}", run.err);
}

#[test]
fn a_cluster_that_is_not_there_is_an_error() {
    let files = folder(&[("kubeconfig", "apiVersion: v1\nkind: Config\n")]);
    for command in [&["install", "--apply"][..], &["install", "--dry-run=server"], &["uninstall", "--apply"]]
    {
        let run = outrigger(&[command, &["--kubeconfig", &path(&files, "kubeconfig")]].concat());
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{command:?}");
        assert!(run.err.starts_with("error: no cluster to ask: "), "{command:?}: {}", run.err);
    }
}
