//! Whether a pod has the shape of a pod, as far as injection looks at it: a number where a map belongs is found
//! here, with the name of its field, before anything reads it wrongly.

use std::fmt::{self, Write};

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
        let field = if self.field.is_empty() { "the object" } else { &self.field };
        write!(f, "{field} {}", self.message)
    }
}

/// A value and the way to it, kept as links so that only a problem costs a string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'v, 'p> {
    pub(crate) value: &'v Value,
    way: Way<'p>,
}

#[derive(Debug, Clone, Copy)]
enum Way<'p> {
    Root,
    Field(&'p Way<'p>, &'p str),
    Item(&'p Way<'p>, usize),
}

const NULL: &Value = &Value::Null;

impl<'v> At<'v, '_> {
    pub(crate) fn root(value: &'v Value) -> Self {
        Self { value, way: Way::Root }
    }

    /// The field of an object; null where it is not there.
    pub(crate) fn get<'a>(&'a self, key: &'a str) -> At<'v, 'a> {
        At { value: self.value.get(key).unwrap_or(NULL), way: Way::Field(&self.way, key) }
    }

    /// The items of a list, or of none.
    pub(crate) fn items<'a>(&'a self) -> Result<impl Iterator<Item = At<'v, 'a>>, Problem> {
        let items = match self.value {
            Value::Null => &[],
            Value::Array(items) => items.as_slice(),
            _ => return Err(self.must_be("a list")),
        };
        Ok(items.iter().enumerate().map(|(i, value)| At { value, way: Way::Item(&self.way, i) }))
    }

    pub(crate) fn object(&self) -> Result<(), Problem> {
        if self.value.is_object() { Ok(()) } else { Err(self.must_be("an object")) }
    }

    /// What stands where a document, or an item of a List, should.
    pub(crate) fn no_manifest(&self) -> Problem {
        let wrong =
            self.wrong(format!("is {}, and must be an object with apiVersion and kind", kind(self.value)));
        let field = if wrong.field.is_empty() { "the document".to_owned() } else { wrong.field };
        Problem { field, ..wrong }
    }

    /// The way as a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.way.walk(&mut |step| match step {
            Way::Root => {}
            Way::Field(_, key) => {
                let _ = write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1"));
            }
            Way::Item(_, index) => {
                let _ = write!(pointer, "/{index}");
            }
        });
        pointer
    }

    fn field(&self) -> String {
        let mut field = String::new();
        self.way.walk(&mut |step| {
            let _ = match step {
                Way::Root => Ok(()),
                Way::Field(_, key) if key.contains(['.', '/']) => write!(field, "[{key:?}]"),
                Way::Field(_, key) if field.is_empty() => write!(field, "{key}"),
                Way::Field(_, key) => write!(field, ".{key}"),
                Way::Item(_, index) => write!(field, "[{index}]"),
            };
        });
        field
    }

    fn optional_object(&self) -> Result<(), Problem> {
        if self.value.is_null() { Ok(()) } else { self.object() }
    }

    fn optional_string(&self) -> Result<(), Problem> {
        if matches!(self.value, Value::Null | Value::String(_)) {
            Ok(())
        } else {
            Err(self.must_be("a string"))
        }
    }

    fn string(&self) -> Result<(), Problem> {
        if self.value.is_string() { Ok(()) } else { Err(self.must_be("a string")) }
    }

    fn port(&self) -> Result<(), Problem> {
        match self.value {
            Value::Number(number) if number.as_u64().is_some_and(|port| (1..=65535).contains(&port)) => {
                Ok(())
            }
            Value::Number(number) => {
                Err(self.wrong(format!("is {number}, and must be a port from 1 to 65535")))
            }
            _ => Err(self.must_be("a number")),
        }
    }

    fn strings(&self) -> Result<(), Problem> {
        self.optional_object()?;
        for (key, value) in self.value.as_object().into_iter().flatten() {
            if !value.is_string() {
                let fix = match value {
                    Value::Bool(_) | Value::Number(_) => format!("; write it in quotes: \"{value}\""),
                    _ => String::new(),
                };
                return Err(self.get(key).wrong(format!("is {}, and must be a string{fix}", kind(value))));
            }
        }
        Ok(())
    }

    fn wrong(&self, message: impl Into<String>) -> Problem {
        Problem { field: self.field(), pointer: self.pointer(), message: message.into() }
    }

    fn must_be(&self, want: &str) -> Problem {
        match self.value {
            Value::Null => self.wrong(format!("is missing, and must be {want}")),
            other => self.wrong(format!("is {}, and must be {want}", kind(other))),
        }
    }
}

impl Way<'_> {
    /// Visits the steps from the root on.
    fn walk(&self, visit: &mut dyn FnMut(&Way)) {
        if let Way::Field(parent, _) | Way::Item(parent, _) = self {
            parent.walk(visit);
        }
        visit(self);
    }
}

/// The first problem of a pod: an object with `metadata` and `spec`.
pub(crate) fn pod(pod: &At) -> Result<(), Problem> {
    pod.object()?;
    metadata(&pod.get("metadata"))?;
    let spec = pod.get("spec");
    spec.object()?;
    let host_network = spec.get("hostNetwork");
    if !matches!(host_network.value, Value::Null | Value::Bool(_)) {
        return Err(host_network.must_be("true or false"));
    }
    let (containers, init) = (spec.get("containers"), spec.get("initContainers"));
    // A pod whose only container is the sidecar has none left when that becomes a native one.
    if containers.items()?.chain(init.items()?).next().is_none() {
        return Err(containers.wrong("is empty, and a pod needs a container"));
    }
    containers.items()?.chain(init.items()?).try_for_each(|at| container(&at))?;
    for list in ["volumes", "imagePullSecrets"] {
        spec.get(list).items()?.try_for_each(|at| at.object())?;
    }
    Ok(())
}

/// The first problem of any object's metadata, as far as we look at it.
pub(crate) fn metadata(metadata: &At) -> Result<(), Problem> {
    metadata.optional_object()?;
    for field in ["name", "generateName", "namespace"] {
        metadata.get(field).optional_string()?;
    }
    metadata.get("labels").strings()?;
    metadata.get("annotations").strings()
}

fn container(container: &At) -> Result<(), Problem> {
    container.object()?;
    container.get("name").string()?;
    // By these they are merged. An API server refuses an item without, whatever we would make of it.
    for (list, key) in [("env", "name"), ("volumeMounts", "mountPath")] {
        container.get(list).items()?.try_for_each(|at| at.object().and_then(|()| at.get(key).string()))?;
    }
    // The sidecar asks the kubelet's probes of ports, which a probe may name.
    container.get("ports").items()?.try_for_each(|at| {
        at.object()?;
        at.get("containerPort").port()?;
        at.get("name").optional_string()
    })
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
