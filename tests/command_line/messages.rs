//! What is said when something is wrong: whole, as it is read on a terminal. `DIR` is the folder of the files.

use std::process::{Command, Stdio};

use super::*;

const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "away",
  "clusters": [{"name": "away", "cluster": {"server": "http://127.0.0.1:0"}},
    {"name": "ca", "cluster": {"server": "https://127.0.0.1:0", "certificate-authority": "/no/ca.crt"}},
    {"name": "data", "cluster": {"server": "https://127.0.0.1:0", "certificate-authority-data": "!"}},
    {"name": "url", "cluster": {"server": "::x"}}],
  "users": [{"name": "u", "user": {}},
    {"name": "exec", "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-helper", "interactiveMode": "Never"}}},
    {"name": "key", "user": {"client-certificate": "/no/tls.crt", "client-key": "/no/tls.key"}},
    {"name": "token", "user": {"tokenFile": "/no/token"}}],
  "contexts": [{"name": "away", "context": {"cluster": "away", "user": "u"}},
    {"name": "lost", "context": {"cluster": "gone", "user": "u"}},
    {"name": "ca", "context": {"cluster": "ca", "user": "u"}},
    {"name": "data", "context": {"cluster": "data", "user": "u"}},
    {"name": "url", "context": {"cluster": "url", "user": "u"}},
    {"name": "exec", "context": {"cluster": "away", "user": "exec"}},
    {"name": "key", "context": {"cluster": "away", "user": "key"}},
    {"name": "token", "context": {"cluster": "away", "user": "token"}}]}"#;

fn files() -> tempfile::TempDir {
    let cut: String = "-----BEGIN CERTIFICATE-----\nMIIB\n".to_owned();
    let noise = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    folder(&[
        ("pod.yaml", &pod("p", "")),
        ("empty.yaml", ""),
        ("text.txt", "hello"),
        ("config", KUBECONFIG),
        ("broken", "a: ["),
        ("pack.yaml", "pack: nope"),
        ("template.yaml", "defaultTemplates: [nope]\naliases: {both: [sidecar]}"),
        ("mesh.yaml", "meshConfig: {defaultConfig: {drainDuration: 45}}"),
        ("values.yaml", "values: {imagePullPolicy: Alway, images: {prxy: x}}"),
        ("cut.crt", &cut),
        ("noise.crt", noise),
        ("ca.crt", ""),
    ])
}

/// Runs the program where no cluster is configured.
fn said(folder: &tempfile::TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let place = folder.path().display().to_string();
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("DIR", &place)).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(&arguments)
        .env_clear()
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&place, "DIR");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const HELP: &str = "\n\nFor more information, try '--help'.\n";

/// Every row: what is typed, the exit status, and all of standard error. Nothing is on standard output.
fn check(rows: &[(&[&str], i32, String)]) {
    let folder = files();
    for (arguments, code, message) in rows {
        let (status, out, err) = said(&folder, arguments);
        assert_eq!(
            (err.as_str(), out.as_str(), status),
            (message.as_str(), "", Some(*code)),
            "{arguments:?}"
        );
    }
}

#[test]
fn no_cluster_is_one_sentence_with_what_to_do() {
    let none = "there is no kubeconfig DIR/.kube/config, and this is no pod; name one with --kubeconfig, or by the variable \
                KUBECONFIG";
    let rows: Vec<(&[&str], &str)> = vec![
        (&["check"], none),
        (&["explain", "web"], none),
        (&["install", "--apply"], none),
        (&["uninstall", "--apply"], none),
        (&["repair"], none),
        (&["certs", "rotate"], none),
        (
            &["check", "--kubeconfig", "DIR/nothing"],
            "cannot read the kubeconfig DIR/nothing: No such file or directory (os error 2); name another with --kubeconfig",
        ),
        (
            &["check", "--kubeconfig", "DIR/broken"],
            "the kubeconfig is not as kubectl writes it: line 1 column 4: unclosed bracket '['; mend it, or name another \
             with --kubeconfig",
        ),
        (
            &["check", "--kubeconfig", "DIR/empty.yaml"],
            "the kubeconfig has no current context; name one with --context, or choose one by kubectl config use-context NAME",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "none"],
            "the kubeconfig has no context \"none\"; kubectl config get-contexts lists those that it has",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "lost"],
            "the kubeconfig has no cluster \"gone\", which the context names; name another context with --context",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "ca"],
            "certificate-authority of the context's cluster in the kubeconfig: cannot read /no/ca.crt: No such file or \
             directory (os error 2)",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "data"],
            "certificate-authority of the context's cluster in the kubeconfig: its -data is no base64",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "url"],
            "server of the context's cluster in the kubeconfig is no URL; write it as https://HOST:PORT",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "exec"],
            "cannot start no-such-helper, which the kubeconfig's user gets credentials from: No such file or directory (os \
             error 2); install it",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "key"],
            "client-certificate of the kubeconfig's user: cannot read /no/tls.crt: No such file or directory (os error 2)",
        ),
        (
            &["check", "--kubeconfig", "DIR/config", "--context", "token"],
            "cannot read /no/token, the tokenFile of the kubeconfig's user: No such file or directory (os error 2)",
        ),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(arguments, message)| (arguments, 1, format!("error: no cluster to ask: {message}\n")))
        .collect();
    check(&rows);
    let silent = "http://127.0.0.1:0/ does not answer: ";
    let (status, out, err) = said(&files(), &["certs", "rotate", "--kubeconfig", "DIR/config"]);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("error: {silent}")) && !err.contains("ServiceError"), "{err}");
    assert!(
        err.ends_with("; see that this cluster runs, or name another with --kubeconfig or --context\n"),
        "{err}"
    );
}

