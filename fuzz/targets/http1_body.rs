//! A chunked body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_proxy::properties::http1::body(bytes);
});
