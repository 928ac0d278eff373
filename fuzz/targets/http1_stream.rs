//! Requests behind one another: none is smuggled.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_proxy::properties::http1::stream(bytes);
});