#[test]
fn what_was_typed_wrong_is_named_with_what_to_type() {
    let invalid = |value: &str, flag: &str, why: &str| {
        format!("error: invalid value '{value}' for '{flag}': {why}{HELP}")
    };
    let name =
        "is no name for Kubernetes; use small letters, digits and dashes, a letter first, no dash last";
    let signer = "is no signerName; it has the form DOMAIN/NAME, such as example.com/serving";
    let address = "expected ADDRESS:PORT, such as 127.0.0.1:8443 or [::]:8443";
    check(&[
        (
            &["check", "--wait", "soon"],
            2,
            invalid("soon", "--wait <SECONDS>", "expected a whole number from 0 to 31536000"),
        ),
        (
            &["install", "--replicas", "0"],
            2,
            invalid(
                "0",
                "--replicas <N>",
                "expected a whole number from 1 to 2147483647; with none, every pod that asks for injection would be refused",
            ),
        ),
        (
            &["certs", "--dns", "a", "--days", "0"],
            2,
            invalid("0", "--days <DAYS>", "expected a whole number from 1 to 36500"),
        ),
        (
            &["certs", "--dns", "a", "--days", "4294967295"],
            2,
            invalid("4294967295", "--days <DAYS>", "expected a whole number from 1 to 36500"),
        ),
        (&["serve", "--listen", "8443"], 2, invalid("8443", "--listen <ADDR>", address)),
        (&["serve", "--metrics-listen", "here"], 2, invalid("here", "--metrics-listen <ADDR>", address)),
        (&["install", "--revision", "A B"], 2, invalid("A B", "--revision <NAME>", name)),
        (&["uninstall", "-n", "a_b"], 2, invalid("a_b", "--namespace <NAME>", name)),
        (
            &["install", "--tag", "default"],
            2,
            invalid(
                "default",
                "--tag <NAME>",
                "is the name of a revision, and namespaces would mean either; choose another",
            ),
        ),
        (
            &["install", "--registry", "https://registry.example"],
            2,
            invalid(
                "https://registry.example",
                "--registry <HOST/PATH>",
                "expected HOST/PATH without a scheme, such as registry.example/mesh",
            ),
        ),
        (
            &["certs", "--dns", "a b"],
            2,
            invalid(
                "a b",
                "--dns <NAME>",
                "\"a b\" is no DNS name and no IP address; write one such as outrigger.outrigger-system.svc",
            ),
        ),
        (
            &["inject", "-f", "-", "--set", "a"],
            2,
            invalid("a", "--set <K=V>", "a has no value; write a=value"),
        ),
        (
            &["inject", "-f", "-", "--set", "a[x]=1"],
            2,
            invalid("a[x]=1", "--set <K=V>", "[x] is no index; write a number, such as a[0]"),
        ),
        (
            &["inject", "-f", "-", "--set", "a={1,2"],
            2,
            invalid("a={1,2", "--set <K=V>", "the { is never closed; write } behind its last item"),
        ),
        (
            &["inject", "-f", ""],
            2,
            format!("error: a value is required for '--filename <FILE>' but none was supplied{HELP}"),
        ),
        (
            &["explain"],
            2,
            format!(
                "error: the following required arguments were not provided:\n  <POD|--filename <FILE>>\n\nUsage: outrigger \
                 explain <POD|--filename <FILE>>{HELP}"
            ),
        ),
        (
            &["serve", "--log-level", "loud"],
            2,
            invalid(
                "loud",
                "--log-level <LEVEL>",
                "expected one of error, warn, info, debug, trace, off, or a filter such as warn,outrigger=debug",
            ),
        ),
        (
            &["install", "--trace-collector", "collector:4318"],
            2,
            invalid(
                "collector:4318",
                "--trace-collector <URL>",
                "is no URL of a collector; it has the form http://HOST:PORT or https://HOST:PORT, such as \
                 http://collector.observability:4318",
            ),
        ),
        (
            &["install", "--certificate-signer", "serving"],
            2,
            invalid("serving", "--certificate-signer <NAME>", signer),
        ),
        (
            &["serve", "--certificate-signer", "serving"],
            2,
            invalid("serving", "--certificate-signer <NAME>", signer),
        ),
        (
            &["install", "--certificate-signer", "kubernetes.io/kubelet-serving"],
            2,
            invalid(
                "kubernetes.io/kubelet-serving",
                "--certificate-signer <NAME>",
                "Kubernetes' own signers sign nothing that a webhook can serve; name a signer of the cluster's own",
            ),
        ),
        (
            &["inject", "-f", "-", "--injectConfigMapName", "inj"],
            2,
            invalid(
                "inj",
                "--injectConfigMapName <NAME>",
                "ConfigMaps are not read from a cluster here; write it to a file with `kubectl -n istio-system get \
                 configmap inj -o yaml > inj.yaml`, and give --config inj.yaml",
            ),
        ),
        (
            &["inject", "-f", "-", "--meshConfigMapName", "istio"],
            2,
            invalid(
                "istio",
                "--meshConfigMapName <NAME>",
                "ConfigMaps are not read from a cluster here; write it to a file with `kubectl -n istio-system get \
                 configmap istio -o yaml > istio.yaml`, and give --mesh-config istio.yaml",
            ),
        ),
        (
            &["certs", "--json"],
            2,
            format!(
                "error: the following required arguments were not provided:\n  --inspect <FILE>\n\nUsage: outrigger certs \
                 --inspect <FILE> --json{HELP}"
            ),
        ),
        (
            &["certs", "--dns", "a", "--json"],
            2,
            format!(
                "error: the argument '--dns <NAME>' cannot be used with '--json'\n\nUsage: outrigger certs --dns <NAME>{HELP}"
            ),
        ),
    ]);
}

