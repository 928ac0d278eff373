//! The whole sidecar: bind, start the workers, say that it is ready, and leave when it is told to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::access_log::Output;
use crate::descriptors::{self, Places};
use crate::life::{Life, Phase};
use crate::logging::Level;
use crate::ports::Ports;
use crate::reload::{self, Source};
use crate::settings::Settings;
use crate::shared::Worker;
use crate::status::admin::Admin;
use crate::status::{self, Status};
use crate::telemetry::Telemetry;
use crate::worker::{self, Listeners};
use crate::{dns, listener, memory, trace};

/// Time that the last spans have to reach their collector.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Runs the sidecar until SIGTERM, SIGINT or `POST /quitquitquit`. Its settings follow `source`. Must run on a local
/// runtime.
///
/// # Errors
///
/// A listener cannot be bound or a worker cannot be started, with its name and the reason.
pub(crate) async fn run(settings: Settings, source: Option<Source>, log_level: Level) -> Result<(), String> {
    let started = Instant::now();
    let descriptors = descriptors::raise_limit();
    let signals = Signals::listen()?;
    let life = Arc::new(Life::default());
    let telemetry = Arc::new(Telemetry::new(settings.workers, settings.identity.clone()));

    // Readiness comes first, so that whoever waits for us hears "not yet" instead of nothing.
    let status = Arc::new(Status {
        life: Arc::clone(&life),
        telemetry: Arc::clone(&telemetry),
        probes: settings.probes.clone(),
        application: settings.application.clone(),
        scrapes: Default::default(),
        admin: OnceLock::new(),
    });
    let mut ports = settings.ports;
    ports.readiness = serve_status(status::Listener::Readiness, &settings.bind, ports.readiness, &status)?;
    ports.agent = serve_status(status::Listener::Agent, &settings.bind, ports.agent, &status)?;
    ports.metrics = serve_status(status::Listener::Metrics, &settings.bind, ports.metrics, &status)?;

    if let Some(dns) = settings.dns.clone() {
        dns::start(dns, Arc::clone(&telemetry.dns))?;
    }
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    ports.admin = serve_status(status::Listener::Admin, &loopback, ports.admin, &status)?;

    let outbound = listener::bind(&settings.bind, ports.outbound, settings.workers)?;
    let inbound = listener::bind(&settings.bind, ports.inbound, settings.workers)?;
    ports.outbound = first_port(&outbound)?;
    ports.inbound = first_port(&inbound)?;
    let shares = descriptors::share(descriptors, descriptors::open(), settings.workers, settings.descriptors);
    if settings.descriptors.connections.is_some_and(|given| given > shares.connections) {
        tracing::warn!(
            descriptors,
            connections = shares.connections,
            "maxConnections is more than the limit of file descriptors allows; raise that limit"
        );
    }
    let live = watch::Sender::new(Arc::new(settings.live.clone()));
    let _ = status.admin.set(Admin {
        settings: settings.clone(),
        shares,
        live: live.subscribe(),
        listeners: ports.to_string(),
        log: log_level,
    });
    let spans = Arc::clone(&telemetry.spans);
    let (tracer, exporting) =
        settings.tracing.clone().map(|collector| trace::start(collector, &settings.identity, spans)).unzip();
    let memory = memory::group();
    let windows = memory::for_windows(memory.as_ref()) / settings.workers.max(1) as u64;
    let (places, output) = (Places::new(shares.connections), Output::default());
    for (index, (outbound, inbound)) in outbound.into_iter().zip(inbound).enumerate() {
        let worker = Worker {
            ports,
            transparent: settings.transparent,
            debug_headers: settings.debug_headers,
            shard: telemetry.shard(index),
            life: Arc::clone(&life),
            live: live.subscribe(),
            places: places.clone(),
            idle: shares.idle.div_ceil(settings.workers),
            pipes: shares.pipes,
            windows,
            memory: memory.clone(),
            output: output.clone(),
            tracer: tracer.clone(),
        };
        worker::start(index, worker, Listeners { outbound, inbound })?;
    }
    if let Some(source) = source {
        tokio::task::spawn_local(reload::follow(source, live, Arc::clone(&telemetry)));
    }
    life.advance(Phase::Ready);
    log_ready(&ports, settings.workers, started.elapsed());

    tokio::select! {
        () = signals.first() => {
            tracing::info!(active = telemetry.active(), "told to leave; draining");
            tokio::select! {
                () = life.terminate(settings.drain, &telemetry) => {}
                () = life.reached(Phase::Gone) => {}
            }
        }
        () = life.reached(Phase::Gone) => {
            // The answer to the order that got us here is still on its way.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tracing::info!(active = telemetry.active(), "leaving");
    if let Some(exporting) = exporting {
        // The workers are gone, and with them their tracers.
        drop(tracer);
        let _ = tokio::time::timeout(LAST_SPANS, exporting).await;
    }
    Ok(())
}

/// SIGTERM and SIGINT, heard from before the first listener is bound.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn first(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves one status listener on each of `addresses` and returns its port.
fn serve_status(
    kind: status::Listener,
    addresses: &[IpAddr],
    port: u16,
    status: &Arc<Status>,
) -> Result<u16, String> {
    let listeners = listener::bind(addresses, port, 1)?;
    let port = first_port(&listeners)?;
    for listener in listeners.into_iter().flatten() {
        let listener = TcpListener::from_std(listener).map_err(|error| format!("cannot listen: {error}"))?;
        tokio::task::spawn_local(status::serve(kind, listener, Arc::clone(status)));
    }
    Ok(port)
}

fn first_port(lists: &[Vec<std::net::TcpListener>]) -> Result<u16, String> {
    let address = lists.first().and_then(|list| list.first()).map(std::net::TcpListener::local_addr);
    match address {
        Some(Ok(address)) => Ok(SocketAddr::port(&address)),
        Some(Err(error)) => Err(format!("cannot listen: {error}")),
        None => Err("cannot listen: no address to bind".to_owned()),
    }
}

fn log_ready(ports: &Ports, workers: usize, took: Duration) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers,
        outbound = ports.outbound,
        inbound = ports.inbound,
        agent = ports.agent,
        readiness = ports.readiness,
        metrics = ports.metrics,
        admin = ports.admin,
        start_ms = took.as_secs_f64() * 1e3,
        "ready"
    );
}
