//! Settings from files, flags and ConfigMaps, and the namespaces that they are asked about.

use super::*;

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
    let folder = folder(&[
        ("typo.yaml", "policy: enabled\npolcy: off\n"),
        ("list.yaml", "[1]\n"),
        ("empty.yaml", "\n"),
    ]);
    let [typo, list, empty] = ["typo.yaml", "list.yaml", "empty.yaml"].map(|name| path(&folder, name));
    for (arguments, message) in [
        (
            vec!["--config", &typo],
            format!("error: {typo}: line 2, column 1: polcy: there is no such field; did you mean policy?"),
        ),
        (
            vec!["--config", "/no/such/file"],
            "error: cannot read the settings /no/such/file: No such file".to_owned(),
        ),
        (vec!["--values", &list], format!("error: --values: {list}: is no object; write name: value in it")),
        (vec!["--pack", "no-such-pack"], "error: --pack: \"no-such-pack\": ".to_owned()),
        (vec!["--config", &empty], format!("error: {empty}: is empty; for the defaults, name no file\n")),
        (
            vec!["--mesh-config", &empty],
            format!("error: --mesh-config: {empty}: is empty; leave --mesh-config out for nothing\n"),
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