#[test]
fn templates_packs_and_files_are_named_as_they_were_typed() {
    let error = |message: &str| format!("error: {message}\n");
    check(&[
        (
            &["inject", "-f", "DIR/pod.yaml", "--template", "nope"],
            1,
            error("--template: there is no template \"nope\"; have sidecar"),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--pack", "nope"],
            1,
            error("--pack: \"nope\": there is no such pack, folder or file; the packs are istio, linkerd-daemonset, outrigger"),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--config", "DIR/pack.yaml"],
            1,
            error(
                "DIR/pack.yaml: pack: \"nope\": there is no such pack, folder or file; the packs are istio, \
                 linkerd-daemonset, outrigger",
            ),
        ),
        (
            &["serve", "--config", "DIR/pack.yaml"],
            1,
            error(
                "DIR/pack.yaml: pack: \"nope\": there is no such pack, folder or file; the packs are istio, \
                 linkerd-daemonset, outrigger",
            ),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--config", "DIR/template.yaml"],
            1,
            error("DIR/template.yaml: defaultTemplates: there is no template \"nope\"; have sidecar, both"),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--config", "DIR/mesh.yaml"],
            1,
            error(
                "DIR/mesh.yaml: meshConfig.defaultConfig.drainDuration: is 45, and must be a duration, such as 45s",
            ),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--config", "DIR/values.yaml"],
            1,
            error(
                "DIR/values.yaml: values.images.prxy: there is no such value; mend its name, or take it out (by the schema of \
                 pack \"outrigger\")\nDIR/values.yaml: values.imagePullPolicy: \"Alway\" is not one of \"\", \"Always\", \
                 \"IfNotPresent\", \"Never\", null (by the schema of pack \"outrigger\")",
            ),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--values", "DIR/text.txt"],
            1,
            error("--values: DIR/text.txt: is no object; write name: value in it"),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--config", "DIR/text.txt"],
            1,
            error(
                "DIR/text.txt: settings are an object of kind InjectorConfig, not a list or a single value; write name: \
                 value, such as policy: enabled",
            ),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "--namespace-manifest", "DIR/pod.yaml"],
            1,
            error(
                "--namespace-manifest: DIR/pod.yaml: must hold one object of kind Namespace; kubectl get namespace NAME -o \
                 yaml prints it",
            ),
        ),
        (
            &["inject", "-f", "DIR/pod.yaml", "-o", "DIR/no/folder.yaml"],
            1,
            "Pod default/p: injected (policy_enabled)\nerror: cannot write DIR/no/folder.yaml: No such file or directory (os \
             error 2); make its folder first\n"
                .to_owned(),
        ),
        (
            &["explain", "-f", "DIR/empty.yaml"],
            0,
            "warning: no workload is in what was read; kinds with pods are explained, such as Deployment and Pod\n".to_owned(),
        ),
        (
            &["certs", "--dns", "a", "--out", "DIR"],
            1,
            error("DIR/ca.crt is there already and stays; move it away, or give another folder by --out"),
        ),
        (
            &["certs", "--inspect", "DIR/cut.crt"],
            1,
            error(
                "DIR/cut.crt: it is cut off: a -----BEGIN … line has no -----END … line after it; copy the file again",
            ),
        ),
        (
            &["certs", "--inspect", "DIR/noise.crt"],
            1,
            error("DIR/noise.crt: no X.509 certificate: what is between its BEGIN and END lines is none"),
        ),
        (
            &["man", "DIR/pod.yaml"],
            1,
            error("DIR/pod.yaml is a file; give a folder, which is made where it is not there"),
        ),
    ]);
}

