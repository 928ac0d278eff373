//! Where the sidecar's agent listens, which serves merged metrics and the application's probes.

use std::num::NonZeroU16;

use serde_json::Value;

use super::cluster::sidecar;
use super::mesh::Mesh;
use super::proxy_config::{self, ProxyConfig};

const FLAG: &str = "--statusPort";

/// The agent's port: what the sidecar's arguments tell it, which wins over its configuration, or else the mesh's, as with
/// Istio's templates, whose sidecars are not told.
pub(super) fn port(pod: &mut Value, mesh: &Mesh) -> i64 {
    told(pod).unwrap_or(mesh.status_port)
}

/// The same, or why the sidecar would not start with it.
pub(super) fn free_port(pod: &mut Value, mesh: &Mesh, config: &ProxyConfig) -> Result<i64, String> {
    let Some(port) = told(pod) else { return Ok(mesh.status_port) };
    proxy_config::listeners_with(config, port).map_err(|e| format!("the sidecar has {FLAG}={port}: {e}"))?;
    Ok(port)
}

/// `--statusPort=N` or `--statusPort N`; the last one counts.
fn told(pod: &mut Value) -> Option<i64> {
    let args: Vec<&str> = sidecar(pod)?["args"].as_array()?.iter().filter_map(Value::as_str).collect();
    let value = |at: usize| match args[at].strip_prefix(FLAG)? {
        "" => args.get(at + 1).copied(),
        rest => rest.strip_prefix('='),
    };
    let port: NonZeroU16 = (0..args.len()).rev().find_map(value)?.parse().ok()?;
    Some(port.get().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_port_is_read_as_the_sidecar_reads_it() {
        for (args, want) in [
            (json!(["proxy", "--statusPort=15044", "--other"]), Some(15044)),
            (json!(["--statusPort", "15044"]), Some(15044)),
            (json!(["--statusPort=1", "--statusPort=2"]), Some(2)),
            (json!(["--statusPort=0"]), None),
            (json!(["--statusPort=x"]), None),
            (json!(["--statusPort"]), None),
            (json!(["--statusPorts=1"]), None),
            (json!("--statusPort=1"), None),
        ] {
            let mut pod = json!({"spec": {"containers": [{"name": "istio-proxy", "args": args}]}});
            assert_eq!(told(&mut pod), want, "{args}");
        }
    }
}
