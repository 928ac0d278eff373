//! `outrigger serve`: the webhook.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use outrigger::certificates::{self, Files, Identity, Served, unix_now};
use outrigger::cluster::{Installation, Signer};
use outrigger::notice::Notices;
use outrigger::settings::Settings;
use outrigger::telemetry::{self, LogFormat, LogLevel, Metrics};
use outrigger::webhook::{self, Around, Limits, Listener, Phase, Webhook};
use outrigger_trace::Service;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::arguments;
use super::reload::{self, Source, Told};
use super::trial::Trial;

/// Time from SIGTERM to the end of accepting, for endpoints to be taken away. None on loopback.
const SETTLE: Duration = Duration::from_secs(5);
/// Time from then for requests in flight. With [`SETTLE`] under Kubernetes' default grace period of 30 s.
const DRAIN: Duration = Duration::from_secs(20);
/// Time from then for spans.
const LAST_SPANS: Duration = Duration::from_secs(1);
/// How long a certificate made in memory is good for, in days.
const TRIAL_DAYS: u32 = 365;

/// Serve the mutating admission webhook
///
/// Without --cert and --key it makes a certificate for loopback and prints the commands to try it.
#[derive(Args)]
#[command(after_help = "Examples:
  outrigger serve
  outrigger serve --config settings.yaml --listen 0.0.0.0:8443
  outrigger serve --config settings.yaml --cert tls.crt --key tls.key

Environment: RUST_LOG is a filter of log lines (warn,outrigger=debug), over --log-level; OTEL_EXPORTER_OTLP_ENDPOINT \
names a collector of traces. SIGTERM ends it when requests in flight are answered. See docs/serve.md.

