//! Command lines and variables of all front ends of outrigger-init.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_init::properties::command_line(&String::from_utf8_lossy(bytes));
});
