//! Istio's ProxyConfig, in layers: what is built in, the mesh's `defaultConfig`, the pod's annotation
//! `proxy.istio.io/config`. Each replaces what it names, field by field; `proxyMetadata` merges by key.
//!
//! Source: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig>

mod check;
mod duration;
mod read;
mod schema;

use std::sync::LazyLock;

pub(super) use check::{listeners, listeners_with, port_is_free};
use serde_json::{Map, Value, json};

use crate::settings::{Unusable, misspelt};
use crate::yaml;

/// The mesh's port for merged metrics and probes where nothing else is said.
pub(super) const DEFAULT_STATUS_PORT: i64 = 15020;

/// A ProxyConfig as protobuf's JSON has it.
pub(super) type ProxyConfig = Map<String, Value>;

/// What is built in.
static BUILT_IN: LazyLock<ProxyConfig> = LazyLock::new(|| {
    let config = json!({
        "configPath": "./etc/istio/proxy",
        "binaryPath": "/usr/local/bin/envoy",
        "serviceCluster": "istio-proxy",
        "drainDuration": "45s",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "proxyAdminPort": 15000,
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "statNameLength": 189,
        "statusPort": DEFAULT_STATUS_PORT,
        "terminationDrainDuration": "5s",
    });
    config.as_object().cloned().unwrap_or_default()
});

/// What the mesh configuration says about proxies.
#[derive(Debug, Default)]
pub(super) struct MeshDefaults {
    /// `defaultConfig` over what is built in, as it was written: a port set to 0 is 0.
    pub(super) written: ProxyConfig,
    /// What a pod's proxy gets where its annotation says nothing else.
    pub(super) effective: ProxyConfig,
}

impl MeshDefaults {
    /// Reads `defaultConfig` of the mesh configuration.
    pub(super) fn new(default_config: &Value) -> Result<Self, Unusable> {
        const FIELD: &str = "meshConfig.defaultConfig";
        let read = |keep_zero| {
            read::object(default_config.clone(), schema::PROXY_CONFIG, keep_zero).map_err(|istios| {
                let mistake = read::mistake(default_config, schema::PROXY_CONFIG);
                let (path, problem) = mistake.unwrap_or((String::new(), istios));
                Unusable::new(format!("{FIELD}{path}"), problem)
            })
        };
        let mut written = BUILT_IN.clone();
        overlay(&mut written, read(true)?);
        let mut effective = BUILT_IN.clone();
        overlay(&mut effective, read(false)?);
        listeners(&effective).map_err(|e| Unusable::new(FIELD, e))?;
        Ok(Self { written, effective })
    }
}

/// The layer that an annotation's text makes, or what is wrong with it.
pub(super) fn from_annotation(text: &str) -> Result<ProxyConfig, String> {
    let value = yaml::parse(text).map_err(|e| format!("failed to convert to apply proxy config: {e}"))?;
    let convert = |keep_zero| {
        read::object(value.clone(), schema::PROXY_CONFIG, keep_zero)
            .map_err(|e| format!("failed to convert to apply proxy config: {e}"))
    };
    let mut written = BUILT_IN.clone();
    overlay(&mut written, convert(true)?);
    check::check(&written)?;
    convert(false)
}

/// Puts a layer over another one.
pub(super) fn overlay(below: &mut ProxyConfig, layer: ProxyConfig) {
    if let Some(name) = schema::CLUSTER_NAME.iter().find(|name| layer.contains_key(**name)) {
        below.retain(|field, _| field == name || !schema::CLUSTER_NAME.contains(&field.as_str()));
    }
    for (field, mut value) in layer {
        match (field.as_str(), below.get_mut(&field), &mut value) {
            ("proxyMetadata", Some(Value::Object(below)), Value::Object(layer)) => {
                below.extend(std::mem::take(layer));
                below.sort_keys();
                continue;
            }
            ("proxyHeaders", Some(Value::Object(below)), Value::Object(layer)) => {
                for kept in schema::KEPT_HEADERS {
                    if let (false, Some(value)) = (layer.contains_key(kept), below.shift_remove(kept)) {
                        layer.insert(kept.to_owned(), value);
                    }
                }
            }
            ("proxyMetadata", None, Value::Object(layer)) => layer.sort_keys(),
            _ => {}
        }
        below.insert(field, value);
    }
}

