//! Which path leads where, and what stands before an admission: type, size, time, number.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::admit::{self, Failure, Sent};
use super::body::{self, Refused};
use super::span::{self, Ended, Facts, Tracer};
use super::{Limits, Namespaces};
use crate::injection::Injector;
use crate::notice::Notices;
use crate::telemetry::{self, Metrics};

/// Where in its life the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ready.
    Serving,
    /// Serves, but is no longer ready, so that nobody new comes.
    Settling,
    /// Accepts nothing new and finishes what it has.
    Draining,
}

/// What is around the webhook: a cluster, a collector of traces. Nothing where there is neither.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// What is known of its namespaces.
    pub namespaces: Arc<Namespaces>,
    /// Where it is told what came of pods.
    pub notices: Notices,
    /// Where spans are given.
    pub tracer: Option<Tracer>,
}

/// What the handlers share.
#[derive(Debug)]
pub struct Webhook {
    injector: watch::Receiver<Arc<Injector>>,
    metrics: Arc<Metrics>,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    around: Around,
    requests: Semaphore,
    bodies: Semaphore,
    large: Semaphore,
}

impl Webhook {
    /// A webhook that injects with the latest `injector`, counts in `metrics`, and is ready while `phase` is
    /// [`Phase::Serving`].
    pub fn new(
        injector: watch::Receiver<Arc<Injector>>,
        metrics: Arc<Metrics>,
        limits: Limits,
        phase: watch::Receiver<Phase>,
        around: Around,
    ) -> Arc<Self> {
        let (requests, bodies) = (Semaphore::new(limits.requests), Semaphore::new(limits.bodies));
        let large = Semaphore::new(1);
        Arc::new(Self { injector, metrics, limits, phase, around, requests, bodies, large })
    }

    fn turn(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        self.requests.try_acquire().map_err(|_| {
            let message = format!("{} admission requests are in flight; try again", self.limits.requests);
            Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
        })
    }
}

/// The TLS port: `/inject`, `/inject/<key>/<value>/…`, `/healthz`, `/readyz`.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/inject/", post(inject))
        .route("/inject/{*path}", post(inject))
        .merge(health(webhook.phase.clone()))
        .with_state(webhook)
}

/// The plain-HTTP port: `/metrics`, `/healthz`, `/readyz`.
pub fn admin_router(metrics: Arc<Metrics>, phase: watch::Receiver<Phase>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(metrics).merge(health(phase))
}

fn health<S: Clone + Send + Sync + 'static>(phase: watch::Receiver<Phase>) -> Router<S> {
    let ready = Router::new().route("/readyz", get(readyz)).with_state(phase);
    ready.route("/healthz", get(async || "ok\n"))
}

async fn readyz(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, &'static str) {
    match *phase.borrow() {
        Phase::Serving => (StatusCode::OK, "ok\n"),
        Phase::Settling | Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Why a request is turned away before anybody looks into its body's meaning.
struct Rejection {
    status: StatusCode,
    /// Label of the metric.
    reason: &'static str,
    message: String,
}

impl Rejection {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    /// What the request's span says.
    fn facts(self) -> Facts {
        Facts { attributes: vec![("error.type", self.reason.into())], failure: Some(self.message) }
    }
}

async fn inject(
    State(webhook): State<Arc<Webhook>>,
    below: Option<Path<String>>,
    request: Request,
) -> Response {
    let began = Instant::now();
    let in_flight = InFlight::enter(&webhook.metrics);
    let http1 = request.version() < Version::HTTP_2;
    let limit = webhook.limits.request_time;
    let tracer = webhook.around.tracer.as_ref();
    let span = tracer.map(|tracer| span::begin(request.headers(), tracer.ratio));
    let traced = span.is_some_and(|span| span.sampled);
    let answer = tokio::time::timeout(limit, answer(webhook.clone(), below, request, traced)).await;
    drop(in_flight);
    let answer = answer.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", limit.as_secs_f32());
        Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
    });
    webhook.metrics.time.observe(began.elapsed().as_secs_f64());
    let (mut answer, facts) = answer.unwrap_or_else(|rejection| {
        webhook.metrics.rejected_requests.inc(rejection.reason);
        tracing::warn!(
            status = rejection.status.as_u16(),
            reason = rejection.reason,
            "{}",
            rejection.message
        );
        (refuse(&rejection), traced.then(|| rejection.facts()))
    });
    if let (Some(tracer), Some(span), Some(facts)) = (tracer, span, facts) {
        let (duration, code) = (began.elapsed(), answer.status().as_u16());
        tracer.end(span, || Ended { span, ended: SystemTime::now(), duration, code, facts });
    }
    // An API server gives a request up that it writes to a connection which closes at that moment. So whoever is about to
    // go says so with each answer, long before it closes what is idle.
    if http1 && *webhook.phase.borrow() != Phase::Serving {
        answer.headers_mut().insert(CONNECTION, const { close() });
    }
    answer
}

