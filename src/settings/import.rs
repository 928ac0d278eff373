//! The ConfigMaps that exist in the wild: what an Istio installation left.
//!
//! | ConfigMap | data | read as |
//! |---|---|---|
//! | `istio-sidecar-injector` | `config` (policy, selectors, annotations, templates), `values` | settings and values |
//! | `istio-inject`, of the initializer | `config` (policy, namespaces, params) | settings, the params as values |
//! | `istio` | `mesh` | mesh configuration |
//!
//! Their templates are Go's. They are refused with the name of the pack that does what they do, unless whoever
//! imports them has named a pack.

use serde_json::{Map, Value, json};

use crate::yaml::{self, Positions};

/// The pack that gives the pods that Istio's templates give.
const PACK: &str = "istio";

/// A document of settings, whatever it was written as.
pub(super) struct Document {
    /// Fields of an InjectorConfig.
    pub(super) value: Value,
    /// Where they stand.
    pub(super) positions: Positions,
    /// What the positions count in: a file, or a key of a ConfigMap in it.
    pub(super) place: String,
}

/// Whether a document is a ConfigMap.
pub fn is_config_map(value: &Value) -> bool {
    value["kind"] == "ConfigMap"
}

/// What a ConfigMap holds under one of its keys: `values`, or `mesh`.
///
/// # Errors
/// The key is not there, or its text is no YAML object.
pub fn entry(config_map: &Value, key: &str) -> Result<Map<String, Value>, String> {
    let text = config_map["data"][key].as_str().ok_or_else(|| missing(config_map, key))?;
    match yaml::parse(text).map_err(|e| format!("data.{key}: {e}"))? {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(format!("data.{key}: is no object; write name: value in it")),
    }
}

fn missing(config_map: &Value, key: &str) -> String {
    let keys: Vec<&str> =
        config_map["data"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let hint = match (key, keys.contains(&"mesh")) {
        ("config", true) => "; this is the mesh configuration: give it as meshConfig, or with --mesh-config",
        _ => "",
    };
    format!(
        "the ConfigMap has no data.{key}, which is to hold them{}{hint}",
        if keys.is_empty() { String::new() } else { format!("; have {}", keys.join(", ")) }
    )
}

/// The settings in a ConfigMap. `pack`: the pack that was named elsewhere, and stands for the ConfigMap's templates.
///
/// # Errors
/// Place and problem: no `config`, text that is no YAML, a Go template where no pack was named.
pub(super) fn settings(
    config_map: &Value,
    place: &str,
    pack: Option<&str>,
) -> Result<Document, (String, String)> {
    let refuse = |problem| (place.to_owned(), problem);
    let text = config_map["data"]["config"].as_str().ok_or_else(|| refuse(missing(config_map, "config")))?;
    let inner = format!("{place}: data.config");
    let (config, positions) = yaml::parse_with_positions(text).map_err(|e| (inner.clone(), e.to_string()))?;
    let Value::Object(mut config) = config else {
        return Err((inner, "is no object; write name: value in it".to_owned()));
    };
    // As Go reads it: null is what is left out.
    config.retain(|_, value| !value.is_null());
    // Before there were several templates there was one, which installations still carry.
    let mut templates = Map::new();
    if let Some(template) = config.shift_remove("template") {
        templates.insert("template".to_owned(), template);
    }
    if let Some(Value::Object(several)) = config.get("templates") {
        templates.extend(several.clone());
    }
    if pack.is_some() {
        config.shift_remove("templates");
    } else {
        refuse_go_templates(&templates, &positions).map_err(|problem| (inner.clone(), problem))?;
    }
    let mut values = Map::new();
    config.shift_remove("initializerName");
    if let Some(params) = config.shift_remove("params") {
        values = of_params(&params).map_err(|problem| (inner.clone(), problem))?;
    }
    if config_map["data"].get("values").is_some() {
        values.extend(entry(config_map, "values").map_err(refuse)?);
    }
    let metadata = &config_map["metadata"];
    let revisions = [metadata["labels"].get("istio.io/rev"), values.get("revision")];
    let revision =
        revisions.into_iter().flatten().filter_map(Value::as_str).find(|revision| !revision.is_empty());
    if let Some(revision) = revision {
        config.insert("revision".to_owned(), revision.into());
    }
    if let Some(namespace) = metadata["namespace"].as_str() {
        config.insert("installationNamespace".to_owned(), namespace.into());
    }
    config.insert("pack".to_owned(), pack.unwrap_or(PACK).into());
    config.insert("values".to_owned(), Value::Object(values));
    Ok(Document { value: Value::Object(config), positions, place: inner })
}

/// Refuses Go templates among templates by name, with the pack to use instead.
pub(super) fn refuse_go_templates(
    templates: &Map<String, Value>,
    positions: &Positions,
) -> Result<(), String> {
    let is_go = |(_, text): &(&String, &Value)| text.as_str().is_some_and(is_go_template);
    let Some((name, _)) = templates.iter().find(is_go) else { return Ok(()) };
    let pointers = [format!("/templates/{name}"), format!("/{name}")];
    let at = pointers.iter().find_map(|pointer| positions.get(pointer));
    let at = at.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default();
    Err(format!(
        "{at}template {name:?} is a Go template, and templates here are Handlebars; pack {PACK:?} gives the same pods: \
         take the templates out and set pack: {PACK}, or give --pack {PACK}"
    ))
}

/// Whether a template's tags are Go's: methods and fields of capitals, variables, pipelines, `end`.
///
/// Source: <https://pkg.go.dev/text/template>
fn is_go_template(text: &str) -> bool {
    const KEYWORDS: [&str; 8] = ["if", "range", "with", "define", "template", "block", "include", "toYaml"];
    let tags = text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap_or(rest));
    tags.map(|tag| tag.trim_matches('-').trim()).any(|tag| {
        let field = |at: usize| tag[at + 1..].starts_with(|c: char| c.is_ascii_uppercase());
        tag == "end"
            || tag.starts_with(['$', '`'])
            || tag.starts_with("/*")
            || tag.starts_with("Template_Version_And_Istio_Version_Mismatched")
            || tag.contains(":=")
            || tag.contains(" | ")
            || tag
                .match_indices('.')
                .any(|(at, _)| field(at) && !tag[..at].ends_with(|c: char| c.is_alphanumeric()))
            || KEYWORDS.iter().any(|word| tag.strip_prefix(word).is_some_and(|rest| rest.starts_with(' ')))
    })
}

