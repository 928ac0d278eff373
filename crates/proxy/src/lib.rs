//! The sidecar: it carries a pod's traffic to where it was going anyway, and sees, bounds and drains it.
//!
//! The rooms, in the order in which a connection passes them:
//!
//! - `commands`: the command line, one file a command
//! - `settings`: what the pod's author and the operator configure, from the environment and one file
//! - `reload`: that file, followed
//! - `identity`: who this pod is
//! - `sidecar`: the whole: bind, start, be ready, leave
//! - `life`: starting, ready, draining, gone
//! - `worker`: one thread a core, each with listeners and connections of its own
//! - `ports`: those of its own listeners
//! - `listener`: bind, accept, back off
//! - `descriptors`: a place for each connection
//! - `memory`: how much of it there is, and whether there is room for more
//! - `destination`: where a captured connection was going, and whether that is a loop
//! - `shared`: what the connections of a worker share
//! - `captured`: what is known of a captured connection
//! - `connection`: one captured connection, from accepting it to closing it
//! - `route`: where it goes, and as what
//! - `detect`: what the client speaks
//! - `client_hello`: whom a TLS client wants
//! - `upstream`: connect onwards
//! - `tcp`: carry bytes both ways
//! - `pipe`: let bytes pass without copying them
//! - `http1`: carry HTTP/1 requests
//! - `http2`: carry HTTP/2 requests and tunnels, gRPC among them
//! - `windows`: how far HTTP/2 senders may be ahead
//! - `reply`: what clients hear in the upstream's place
//! - `request_id`: names for requests that come without one
//! - `pool`: idle upstream connections
//! - `telemetry`: counters and their text
//! - `access_log`: a line for each request and connection
//! - `trace`: spans, and their way to a collector
//! - `application`: what is asked of it: probes, metrics
//! - `status`: readiness, metrics and the orders that a pod may give, over HTTP
//! - `dns`: captured DNS
//! - `local`: hyper on the runtime of one thread
//! - `logging`: the sidecar's own log
//! - `properties`: what holds for whatever is read, for tests and fuzz targets
//! - `system`: the system calls that no crate wraps safely

mod access_log;
mod application;
mod captured;
mod client_hello;
mod commands;
mod connection;
mod descriptors;
mod destination;
mod detect;
mod dns;
#[cfg(test)]
mod fuzz;
mod http1;
mod http2;
mod identity;
mod life;
mod listener;
mod local;
mod logging;
mod memory;
mod pipe;
mod pool;
mod ports;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;
mod reload;
mod reply;
mod request_id;
mod route;
mod settings;
mod shared;
mod sidecar;
mod status;
mod system;
mod tcp;
mod telemetry;
mod trace;
mod upstream;
mod windows;
mod worker;

pub use commands::run;
