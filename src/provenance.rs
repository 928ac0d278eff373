//! Where every injected field comes from: which annotation, which value, which default.
//!
//! Found by experiment, so that it holds for every pack and step: the pod is injected again and again, each time
//! with one input changed, and the fields that come out otherwise are that input's. What no input changes is the
//! template's own.

use outrigger_contract::STATUS_ANNOTATION;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::fields::flat;
use crate::injection::{Injector, Request};
use crate::owner::Owner;
use crate::settings::{NativeSidecars, Settings, Unusable};
use crate::template::packs::Pack;

/// The source of a field that no input changes.
pub(crate) const TEMPLATE: &str = "template";

/// One field that injection added, changed or took away.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// As people write it: `spec.initContainers[istio-proxy].resources.requests.cpu`.
    pub field: String,
    /// What stands there after injection; `None` where the field was taken away.
    pub value: Option<Value>,
    /// What stood there before; `None` where the field was added.
    pub before: Option<Value>,
    /// The inputs that it comes from, or `TEMPLATE`: `annotation sidecar.istio.io/proxyCPU`, `label app`,
    /// `name of the workload`, `value global.tag`, `mesh configuration defaultConfig.drainDuration`, `setting revision`,
    /// `default proxy.image`.
    pub from: Vec<String>,
}

/// Injectors that differ from the real one in one input each.
#[derive(Debug)]
pub struct Experiments {
    variants: Vec<(String, Injector)>,
}

impl Experiments {
    /// Prepares an injector for every value, mesh field and setting of the operator's, and every default of the pack.
    ///
    /// # Errors
    /// The pack cannot be loaded.
    pub fn new(settings: &Settings) -> Result<Self, Unusable> {
        let defaults = Pack::load(&settings.pack).map_err(|e| Unusable::new("pack", e.to_string()))?.values;
        let mut variants = Vec::new();
        let mut vary = |name: String, change: &dyn Fn(&mut Settings)| {
            let mut changed = settings.clone();
            change(&mut changed);
            // An input that cannot be otherwise tells nothing.
            variants.extend(Injector::unchecked(changed).ok().map(|injector| (name, injector)));
        };
        for path in scalars(&settings.values) {
            vary(format!("value {}", path.join(".")), &|s| other(&mut s.values, &path));
        }
        for path in scalars(&settings.mesh_config) {
            vary(format!("mesh configuration {}", path.join(".")), &|s| other(&mut s.mesh_config, &path));
        }
        for key in settings.injected_annotations.keys() {
            vary(format!("setting injectedAnnotations.{key}"), &|s| {
                s.injected_annotations.remove(key);
            });
        }
        vary("setting revision".to_owned(), &|s| s.revision.push_str("-other"));
        vary("setting nativeSidecars".to_owned(), &|s| {
            s.native_sidecars =
                if s.native_sidecars() { NativeSidecars::False } else { NativeSidecars::True };
        });
        let given = scalars(&settings.values);
        for path in scalars(&defaults).into_iter().filter(|path| !given.contains(path)) {
            let value = at(&defaults, &path).map(different).unwrap_or_default();
            vary(format!("default {}", path.join(".")), &|s| put(&mut s.values, &path, value.clone()));
        }
        Ok(Self { variants })
    }

    /// Every field that differs between a pod and the same pod injected, in the order of the injected pod.
    pub fn fields(
        &self,
        injector: &Injector,
        pod: &Value,
        injected: &Value,
        request: &Request,
    ) -> Vec<Field> {
        let (before, after) = (flat(pod), flat(injected));
        let mut fields: Vec<Field> = Vec::new();
        for (field, value) in after.leaves() {
            let old = before.get(field);
            if old != Some(value) {
                fields.push(Field {
                    field: field.clone(),
                    value: Some((*value).clone()),
                    before: old.cloned(),
                    from: Vec::new(),
                });
            }
        }
        for (field, old) in before.leaves().iter().filter(|(field, _)| after.get(field).is_none()) {
            fields.push(Field {
                field: field.clone(),
                value: None,
                before: Some((*old).clone()),
                from: Vec::new(),
            });
        }
        let status = format!("metadata.annotations[{STATUS_ANNOTATION}]");
        let mut learn = |name: &str, outcome: Option<Value>| {
            let Some(outcome) = outcome else { return };
            let outcome = flat(&outcome);
            for field in fields.iter_mut().filter(|f| f.field != status) {
                let value = outcome.get(&field.field).or_else(|| outcome.get(&elsewhere(&field.field)));
                if value != field.value.as_ref() && !field.from.iter().any(|known| known == name) {
                    field.from.push(name.to_owned());
                }
            }
        };
        let outcome =
            |injector: &Injector, pod: &Value, request: &Request| injector.inject(pod, request).ok()?.pod;
        for map in ["annotations", "labels"] {
            for (key, value) in pod["metadata"][map].as_object().into_iter().flatten() {
                let name = format!("{} {key}", map.trim_end_matches('s'));
                for changed in [None, Some(different(value))] {
                    let mut varied = pod.clone();
                    let entries =
                        varied.pointer_mut(&format!("/metadata/{map}")).and_then(Value::as_object_mut);
                    match (entries, changed) {
                        (Some(entries), Some(changed)) => entries.insert(key.clone(), changed),
                        (Some(entries), None) => entries.shift_remove(key),
                        (None, _) => None,
                    };
                    learn(&name, outcome(injector, &varied, request));
                }
            }
        }
        if let Some(owner) = request.owner {
            let owner = Owner { name: format!("{}x", owner.name), ..owner.clone() };
            learn(
                "name of the workload",
                outcome(injector, pod, &Request { owner: Some(&owner), ..*request }),
            );
        }
        for (name, variant) in &self.variants {
            learn(name, outcome(variant, pod, request));
        }
        for field in fields.iter_mut().filter(|field| field.from.is_empty()) {
            field.from.push(TEMPLATE.to_owned());
        }
        fields
    }
}

