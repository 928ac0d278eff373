//! Where the sidecar's agent listens, which serves merged metrics and the application's probes.

use serde_json::Value;

use super::cluster::sidecar;
use super::mesh::Mesh;
use super::proxy_config::{self, ProxyConfig};

const FLAG: &str = "--statusPort=";

/// The agent's port: what the sidecar's arguments tell it, which wins over its configuration, or else the mesh's, as with
/// Istio's templates, whose sidecars are not told.
pub(super) fn port(pod: &mut Value, mesh: &Mesh) -> i64 {
    told(pod).unwrap_or(mesh.status_port)
}

/// The same, or why the sidecar would not start with it.
pub(super) fn free_port(pod: &mut Value, mesh: &Mesh, config: &ProxyConfig) -> Result<i64, String> {
    let Some(port) = told(pod) else { return Ok(mesh.status_port) };
    proxy_config::listeners_with(config, port).map_err(|e| format!("the sidecar has {FLAG}{port}: {e}"))?;
    Ok(port)
}

fn told(pod: &mut Value) -> Option<i64> {
    let args = sidecar(pod)?["args"].as_array()?;
    args.iter().rev().find_map(|arg| arg.as_str()?.strip_prefix(FLAG)?.parse::<u16>().ok()).map(i64::from)
}
