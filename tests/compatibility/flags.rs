//! Flags of `istioctl kube-inject` and of `linkerd-inject`: each is given to `outrigger inject` with a manifest.

use std::process::Command;

use crate::{document, outcome};

/// The flag with a value that it may have, and why it is not taken. `CONFIG`, `MESH`, `VALUES` and `POD` are files.
const KUBE_INJECT: &[(&str, &str)] = &[
    ("-f POD", ""),
    ("--filename POD", ""),
    ("-o -", ""),
    ("--output -", ""),
    ("--injectConfigFile CONFIG", ""),
    ("--meshConfigFile MESH", ""),
    ("--valuesFile VALUES", ""),
    ("--revision canary", ""),
    ("-r canary", ""),
    ("--namespace shop", ""),
    ("-n shop", ""),
    (
        "--injectConfigMapName istio-sidecar-injector",
        "settings are files here: `kubectl get configmap NAME -o yaml > FILE`, then `--config FILE`",
    ),
    (
        "--meshConfigMapName istio",
        "settings are files here: `kubectl get configmap NAME -o yaml > FILE`, then `--mesh-config FILE`",
    ),
    (
        "--webhookConfig istio-sidecar-injector",
        "injection needs no cluster; what its webhook would do is `kubectl create --dry-run=server`",
    ),
    ("--istioNamespace istio-system", "injection needs no cluster"),
    ("-i istio-system", "injection needs no cluster"),
    ("--kubeconfig FILE", "injection needs no cluster"),
    ("-c FILE", "injection needs no cluster"),
    ("--context mine", "injection needs no cluster"),
    ("--operatorFileName FILE", "there is no operator; `--values` takes what stands under its `values`"),
    ("--vklog 1", "nothing of a Kubernetes client is in it"),
];
const LINKERD_INJECT: &[(&str, &str)] =
    &[("-f POD", ""), ("-o -", ""), ("-linkerdPort 4140", "`--set port=4140`")];

fn taken(flag: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("CONFIG", "policy: enabled\npack: istio\n"),
        ("MESH", "{}"),
        ("VALUES", "{}"),
        (
            "POD",
            "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: web, image: 'web:1'}]}}",
        ),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.arg("inject").current_dir(folder.path()).args(flag.split(' '));
    if !flag.ends_with("POD") {
        command.args(["-f", "POD"]);
    }
    let output = command.output().unwrap();
    output.status.success() && String::from_utf8(output.stdout).unwrap().contains("istio-proxy")
}

fn rows(flags: &[(&str, &str)]) -> Vec<Vec<String>> {
    let row = |&(flag, note): &(&str, &str)| {
        vec![format!("`{flag}`"), outcome(taken(flag), flag, note), note.to_owned()]
    };
    flags.iter().map(row).collect()
}

#[test]
fn the_page_on_the_command_line_says_which_flags_are_taken() {
    let head = ["flag", "taken", ""];
    let mut page = String::from(
        "# Command line\n\nFlags of others' commands, each given to `outrigger inject` with a pod that was to be injected.\n\n## istioctl kube-inject\n\n",
    );
    page += &document::table(&head, &rows(KUBE_INJECT));
    page += "\n## linkerd-inject\n\n";
    page += &document::table(&head, &rows(LINKERD_INJECT));
    document::holds("command-line.md", &page);
}
