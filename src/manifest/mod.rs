//! Manifests: finds the pod inside any workload, and puts it back without losing a byte of meaning.
//!
//! ```text
//! bytes ──split──> Document ──parse──> Value ──objects──> Object ──pod──> Pod
//!                     └───────────────── rewrite / Output <───────────────┘
//! ```
//!
//! A stream is split as text, so that one bad document never loses the others; a document that nobody touches
//! is written back as it came, byte for byte. Pure: reads and writes no file.

mod json;
mod object;
mod output;
mod stream;

pub use crate::shape::Problem;
pub use object::{Object, Pod, objects};
pub use output::Output;
pub use stream::{Document, Format, split};

#[cfg(test)]
mod tests;
