//! `uninject` and `diff`, and injecting twice.

use super::*;

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
