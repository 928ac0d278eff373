//! Whether a pod has the shape of a pod, as far as injection looks at it: a number where a map belongs is found
//! here, with the name of its field, before anything reads it wrongly.

use std::fmt;

use serde_json::Value;

/// A field that is not what Kubernetes wants there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field as people write it, from the object's root: `spec.template.spec.containers[0].name`.
    pub field: String,
    /// The same as a JSON pointer.
    pub pointer: String,
    /// What is there, what must be, and the fix where there is a usual one.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

/// A value and the way to it.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) value: &'a Value,
    field: String,
    pub(super) pointer: String,
}

const NULL: &Value = &Value::Null;

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, field: String::new(), pointer: String::new() }
    }

    /// The field of an object; null where it is not there.
    pub(super) fn get(&self, key: &str) -> Self {
        let value = self.value.get(key).unwrap_or(NULL);
        let pointer = format!("{}/{}", self.pointer, key.replace('~', "~0").replace('/', "~1"));
        let field = match (self.field.is_empty(), key.contains(['.', '/'])) {
            (_, true) => format!("{}[{key:?}]", self.field),
            (true, false) => key.to_owned(),
            (false, false) => format!("{}.{key}", self.field),
        };
        Self { value, field, pointer }
    }

    fn item(&self, index: usize) -> Self {
        Self {
            value: self.value.get(index).unwrap_or(NULL),
            field: format!("{}[{index}]", self.field),
            pointer: format!("{}/{index}", self.pointer),
        }
    }

    fn wrong(&self, message: impl Into<String>) -> Problem {
        Problem { field: self.field.clone(), pointer: self.pointer.clone(), message: message.into() }
    }

    fn must_be(&self, want: &str) -> Problem {
        match self.value {
            Value::Null => self.wrong(format!("is missing, and must be {want}")),
            other => self.wrong(format!("is {}, and must be {want}", kind(other))),
        }
    }

    /// What stands where a document, or an item of a List, should.
    pub(super) fn no_manifest(&self) -> Problem {
        let place = if self.pointer.is_empty() { "the document".to_owned() } else { self.field.clone() };
        let message = format!("is {}, and must be an object with apiVersion and kind", kind(self.value));
        Problem { field: place, pointer: self.pointer.clone(), message }
    }

    pub(super) fn object(&self) -> Result<(), Problem> {
        if self.value.is_object() { Ok(()) } else { Err(self.must_be("an object")) }
    }

    pub(super) fn optional_object(&self) -> Result<(), Problem> {
        if self.value.is_null() { Ok(()) } else { self.object() }
    }

    fn strings(&self) -> Result<(), Problem> {
        self.optional_object()?;
        let fields = self.value.as_object().into_iter().flatten();
        for (key, value) in fields {
            if !value.is_string() {
                let fix = match value {
                    Value::Bool(_) | Value::Number(_) => format!("; write it in quotes: \"{value}\""),
                    _ => String::new(),
                };
                let at = self.get(key);
                return Err(at.wrong(format!("is {}, and must be a string{fix}", kind(value))));
            }
        }
        Ok(())
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, Problem> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok((0..items.len()).map(|i| self.item(i)).collect()),
            _ => Err(self.must_be("a list")),
        }
    }
}

/// The first problem of a pod: an object with `metadata` and `spec`.
pub(super) fn pod(pod: &At) -> Result<(), Problem> {
    pod.object()?;
    metadata(&pod.get("metadata"))?;
    let spec = pod.get("spec");
    spec.object()?;
    let host_network = spec.get("hostNetwork");
    if !matches!(host_network.value, Value::Null | Value::Bool(_)) {
        return Err(host_network.must_be("true or false"));
    }
    let containers = spec.get("containers");
    let all = containers.items()?;
    let init = spec.get("initContainers").items()?;
    // A pod whose only container is the sidecar has none left when that becomes a native one.
    if all.is_empty() && init.is_empty() {
        return Err(containers.wrong("is empty, and a pod needs a container"));
    }
    all.iter().chain(&init).try_for_each(container)?;
    for list in ["volumes", "imagePullSecrets"] {
        spec.get(list).items()?.iter().try_for_each(At::object)?;
    }
    Ok(())
}

/// The first problem of any object's metadata, as far as we look at it.
pub(super) fn metadata(metadata: &At) -> Result<(), Problem> {
    metadata.optional_object()?;
    for field in ["name", "generateName", "namespace"] {
        let at = metadata.get(field);
        if !matches!(at.value, Value::Null | Value::String(_)) {
            return Err(at.must_be("a string"));
        }
    }
    metadata.get("labels").strings()?;
    metadata.get("annotations").strings()
}

fn container(container: &At) -> Result<(), Problem> {
    container.object()?;
    let name = container.get("name");
    if !name.value.is_string() {
        return Err(name.must_be("a string"));
    }
    for list in ["env", "ports", "volumeMounts"] {
        container.get(list).items()?.iter().try_for_each(At::object)?;
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
