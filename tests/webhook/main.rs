//! The webhook as a black box: the real binary, real TLS, real AdmissionReviews.

#![allow(clippy::unwrap_used, clippy::panic)]

mod admission;
mod bad_input;
mod certificates;
mod client;
mod http2;
mod lifecycle;
mod limits;
mod load;
mod server;
mod settings;
mod traces;
