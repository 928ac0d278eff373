use serde_json::json;

use super::*;

#[test]
fn numbers_print_as_in_istios_templates() {
    for (value, want) in [
        (json!(15020), "15020"),
        (json!(0), "0"),
        (json!(1.12), "1.12"),
        (json!(1000000), "1e+06"),
        (json!(1234567), "1.234567e+06"),
        (json!("x"), "x"),
        (json!(true), "true"),
        (json!(null), ""),
    ] {
        assert_eq!(text(&value), want);
    }
}
