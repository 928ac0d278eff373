//! Durations as Istio's users write them (`1m30s`, `500ms`) and as protobuf's JSON prints them (`90s`, `0.500s`).
//!
//! Sources: <https://pkg.go.dev/time#ParseDuration>, <https://protobuf.dev/programming-guides/json/>

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds.
pub(super) fn parse(text: &str) -> Result<i128, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 18 {
            return Err(invalid());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
        total +=
            whole * scale + parts * scale / 10_i128.pow(u32::try_from(fraction.len()).unwrap_or_default());
        rest = next;
    }
    Ok(sign * total)
}

/// Seconds, with none, three, six or nine decimals.
pub(super) fn print(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, rest) = (nanoseconds.abs() / 1_000_000_000, nanoseconds.abs() % 1_000_000_000);
    match rest {
        0 => format!("{sign}{seconds}s"),
        r if r % 1_000_000 == 0 => format!("{sign}{seconds}.{:03}s", r / 1_000_000),
        r if r % 1_000 == 0 => format!("{sign}{seconds}.{:06}s", r / 1_000),
        r => format!("{sign}{seconds}.{r:09}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_spelling() {
        for (text, want) in [
            ("45s", "45s"),
            ("0.5s", "0.500s"),
            ("1m30s", "90s"),
            ("500ms", "0.500s"),
            ("1h", "3600s"),
            ("-1.5s", "-1.500s"),
            ("1us", "0.000001s"),
            ("7ns", "0.000000007s"),
            ("0", "0s"),
        ] {
            assert_eq!(print(parse(text).unwrap()), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_named() {
        for (text, want) in [
            ("", "time: invalid duration \"\""),
            ("45", "time: missing unit in duration \"45\""),
            ("4x", "time: unknown unit \"x\" in duration \"4x\""),
            (".s", "time: invalid duration \".s\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), want);
        }
    }
}
