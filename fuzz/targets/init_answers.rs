//! What the kernel, iptables-save and /etc say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_init::properties::answers(bytes);
});
