//! What the connections of one worker share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use crate::access_log::{AccessLog, Output};
use crate::descriptors::Places;
use crate::life::Life;
use crate::memory::{Group, Room};
use crate::pool::Pool;
use crate::ports::Ports;
use crate::settings::Live;
use crate::telemetry::Shard;
use crate::trace::Tracer;
use crate::windows::Windows;

/// What a worker's connections need to know.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The sidecar's own ports, as they are bound.
    pub ports: Ports,
    /// Whether the application sees its clients' addresses.
    pub transparent: bool,
    /// Whether responses say how long the upstream took, or that there was no room.
    pub debug_headers: bool,
    /// This worker's counters.
    pub shard: Arc<Shard>,
    /// Where the sidecar stands.
    pub life: Arc<Life>,
    /// The settings in force, which follow their file.
    pub live: watch::Receiver<Arc<Live>>,
    /// Places of connections, shared by all workers.
    pub places: Places,
    /// Most idle upstream connections of this worker.
    pub idle: usize,
    /// Most pipes of this worker for bytes in bulk.
    pub pipes: usize,
    /// Bytes that senders may be ahead of their readers on all HTTP/2 connections of this worker.
    pub windows: u64,
    /// What bounds the container's memory, if anything does.
    pub memory: Option<Group>,
    /// Where the access log goes.
    pub output: Output,
    /// Where spans go, if there is a collector.
    pub tracer: Option<Tracer>,
}

/// What a worker's connections share: what the worker was given, and its idle upstream connections.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What the worker was given.
    pub worker: Worker,
    /// Idle upstream connections.
    pub pool: Rc<Pool>,
    /// How far HTTP/2 senders may be ahead.
    pub(crate) windows: Rc<Windows>,
    /// Whether more is taken in.
    pub room: Room,
    /// A line for each request and connection.
    pub access_log: Rc<AccessLog>,
    /// The worker's own copy of the settings in force: a connection that begins shares nothing with other workers.
    live: RefCell<Arc<Live>>,
}

impl Shared {
    /// What the connections of `worker` share.
    pub(crate) fn new(worker: Worker) -> Shared {
        let live = Arc::clone(&worker.live.borrow());
        Shared {
            pool: Rc::new(Pool::new(worker.idle)),
            windows: Rc::new(Windows::new(worker.windows)),
            room: Room::new(worker.memory.clone()),
            access_log: Rc::new(AccessLog::new(live.access_log, worker.output.clone())),
            live: RefCell::new(live),
            worker,
        }
    }

    /// The settings in force.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }

    /// Takes new settings over, as long as there can be any.
    pub(crate) async fn follow(self: Rc<Self>) {
        let mut changes = self.worker.live.clone();
        while changes.changed().await.is_ok() {
            let live = Arc::clone(&changes.borrow_and_update());
            self.access_log.set(live.access_log);
            *self.live.borrow_mut() = live;
        }
    }
}

impl std::ops::Deref for Shared {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}
