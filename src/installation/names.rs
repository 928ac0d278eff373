//! What an installation and its objects are called.

use outrigger_contract::REVISION_LABEL;
use serde_json::Value;

use super::{DEFAULT_REVISION, Error};
use crate::settings::INSTALLATION_NAMESPACE;

/// Name of the installation of the default revision, as the manifests have it.
const NAME: &str = "outrigger";
/// What follows the installation's name in those of some objects.
const SUFFIXES: [&str; 7] =
    ["certificate", "certificate-signer", "dashboard", "ca", "repair", "repair-restart", "self-signed"];
/// Fields whose value is not the installation's name, though it reads the same.
const KEPT: [&str; 1] = ["app.kubernetes.io/part-of"];
/// Lists whose members have names of their own.
const OWN_NAMES: [&str; 4] = ["containers", "volumes", "volumeMounts", "groups"];
/// The longest name of a Service (RFC 1035 label).
const LONGEST: usize = 63;

/// The names of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Of its objects: `outrigger`, or `outrigger-REVISION`.
    pub name: String,
    /// Their namespace.
    pub namespace: String,
    /// The revision.
    pub revision: String,
}

/// The name of the Secret in which the installation `name` has its certificate.
pub fn certificate_secret(name: &str) -> String {
    format!("{name}-certificate")
}

impl Names {
    /// The names that follow from revision and namespace.
    ///
    /// # Errors
    /// [`Error::Value`]: one of them is no name for Kubernetes, or is another installation's.
    pub fn new(revision: &str, namespace: &str) -> Result<Self, Error> {
        check("--namespace", namespace, LONGEST)?;
        let name = if revision == DEFAULT_REVISION {
            NAME.to_owned()
        } else {
            check("--revision", revision, LONGEST - NAME.len() - 1)?;
            if revision.starts_with("tag-") {
                return Err(Error::Value {
                    option: "--revision",
                    value: revision.to_owned(),
                    why: "names that begin with tag- are those of tags; choose another".to_owned(),
                });
            }
            format!("{NAME}-{revision}")
        };
        Ok(Self { name, namespace: namespace.to_owned(), revision: revision.to_owned() })
    }

    /// Gives an object of the manifests the installation's names.
    pub(super) fn rename(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.rename_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.rename(item)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::Array(items) if OWN_NAMES.contains(&key.as_str()) => {
                            items.iter_mut().for_each(|item| self.rename_member(item));
                        }
                        _ if KEPT.contains(&key.as_str()) => {}
                        Value::String(text) if key == REVISION_LABEL => text.clone_from(&self.revision),
                        value => self.rename(value),
                    }
                }
            }
            _ => {}
        }
    }

    /// [`Self::rename`], but for the member's own name.
    fn rename_member(&self, member: &mut Value) {
        let own = member["name"].clone();
        self.rename(member);
        if !own.is_null() {
            member["name"] = own;
        }
    }

    fn rename_text(&self, text: &mut String) {
        if text == NAME {
            text.clone_from(&self.name);
        } else if let Some(suffix) = text.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-'))
            && SUFFIXES.contains(&suffix)
        {
            *text = format!("{}-{suffix}", self.name);
        } else if text.contains(NAME) {
            *text = self.rename_within(text);
        }
    }

    /// Names within settings, queries and sentences.
    fn rename_within(&self, text: &str) -> String {
        let Self { name, namespace, revision } = self;
        // The namespace first: an installation's name may read as the namespace of the manifests does.
        [
            (format!("{NAME}.{INSTALLATION_NAMESPACE}.svc"), format!("{name}.{namespace}.svc")),
            (INSTALLATION_NAMESPACE.to_owned(), namespace.clone()),
            (format!("service=\"{NAME}\""), format!("service=\"{name}\"")),
            (format!("app.kubernetes.io/name={NAME}"), format!("app.kubernetes.io/name={name}")),
            (format!("ConfigMap {NAME}"), format!("ConfigMap {name}")),
            (format!("Secret {NAME}-certificate"), format!("Secret {name}-certificate")),
            (format!("revision: {DEFAULT_REVISION}\n"), format!("revision: {revision}\n")),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// Refuses what is no RFC 1035 label of at most `longest` bytes.
pub(super) fn check(option: &'static str, value: &str, longest: usize) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::Value { option, value: value.to_owned(), why: why.to_owned() });
    let within = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if value.len() > longest {
        return refuse(&format!("is longer than {longest} characters; choose a shorter one"));
    }
    if !value.starts_with(|c: char| c.is_ascii_lowercase())
        || value.ends_with('-')
        || !value.chars().all(within)
    {
        return refuse(
            "is no name for Kubernetes; use small letters, digits and dashes, a letter first, no dash last",
        );
    }
    Ok(())
}
