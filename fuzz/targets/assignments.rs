//! What follows `--set`.
#![no_main]

use outrigger::settings::layers::set;
use serde_json::Map;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (mut once, mut twice) = (Map::new(), Map::new());
    if set(&mut once, text).is_ok() {
        set(&mut twice, text).unwrap();
        // What made a list or a map may be text by the end, which no second round can go into.
        if set(&mut twice, text).is_ok() {
            assert_eq!(once, twice);
        }
    }
});
