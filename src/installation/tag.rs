//! A tag: a name for a revision, which namespaces can ask for in its place. Moving it moves them all.
//!
//! It is a registration of its own, for `istio.io/rev=TAG`, that sends pods to the revision's Service.

use serde_json::{Value, json};

use super::names::check;
use super::registration::{of_revision, original, webhooks};
use super::removal::identity;
use super::{DEFAULT_REVISION, Error, Names, Object};

/// Label of a tag's registration, as in Istio.
pub(crate) const TAG_LABEL: &str = "istio.io/tag";
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
    /// [`Error::Value`]: its name is none for Kubernetes, or is a revision's.
    pub fn new(tag: &str, names: Names) -> Result<Self, Error> {
        check("--tag", tag, LONGEST)?;
        if tag == DEFAULT_REVISION || tag == names.revision {
            return Err(Error::Value {
                option: "--tag",
                value: tag.to_owned(),
                why: "is the name of a revision, and namespaces would mean either; choose another".to_owned(),
            });
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
        let [role, binding] = self.access(&registration["metadata"]["labels"]);
        Ok([role, binding, registration].into_iter().map(Object::made).collect())
    }

    /// That the revision's webhook may write its CA into the tag's registration, as it may into its own.
    fn access(&self, labels: &Value) -> [Value; 2] {
        let (name, group) = (self.name(), "rbac.authorization.k8s.io");
        let version = format!("{group}/v1");
        let metadata = json!({"name": name, "labels": labels});
        let rule = json!({
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [name],
            "verbs": ["patch"],
        });
        let Names { name: account, namespace, .. } = &self.names;
        [
            json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": [rule]}),
            json!({
                "apiVersion": version,
                "kind": "ClusterRoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
            }),
        ]
    }

    /// What is deleted of it, in order: the registration first.
    ///
    /// # Errors
    /// [`Error::Manifest`], which a test rules out.
    pub fn removal(&self) -> Result<Vec<Object>, Error> {
        Ok(self.objects()?.iter().rev().map(|object| Object::made(identity(&object.value))).collect())
    }
}
