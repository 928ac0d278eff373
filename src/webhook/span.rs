//! A span for each admission request, of the trace that the API server began, if it traces itself
//! (<https://kubernetes.io/docs/concepts/cluster-administration/system-traces/>).

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use outrigger_trace::context::{Header, Incoming, Span};
use outrigger_trace::{Record, Value};

/// Where the spans of admission requests are given.
pub type Tracer = outrigger_trace::Tracer<Ended>;

/// An admission request that has been answered.
#[derive(Debug)]
pub struct Ended {
    pub(super) span: Span,
    pub(super) ended: SystemTime,
    pub(super) duration: Duration,
    pub(super) code: u16,
    pub(super) facts: Facts,
}

/// What is known of a request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// Why a pod that ought to come in does not.
    pub(super) failure: Option<String>,
}

/// The span of a request with these headers; the given `ratio` of the traces that begin here is sampled.
pub(super) fn begin(headers: &HeaderMap, ratio: f64) -> Span {
    let mut incoming = Incoming::default();
    if let Some(parent) = headers.get(Header::Traceparent.name()) {
        incoming.note(Header::Traceparent, parent.as_bytes());
    }
    Span::begin(&incoming, ratio)
}

impl From<Ended> for Record {
    fn from(ended: Ended) -> Record {
        let Facts { mut attributes, failure } = ended.facts;
        attributes.push(("http.request.method", "POST".into()));
        attributes.push(("http.response.status_code", Value::Number(ended.code.into())));
        Record {
            span: ended.span,
            name: "POST /inject".to_owned(),
            server: true,
            ended: ended.ended,
            duration: ended.duration,
            attributes,
            failure,
        }
    }
}