#[test]
fn a_template_that_fails_names_its_line_and_its_remedy() {
    for (text, message) in [
        (
            "a: 1\n{{#if x}}\n",
            "template \"sidecar\": line 2, column 1: {{#if …}} is never closed; write {{/if}} on the line behind the last of \
             its block",
        ),
        (
            "{{> nope}}",
            "template \"sidecar\": includes the partial \"nope\", which is not in the pack; add the file _nope.yaml.hbs, or \
             include one of known",
        ),
        (
            "a: {{nope 1}}",
            "template \"sidecar\": line 1, column 4: there is no helper \"nope\"; have and, concat, contains, default, eq, \
             get, isset, join, lower, ne, not, or, text, each, if, json, len, lookup, unless, with",
        ),
        (
            "a: {{eq 1}}",
            "template \"sidecar\": line 1, column 4: eq: wants 2 arguments, such as a value's name or a \"text\"",
        ),
        (
            "{{#if}}{{/if}}",
            "template \"sidecar\": line 1, column 1: if: wants 1 argument, such as a value's name or a \"text\"",
        ),
        (
            "a: {{values.nope}}",
            "template \"sidecar\": line 1, column 4: \"values.nope\" is not set; give it a default, or test it with {{#if …}}",
        ),
        (
            "a:\n\tb: 1",
            "template \"sidecar\": what it renders is no YAML: line 2, column 2: a tab; indent with spaces, for YAML knows no \
             tabs, at \"b: 1\"",
        ),
        (
            "hello",
            "template \"sidecar\": renders no object, and must render a part of a pod, such as spec and what stands under it",
        ),
        (
            "spec: 1",
            "what the templates (sidecar) render makes no pod: spec is a number, and must be an object",
        ),
    ] {
        let pack =
            folder(&[("sidecar.yaml.hbs", text), ("_known.yaml.hbs", ""), ("pod.yaml", &pod("p", ""))]);
        let run = outrigger(&[
            "inject",
            "-f",
            &path(&pack, "pod.yaml"),
            "--pack",
            &pack.path().display().to_string(),
        ]);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{text}: {}", run.err);
        let line = run.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(line.ends_with(message), "{text}:\n{line}\n{message}");
    }
}

#[test]
fn a_template_that_renders_nothing_adds_nothing() {
    let pack = folder(&[
        ("sidecar.yaml.hbs", "{{#if values.none}}spec: {}{{/if}}"),
        ("other.yaml.hbs", "spec: {containers: [{name: other, image: o}]}"),
        ("pod.yaml", &pod("p", "")),
    ]);
    let place = pack.path().display().to_string();
    let file = path(&pack, "pod.yaml");
    let run =
        outrigger(&["inject", "-f", &file, "--pack", &place, "--template", "sidecar", "--template", "other"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(containers(&run.documents()[0]), ["other", "app"]);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let folder = files();
    for arguments in [&["completions", "bash"][..], &["inject", "-f", "DIR/pod.yaml"], &["--help"]] {
        let place = folder.path().display().to_string();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(arguments.iter().map(|argument| argument.replace("DIR", &place)))
            .stdout(writer)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("ipe"), "{arguments:?}");
    }
}
