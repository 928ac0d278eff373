//! How rules are applied, and what it came to, by whichever back end.

/// How rules are applied.
pub(crate) struct Manner<'a> {
    /// Write them even if they are there.
    pub(crate) force: bool,
    /// Replace other rules of ours; otherwise they are an error.
    pub(crate) repair: bool,
    /// Change nothing: that the rules are not there is an error.
    pub(crate) look: bool,
    /// Called before the first rules of ours come into a namespace that has none.
    pub(crate) before_first: &'a dyn Fn(),
}

impl Manner<'_> {
    pub(crate) const PLAIN: Manner<'static> =
        Manner { force: false, repair: true, look: false, before_first: &|| () };
    pub(crate) const LOOK: Manner<'static> = Manner { look: true, ..Manner::PLAIN };
}

/// What applying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The rules were there already.
    None,
    Made,
    /// Other rules of ours were replaced.
    Replaced,
}
