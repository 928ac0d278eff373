//! The fields that carry a trace.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_proxy::properties::trace_context(bytes);
});
