//! How much of anything one client, or all of them, may take.

use std::time::Duration;

/// The limits of a listener; `docs/serve.md` gives the same table to operators.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one request's body; more is answered 413. Default: 8 MiB. The API server keeps objects under
    /// 3 MB and may send an old and a new one.
    pub body: usize,
    /// Bytes of all bodies that are being read or answered; more is answered 503. Default: 32 MiB.
    pub bodies: usize,
    /// Admission requests in flight; more are answered 503. Default: 512.
    pub requests: usize,
    /// Connections; more are closed as they come. Default: 960, which leaves room under the usual soft limit
    /// of 1,024 open files.
    pub connections: usize,
    /// HTTP/2 streams of one connection. Default: 250, what Go's servers allow and its clients expect.
    pub streams: u32,
    /// Bytes of a request's head. Default: 32 KiB.
    pub head: usize,
    /// Time for the TLS handshake. Default: 10 s.
    pub handshake_time: Duration,
    /// Time from a request's first byte to the end of its head, and from the handshake to the first request.
    /// Default: 10 s.
    pub head_time: Duration,
    /// Time from the end of a request's head to its answer; then 408. Default: 30 s, the longest
    /// `timeoutSeconds` that Kubernetes allows.
    pub request_time: Duration,
    /// Time that a connection may be idle. Default: 120 s, so that the API server, which gives up idle
    /// connections after 90 s, is always the first to close and never writes to a connection that we close.
    pub idle_time: Duration,
    /// Time that a connection told to close gets to do so. Default: 5 s.
    pub close_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            bodies: 32 << 20,
            requests: 512,
            connections: 960,
            streams: 250,
            head: 32 << 10,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            request_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(120),
            close_time: Duration::from_secs(5),
        }
    }
}
