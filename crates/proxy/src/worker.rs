//! One thread a core, each with listeners, connections and counters of its own: nothing is shared on the way of a
//! byte, so that nothing is locked and no cache line travels.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

use tokio::runtime::{Builder, LocalOptions};

use crate::access_log::{AccessLog, Format, Policy};
use crate::connection;
use crate::destination::Direction;
use crate::life::{Life, Phase};
use crate::listener;
use crate::pool::Pool;
use crate::route::Routes;
use crate::settings::{Limits, Ports};
use crate::telemetry::Shard;

/// What a worker's connections need to know.
#[derive(Debug)]
pub struct Worker {
    /// The sidecar's own ports, as they are bound.
    pub ports: Ports,
    /// Bounds on connections.
    pub limits: Limits,
    /// This worker's counters.
    pub shard: Arc<Shard>,
    /// Where the sidecar stands.
    pub life: Arc<Life>,
    /// Where connections go.
    pub routes: Arc<Routes>,
    /// What is logged of requests and connections, how, and where to.
    pub access_log: (Policy, Format, Option<SyncSender<Vec<u8>>>),
}

/// What a worker's connections share: what the worker was given, and its idle upstream connections.
#[derive(Debug)]
pub struct Shared {
    /// What the worker was given.
    pub worker: Worker,
    /// Idle upstream connections.
    pub pool: Rc<Pool>,
    /// A line for each request and connection.
    pub access_log: Rc<AccessLog>,
}

impl Shared {
    /// What the connections of `worker` share.
    pub fn new(worker: Worker) -> Shared {
        let (policy, format, sender) = worker.access_log.clone();
        Shared { pool: Rc::default(), access_log: Rc::new(AccessLog::new(policy, format, sender)), worker }
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
pub struct Listeners {
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
pub fn start(index: usize, worker: Worker, listeners: Listeners) -> Result<(), String> {
    let (started, wait) = mpsc::channel();
    let body = move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
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
            let errors = &worker.shard.side(direction).accept_errors;
            let (stream, peer) = listener::accept(&listener, errors).await;
            tokio::task::spawn_local(connection::serve(Rc::clone(&worker), direction, stream, peer));
        }
    };
    tokio::select! {
        () = closing => {}
        () = accepting => {}
    }
}
