//! One line for each thing worth saying, on standard error: plain, or JSON for machines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes lines in one of two forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    pub(crate) json: bool,
}

/// The value of a field.
pub(crate) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(number as u64)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl Log {
    pub(crate) fn info(self, message: &str, fields: &[(&str, Value)]) {
        self.line("info", message, fields);
    }

    pub(crate) fn warn(self, message: &str) {
        self.line("warn", message, &[]);
    }

    pub(crate) fn error(self, message: &str) {
        self.line("error", message, &[]);
    }

    fn line(self, level: &str, message: &str, fields: &[(&str, Value)]) {
        let line = self.render(level, message, fields, SystemTime::now());
        // There is nobody left to tell if this fails.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn render(self, level: &str, message: &str, fields: &[(&str, Value)], now: SystemTime) -> String {
        let time = rfc3339(now);
        let mut line = String::new();
        if self.json {
            let _ = write!(line, r#"{{"time":"{time}","level":"{level}","msg":{}"#, json_string(message));
            for (name, value) in fields {
                let _ = match value {
                    Value::Text(text) => write!(line, ",{}:{}", json_string(name), json_string(text)),
                    Value::Number(number) => write!(line, ",{}:{number}", json_string(name)),
                    Value::Flag(flag) => write!(line, ",{}:{flag}", json_string(name)),
                };
            }
            line.push('}');
        } else {
            let _ = write!(line, "{time} {level:5} {message}");
            for (name, value) in fields {
                let _ = match value {
                    Value::Text(text) if text.contains([' ', '"', '=']) => {
                        write!(line, " {name}={}", json_string(text))
                    }
                    Value::Text(text) => write!(line, " {name}={text}"),
                    Value::Number(number) => write!(line, " {name}={number}"),
                    Value::Flag(flag) => write!(line, " {name}={flag}"),
                };
            }
        }
        line.push('\n');
        line
    }
}

/// A string as JSON has it (RFC 8259).
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// UTC to the millisecond (RFC 3339).
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line(json: bool) -> String {
        let fields =
            [("what", Value::from("a \"b\"\n")), ("plain", "x".into()), ("n", 3.into()), ("on", true.into())];
        let time = UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        Log { json }.render("info", "done", &fields, time)
    }

    #[test]
    fn plain_and_json() {
        assert_eq!(
            line(false),
            "2024-02-29T12:34:56.007Z info  done what=\"a \\\"b\\\"\\n\" plain=x n=3 on=true\n"
        );
        assert_eq!(
            line(true),
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"level\":\"info\",\"msg\":\"done\",\
             \"what\":\"a \\\"b\\\"\\n\",\"plain\":\"x\",\"n\":3,\"on\":true}\n"
        );
    }

    #[test]
    fn days_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
    }
}
