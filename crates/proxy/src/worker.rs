//! One thread a core, each with listeners, connections and counters of its own: nothing is shared on the way of a
//! byte, so that nothing is locked and no cache line travels.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;

use tokio::runtime::{Builder, LocalOptions};

use crate::connection;
use crate::destination::Direction;
use crate::life::Phase;
use crate::listener;
use crate::pipe;
use crate::shared::{Shared, Worker};

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
    let closing = life.reached_in(direction, Phase::Closing);
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
