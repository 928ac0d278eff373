use serde_json::json;

use super::{KubernetesVersion, NativeSidecars, Policy, Settings};

fn refused(text: &str) -> String {
    Settings::parse(text, "config.yaml").unwrap_err().to_string()
}

#[test]
fn nothing_said_means_the_defaults() {
    let settings = Settings::parse("", "test").unwrap();
    assert_eq!(settings.policy, Policy::Enabled);
    assert_eq!(settings.namespaces, [""]);
    assert_eq!(settings.pack, "outrigger");
    assert_eq!(settings.default_templates, ["sidecar"]);
    assert_eq!(settings.revision, "default");
    assert!(settings.native_sidecars());
}

/// The reference has each field, at its default.
#[test]
fn the_reference_is_true() {
    let page = include_str!("../../docs/settings.md");
    let examples: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    for example in &examples {
        let settings = Settings::parse(example, "docs/settings.md").unwrap();
        assert_eq!(settings.warnings(), Vec::<String>::new(), "{example}");
        crate::injection::Injector::new(settings).unwrap();
    }
    let all = Settings::parse(examples[0], "docs/settings.md").unwrap();
    assert_eq!(format!("{all:#?}"), format!("{:#?}", Settings::default()));
    let refusal = serde_json::from_value::<Settings>(json!({"": 0})).unwrap_err().to_string();
    let (_, fields) = refusal.split_once("expected one of ").unwrap();
    let said = crate::yaml::parse(examples[0]).unwrap();
    for field in fields.split(", ").map(|field| field.trim_matches('`')) {
        assert!(said.get(field).is_some(), "{field} is not in docs/settings.md");
    }
}

#[test]
fn everything_can_be_said() {
    let text = "apiVersion: outrigger.dev/v1alpha1\nkind: InjectorConfig\npolicy: disabled\nexcludeNamespaces: [a]\n\
        neverInjectSelector: [{matchLabels: {a: b}}]\nalwaysInjectSelector: []\ninjectedAnnotations: {k: v}\n\
        pack: istio\ndefaultTemplates: [sidecar, x]\ntemplates: {x: \"\"}\naliases: {y: [x]}\nrevision: canary\n\
        nativeSidecars: \"false\"\nkubernetesVersion: \"1.30\"\nplatform: openshift\ncompliancePolicy: fips-140-3\n\
        values: {a: {b: 1}}\nmeshConfig: {c: d}\ninstallationNamespace: mesh\n";
    let settings = Settings::parse(text, "test").unwrap();
    assert_eq!(settings.kubernetes_version, KubernetesVersion { major: 1, minor: 30 });
    assert_eq!(settings.native_sidecars, NativeSidecars::False);
    assert_eq!(settings.values["a"]["b"], 1);
    assert!(settings.is_exempt("mesh"));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, message) in [
        (
            "policy: enabled\npolcy: off\n",
            "config.yaml: line 2, column 1: polcy: there is no such field; did you mean policy?",
        ),
        (
            "policy: sometimes",
            "config.yaml: line 1, column 1: policy: \"sometimes\" is none of off, disabled, enabled",
        ),
        ("a: [", "config.yaml: line 2, column 1: a value is missing here"),
        ("kubernetesVersion: 1.30", "config.yaml: line 1, column 1: kubernetesVersion: 1.3 must be quoted"),
        ("kubernetesVersion: \"new\"", "is no Kubernetes version; write it as 1.34"),
        ("nativeSidecars: maybe", "nativeSidecars: \"maybe\" is none of auto, true, false"),
        (
            "\nnamespaces: [a]\nexcludeNamespaces: [b]",
            "line 3, column 1: excludeNamespaces: cannot stand together with",
        ),
        ("excludeNamespaces: [\"\"]", "excludeNamespaces: may not hold \"\" (every namespace)"),
        ("kind: Injector", "line 1, column 1: kind: \"Injector\" is not \"InjectorConfig\""),
        (
            "neverInjectSelector:\n- matchLabel: {}",
            "line 2, column 3: neverInjectSelector[0].matchLabel: there is no such field; did you mean matchLabels?",
        ),
        ("compliancePolicy: fips", "compliancePolicy: \"fips\" is none of"),
        ("- a", "settings are an object of kind InjectorConfig"),
    ] {
        let error = refused(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn an_invalid_selector_matches_nothing_and_is_told() {
    for (expression, problem) in [
        ("{key: a, operator: In}", "a: In needs values"),
        ("{key: a, operator: Exists, values: [x]}", "a: Exists takes no values"),
        ("{key: a, operator: Bogus}", "a: \"Bogus\" is none of In, NotIn, Exists, DoesNotExist"),
        ("{key: \"\", operator: DoesNotExist}", "key may not be empty"),
    ] {
        let text = format!("alwaysInjectSelector: [{{matchExpressions: [{expression}]}}]");
        let settings = Settings::parse(&text, "config.yaml").unwrap();
        assert!(!settings.always_inject_selector[0].matches(&json!({"a": "x"})), "{expression}");
        let want = format!("alwaysInjectSelector[0] is invalid and matches nothing: {problem}");
        assert_eq!(settings.warnings(), [want]);
    }
    let valid = Settings::parse(
        "neverInjectSelector: [{matchExpressions: [{key: a, operator: Exists, values: null}]}]",
        "x",
    );
    assert_eq!(valid.unwrap().warnings(), Vec::<String>::new());
}

#[test]
fn a_platform_that_is_not_known_is_told() {
    let warnings =
        |platform: &str| Settings::parse(&format!("platform: {platform}"), "config.yaml").unwrap().warnings();
    let told = "platform: \"openshfit\" means nothing; write \"openshift\", or leave it out";
    assert_eq!(warnings("openshfit"), [told]);
    assert!(warnings("openshift").is_empty() && warnings("\"\"").is_empty());
}

#[test]
fn contradictions_are_told_all_at_once() {
    let error = refused("kind: X\nrevision: \"\"\ndefaultTemplates: []\n");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn versions_are_compared_by_number() {
    let version = |text: &str| text.parse::<KubernetesVersion>().unwrap();
    assert!(version("v1.9.3") < version("1.29+"));
    assert_eq!(version("1.34"), KubernetesVersion { major: 1, minor: 34 });
    assert!("1".parse::<KubernetesVersion>().is_err());
}
