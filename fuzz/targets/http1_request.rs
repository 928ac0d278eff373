//! The head of a request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_proxy::properties::http1::request(bytes);
});
