//! The way back: a pod as it was before injection.
//!
//! Injection leaves a record of how to undo it in the status annotation (`undo`), and undoing it gives back the
//! pod as its author sent it. Where there is no such record, because Istio's own injector was at work or the pack
//! promises the very same pods, the pod is taken back from what Istio leaves behind (`istio`).

mod istio;
mod undo;

use outrigger_contract::STATUS_ANNOTATION;
use serde_json::{Map, Value};

/// Field of the status annotation that holds the record.
pub(crate) const UNDO: &str = "undo";

/// The pod before it was injected; `None` where it carries no injection.
pub fn uninject(pod: &Value) -> Option<Value> {
    recorded(pod).or_else(|| istio::uninject(pod))
}

/// The pod before it was injected, by the record that injection left; `None` where there is none.
pub(crate) fn recorded(pod: &Value) -> Option<Value> {
    let status: Value = serde_json::from_str(status(pod)?).ok()?;
    let record = status.get(UNDO)?;
    let mut before = pod.clone();
    remove_status(&mut before);
    undo::apply(&mut before, record);
    Some(before)
}

/// Leaves the record in the status annotation of an injected pod; `sent` is the pod as it came. A pod that came
/// with an injection of another's, which left no record, gets none.
pub(crate) fn leave_record(sent: &Value, injected: &mut Value) {
    let original = recorded(sent);
    let before = match (&original, status(sent)) {
        (Some(original), _) => original,
        (None, None) => sent,
        (None, Some(_)) => return,
    };
    let Some(mut status) = status(injected).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return;
    };
    // The record is that of all but the status.
    let Some(place) = annotations(injected).and_then(|a| a.keys().position(|key| key == STATUS_ANNOTATION))
    else {
        return;
    };
    remove_status(injected);
    let record = kept_record(sent, before, injected).unwrap_or_else(|| {
        let mut record = undo::record(before, injected);
        // In an order of its own: an API server sorts the fields of what it stores.
        record.sort_all_objects();
        record
    });
    if let (Some(fields), Some(annotations)) = (status.as_object_mut(), annotations(injected)) {
        fields.insert(UNDO.to_owned(), record);
        annotations.shift_insert(place, STATUS_ANNOTATION.to_owned(), status.to_string().into());
    }
}

/// The record that the pod came with, where it still leads back.
fn kept_record(sent: &Value, before: &Value, after: &Value) -> Option<Value> {
    let known: Value = serde_json::from_str(status(sent)?).ok()?;
    let record = known.get(UNDO)?;
    let mut undone = after.clone();
    undo::apply(&mut undone, record);
    (undone == *before).then(|| record.clone())
}

fn annotations(pod: &mut Value) -> Option<&mut Map<String, Value>> {
    pod.pointer_mut("/metadata/annotations")?.as_object_mut()
}

/// The status annotation.
fn status(pod: &Value) -> Option<&str> {
    pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str()
}

fn remove_status(pod: &mut Value) {
    if let Some(annotations) = annotations(pod) {
        annotations.shift_remove(STATUS_ANNOTATION);
    }
}

#[cfg(test)]
mod tests;
