//! AdmissionReviews as they come: what is answered is answered to whoever asked, and the patch makes the pod.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger::webhook::review::{Answer, Review, Verdict};
use outrigger_fuzz::{INJECTORS, REQUEST, applied};
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(review) = Review::parse(bytes) else { return };
    let answer = Answer { verdict: Verdict::Refused { message: review.request.display() }, reason: None };
    let answer: Value = serde_json::from_slice(&review.answer(&answer).unwrap()).unwrap();
    assert_eq!(answer["response"]["uid"], review.request.uid.as_ref());
    assert_eq!(answer["response"]["allowed"], false);
    let Ok(text) = review.request.object() else { return };
    for injector in &INJECTORS[..2] {
        let Ok(patched) = injector.patch(text, &REQUEST) else { continue };
        let Some(patch) = patched.patch() else { continue };
        let encoded: String = serde_json::from_str(patch.get()).unwrap();
        let operations = serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap();
        let injected = applied(&serde_json::from_str(text).unwrap(), operations);
        let again = injector.patch(&injected.to_string(), &REQUEST).unwrap();
        assert!(again.patch().is_none(), "injecting twice changes {injected}");
    }
});
