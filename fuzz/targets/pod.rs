//! Pods, whatever stands in them.
#![no_main]

use outrigger_fuzz::{INJECTORS, inject};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, text)) = bytes.split_first() else { return };
    let Ok(pod) = serde_json::from_slice(text) else { return };
    inject(&INJECTORS[usize::from(*which) % INJECTORS.len()], &pod);
});
