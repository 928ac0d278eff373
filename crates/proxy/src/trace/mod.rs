//! Traces: a span for each sampled request, given to a collector over OTLP. Without a collector there is nothing of it.

pub mod context;
mod export;
mod settings;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::destination::Direction;
use crate::identity::Identity;
use crate::telemetry::{Flag, Spans};
use context::Span;
pub use settings::Settings;

/// Spans that wait for the collector; more are dropped, and counted.
const WAITING: usize = 4096;

/// A request that has ended.
#[derive(Debug)]
pub struct Ended {
    pub(crate) span: Span,
    pub(crate) direction: Direction,
    pub(crate) ended: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) protocol: &'static str,
    pub(crate) code: u16,
    pub(crate) flag: Flag,
    pub(crate) request_id: String,
    pub(crate) peer: std::net::SocketAddr,
}

/// Where workers give their spans.
#[derive(Debug, Clone)]
pub struct Tracer {
    /// Of the traces that begin here, how many are sampled, 0 to 1.
    pub(crate) ratio: f64,
    sender: mpsc::Sender<Ended>,
    counts: Arc<Spans>,
}

impl Tracer {
    /// A tracer, and where its spans come out.
    pub(crate) fn new(ratio: f64, counts: Arc<Spans>) -> (Tracer, mpsc::Receiver<Ended>) {
        let (sender, spans) = mpsc::channel(WAITING);
        (Tracer { ratio, sender, counts }, spans)
    }

    /// Gives a span to the collector, if it is sampled; `ended` is asked only then.
    pub(crate) fn end(&self, span: Span, ended: impl FnOnce() -> Ended) {
        if span.sampled && self.sender.try_send(ended()).is_err() {
            self.counts.dropped.add(1);
        }
    }
}

/// Starts exporting the spans of the pod `identity`. The task ends when all tracers are gone, and their spans are
/// exported. Must run on a local runtime.
pub fn start(settings: Settings, identity: &Identity, counts: Arc<Spans>) -> (Tracer, JoinHandle<()>) {
    let (tracer, spans) = Tracer::new(settings.ratio, Arc::clone(&counts));
    let exporting = tokio::task::spawn_local(export::run(settings, identity.clone(), spans, counts));
    (tracer, exporting)
}
