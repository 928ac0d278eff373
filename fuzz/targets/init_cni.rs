//! Requests to the CNI plugin, and lists of plugins.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_init::properties::cni(&String::from_utf8_lossy(bytes));
});