/// The initializer's parameters as values.
fn of_params(params: &Value) -> Result<Map<String, Value>, String> {
    let fields = params.as_object().ok_or("params: is no object; write name: value in it")?;
    let mut values = json!({"global": {"proxy": {}, "proxy_init": {}}});
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let pointer = match name.to_ascii_lowercase().as_str() {
            "initimage" => "/global/proxy_init/image",
            "proxyimage" => "/global/proxy/image",
            "imagepullpolicy" => "/global/imagePullPolicy",
            "version" => "/global/tag",
            "includeipranges" => "/global/proxy/includeIPRanges",
            "enablecoredump" => "/global/proxy/enableCoreDump",
            // What these said is fixed by the contract, or by the mesh configuration that is given.
            "verbosity" | "sidecarproxyuid" | "meshconfigmapname" => continue,
            _ => {
                return Err(format!(
                    "params.{name}: there is no such parameter of the initializer's; take it away"
                ));
            }
        };
        let (object, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(fields) = values.pointer_mut(object).and_then(Value::as_object_mut) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    Ok(values.as_object().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Policy, Settings};

    const INJECTOR: &str = include_str!("../../tests/fixtures/settings/istio-sidecar-injector.yaml");
    const INITIALIZER: &str = include_str!("../../tests/fixtures/settings/istio-inject.yaml");

    #[test]
    fn the_injectors_config_map_gives_settings_and_values() {
        let settings = Settings::parse_for(INJECTOR, "cm.yaml", Some("istio")).unwrap();
        assert_eq!((settings.policy, settings.pack.as_str()), (Policy::Disabled, "istio"));
        assert_eq!(
            (settings.revision.as_str(), settings.installation_namespace.as_str()),
            ("blue", "istio-system")
        );
        assert_eq!(settings.default_templates, ["sidecar"]);
        assert_eq!(settings.aliases["both"], ["sidecar", "gateway"]);
        assert!(settings.templates.is_empty());
        assert!(settings.never_inject_selector[0].matches(&json!({"job": "x"})));
        assert_eq!(settings.injected_annotations["team"], "mesh");
        assert_eq!(settings.values["global"]["hub"], "docker.io/istio");
        let without: String = INJECTOR.split("\n    template: ").next().unwrap().to_owned();
        assert_eq!(Settings::parse(&without, "cm.yaml").unwrap().pack, "istio");
    }

    #[test]
    fn a_go_template_is_refused_with_the_pack_to_use() {
        let error = Settings::parse(INJECTOR, "cm.yaml").unwrap_err().to_string();
        assert!(
            error.starts_with(
                "cm.yaml: data.config: line 12, column 1: template \"template\" is a Go template"
            ),
            "{error}"
        );
        assert!(error.ends_with("give --pack istio"), "{error}");
        let plain = "templates:\n  sidecar: |\n    {{- if .Values.global.x }}\n    a: b\n    {{- end }}\n";
        let error = Settings::parse(plain, "config.yaml").unwrap_err().to_string();
        assert!(
            error.starts_with("config.yaml: line 2, column 3: template \"sidecar\" is a Go template"),
            "{error}"
        );
    }

    #[test]
    fn go_and_handlebars_are_told_apart() {
        for text in [
            "{{ .Values.x }}",
            "{{- if eq .A 1 -}}",
            "{{ end }}",
            "{{ $x }}",
            "{{ annotation .ObjectMeta `a` 1 }}",
            "{{ toYaml .x }}",
            "{{ x | quote }}",
            "{{/* comment */}}",
            "{{ range $i, $c := .Spec.Containers }}",
        ] {
            assert!(is_go_template(text), "{text}");
        }
        for text in [
            "",
            "plain: text",
            "{{values.global.hub}}",
            "{{#if values.x}}a{{else if y}}b{{/if}}",
            "{{#each pod.spec.containers}}{{this.name}}{{/each}}",
            "{{json values.Resources}}",
            "{{> proxy}}",
            "{{!-- a comment --}}",
            "{{@index}}",
            "{{../x}}",
            "{{{json x}}}",
            "{{~x~}}",
        ] {
            assert!(!is_go_template(text), "{text}");
        }
    }

    #[test]
    fn the_initializers_config_map_gives_settings() {
        let settings = Settings::parse(INITIALIZER, "cm.yaml").unwrap();
        assert_eq!(settings.policy, Policy::Enabled);
        assert_eq!(settings.namespaces, [""]);
        assert_eq!(settings.values["global"]["proxy"]["image"], "docker.io/istio/proxy:0.2.6");
        assert_eq!(settings.values["global"]["proxy_init"]["image"], "docker.io/istio/proxy_init:0.2.6");
        assert_eq!(settings.values["global"]["imagePullPolicy"], "IfNotPresent");
        let both = INITIALIZER.replace("    # excludeNamespaces", "    excludeNamespaces");
        let error = Settings::parse(&both, "cm.yaml").unwrap_err().to_string();
        assert!(
            error.contains("data.config: line 3, column 1: excludeNamespaces: cannot stand together"),
            "{error}"
        );
    }

    #[test]
    fn what_a_config_map_lacks_or_misspells_is_told() {
        for (text, message) in [
            (
                "kind: ConfigMap\ndata: {mesh: ''}",
                "cm.yaml: the ConfigMap has no data.config, which is to hold them; have mesh; this is the mesh configuration",
            ),
            ("kind: ConfigMap", "cm.yaml: the ConfigMap has no data.config, which is to hold them"),
            (
                "kind: ConfigMap\ndata: {config: 'a: ['}",
                "cm.yaml: data.config: line 2, column 1: a value is missing here",
            ),
            (
                "kind: ConfigMap\ndata: {config: 'polcy: off'}",
                "cm.yaml: data.config: line 1, column 1: polcy: there is no such field; did you mean policy?",
            ),
            (
                "kind: ConfigMap\ndata: {config: 'params: {initImge: x}'}",
                "cm.yaml: data.config: params.initImge: there is no such parameter",
            ),
            (
                "kind: ConfigMap\ndata: {config: 'policy: enabled', values: '{'}",
                "cm.yaml: data.values: line 2",
            ),
        ] {
            let error = Settings::parse(text, "cm.yaml").unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
