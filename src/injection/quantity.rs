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

/// A quantity as Kubernetes writes it: the shortest number without a fraction, and the suffix for it. `None` for what
/// is none, and for what is finer than a nano-unit or larger than Kubernetes holds, which it rounds.
///
/// Source: `CanonicalizeBytes` of <https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity>
pub(super) fn canonical(text: &str) -> Option<String> {
    let (number, suffix) = parts(text)?;
    let sign = if text.starts_with('-') { "-" } else { "" };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|exponent| !matches!(*exponent, "" | "i"));
    let places = i32::try_from(fraction.len()).ok()?;
    if digits == 0 {
        return Some("0".to_owned());
    }
    if let Some(power) = BINARY.iter().position(|known| *known == suffix).filter(|power| *power > 0) {
        let units = digits.checked_mul(1_i128.checked_shl(10 * u32::try_from(power).ok()?)?)?;
        let scale = 10_i128.checked_pow(fraction.len().try_into().ok()?)?;
        if units % scale == 0 && (1024..=i128::from(i64::MAX)).contains(&(units / scale)) {
            let (units, power) = without_factors(units / scale, 1024);
            return Some(format!("{sign}{units}{}", BINARY.get(power)?));
        }
        return decimal(units, -places, false).map(|decimal| format!("{sign}{decimal}"));
    }
    let power = match exponent {
        Some(exponent) => exponent.parse().ok()?,
        None => 3 * (i32::try_from(DECIMAL.iter().position(|known| *known == suffix)?).ok()? - 3),
    };
    decimal(digits, power.checked_sub(places)?, exponent.is_some()).map(|decimal| format!("{sign}{decimal}"))
}

/// Suffixes by their power of 1024, and by their power of 1000 from nano on.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// `number * 10^power`, with a suffix or an exponent that is a multiple of three.
fn decimal(number: i128, power: i32, exponent: bool) -> Option<String> {
    let (number, zeros) = without_factors(number, 10);
    let power = power.checked_add(zeros.try_into().ok()?)?;
    let number = number.checked_mul(10_i128.pow(power.rem_euclid(3).try_into().ok()?))?;
    let thousands = power.div_euclid(3);
    let units = thousands.max(0).checked_mul(3).and_then(|zeros| 10_i128.checked_pow(zeros.try_into().ok()?));
    if thousands < -3 || units.and_then(|unit| number.checked_mul(unit))? > i64::MAX.into() {
        return None;
    }
    match (exponent, thousands) {
        (true, 0) => Some(number.to_string()),
        (true, thousands) => Some(format!("{number}e{}", 3 * thousands)),
        (false, thousands) => Some(format!("{number}{}", DECIMAL.get(usize::try_from(thousands + 3).ok()?)?)),
    }
}

fn without_factors(mut number: i128, factor: i128) -> (i128, usize) {
    let mut count = 0;
    while number != 0 && number % factor == 0 {
        number /= factor;
        count += 1;
    }
    (number, count)
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
        for (text, want) in [
            ("2000m", Some("2")),
            ("1024Mi", Some("1Gi")),
            ("1000", Some("1k")),
            ("100", Some("100")),
            ("0.5", Some("500m")),
            ("1.5Gi", Some("1536Mi")),
            ("1500m", Some("1500m")),
            ("512Ki", Some("512Ki")),
            ("0.5Ki", Some("512")),
            ("0.5Mi", Some("512Ki")),
            ("1e3", Some("1e3")),
            ("1E6", Some("1e6")),
            ("100e-3", Some("100e-3")),
            ("20e2", Some("2e3")),
            ("0.1Ki", Some("102400m")),
            ("1048576", Some("1048576")),
            ("-2000m", Some("-2")),
            ("+1024Mi", Some("1Gi")),
            ("0Gi", Some("0")),
            (".5", Some("500m")),
            ("5.", Some("5")),
            ("1n", Some("1n")),
            ("0.1n", None),
            ("100E", None),
            ("8Ei", None),
            ("x", None),
            ("1Kb", None),
        ] {
            assert_eq!(canonical(text).as_deref(), want, "{text}");
        }
        for control in ["100m\t", "1Gi\0"] {
            assert_eq!(check(control).unwrap_err(), "value contains control characters");
        }
    }
}
