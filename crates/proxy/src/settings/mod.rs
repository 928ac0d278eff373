//! What the sidecar is told: the environment that Istio's templates pass, and one file. All errors come at once.

pub(crate) mod file;
mod read;

use std::net::IpAddr;
use std::time::Duration;

use crate::access_log::{Format, Policy};
use crate::application::{probes::Probes, scrape::Application};
use crate::dns;
use crate::identity::Identity;
use crate::ports::Ports;
use crate::route::Routes;
use crate::trace;

pub(crate) use file::File;

/// Everything that the operator and the injector configure. [`Settings::read`] gives the defaults' sources.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Addresses that listeners bind. Default: all, IPv4 and IPv6; a family that the kernel does not have is left out.
    pub bind: Vec<IpAddr>,
    /// TCP ports by purpose. Port 0 lets the kernel choose.
    pub ports: Ports,
    /// Worker threads, each with its own listeners. Default: one for each core that the pod may use.
    pub workers: usize,
    /// Most connections of each direction, and most idle upstream connections of all workers; what is not given comes
    /// from the limit of file descriptors.
    pub descriptors: Descriptors,
    /// TPROXY: the application sees its clients' addresses. `ISTIO_META_INTERCEPTION_MODE`, REDIRECT.
    pub transparent: bool,
    /// Whether responses say how long the upstream took (`x-envoy-upstream-service-time`), or that there was no room
    /// (`x-envoy-overloaded`). `proxyHeaders.envoyDebugHeaders` of Istio's ProxyConfig, true.
    pub debug_headers: bool,
    /// How the sidecar leaves.
    pub drain: Drain,
    /// Who this pod is, for labels.
    pub identity: Identity,
    /// The application's probes, `ISTIO_KUBE_APP_PROBERS`.
    pub probes: Probes,
    /// Where the application exposes metrics, `ISTIO_PROMETHEUS_ANNOTATIONS`.
    pub application: Application,
    /// Captured DNS, where `ISTIO_META_DNS_CAPTURE` asks for it.
    pub dns: Option<dns::Settings>,
    /// The collector of traces, if there is one: OpenTelemetry's variables.
    pub tracing: Option<trace::Settings>,
    /// What a change of the file changes while the sidecar runs.
    pub live: Live,
}

/// The settings that follow the file while the sidecar runs. A connection keeps those that it began with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Bounds on connections.
    pub limits: Limits,
    /// What is known of ports.
    pub routes: Routes,
    /// What is logged of requests and connections.
    pub access_log: (Policy, Format),
}

/// What may hold file descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Descriptors {
    /// Most connections of each direction at a time, `maxConnections`.
    pub connections: Option<usize>,
    /// Most idle upstream connections, `maxIdleUpstreams`.
    pub idle: Option<usize>,
}

/// How the sidecar leaves after SIGTERM. Names and defaults are Istio's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Classic: how long connections go on after SIGTERM, `terminationDrainDuration`, 5 s.
    pub termination: Duration,
    /// Leave as soon as no connection is active, `EXIT_ON_ZERO_ACTIVE_CONNECTIONS`, false.
    pub exit_on_zero: bool,
    /// With `exit_on_zero`: how long to go on accepting first, `MINIMUM_DRAIN_DURATION`, 5 s.
    pub minimum: Duration,
}

/// Bounds on what a connection may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Time to open an upstream connection, 10 s.
    pub connect: Duration,
    /// A connection that carries no byte either way for this long is closed, 1 h.
    pub idle: Duration,
    /// Time that a client has for sending a request's head, from its first byte, 60 s.
    pub head: Duration,
    /// Time from a request to the end of its response; none.
    pub request: Option<Duration>,
    /// Longest head of a request or response in bytes, 60 KiB.
    pub head_bytes: usize,
    /// Most header fields of a request or response in HTTP/1, 100; at most [`MOST_HEADERS`].
    pub headers: usize,
    /// Most streams that a client may have open on an HTTP/2 connection, 1,024.
    pub streams: u32,
    /// Bytes that a sender may be ahead of its reader on an HTTP/2 stream, 1 MiB.
    pub stream_window: u32,
    /// The same for all streams of a connection, 4 MiB.
    pub connection_window: u32,
    /// Most bytes that are kept of an HTTP/2 request's body, to send it again, 64 KiB.
    pub replay_bytes: usize,
}

/// The ceiling of [`Limits::headers`].
pub(crate) const MOST_HEADERS: usize = 1000;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(3600),
            head: Duration::from_secs(60),
            request: None,
            head_bytes: 60 * 1024,
            headers: 100,
            streams: 1024,
            // Enough for a gigabit at 8 ms and 32 ms, and a bound on what a slow reader costs.
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            replay_bytes: 64 * 1024,
        }
    }
}

/// The flags that `outrigger-proxy proxy` understands; they win over the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// `--concurrency`.
    pub concurrency: Option<String>,
    /// `--statusPort`.
    pub status_port: Option<String>,
    /// `--proxyAdminPort`.
    pub admin_port: Option<String>,
}

impl Settings {
    /// Reads the settings from `env` (a variable's name to its value), the one `file` and the command line. Flags win over
    /// the environment, and the environment over the file.
    ///
    /// # Errors
    ///
    /// Every bad value, each with its variable or field, value and remedy; not only the first.
    pub(crate) fn read(
        env: &dyn Fn(&str) -> Option<String>,
        file: &File,
        flags: &Overrides,
    ) -> Result<Settings, Vec<String>> {
        read::settings(env, file, flags)
    }
}

#[cfg(test)]
mod tests;