async fn answer(
    webhook: Arc<Webhook>,
    below: Option<Path<String>>,
    request: Request,
    traced: bool,
) -> Result<(Response, Option<Facts>), Rejection> {
    let limit = webhook.limits.body;
    let turn = webhook.turn().and_then(|turn| must_be_json(request.headers()).map(|()| turn));
    let _turn = match turn {
        Ok(turn) => turn,
        Err(rejection) => {
            body::discard(request.into_body(), limit).await;
            return Err(rejection);
        }
    };
    let (bytes, _held) =
        body::read(request.into_body(), limit, &webhook.bodies).await.map_err(|refused| {
            let (status, reason, message) = match refused {
                Refused::TooLarge => {
                    let message = format!("the body is larger than {limit} bytes");
                    (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
                }
                Refused::Busy => {
                    let message = "the bodies in flight take all memory they may; try again".to_owned();
                    (StatusCode::SERVICE_UNAVAILABLE, "busy", message)
                }
                Refused::Incomplete(why) => (
                    StatusCode::BAD_REQUEST,
                    "body_incomplete",
                    format!("the body stopped before its end: {why}"),
                ),
            };
            Rejection::new(status, reason, message)
        })?;
    let below = below.map(|Path(below)| below).unwrap_or_default();
    let injector = webhook.injector.borrow().clone();
    let (answer, facts) = if bytes.len() > LARGE {
        // One at a time, or a few of them would take hundreds of megabytes.
        let _turn = webhook.large.acquire().await;
        let webhook = webhook.clone();
        let task = move || {
            let sent = Sent { body: &bytes, below: &below, traced };
            admit::admit(&injector, &webhook.metrics, &webhook.around, &sent)
        };
        let done = tokio::task::spawn_blocking(task).await;
        done.unwrap_or_else(|e| (Err(Failure::Internal(e.to_string())), None))
    } else {
        let sent = Sent { body: &bytes, below: &below, traced };
        admit::admit(&injector, &webhook.metrics, &webhook.around, &sent)
    };
    match answer {
        Ok(json) => Ok((([(CONTENT_TYPE, "application/json")], json).into_response(), facts)),
        Err(Failure::Malformed(message)) => {
            Err(Rejection::new(StatusCode::BAD_REQUEST, "malformed", message))
        }
        Err(Failure::Internal(message)) => {
            Ok(((StatusCode::INTERNAL_SERVER_ERROR, format!("{message}\n")).into_response(), facts))
        }
    }
}

/// Bodies above this many bytes are worked on away from the threads that serve connections: they take
/// milliseconds.
const LARGE: usize = 256 << 10;

fn must_be_json(headers: &HeaderMap) -> Result<(), Rejection> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("(no text)"));
    let media_type = given.and_then(|value| value.split(';').next()).unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("Content-Type is {}, not application/json", given.unwrap_or("missing"));
    Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message))
}

fn refuse(rejection: &Rejection) -> Response {
    let mut response = (rejection.status, format!("{}\n", rejection.message)).into_response();
    let headers = response.headers_mut();
    match rejection.status {
        StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, const { one() }),
        // The rest of the body may still be on its way.
        StatusCode::REQUEST_TIMEOUT => headers.insert(CONNECTION, const { close() }),
        _ => None,
    };
    response
}

const fn one() -> axum::http::HeaderValue {
    axum::http::HeaderValue::from_static("1")
}

const fn close() -> axum::http::HeaderValue {
    axum::http::HeaderValue::from_static("close")
}

/// Counts a request for as long as it lives, even when its connection breaks.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn enter(metrics: &'a Metrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}
