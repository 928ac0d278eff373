//! Admin on 15000, loopback only: what an operator asks from within the pod, under Envoy's names.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use tokio::sync::watch;

use super::{Status, text, typed};
use crate::descriptors::Shares;
use crate::life::Phase;
use crate::logging::Level;
use crate::settings::{Live, Settings};
use crate::telemetry::connections::Connection;

const HELP: &str = "\
GET  /ready                  whether traffic is carried
GET  /stats/prometheus       metrics
GET  /server_info            version, state, uptime, memory, as JSON
GET  /config_dump            settings as they are in force, as JSON
GET  /listeners              listeners and their ports
GET  /connections            what is being carried now, as JSON
GET  /memory                 memory, as JSON
GET  /logging                log level
POST /logging?level=LEVEL    set it: none, error, warn, info or debug
POST /drain_listeners        as POST /drain on the agent's port
POST /quitquitquit           leave now
";

/// What admin knows beside [`Status`].
#[derive(Debug)]
pub(crate) struct Admin {
    /// The settings that it started with.
    pub settings: Settings,
    /// What the limit of file descriptors allows.
    pub shares: Shares,
    /// The settings that follow their file.
    pub live: watch::Receiver<Arc<Live>>,
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
            typed(status.telemetry.render(), HeaderValue::from_static(crate::application::scrape::TEXT))
        }
        "/server_info" => json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": format!("{:?}", status.life.phase()).to_uppercase(),
            "active_connections": status.telemetry.active(),
            "uptime_seconds": status.telemetry.uptime().as_secs(),
            "resident_bytes": crate::telemetry::resident_bytes(),
        })),
        "/memory" => json(&serde_json::json!({ "resident_bytes": crate::telemetry::resident_bytes() })),
        "/config_dump" => json(&config_dump(admin)),
        "/listeners" => text(StatusCode::OK, admin.listeners.clone()),
        "/connections" => json(&connections(status)),
        "/logging" => logging(method, uri, admin),
        "/drain_listeners" => ordered(&|| status.life.advance(Phase::Draining)),
        "/quitquitquit" => ordered(&|| status.life.advance(Phase::Gone)),
        _ => text(StatusCode::NOT_FOUND, HELP),
    }
}

fn connections(status: &Status) -> serde_json::Value {
    let workers = status.telemetry.connections();
    let listed =
        workers.iter().enumerate().flat_map(|(worker, open)| open.iter().map(move |open| (worker, open)));
    let value = |(worker, open): (usize, &Connection)| {
        serde_json::json!({
            "worker": worker,
            "reporter": open.direction.reporter(),
            "peer": open.peer.to_string(),
            "destination": open.destination.to_string(),
            "protocol": open.protocol,
            "age_seconds": open.since.elapsed().as_secs_f64(),
        })
    };
    listed.map(value).collect()
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

/// The settings in force.
fn config_dump(admin: &Admin) -> serde_json::Value {
    let Settings { bind, workers, drain, identity, probes, .. } = &admin.settings;
    let live = Arc::clone(&admin.live.borrow());
    let (Live { limits, routes, access_log: (policy, format) }, shares) = (&*live, admin.shares);
    let seconds = |duration: std::time::Duration| duration.as_secs_f64();
    serde_json::json!({
        "bind": bind,
        "workers": workers,
        "drain": {
            "termination_seconds": seconds(drain.termination),
            "minimum_seconds": seconds(drain.minimum),
            "exit_on_zero_active_connections": drain.exit_on_zero,
        },
        "limits": {
            "maxConnections": shares.connections,
            "maxIdleUpstreams": shares.idle,
            "connectTimeout": seconds(limits.connect),
            "idleTimeout": seconds(limits.idle),
            "headTimeout": seconds(limits.head),
            "requestTimeout": limits.request.map(seconds),
            "maxHeadBytes": limits.head_bytes,
            "maxHeaders": limits.headers,
            "maxStreams": limits.streams,
            "streamWindowBytes": limits.stream_window,
            "connectionWindowBytes": limits.connection_window,
            "maxReplayBytes": limits.replay_bytes,
        },
        "routes": format!("{routes:?}"),
        "probes": probes.paths().collect::<Vec<_>>(),
        "access_log": format!("{policy:?} {format:?}").to_lowercase(),
        "identity": {
            "workload": identity.workload,
            "namespace": identity.namespace,
            "canonical_service": identity.canonical_service,
            "canonical_revision": identity.canonical_revision,
            "cluster": identity.cluster,
        },
    })
}
