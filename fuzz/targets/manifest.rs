//! Streams of documents: every byte belongs to one, and what is written, as it came or anew, is read as what it was.
#![no_main]

use outrigger::manifest::{Format, Output, objects, split};
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let documents = split(bytes);
    let sources: Vec<u8> = documents.iter().flat_map(|document| document.source.to_vec()).collect();
    assert_eq!(sources, bytes);
    let values: Vec<_> = documents.iter().map(|document| document.parse()).collect();
    // What follows JSON on its line is read for itself, and means nothing once there is something before it.
    let mixed = documents.iter().any(|document| document.format != documents[0].format);
    if mixed || values.iter().any(Result::is_err) {
        return;
    }
    let values: Vec<_> = values.into_iter().flatten().collect();
    // A text by itself is no manifest, and is never written.
    if values.iter().flatten().any(|value| !value.is_object()) {
        return;
    }
    let read =
        |stream: &[u8]| split(stream).iter().filter_map(|document| document.parse().unwrap()).collect();
    let all: Vec<Value> = values.iter().flatten().cloned().collect();
    let mut kept = Output::new(None);
    for (document, value) in documents.iter().zip(&values) {
        kept.keep(document, value.as_ref());
    }
    let kept: Vec<Value> = read(&kept.into_bytes());
    assert_eq!(kept, all);
    for format in [None, Some(Format::Yaml), Some(Format::Json)] {
        let mut output = Output::new(format);
        for (document, value) in documents.iter().zip(&values) {
            if let Some(value) = value {
                output.change(document, value);
            }
        }
        let again: Vec<Value> = read(&output.into_bytes());
        assert_eq!(again, all, "{format:?}");
    }
    for value in values.iter().flatten() {
        for object in objects(value).unwrap_or_default() {
            let _ = object.pod();
            object.title("shop");
        }
    }
});
