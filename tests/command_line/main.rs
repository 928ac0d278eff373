//! The `outrigger` command as a black box: the real binary, its exit codes, what goes to standard output and what
//! to standard error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod back;
mod documents;
mod explain;
mod install;
mod messages;
mod packs;
mod running;
mod settings;

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

/// The pod, or the pod template of the workload.
fn template(document: &Value) -> &Value {
    match document["kind"].as_str().unwrap() {
        "Pod" => document,
        "CronJob" => &document["spec"]["jobTemplate"]["spec"]["template"],
        _ => &document["spec"]["template"],
    }
}

/// The names of all containers of a pod or template.
fn containers(pod: &Value) -> Vec<&str> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    lists.into_iter().flatten().flatten().map(|c| c["name"].as_str().unwrap()).collect()
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
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let run = outrigger(&["man", &pages.display().to_string()]);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{}", run.err);
    for page in ["outrigger.1", "outrigger-inject.1", "outrigger-certs-rotate.1"] {
        assert!(std::fs::read_to_string(pages.join(page)).unwrap().contains(".SH SYNOPSIS"), "{page}");
    }
    let file = pages.join("outrigger.1").display().to_string();
    let refused = outrigger(&["man", &file]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.starts_with(&format!("error: {file} is a file; give a folder")), "{}", refused.err);
}

#[test]
fn completions_are_printed_for_a_shell() {
    let run = outrigger(&["completions", "bash"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("_outrigger()") && run.out.contains("--namespace-manifest"));
}
