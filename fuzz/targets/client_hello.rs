//! ClientHellos of TLS.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_proxy::properties::client_hello(bytes);
});
