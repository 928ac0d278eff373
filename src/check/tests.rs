use super::*;
use crate::settings::Settings;

fn checked(settings: &str) -> Report {
    check(&Injector::new(Settings::parse(settings, "test").unwrap()).unwrap())
}

/// Severity, code, message, number of pods, of the findings with a template of our own.
fn found(template: &str) -> Vec<(Severity, &'static str, String)> {
    let indented: String = template.lines().map(|line| format!("    {line}\n")).collect();
    let settings = format!("defaultTemplates: [mine]\ntemplates:\n  mine: |\n{indented}");
    let report = checked(&settings);
    let mine = report.findings.into_iter().filter(|finding| finding.templates == "mine");
    mine.map(|finding| (finding.severity, finding.code, finding.message)).collect()
}

#[test]
fn the_corpus_is_read_whole() {
    let pods = corpus();
    assert_eq!(pods.len(), CORPUS.matches("\nkind: Pod\n").count());
    assert_eq!(pods.len(), 11);
}

#[test]
fn the_packs_that_ship_break_nothing() {
    for pack in ["outrigger", "istio", "linkerd-daemonset"] {
        let report = checked(&format!("pack: {pack}"));
        let breaks: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Break).collect();
        assert_eq!(breaks, Vec::<&Finding>::new(), "{pack}");
    }
}

#[test]
fn our_own_sidecar_asks_for_the_least() {
    let risks: Vec<_> = checked("").findings.into_iter().map(|f| (f.code, f.message)).collect();
    let want = "container \"istio-init\" adds the capability NET_ADMIN, which the level baseline refuses";
    assert_eq!(risks, [("pod_security", want.to_owned())]);
}

#[test]
fn what_breaks_an_application_is_found() {
    let side = "spec:\n  containers:\n  - name: side\n    image: side:1\n";
    for (template, code, message) in [
        (
            "spec: {serviceAccountName: other}",
            "changes_the_pods_own",
            "spec.serviceAccountName is the pod's own",
        ),
        ("spec: {hostAliases: null}", "takes_the_pods_own", "spec.hostAliases[10.1.2.3]"),
        ("spec: {nodeSelector: {disk: hdd}}", "changes_the_pods_own", "spec.nodeSelector.disk"),
        ("metadata: {labels: {team: other}}", "changes_the_pods_own", "metadata.labels.team"),
        (
            "spec: {initContainers: [{name: app, image: 'a:1'}]}",
            "duplicate_container",
            "two containers of the name \"app\"",
        ),
        ("spec: {containers: [{name: Side, image: 'a:1'}]}", "bad_name", "\"Side\" is no DNS label"),
        ("spec: {containers: [{name: side}]}", "no_image", "container \"side\" has no image"),
        (
            &format!("{side}    ports: [{{containerPort: 8080}}]\n"),
            "port_taken",
            "\"side\" and \"app\" both declare port 8080/TCP",
        ),
        (
            &format!("{side}    volumeMounts: [{{name: nowhere, mountPath: /x}}]\n"),
            "no_volume",
            "mounts the volume \"nowhere\"",
        ),
        (
            &format!("{side}    env: [{{name: A, value: b}}, {{name: A, value: c}}]\n"),
            "duplicate_item",
            "has env \"A\" twice",
        ),
        (
            "spec: {volumes: [{name: data, hostPath: {path: /}}]}",
            "two_sources",
            "volume \"data\" has more than one source",
        ),
        ("metadata: {labels: {name: '{{annotations.text}}'}}", "not_rendered", "annotations.text"),
        ("metadata: {labels: {name: 'a b'}}", "bad_label", "the label name cannot have the value \"a b\""),
        (
            "metadata: {annotations: {count: '{{get annotations \"count\" \"\"}}x'}}",
            "not_idempotent",
            "injecting twice changes metadata.annotations.count",
        ),
    ] {
        let found = found(template);
        let is_it = |(severity, c, m): &(Severity, &str, String)| {
            *severity == Severity::Break && *c == code && m.contains(message)
        };
        assert!(found.iter().any(is_it), "{template}: {found:#?}");
    }
}

#[test]
fn what_another_cluster_refuses_is_found() {
    for (template, code, message) in [
        ("spec: {containers: [{name: side, image: side}]}", "floating_image", "\"side\" has no tag"),
        (
            "spec: {containers: [{name: side, image: 'side:1'}]}",
            "no_resources",
            "no requests.cpu, requests.memory, limits.cpu, limits.memory",
        ),
        ("spec: {containers: [{name: side, image: 'side:1'}]}", "pod_security", "has no runAsNonRoot: true"),
        (
            "spec: {containers: [{name: side, image: 'side:1', securityContext: {privileged: true}}]}",
            "pod_security",
            "is privileged",
        ),
        (
            "spec: {containers: [{name: side, image: 'side:1'}]}",
            "job_never_ends",
            "container \"side\" is no native sidecar",
        ),
        ("spec: {hostPID: true}", "pod_security", "spec.hostPID is set"),
        (
            "spec: {volumes: [{name: host, hostPath: {path: /}}]}",
            "pod_security",
            "volume \"host\" is a hostPath",
        ),
    ] {
        let found = found(template);
        let is_it = |(severity, c, m): &(Severity, &str, String)| {
            *severity == Severity::Risk && *c == code && m.contains(message)
        };
        assert!(found.iter().any(is_it), "{template}: {found:#?}");
    }
    let native = "spec: {initContainers: [{name: side, image: 'side:1', restartPolicy: Always}]}";
    assert!(found(native).iter().all(|(_, code, _)| *code != "job_never_ends"));
}

#[test]
fn the_same_finding_of_many_pods_is_one() {
    let report = checked("defaultTemplates: [mine]\ntemplates: {mine: 'spec: {containers: [{name: side}]}'}");
    let finding = report.findings.iter().find(|f| f.code == "no_image" && f.templates == "mine").unwrap();
    assert_eq!(finding.pods.len(), report.pods);
}
