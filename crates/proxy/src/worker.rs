//! One thread a core, each with listeners, connections and counters of its own: nothing is shared on the way of a
//! byte, so that nothing is locked and no cache line travels.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use crate::access_log::{AccessLog, Output};
use crate::connection;
use crate::descriptors::Places;
use crate::destination::Direction;
use crate::http2::windows::Windows;
use crate::life::{Life, Phase};
use crate::listener;
use crate::memory::{Group, Room};
use crate::pipe;
use crate::pool::Pool;
use crate::settings::{Live, Ports};
use crate::telemetry::Shard;
use crate::trace::Tracer;

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
    async fn follow(self: Rc<Self>) {
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

/// The capture listeners of one worker.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// On the outbound capture port.
    pub outbound: Vec<TcpListener>,
    /// On the inbound capture port.
    pub inbound: Vec<TcpListener>,
}

/// Starts worker number `index` on a thread of its own and returns when it accepts connections. It ends when the
/// sidecar is gone.
///
/// # Errors
///
/// The thread, its runtime or its listeners could not be made; most often for want of file descriptors.
pub(crate) fn start(index: usize, worker: Worker, listeners: Listeners) -> Result<(), String> {
    let (started, wait) = mpsc::channel();
    let body = move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        pipe::allow(worker.pipes);
        runtime.block_on(async move {
            let life = Arc::clone(&worker.life);
            let result = listen(Rc::new(Shared::new(worker)), listeners);
            // The receiver waits for exactly this.
            let _ = started.send(result);
            life.reached(Phase::Gone).await;
        });
    };
    let name = format!("worker-{index}");
    let failed = |error: &dyn std::fmt::Display| format!("cannot start {name}: {error}");
    std::thread::Builder::new().name(name.clone()).spawn(body).map_err(|error| failed(&error))?;
    match wait.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

fn listen(worker: Rc<Shared>, listeners: Listeners) -> std::io::Result<()> {
    tokio::task::spawn_local(Rc::clone(&worker).follow());
    let outbound = listeners.outbound.into_iter().map(|listener| (Direction::Outbound, listener));
    let inbound = listeners.inbound.into_iter().map(|listener| (Direction::Inbound, listener));
    for (direction, listener) in outbound.chain(inbound) {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept(Rc::clone(&worker), direction, listener));
    }
    Ok(())
}

async fn accept(worker: Rc<Shared>, direction: Direction, listener: tokio::net::TcpListener) {
    let life = Arc::clone(&worker.life);
    let closing = async {
        match direction {
            Direction::Inbound => life.reached(Phase::Closing).await,
            // The application may need the world until its end.
            Direction::Outbound => std::future::pending().await,
        }
    };
    let accepting = async {
        loop {
            let side = worker.shard.side(direction);
            let (stream, peer) = listener::accept(&listener, &side.accept_errors).await;
            let place = worker.places.take(direction, side).await;
            worker.room.wait(side).await;
            let serve = connection::serve(Rc::clone(&worker), direction, stream, peer);
            tokio::task::spawn_local(async move {
                serve.await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = closing => {}
        () = accepting => {}
    }
}
