//! Settings: taken up while requests are made, kept when the new ones are bad.

use serde_json::Value;

use crate::client::{pod, review};
use crate::server::{HEAD, Server};

const TAKEN: &str = "outrigger_settings_reloads_total{result=\"success\"}";
const SUCCESSFUL: &str = "outrigger_settings_last_reload_successful";
const REFUSED: &str = "outrigger_settings_reloads_total{result=\"failure\"}";

/// The annotation that a pod gets, by a request of now.
fn team(server: &Server) -> Option<String> {
    let injected: Value = server.ask(&review(&pod("cart"))).injected(&pod("cart")).unwrap();
    injected["metadata"]["annotations"]["team"].as_str().map(str::to_owned)
}

fn settings(team: &str) -> String {
    format!("{HEAD}injectedAnnotations: {{team: {team}}}\n")
}

#[test]
fn a_change_is_taken_up_and_a_bad_one_is_refused() {
    let server = Server::start("injectedAnnotations: {team: one}\n");
    assert_eq!(team(&server).as_deref(), Some("one"));
    assert_eq!(server.metric(SUCCESSFUL), 1.0);
    server.folder.write("config.yaml", &settings("two"));
    server.metric_becomes(TAKEN, 1.0);
    assert_eq!(team(&server).as_deref(), Some("two"));
    for (n, (bad, why)) in [
        (
            format!("{HEAD}polciy: enabled\n"),
            "line 3, column 1: polciy: there is no such field; did you mean policy?",
        ),
        (format!("{HEAD}templates: {{sidecar: '{{{{#if x}}}}'}}\n"), "sidecar"),
        (format!("{HEAD}values: {{imagePullPolicy: Alway}}\n"), "values.imagePullPolicy"),
    ]
    .into_iter()
    .enumerate()
    {
        server.folder.write("config.yaml", &bad);
        let line = server.log("changed settings refused; the last good ones stay", |_| true);
        assert!(line["problem"].as_str().unwrap().contains(why), "{line}");
        server.metric_becomes(REFUSED, n as f64 + 1.0);
        server.metric_becomes(SUCCESSFUL, 0.0);
        assert_eq!(team(&server).as_deref(), Some("two"));
    }
    // Gone for a moment, then mended.
    std::fs::remove_file(server.folder.path("config.yaml")).unwrap();
    server.metric_becomes(REFUSED, 4.0);
    assert_eq!(team(&server).as_deref(), Some("two"));
    server.folder.write("config.yaml", &settings("three"));
    server.metric_becomes(TAKEN, 2.0);
    server.metric_becomes(SUCCESSFUL, 1.0);
    assert_eq!(team(&server).as_deref(), Some("three"));
}

#[test]
fn swaps_of_a_mounted_config_map_are_seen_each_time() {
    let server = Server::start("injectedAnnotations: {team: start}\n");
    let swap = |n: usize| server.folder.mount(n, &[("config.yaml", &settings(&format!("team-{n}")))]);
    swap(0);
    for n in 0..3 {
        server.metric_becomes(TAKEN, n as f64 + 1.0);
        assert_eq!(team(&server), Some(format!("team-{n}")));
        swap(n + 1);
    }
    assert_eq!(server.metric(REFUSED), 0.0);
}

#[test]
fn a_changed_pack_is_taken_up() {
    let server = Server::start("");
    let folder = &server.folder;
    let pack = folder.path("logs");
    std::fs::create_dir(&pack).unwrap();
    let template = |team: &str| format!("metadata:\n  annotations:\n    team: {team}\n");
    folder.write("logs/mark.yaml.hbs", &template("one"));
    let settings = format!("{HEAD}packs: [{pack}]\ndefaultTemplates: [sidecar, logs/mark]\n");
    folder.write("config.yaml", &settings);
    server.metric_becomes(TAKEN, 1.0);
    assert_eq!(team(&server).as_deref(), Some("one"));
    folder.write("logs/mark.yaml.hbs", &template("two"));
    server.metric_becomes(TAKEN, 2.0);
    assert_eq!(team(&server).as_deref(), Some("two"));
}
