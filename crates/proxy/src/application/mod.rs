//! What is asked of the application over HTTP: its probes and its metrics.

mod client;
pub(crate) mod probes;
pub(crate) mod scrape;
