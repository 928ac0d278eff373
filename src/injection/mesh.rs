//! What the engine itself takes from the mesh configuration.
//!
//! Source: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig>

use serde_json::{Map, Value, json};

use super::proxy_config::{self, MeshDefaults};
use crate::settings::Unusable;

/// The mesh configuration, read once.
#[derive(Debug)]
pub(super) struct Mesh {
    /// The port at which the agent serves merged metrics and probes; that of the mesh, not of a pod.
    pub(super) status_port: i64,
    /// Whether applications' metrics are merged with the proxy's where a pod says nothing else.
    pub(super) merges_metrics: bool,
    /// Whether a tracing provider wants OpenTelemetry's attributes of the service.
    pub(super) otel_attributes: bool,
    /// What proxies are configured with.
    pub(super) proxies: MeshDefaults,
}

impl Mesh {
    /// Reads a mesh configuration.
    pub(super) fn new(config: &Map<String, Value>) -> Result<Self, Unusable> {
        let field = |name: &str| config.get(name).unwrap_or(&Value::Null);
        let proxies = MeshDefaults::new(field("defaultConfig"))?;
        let providers = field("extensionProviders").as_array().map(Vec::as_slice).unwrap_or_default();
        let wants =
            |p: &Value| p["opentelemetry"]["serviceAttributeEnrichment"] == "OTEL_SEMANTIC_CONVENTIONS";
        Ok(Self {
            status_port: proxies.written["statusPort"].as_i64().unwrap_or(proxy_config::DEFAULT_STATUS_PORT),
            merges_metrics: *field("enablePrometheusMerge") != false,
            otel_attributes: providers.iter().any(wants),
            proxies,
        })
    }
}

/// The mesh configuration as templates see it: with the defaults of what they ask for.
pub(super) fn with_defaults(config: &Map<String, Value>) -> Value {
    let mut full =
        json!({"proxyListenPort": 15001, "proxyInboundListenPort": 15006, "trustDomain": "cluster.local"});
    for (name, value) in config {
        // A zero of protobuf's cannot override.
        if *value != 0 {
            full[name] = value.clone();
        }
    }
    full
}
