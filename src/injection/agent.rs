//! Where the sidecar's agent listens, which serves merged metrics and the application's probes.

use serde_json::Value;

use super::cluster::sidecar;
use super::mesh::Mesh;
use super::proxy_config::{self, ProxyConfig};

const FLAG: &str = "--statusPort=";

/// The port that the sidecar's arguments tell it, which wins over its configuration; `None` where they tell it none, as
/// those of Istio's templates do.
pub(super) fn told(pod: &mut Value) -> Option<i64> {
    let args = sidecar(pod)?["args"].as_array()?;
    args.iter().rev().find_map(|arg| arg.as_str()?.strip_prefix(FLAG)?.parse::<u16>().ok()).map(i64::from)
}

/// The port that Prometheus is sent to: what the sidecar is told, or else the mesh's.
pub(super) fn port(pod: &mut Value, mesh: &Mesh) -> i64 {
    told(pod).unwrap_or(mesh.status_port)
}

/// Whether the port that the sidecar is told is left to it by its other listeners.
pub(super) fn is_free(pod: &mut Value, config: &ProxyConfig) -> Result<(), String> {
    let Some(port) = told(pod) else { return Ok(()) };
    proxy_config::listeners_with(config, port).map_err(|e| format!("the sidecar has {FLAG}{port}: {e}"))
}
