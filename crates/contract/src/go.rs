//! Values as Go's standard library reads them, for which the manifests and annotations were written that Istio's users have.

use std::time::Duration;

/// `strconv.ParseBool`; `None` for what is neither true nor false.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `time.ParseDuration`, without signs: `5s`, `1m30s`, `250ms`, `1.5h`; and `0`. `None` for what is no duration.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            // The micro sign and the Greek letter.
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(amount.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_go_reads_them() {
        assert_eq!(["1", "T", "true"].map(boolean), [Some(true); 3]);
        assert_eq!(["0", "f", "False"].map(boolean), [Some(false); 3]);
        assert_eq!(["", "yes", "tRUE", " true"].map(boolean), [None; 4]);
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, microseconds) in [
            ("5s", 5_000_000),
            ("1m30s", 90_000_000),
            ("250ms", 250_000),
            ("1.5h", 5_400_000_000),
            ("1h2m3.5s", 3_723_500_000),
            ("7us", 7),
            ("7µs", 7),
            ("7μs", 7),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_micros(microseconds)), "{text}");
        }
        for bad in ["", "5", "s", "5x", "5 s", "-5s", "1..5s", "5d", "9999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }
}
