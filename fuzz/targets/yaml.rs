//! YAML as kubectl reads it: what is written of a value is read as that value.
#![no_main]

use outrigger::yaml;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok((value, positions)) = yaml::parse_with_positions(text) else { return };
    // What is empty has its place behind the end.
    let lines = 1 + text.matches(['\n', '\r']).count() + 1;
    for (field, (line, _)) in &positions {
        assert!(*line >= 1 && *line <= lines, "{field} is on line {line} of {lines}");
    }
    let written = yaml::write(&value);
    let again = yaml::parse(&written).unwrap_or_else(|error| panic!("{error} in {written:?}"));
    assert_eq!(again, value, "{written:?}");
});
