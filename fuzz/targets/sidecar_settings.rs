//! The sidecar's file of settings, and its environment.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_proxy::properties::settings(bytes);
});
