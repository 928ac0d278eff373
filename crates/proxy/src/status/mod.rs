//! Readiness, metrics and the orders that a pod may give its sidecar, over HTTP.

pub(crate) mod admin;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_contract as contract;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use admin::Admin;

use crate::application::probes::Probes;
use crate::application::scrape::{self, Application};
use crate::life::{Life, Phase};
use crate::listener;
use crate::telemetry::{Counter, Telemetry};

/// Connections that one status listener serves at a time; more wait in the kernel.
const CONNECTIONS: usize = 128;
/// Time that a client has for sending its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Which of the status listeners was asked; each answers to other paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// 15020: readiness, merged metrics, the application's probes, and from loopback `POST /quitquitquit` and
    /// `POST /drain`.
    Agent,
    /// 15021: readiness only.
    Readiness,
    /// 15090: metrics only.
    Metrics,
    /// 15000, loopback only: see [`admin`].
    Admin,
}

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Status {
    /// Where the sidecar stands.
    pub life: Arc<Life>,
    /// The counters.
    pub telemetry: Arc<Telemetry>,
    /// The application's probes.
    pub probes: Probes,
    /// Where the application exposes metrics.
    pub application: Application,
    /// What is counted about scrapes.
    pub scrapes: scrape::Counts,
    /// What admin knows; there when the listeners are bound.
    pub admin: OnceLock<Admin>,
}

/// Serves `kind` on `listener` until the program ends. Must run on a local runtime.
pub(crate) async fn serve(kind: Listener, listener: TcpListener, status: Arc<Status>) {
    let own_port = listener.local_addr().map_or(0, |address| address.port());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let errors = Counter::default();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = listener::accept(&listener, &errors).await;
        let status = Arc::clone(&status);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let status = &status;
                async move { Ok::<_, Infallible>(answer(kind, own_port, request, peer, status).await) }
            });
            // An error here is the client's: it went away, or what it sent is not HTTP.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

async fn answer<B>(
    kind: Listener,
    own_port: u16,
    request: Request<B>,
    peer: SocketAddr,
    status: &Status,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if kind == Listener::Admin {
        return match status.admin.get() {
            Some(admin) => admin::answer(request.method(), request.uri(), status, admin),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        };
    }
    if kind == Listener::Agent {
        match path {
            contract::METRICS_PATH | "/metrics" => return merged(status, request.headers()).await,
            _ if Probes::answers_to(path) => {
                let (code, body) = status.probes.run(path, request.headers(), own_port).await;
                return text(code, body);
            }
            _ => {}
        }
    }
    at_once(kind, request.method(), path, peer, status)
}

/// Answers what needs nobody else.
fn at_once(
    kind: Listener,
    method: &Method,
    path: &str,
    peer: SocketAddr,
    status: &Status,
) -> Response<Full<Bytes>> {
    if matches!(kind, Listener::Agent | Listener::Readiness) && path.starts_with(contract::READINESS_PATH) {
        let code = if status.life.ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return text(code, "");
    }
    match (kind, path) {
        (Listener::Metrics, path) if path.starts_with(contract::METRICS_PATH) => {
            typed(status.telemetry.render(), HeaderValue::from_static(scrape::TEXT))
        }
        (Listener::Agent, "/quitquitquit") => order(method, peer, || status.life.advance(Phase::Gone)),
        (Listener::Agent, "/drain") => order(method, peer, || status.life.advance(Phase::Draining)),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

async fn merged(status: &Status, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let proxy = status.telemetry.render();
    let (body, kind) = scrape::merged(&status.application, &status.scrapes, &proxy, asked).await;
    typed(body, HeaderValue::try_from(kind).unwrap_or(HeaderValue::from_static(scrape::TEXT)))
}

/// Carries out an order that only this pod's own processes may give.
fn order(method: &Method, peer: SocketAddr, act: impl FnOnce()) -> Response<Full<Bytes>> {
    if !is_loopback(peer.ip()) {
        return text(
            StatusCode::FORBIDDEN,
            "only processes in this pod may ask for this, from a loopback address\n",
        );
    }
    if method != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
    }
    act();
    text(StatusCode::OK, "OK")
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn typed(body: String, kind: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn status() -> Status {
        Status {
            life: Arc::new(Life::default()),
            telemetry: Arc::new(Telemetry::new(1, Identity::unknown())),
            probes: Probes::default(),
            application: Application::default(),
            scrapes: scrape::Counts::default(),
            admin: OnceLock::new(),
        }
    }

    fn code(status: &Status, kind: Listener, method: Method, path: &str, peer: &str) -> u16 {
        at_once(kind, &method, path, peer.parse().unwrap(), status).status().as_u16()
    }

    const NEAR: &str = "127.0.0.1:9999";
    const FAR: &str = "192.0.2.1:9999";

    #[test]
    fn readiness_follows_life() {
        let status = status();
        let ready = |status: &Status| code(status, Listener::Readiness, Method::GET, "/healthz/ready", FAR);
        assert_eq!(ready(&status), 503);
        status.life.advance(Phase::Ready);
        assert_eq!(ready(&status), 200);
        status.life.advance(Phase::Draining);
        assert_eq!(ready(&status), 200);
        status.life.advance(Phase::Terminating);
        assert_eq!(ready(&status), 503);
        assert_eq!(code(&status, Listener::Agent, Method::GET, "/healthz/ready", FAR), 503);
    }

    #[test]
    fn each_listener_answers_to_its_own_paths() {
        let status = status();
        assert_eq!(code(&status, Listener::Readiness, Method::GET, "/stats/prometheus", NEAR), 404);
        assert_eq!(code(&status, Listener::Readiness, Method::POST, "/quitquitquit", NEAR), 404);
        assert_eq!(code(&status, Listener::Metrics, Method::GET, "/stats/prometheus", FAR), 200);
        assert_eq!(code(&status, Listener::Metrics, Method::GET, "/healthz/ready", FAR), 404);
        assert_eq!(code(&status, Listener::Metrics, Method::POST, "/quitquitquit", NEAR), 404);
        assert_eq!(code(&status, Listener::Agent, Method::GET, "/", NEAR), 404);
        assert_eq!(status.life.phase(), Phase::Starting);
    }

    #[test]
    fn orders_come_from_loopback_by_post() {
        let status = status();
        for (path, phase) in [("/drain", Phase::Draining), ("/quitquitquit", Phase::Gone)] {
            let before = status.life.phase();
            assert_eq!(code(&status, Listener::Agent, Method::POST, path, FAR), 403);
            assert_eq!(code(&status, Listener::Agent, Method::POST, path, "[2001:db8::1]:1"), 403);
            assert_eq!(code(&status, Listener::Agent, Method::GET, path, NEAR), 405);
            assert_eq!(status.life.phase(), before);
            assert_eq!(code(&status, Listener::Agent, Method::POST, path, "[::ffff:127.0.0.6]:1"), 200);
            assert_eq!(status.life.phase(), phase);
        }
    }
}
