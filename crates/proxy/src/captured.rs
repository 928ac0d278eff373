//! A captured connection: what is known of it, and how its upstream is reached.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::destination::Direction;
use crate::life::Phase;
use crate::route::Route;
use crate::settings::Live;
use crate::shared::Shared;
use crate::telemetry::connections::Open;
use crate::telemetry::{Limit, Side};
use crate::upstream::{self, Source};

/// A captured connection.
pub(crate) struct Captured {
    pub(crate) shared: Rc<Shared>,
    /// The settings in force when it was accepted.
    pub(crate) live: Arc<Live>,
    pub(crate) direction: Direction,
    pub(crate) peer: SocketAddr,
    pub(crate) route: Route,
    /// Its place among those that are being carried.
    pub(crate) open: Open,
}

impl Captured {
    /// Waits until idle connections of this direction have to end.
    pub(crate) async fn closing(&self) {
        self.shared.life.reached_in(self.direction, Phase::Closing).await;
    }

    /// The counters of its direction.
    pub(crate) fn side(&self) -> &Side {
        self.shared.shard.side(self.direction)
    }

    /// Where its upstream connections come from.
    pub(crate) fn source(&self) -> Source {
        match self.direction {
            Direction::Outbound => Source::Any,
            Direction::Inbound if self.shared.transparent => Source::Client(self.peer.ip()),
            Direction::Inbound => Source::Inbound,
        }
    }

    /// Opens an upstream connection.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let connected = upstream::connect(self.source(), self.route.address, self.live.limits.connect).await;
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.side().met(Limit::Connect);
        }
        connected
    }
}
