//! Names that are not known, and look like one that is: what a strict reader would refuse and Istio's does not.
//!
//! Mesh configuration and values hold much that injection does not read, and every version of Istio has more of it. So
//! a name that is not known is kept and nothing is said, but for a name that its author hardly meant.

use serde_json::{Map, Value};

/// The fields of Istio's MeshConfig.
///
/// Source: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig>
const MESH_CONFIG: [&str; 51] = [
    "accessLogEncoding",
    "accessLogFile",
    "accessLogFormat",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "connectTimeout",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultHttpRetryPolicy",
    "defaultProviders",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "localityLbSetting",
    "meshMTLS",
    "outboundClusterStatName",
    "outboundTrafficPolicy",
    "pathNormalization",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "rootNamespace",
    "sdsUdsPath",
    "serviceScopeConfigs",
    "serviceSettings",
    "tcpKeepalive",
    "thriftConfig",
    "tlsDefaults",
    "trustDomain",
    "trustDomainAliases",
    "verifyCertificateAtClient",
    "mixerCheckServer",
    "mixerReportServer",
];

/// What is odd about names in a mesh configuration. `of_proxy` are the fields of ProxyConfig.
pub(crate) fn in_mesh_config(config: &Map<String, Value>, of_proxy: &[&str]) -> Vec<String> {
    let mut odd = among("meshConfig", config, &MESH_CONFIG);
    if let Some(Value::Object(proxies)) = config.get("defaultConfig") {
        odd.extend(among("meshConfig.defaultConfig", proxies, of_proxy));
    }
    odd
}

/// What is odd about names in values, beside the `defaults` of a pack, at every depth.
pub(crate) fn in_values(values: &Map<String, Value>, defaults: &Map<String, Value>) -> Vec<String> {
    fn walk(place: &str, values: &Map<String, Value>, defaults: &Map<String, Value>, odd: &mut Vec<String>) {
        let known: Vec<&str> = defaults.keys().map(String::as_str).collect();
        odd.extend(among(place, values, &known));
        for (name, value) in values {
            if let (Value::Object(value), Some(Value::Object(default))) = (value, defaults.get(name)) {
                walk(&format!("{place}.{name}"), value, default, odd);
            }
        }
    }
    let mut odd = Vec::new();
    walk("values", values, defaults, &mut odd);
    odd
}

fn among(place: &str, given: &Map<String, Value>, known: &[&str]) -> Vec<String> {
    let unknown = given.keys().filter(|name| !known.contains(&name.as_str()));
    let meant = unknown.filter_map(|name| {
        // Who has both means both.
        let meant = nearest(name, known).filter(|meant| !given.contains_key(*meant))?;
        Some(format!("{place}.{name} is not known and has no effect; did you mean {meant}?"))
    });
    meant.collect()
}

/// The known name that a name is hardly different from: by case or underscores, or by a letter in four.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let given = plain(name);
    let distances = known.iter().map(|known| (strsim::damerau_levenshtein(&given, &plain(known)), *known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 3.min(given.chars().count() / 4)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn misspelt_fields_of_the_mesh_are_pointed_out() {
        let config = fields(json!({"trustDomian": "a", "default_config": {}, "enableprometheusmerge": true,
            "newFieldOfIstios": 1, "rootNamespace": "x", "rootNamespaces": "kept, for both are there",
            "defaultConfig": {"concurency": 2, "holdApplicationUntilProxyStart": true, "other": 1}}));
        let odd = in_mesh_config(&config, &["concurrency", "holdApplicationUntilProxyStarts"]);
        let want = [
            "meshConfig.trustDomian is not known and has no effect; did you mean trustDomain?",
            "meshConfig.enableprometheusmerge is not known and has no effect; did you mean enablePrometheusMerge?",
            "meshConfig.defaultConfig.concurency is not known and has no effect; did you mean concurrency?",
            "meshConfig.defaultConfig.holdApplicationUntilProxyStart is not known and has no effect; did you mean \
             holdApplicationUntilProxyStarts?",
        ];
        assert_eq!(odd, want);
    }

    #[test]
    fn misspelt_values_are_pointed_out_at_every_depth() {
        let defaults = fields(
            json!({"images": {"init": "a", "proxy": "b"}, "global": {"proxy": {"statusPort": 1}, "hub": ""}}),
        );
        let values = fields(
            json!({"image": {"x": 1}, "global": {"proxy": {"statusport": 2, "autoInject": "x"}, "tag": "1"}}),
        );
        let want = [
            "values.image is not known and has no effect; did you mean images?",
            "values.global.proxy.statusport is not known and has no effect; did you mean statusPort?",
        ];
        assert_eq!(in_values(&values, &defaults), want);
    }
}