/// The same field of a container in the pod's other list of containers, but for its name: so that what a container
/// holds does not seem to come from what moves it.
fn elsewhere(field: &str) -> String {
    if field.ends_with("].name") && field.matches('[').count() == 1 {
        return String::new();
    }
    match field.strip_prefix("spec.initContainers[") {
        Some(rest) => format!("spec.containers[{rest}"),
        None => field.replacen("spec.containers[", "spec.initContainers[", 1),
    }
}

/// The ways to all scalars, and to lists, which are looked at whole.
fn scalars(values: &Map<String, Value>) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (key, value) in values {
        match value {
            Value::Object(fields) => paths.extend(scalars(fields).into_iter().map(|mut path| {
                path.insert(0, key.clone());
                path
            })),
            _ => paths.push(vec![key.clone()]),
        }
    }
    paths
}

fn at<'a>(values: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(values.get(first)?, |value, key| value.get(key))
}

fn put(values: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            values.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = values.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn other(values: &mut Map<String, Value>, path: &[String]) {
    let value = at(values, path).map(different).unwrap_or_default();
    put(values, path, value);
}

/// Another value of the same kind.
fn different(value: &Value) -> Value {
    match value {
        Value::Null => Value::Bool(true),
        Value::Bool(b) => Value::Bool(!b),
        Value::Number(n) => {
            n.as_i64().map_or_else(|| Value::from(n.as_f64().unwrap_or(0.0) + 1.0), |n| (n ^ 1).into())
        }
        // A quantity, a duration and a port stay what they are.
        Value::String(s) if s.starts_with(|c: char| c.is_ascii_digit()) => format!("1{s}").into(),
        Value::String(s) => format!("{s}x").into(),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(settings: &str, pod: Value) -> Vec<Field> {
        let settings = Settings::parse(settings, "test").unwrap();
        let injector = Injector::new(settings.clone()).unwrap();
        let request = Request::default();
        let injected = injector.inject(&pod, &request).unwrap().pod.unwrap();
        Experiments::new(&settings).unwrap().fields(&injector, &pod, &injected, &request)
    }

    fn from<'f>(fields: &'f [Field], field: &str) -> Vec<&'f str> {
        let field =
            fields.iter().find(|f| f.field == field).unwrap_or_else(|| panic!("no {field} in {fields:#?}"));
        field.from.iter().map(String::as_str).collect()
    }

    const SHOW: &str = "defaultTemplates: [show]\nvalues: {given: 1, port: {a: 15}}\nmeshConfig: {root: r}\n\
        injectedAnnotations: {extra: e}\ntemplates:\n  show: |\n    metadata:\n      annotations:\n        \
        given: {{values.given}}\n        nested: {{values.port.a}}\n        root: {{meshConfig.root}}\n        \
        rev: {{revision}}\n        fixed: yes, always\n        app: {{canonical.name}}\n    \
        spec:\n      containers:\n      - name: side\n        image: {{values.image}}\n        args: [a, b]\n";

    #[test]
    fn each_field_has_the_input_that_changes_it() {
        let values = "  image: img\n";
        let settings = SHOW.replace(
            "values: {given: 1, port: {a: 15}}\n",
            &format!("values:\n  given: 1\n  port: {{a: 15}}\n{values}"),
        );
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}});
        let fields = fields(&settings, pod);
        assert_eq!(from(&fields, "metadata.annotations.given"), ["value given"]);
        assert_eq!(from(&fields, "metadata.annotations.nested"), ["value port.a"]);
        assert_eq!(from(&fields, "metadata.annotations.root"), ["mesh configuration root"]);
        assert_eq!(from(&fields, "metadata.annotations.rev"), ["setting revision"]);
        assert_eq!(from(&fields, "metadata.annotations.extra"), ["setting injectedAnnotations.extra"]);
        assert_eq!(from(&fields, "metadata.annotations.app"), ["label app"]);
        assert_eq!(from(&fields, "metadata.annotations.fixed"), [TEMPLATE]);
        assert_eq!(from(&fields, "spec.containers[side].image"), ["value image"]);
        assert_eq!(from(&fields, "spec.containers[side].args"), [TEMPLATE]);
        let image = fields.iter().find(|f| f.field == "spec.containers[side].image").unwrap();
        assert_eq!((&image.value, &image.before), (&Some(json!("img")), &None));
        assert!(
            fields.iter().all(|f| !f.field.starts_with("spec.containers[c]")),
            "the application's own stays"
        );
    }

    #[test]
    fn the_packs_own_defaults_are_named() {
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web"}]}});
        let fields = fields("", pod);
        let cpu = from(&fields, "spec.initContainers[istio-proxy].resources.requests.cpu");
        assert!(cpu.len() == 1 && cpu[0].starts_with("default "), "{cpu:?}");
        assert!(cpu[0].ends_with("requests.cpu"), "{cpu:?}");
        assert_eq!(from(&fields, "metadata.labels[service.istio.io/canonical-name]"), ["label app"]);
        assert_eq!(from(&fields, "metadata.annotations[istio.io/rev]"), ["setting revision"]);
        assert_eq!(
            from(&fields, "spec.initContainers[istio-proxy].restartPolicy"),
            ["setting nativeSidecars"]
        );
        assert_eq!(from(&fields, "metadata.annotations[sidecar.istio.io/status]"), [TEMPLATE]);
    }
}
