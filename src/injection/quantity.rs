//! Kubernetes' quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

const SCALES: [(&str, f64); 16] = [
    ("", 1.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", (1_u64 << 10) as f64),
    ("Mi", (1_u64 << 20) as f64),
    ("Gi", (1_u64 << 30) as f64),
    ("Ti", (1_u64 << 40) as f64),
    ("Pi", (1_u64 << 50) as f64),
    ("Ei", (1_u64 << 60) as f64),
];

/// Whether a text is a quantity.
pub(super) fn check(value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) {
        return Err("value contains control characters".to_owned());
    }
    if value.is_empty() || parts(value).is_none() {
        return Err(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned(),
        );
    }
    Ok(())
}

/// What a quantity comes to, in units; for comparisons only.
pub(super) fn value(text: &str) -> Option<f64> {
    let (number, suffix) = parts(text)?;
    let number: f64 = number.parse().ok()?;
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let scale = match suffix.strip_prefix(['e', 'E']).filter(|exponent| !matches!(*exponent, "" | "i")) {
        Some(exponent) => 10_f64.powi(exponent.parse().ok()?),
        None => SCALES.iter().find(|(known, _)| *known == suffix)?.1,
    };
    Some(sign * number * scale)
}

/// Number and suffix.
fn parts(value: &str) -> Option<(&str, &str)> {
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let is_number = has_digits && !fraction.contains('.');
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| {
        let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    (is_number && (exponent || SCALES.iter().any(|(known, _)| *known == suffix))).then_some((number, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_told_from_other_text() {
        for good in ["100m", "128Mi", "2", "1.5", ".5", "1e3", "1E-3", "-1", "+2Gi", "1E", "1Ei"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "notaquantity", "1 00m", "1.2.3", "1Kb", "1e", "Mi", "100m ", "1eE"] {
            assert!(check(bad).unwrap_err().starts_with("quantities must match"), "{bad}");
        }
        for (text, want) in [("100m", 0.1), ("1Ki", 1024.0), ("-2k", -2000.0), ("1e3", 1000.0), ("1E", 1e18)]
        {
            assert_eq!(value(text), Some(want), "{text}");
        }
        for control in ["100m\t", "1Gi\0"] {
            assert_eq!(check(control).unwrap_err(), "value contains control characters");
        }
    }
}
