//! YAML to JSON values, the way kubectl reads it, with the line of every field; and back.
//!
//! Kubernetes reads YAML 1.1 scalars (`on` is a boolean, `0644` is octal) into JSON types
//! (<https://github.com/kubernetes-sigs/yaml>). The parser is `saphyr-parser`; what a plain scalar means is
//! decided here, because a YAML 1.2 library would read a manifest otherwise than the API server's clients do.
//! The writer is ours for the same reason: what it writes must mean the same to every reader.

mod read;
mod write;

pub use read::{Error, Positions, parse, parse_with_positions};
pub use write::write;
