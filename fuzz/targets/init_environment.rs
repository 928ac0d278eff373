//! The files of a virtual machine: cluster.env and sidecar.env.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    outrigger_init::properties::environment_file(&String::from_utf8_lossy(bytes));
});
