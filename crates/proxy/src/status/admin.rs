//! Admin on 15000, loopback only: what an operator asks from within the pod, under Envoy's names.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;

use super::{Status, text, typed};
use crate::life::Phase;
use crate::logging::Level;
use crate::settings::Settings;

const HELP: &str = "\
GET  /ready                  whether traffic is carried
GET  /stats/prometheus       metrics
GET  /server_info            version, state, uptime, memory, as JSON
GET  /config_dump            settings as they are in force, as JSON
GET  /listeners              listeners and their ports
GET  /memory                 memory, as JSON
GET  /logging                log level
POST /logging?level=LEVEL    set it: none, error, warn, info or debug
POST /drain_listeners        as POST /drain on the agent's port
POST /quitquitquit           leave now
";

/// What admin knows beside [`Status`].
#[derive(Debug)]
pub struct Admin {
    /// The settings in force, as JSON.
    pub config: String,
    /// The listeners, one a line.
    pub listeners: String,
    /// The log level.
    pub log: Level,
}

/// Answers one request to admin.
pub(super) fn answer(method: &Method, uri: &Uri, status: &Status, admin: &Admin) -> Response<Full<Bytes>> {
    let ordered = |act: &dyn Fn()| match *method {
        Method::POST => {
            act();
            text(StatusCode::OK, "OK\n")
        }
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
    };
    match uri.path() {
        "/" | "/help" => text(StatusCode::OK, HELP),
        "/ready" => match status.life.ready() {
            true => text(StatusCode::OK, "LIVE\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "NOT READY\n"),
        },
        "/stats" | "/stats/prometheus" => {
            typed(status.telemetry.render(), HeaderValue::from_static(super::scrape::TEXT))
        }
        "/server_info" => json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": format!("{:?}", status.life.phase()).to_uppercase(),
            "active_connections": status.telemetry.active(),
            "uptime_seconds": status.telemetry.uptime().as_secs(),
            "resident_bytes": crate::telemetry::resident_bytes(),
        })),
        "/memory" => json(&serde_json::json!({ "resident_bytes": crate::telemetry::resident_bytes() })),
        "/config_dump" => typed(admin.config.clone(), HeaderValue::from_static("application/json")),
        "/listeners" => text(StatusCode::OK, admin.listeners.clone()),
        "/logging" => logging(method, uri, admin),
        "/drain_listeners" => ordered(&|| status.life.advance(Phase::Draining)),
        "/quitquitquit" => ordered(&|| status.life.advance(Phase::Gone)),
        _ => text(StatusCode::NOT_FOUND, HELP),
    }
}

fn logging(method: &Method, uri: &Uri, admin: &Admin) -> Response<Full<Bytes>> {
    let level = uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("level="));
    match level {
        None => text(StatusCode::OK, format!("{}\n", admin.log.get())),
        Some(_) if method != Method::POST => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
        Some(level) if admin.log.set(level) => {
            tracing::info!(level, "log level set");
            text(StatusCode::OK, format!("{level}\n"))
        }
        Some(_) => text(StatusCode::BAD_REQUEST, "expected level=none, error, warn, info or debug\n"),
    }
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    typed(format!("{value:#}\n"), HeaderValue::from_static("application/json"))
}

/// The settings in force, as JSON.
pub fn config_dump(settings: &Settings) -> String {
    let (policy, format) = settings.access_log;
    let seconds = |duration: std::time::Duration| duration.as_secs_f64();
    let value = serde_json::json!({
        "bind": settings.bind,
        "workers": settings.workers,
        "drain": {
            "termination_seconds": seconds(settings.drain.termination),
            "minimum_seconds": seconds(settings.drain.minimum),
            "exit_on_zero_active_connections": settings.drain.exit_on_zero,
        },
        "limits": {
            "connect_seconds": seconds(settings.limits.connect),
            "idle_seconds": seconds(settings.limits.idle),
            "head_seconds": seconds(settings.limits.head),
            "head_bytes": settings.limits.head_bytes,
        },
        "routes": format!("{:?}", settings.routes),
        "probes": settings.probes.paths().collect::<Vec<_>>(),
        "access_log": format!("{policy:?} {format:?}").to_lowercase(),
        "identity": {
            "workload": settings.identity.workload,
            "namespace": settings.identity.namespace,
            "canonical_service": settings.identity.canonical_service,
            "canonical_revision": settings.identity.canonical_revision,
            "cluster": settings.identity.cluster,
        },
    });
    format!("{value:#}\n")
}
