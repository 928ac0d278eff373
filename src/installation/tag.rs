//! A tag: a name for a revision, which namespaces can ask for in its place. Moving it moves them all.
//!
//! It is a registration of its own, for `istio.io/rev=TAG`, that sends pods to the revision's Service.

use serde_json::json;

use super::names::check;
use super::registration::{of_revision, original, webhooks};
use super::{DEFAULT_REVISION, Error, Names, Object};

/// Label of a tag's registration, as in Istio.
pub const TAG_LABEL: &str = "istio.io/tag";
/// The longest value of a label.
const LONGEST: usize = 63;

/// A tag and where it points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub tag: String,
    /// The installation whose Service answers.
    pub names: Names,
}

impl Tag {
    /// A tag that points to an installation.
    ///
    /// # Errors
    /// [`Error::Option`]: its name is none for Kubernetes, or is a revision's.
    pub fn new(tag: &str, names: Names) -> Result<Self, Error> {
        check("--tag", tag, LONGEST)?;
        if tag == DEFAULT_REVISION || tag == names.revision {
            return Err(Error::Option(format!(
                "--tag {tag}: is the name of a revision, and namespaces would mean either; choose another"
            )));
        }
        Ok(Self { tag: tag.to_owned(), names })
    }

    /// What its objects are called.
    pub fn name(&self) -> String {
        format!("outrigger-tag-{}", self.tag)
    }

    /// Its objects.
    ///
    /// # Errors
    /// [`Error::Manifest`], which a test rules out.
    pub fn objects(&self) -> Result<Vec<Object>, Error> {
        let mut registration = original()?;
        self.names.rename(&mut registration);
        // `of_revision` chooses by the name that namespaces ask for, which is the tag.
        of_revision(&mut registration, &self.tag);
        registration["metadata"]["name"] = self.name().into();
        registration["metadata"]["labels"][TAG_LABEL] = self.tag.as_str().into();
        for webhook in webhooks(&mut registration) {
            // The injector is told that it is meant, though it has another name.
            webhook["clientConfig"]["service"]["path"] = json!(format!("/inject/tag/{}", self.tag));
        }
        Ok(vec![Object::made(registration)])
    }
}