Exit status: 0 ended by a signal; 1 settings, certificate or address cannot be used; 2 usage.")]
pub(crate) struct Serve {
    /// Settings (InjectorConfig, YAML), reloaded when they change; without it the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the webhook (HTTPS)
    #[arg(long, value_name = "ADDR", default_value_t = loopback(8443), value_parser = arguments::address)]
    listen: SocketAddr,
    /// Address of metrics and health (plain HTTP)
    #[arg(long, value_name = "ADDR", default_value_t = loopback(15014), value_parser = arguments::address)]
    metrics_listen: SocketAddr,
    /// Run as a replica of the installation NAME of the cluster that this runs in: follow its namespaces, write Events,
    /// and keep certificate and caBundle, unless --cert and --key name files
    #[arg(long, value_name = "NAME", requires = "config")]
    installation: Option<String>,
    /// Certificate chain (PEM, leaf first); reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Have the certificate that the installation keeps signed by the signer NAME of the cluster, by a
    /// CertificateSigningRequest that somebody approves, in place of a CA of its own
    #[arg(long, value_name = "NAME", value_parser = arguments::signer, requires_all = ["installation", "certificate_authority"], conflicts_with = "cert")]
    certificate_signer: Option<String>,
    /// The signer's CA certificates (PEM): what API servers are to trust
    #[arg(long, value_name = "FILE", requires = "certificate_signer")]
    certificate_authority: Option<PathBuf>,
    /// Least severe log lines: error, warn, info, debug, trace, or a filter as in RUST_LOG, which comes first
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,
    /// Form of log lines; auto is text on a terminal, JSON elsewhere
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "auto")]
    log_format: LogFormat,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Serve {
    /// Serves until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// Settings, templates, certificate or addresses that cannot be used, as a message for people.
    pub(crate) fn run(self) -> Result<(), String> {
        telemetry::log_to_stderr(self.log_format, &self.log_level)?;
        let source = Source::load(self.config.clone())?;
        reload::warn(&source.injector);
        let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("cannot start threads: {e}"))?;
        let served = runtime.block_on(self.serve(source));
        // Whoever has not finished by now had the whole of DRAIN for it.
        runtime.shutdown_background();
        served
    }

    async fn serve(self, source: Source) -> Result<(), String> {
        let collector = outrigger_trace::Settings::read(&|name| std::env::var(name).ok());
        let collector = collector.map_err(|mistakes| mistakes.join("\n"))?;
        let mut stop = Stop::new()?;
        let metrics = Arc::new(Metrics::new());
        let limits = Limits::default();
        let sockets = (webhook::bind(self.listen)?, webhook::bind(self.metrics_listen)?);
        let address = local_address(&sockets.0)?;
        let metrics_address = local_address(&sockets.1)?;
        let installation = self.installation().await?;
        let (ending, ended) = watch::channel(false);
        let (mut around, told) = surroundings(installation.as_ref(), &metrics);
        let exporting = collector.map(|collector| {
            let service = service(installation.as_ref());
            let (tracer, exporting) = outrigger_trace::start(collector, service, metrics.spans.clone());
            around.tracer = Some(tracer);
            tokio::spawn(exporting)
        });
        let (tls, trial) = match &installation {
            Some(installation) if self.cert.is_none() => {
                let signer = self.signer(&around.notices);
                (installation.keep_certificate(signer, &metrics, ended), None)
            }
            _ => self.certificate(&metrics, address, source.injector.settings())?,
        };
        let settle = if trial.is_some() || address.ip().is_loopback() { Duration::ZERO } else { SETTLE };

        let (phase, in_phase) = watch::channel(Phase::Serving);
        let injector = source.follow(metrics.clone(), told);
        let shared = Webhook::new(injector, metrics.clone(), limits, in_phase.clone(), around);
        let router = webhook::router(shared);
        let webhook = Listener::tls(sockets.0, tls, router, limits, metrics.clone());
        let admin = webhook::admin_router(metrics.clone(), in_phase.clone());
        let admin = Listener::plain(sockets.1, admin, limits, metrics);
        let serving = tokio::spawn(webhook.serve(in_phase));
        // Metrics and health are to be had until the very end.
        let (_never, in_service) = watch::channel(Phase::Serving);
        tokio::spawn(admin.serve(in_service));
        tracing::info!(%address, metrics = %metrics_address, version = env!("CARGO_PKG_VERSION"), "serving");
        if let Some(trial) = &trial {
            trial.print();
        }

        let signal = stop.signal().await;
        let settle = if signal == "SIGINT" { Duration::ZERO } else { settle };
        tracing::info!(signal, ?settle, "stopping: no longer ready");
        phase.send_replace(Phase::Settling);
        ending.send_replace(true); // another replica may lead
        tokio::select! {
            () = tokio::time::sleep(settle) => {}
            _ = stop.signal() => return Err("stopped at once by a second signal".to_owned()),
        }
        phase.send_replace(Phase::Draining);
        tokio::select! {
            _ = serving => tracing::info!("stopped"),
            () = tokio::time::sleep(DRAIN) => tracing::warn!(after = ?DRAIN, "stopped with requests in flight"),
            _ = stop.signal() => return Err("stopped at once by a second signal".to_owned()),
        }
        if let Some(exporting) = exporting {
            // With the last request its tracer went, too.
            let _ = tokio::time::timeout(LAST_SPANS, exporting).await;
        }
        Ok(())
    }

    async fn installation(&self) -> Result<Option<Installation>, String> {
        let Some(name) = &self.installation else { return Ok(None) };
        let found = Installation::here(name).await;
        found.map(Some).map_err(|e| format!("--installation {name}: {e}"))
    }

    fn signer(&self, notices: &Notices) -> Option<Signer> {
        let (name, authority) = (self.certificate_signer.clone()?, self.certificate_authority.clone()?);
        Some(Signer { name, authority, notices: notices.clone() })
    }

    /// The certificate of `--cert` and `--key`, or one made in memory, with what there is to say about it.
    fn certificate(
        &self,
        metrics: &Arc<Metrics>,
        address: SocketAddr,
        settings: &Settings,
    ) -> Result<(watch::Receiver<Served>, Option<Trial>), String> {
        if let (Some(certificate), Some(key)) = (self.cert.clone(), self.key.clone()) {
            let files = Files { certificate, key };
            return Ok((files.serve(metrics.clone()).map_err(|e| e.to_string())?, None));
        }
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !address.ip().is_loopback() && !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        let made = certificates::make(&names, TRIAL_DAYS, unix_now()).map_err(|e| e.to_string())?;
        let identity = Identity::from_pem(made.certificate.as_bytes(), made.key.as_bytes());
        let identity = identity.map_err(|e| e.to_string())?;
        let facts = identity.facts().map_err(|e| e.to_string())?;
        metrics.certificate_expiry.set(facts.not_after as f64);
        let config = identity.server_config().map_err(|e| e.to_string())?;
        let trial = Trial::new(address, &made.ca, settings)?;
        // The sender is dropped: this configuration never changes.
        Ok((watch::channel(Some(config)).1, Some(trial)))
    }
}

/// What the webhook and the settings are told of the cluster, and tell it.
fn surroundings(installation: Option<&Installation>, metrics: &Arc<Metrics>) -> (Around, Told) {
    let Some(installation) = installation else { return Default::default() };
    let (notices, arriving) = Notices::channel();
    let around = Around { notices: notices.clone(), ..Around::default() };
    installation.follow_namespaces(&around.namespaces, metrics);
    installation.write_events(arriving, metrics);
    (around, Told { notices, about: Some(installation.settings()) })
}

/// Whose spans ours are.
fn service(installation: Option<&Installation>) -> Service {
    let (program, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let name = installation.map_or(program, |installation| &installation.name).to_owned();
    let mut attributes = vec![("service.version", version.to_owned())];
    if let Some(Installation { cluster, identity, .. }) = installation {
        attributes.push(("k8s.namespace.name", cluster.namespace.clone()));
        attributes.push(("k8s.pod.name", identity.clone()));
    }
    Service { program: (program, version), name, attributes }
}

fn local_address(socket: &TcpListener) -> Result<SocketAddr, String> {
    socket.local_addr().map_err(|e| format!("cannot learn the address of a socket: {e}"))
}

/// The signals that end us.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|e| format!("cannot handle signals: {e}"));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn signal(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
