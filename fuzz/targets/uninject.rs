//! Pods that say that they were injected, by whomever: the way back has an end.
#![no_main]

use outrigger::uninject::uninject;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(pod) = serde_json::from_slice(bytes) else { return };
    let Some(before) = uninject(&pod) else { return };
    assert!(before["metadata"]["annotations"].get("sidecar.istio.io/status").is_none());
});
