//! What can go wrong, and the exit status that says so.

use std::fmt;

/// A run that did not do what it was asked to. The text names the object, the value and the remedy.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The options or the environment make no sense; nothing was touched.
    Usage(String),
    /// The namespace could not be read, or the rules could not be applied or verified.
    Run(String),
    /// The kernel cannot do it this way; another back end may.
    Unsupported(String),
    /// The rules are in place, or were expected to be, but packets do not follow them.
    SelfTest(String),
}

impl Failure {
    /// Exit status of the process, as istio-iptables has them; Istio's repair controller acts on 126.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Run(_) | Failure::Unsupported(_) => 1,
            Failure::SelfTest(_) => 126,
            Failure::Usage(_) => 255,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Usage(text)
            | Failure::Run(text)
            | Failure::Unsupported(text)
            | Failure::SelfTest(text) => text,
        })
    }
}

/// Outcome of whatever can fail with a [`Failure`].
pub(crate) type Outcome<T> = Result<T, Failure>;

/// A usage failure with this text.
pub(crate) fn usage<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure::Usage(text.into()))
}

/// A run failure with this text.
pub(crate) fn failed<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure::Run(text.into()))
}
