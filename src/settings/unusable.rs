//! Settings that are of the right form and still cannot be used.

/// Why no injector can be made of settings: one or more fields, each with what is wrong. It shows when packs are read and
/// templates compiled, long after the document was; so whoever knows where the settings come from says that by
/// [`Self::within`] or [`Self::said`].
#[derive(Debug, thiserror::Error)]
#[error("{}", self.said(str::to_owned))]
pub struct Unusable(Vec<(String, String)>);

impl Unusable {
    /// One field, `values.port`, and what is wrong with it.
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self(vec![(field.into(), problem.into())])
    }

    /// Several fields.
    pub(crate) fn several(problems: Vec<(String, String)>) -> Self {
        Self(problems)
    }

    /// One line a problem; `name` gives what a field is called where its value was written.
    pub fn said(&self, name: impl Fn(&str) -> String) -> String {
        let lines: Vec<String> =
            self.0.iter().map(|(field, problem)| format!("{}: {problem}", name(field))).collect();
        lines.join("\n")
    }

    /// Whether nothing is wrong but packs, which by folder are on one machine and not on another.
    pub(crate) fn is_about_packs(&self) -> bool {
        self.0.iter().all(|(field, _)| field == "pack" || field == "packs")
    }

    /// One line a problem, of settings that are all of one place: a file, an object.
    pub fn within(&self, place: &str) -> String {
        self.said(|field| format!("{place}: {field}"))
    }
}
