//! Traces: a span for each sampled request, given to a collector over OTLP. Without a collector there is nothing of it.
//!
//! ```text
//! context ──> Tracer ──> export ──> collector
//! in headers  a bounded  batches    OTLP over HTTP
//!             queue
//! ```
//!
//! Whoever makes spans has a type of its own for what is known of a request when it ends, `E`. It becomes a [`Record`] away
//! from the request's path.

pub mod context;
mod export;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use context::Span;
pub use export::{Record, Service, Value};
pub use settings::Settings;

/// Spans that wait for the collector; more are dropped, and counted.
const WAITING: usize = 4096;

/// What became of sampled spans.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// The collector took them.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// They waited in vain, or the collector refused them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Where spans are given that have ended; cheap to clone.
#[derive(Debug)]
pub struct Tracer<E> {
    /// Of the traces that begin here, how many are sampled, 0 to 1.
    pub ratio: f64,
    sender: mpsc::Sender<E>,
    counts: Arc<Counts>,
}

impl<E> Clone for Tracer<E> {
    fn clone(&self) -> Self {
        Tracer { ratio: self.ratio, sender: self.sender.clone(), counts: Arc::clone(&self.counts) }
    }
}

impl<E> Tracer<E> {
    /// A tracer, and where its spans come out.
    pub fn new(ratio: f64, counts: Arc<Counts>) -> (Tracer<E>, mpsc::Receiver<E>) {
        let (sender, spans) = mpsc::channel(WAITING);
        (Tracer { ratio, sender, counts }, spans)
    }

    /// Gives a span to the collector, if it is sampled; `ended` is asked only then. Nothing is ever waited for.
    pub fn end(&self, span: Span, ended: impl FnOnce() -> E) {
        if span.sampled && self.sender.try_send(ended()).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A tracer for the spans of `service`, and what exports them, which is to be spawned. It ends when all tracers are gone,
/// and their spans are exported.
pub fn start<E>(
    settings: Settings,
    service: Service,
    counts: Arc<Counts>,
) -> (Tracer<E>, impl Future<Output = ()> + use<E>)
where
    E: Into<Record>,
{
    let (tracer, spans) = Tracer::new(settings.ratio, Arc::clone(&counts));
    (tracer, export::run(settings, service, spans, counts))
}