/// What is odd about the names in a mesh configuration.
pub(super) fn misspelt(mesh_config: &Map<String, Value>) -> Vec<String> {
    let fields: Vec<&str> = schema::PROXY_CONFIG.iter().map(|(name, _)| *name).collect();
    misspelt::in_mesh_config(mesh_config, &fields)
}

/// The environment variable PROXY_CONFIG: what is not built in, as JSON in the order of Istio's fields.
pub(super) fn print(config: &ProxyConfig) -> String {
    let own = |name: &str| config.get(name).filter(|value| BUILT_IN.get(name) != Some(value));
    let printed: Map<String, Value> = schema::PROXY_CONFIG
        .iter()
        .filter_map(|(name, _)| own(name).map(|value| ((*name).to_owned(), value.clone())))
        .collect();
    Value::Object(printed).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(default_config: Value, annotation: &str) -> String {
        let mut config = MeshDefaults::new(&default_config).unwrap().effective;
        overlay(&mut config, from_annotation(annotation).unwrap());
        print(&config)
    }

    #[test]
    fn only_what_is_not_built_in_is_printed_in_istios_order() {
        assert_eq!(effective(json!({"statusPort": 15020, "drainDuration": "45s"}), ""), "{}");
        let annotation = "statusPort: 15099\nconcurrency: 0\ntracing: {}\nunknown: 1\nextraStatTags: [a]\n\
                          terminationDrainDuration: 500ms\nproxy_admin_port: 16000\n";
        assert_eq!(
            effective(json!({"meshId": "m", "concurrency": 2}), annotation),
            r#"{"proxyAdminPort":16000,"concurrency":0,"tracing":{},"statusPort":15099,"extraStatTags":["a"],"terminationDrainDuration":"0.500s","meshId":"m"}"#
        );
    }

    #[test]
    fn ports_of_other_listeners_cannot_be_chosen() {
        let mesh = |config: Value| MeshDefaults::new(&config).unwrap_err().to_string();
        assert_eq!(
            mesh(json!({"proxyAdminPort": 15001})),
            "meshConfig.defaultConfig: proxyAdminPort is 15001, the sidecar's port for outbound traffic: choose another"
        );
        assert_eq!(
            mesh(json!({"proxyAdminPort": 15020})),
            "meshConfig.defaultConfig: proxyAdminPort and statusPort are both 15020: give each its own"
        );
        assert_eq!(
            mesh(json!({"proxyAdminPort": 300100})),
            "meshConfig.defaultConfig: proxyAdminPort is 300100: give a port from 1 to 65535"
        );
        assert_eq!(
            mesh(json!({"statusPort": -1})),
            "meshConfig.defaultConfig: statusPort is -1: give a port from 1 to 65535"
        );
        // A zero is nothing said.
        assert!(mesh(json!({"proxyAdminPort": 15020, "statusPort": 0})).contains("are both 15020"));
    }

    #[test]
    fn the_meshs_author_is_told_the_field_its_value_and_what_it_must_be() {
        for (config, message) in [
            (json!("x"), ": is \"x\", and must be an object: name: value"),
            (json!({"drainDuration": 45}), ".drainDuration: is 45, and must be a duration, such as 45s"),
            (
                json!({"drainDuration": "soon"}),
                ".drainDuration: is \"soon\", and must be a duration, such as 45s",
            ),
            (json!({"concurrency": "x"}), ".concurrency: is \"x\", and must be a whole number"),
            (
                json!({"proxy_admin_port": 1.5}),
                ".proxyAdminPort: is 1.5, and must be a whole number from -2147483648 to 2147483647",
            ),
            (json!({"meshId": [1]}), ".meshId: is a list, and must be a string; write it in quotes"),
            (
                json!({"interceptionMode": "SOME"}),
                ".interceptionMode: is \"SOME\", and must be one of REDIRECT, TPROXY",
            ),
            (json!({"tracing": {"sampling": "x"}}), ".tracing.sampling: is \"x\", and must be a number"),
            (
                json!({"proxyMetadata": {"A": "1", "B": 2}}),
                ".proxyMetadata.B: is 2, and must be a string; write it in quotes",
            ),
            (
                json!({"extraStatTags": ["a", true]}),
                ".extraStatTags[1]: is true, and must be a string; write it in quotes",
            ),
        ] {
            let error = MeshDefaults::new(&config).unwrap_err().to_string();
            assert!(error.starts_with(&format!("meshConfig.defaultConfig{message}")), "{config}: {error}");
        }
    }

    #[test]
    fn metadata_merges_by_key_and_messages_are_replaced() {
        let mesh = json!({"proxyMetadata": {"B": "1", "A": "1"}, "tracing": {"sampling": 5, "zipkin": {"address": "z:1"}},
            "proxyHeaders": {"server": {"value": "s"}, "requestId": {"disabled": true}}});
        let annotation = "proxyMetadata: {A: \"2\", C: \"3\"}\ntracing: {sampling: 12.5}\nproxyHeaders: {requestId: {disabled: false}}\n";
        assert_eq!(
            effective(mesh, annotation),
            r#"{"tracing":{"sampling":12.5},"proxyMetadata":{"A":"2","B":"1","C":"3"},"proxyHeaders":{"requestId":{"disabled":false},"server":{"value":"s"}}}"#
        );
    }

    #[test]
    fn a_zero_does_not_override_but_the_meshs_own_port_may_be_zero() {
        let mesh = MeshDefaults::new(&json!({"statusPort": 0})).unwrap();
        assert_eq!(mesh.written["statusPort"], 0);
        assert_eq!(mesh.effective["statusPort"], 15020);
        assert_eq!(effective(json!({"statNameLength": 7}), "statNameLength: 0"), r#"{"statNameLength":7}"#);
        let one_of_two = effective(json!({}), "tracingServiceName: CANONICAL_NAME_ONLY");
        assert_eq!(one_of_two, r#"{"tracingServiceName":"CANONICAL_NAME_ONLY"}"#);
    }

    #[test]
    fn a_bad_annotation_says_what_is_wrong() {
        for (annotation, want) in [
            (
                "concurrency: x",
                "failed to convert to apply proxy config: invalid character 'x' looking for beginning of value",
            ),
            (
                "drainDuration: 45",
                "failed to convert to apply proxy config: json: cannot unmarshal number into Go value of type string",
            ),
            (
                "drainDuration: soon",
                "failed to convert to apply proxy config: bad Duration: time: unknown unit",
            ),
            ("statusPort: 0", "invalid status port: port number 0 must be in the range 1..65535"),
            (
                "discoveryAddress: nowhere",
                "invalid discovery address: unable to split \"nowhere\": address nowhere: missing port in address",
            ),
            (
                "text",
                "failed to convert to apply proxy config: json: cannot unmarshal string into Go value of type map[string]json.RawMessage",
            ),
            ("interceptionMode: SOME", "unknown value \"SOME\""),
        ] {
            let error = from_annotation(annotation).unwrap_err();
            assert!(error.contains(want), "{annotation}: {error}");
        }
        for annotation in ["", "concurrency: -1", "unknownField: 1", "holdApplicationUntilProxyStarts: true"]
        {
            assert!(from_annotation(annotation).is_ok(), "{annotation}");
        }
    }
}
