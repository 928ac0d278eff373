//! Why a field was refused, in the words of whoever wrote it: the reader's own words are those of its types.

use super::misspelt::nearest;

/// What `serde` says of a field, said so that it can be mended.
pub(super) fn said(reader: &str) -> String {
    if let Some((given, wanted)) =
        reader.strip_prefix("invalid type: ").and_then(|r| r.split_once(", expected "))
    {
        return wrong_kind(given, wanted);
    }
    if let Some((name, known)) = reader.strip_prefix("unknown field `").and_then(|r| r.split_once('`')) {
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return match nearest(name, &known) {
            Some(meant) => format!("there is no such field; did you mean {meant}?"),
            None => format!("there is no such field; have {}", known.join(", ")),
        };
    }
    if let Some(name) = reader.strip_prefix("missing field `").and_then(|r| r.strip_suffix('`')) {
        return format!("{name} is missing");
    }
    reader.to_owned()
}

fn wrong_kind(given: &str, wanted: &str) -> String {
    let value = given.split_once(' ').map(|(_, value)| value.trim_matches('`')).unwrap_or_default();
    let is = match given.split([' ', '`']).next().unwrap_or_default() {
        "boolean" => "a boolean",
        "integer" | "floating" => "a number",
        "string" => "a string",
        "sequence" => "a list",
        "map" => "an object",
        "null" | "unit" => "null",
        _ => given,
    };
    match wanted {
        // What YAML makes true is not always written so: on, yes.
        "a string" if is == "a boolean" => {
            "is a boolean, and must be a string; write it in quotes".to_owned()
        }
        "a string" if is == "a number" => {
            let number = value.trim_start_matches("point `");
            format!("is a number, and must be a string; write it in quotes: \"{number}\"")
        }
        "a string" => format!("is {is}, and must be a string"),
        "a sequence" if is == "a string" => {
            format!("is a string, and must be a list; write [{}]", value.trim_matches('"'))
        }
        "a sequence" => format!("is {is}, and must be a list; write it in [ ], or each item behind a dash"),
        "a map" => format!("is {is}, and must be an object: name: value"),
        wanted if wanted.starts_with("struct ") => format!("is {is}, and must be an object: name: value"),
        wanted => format!("is {is}, and must be {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn fields_of_the_wrong_kind_are_told_what_they_must_be() {
        for (text, message) in [
            ("polcy: off", "line 1, column 1: polcy: there is no such field; did you mean policy?"),
            (
                "neverInjectSelector: [{labels: {}}]",
                "line 1, column 24: neverInjectSelector[0].labels: there is no such field; have matchLabels, \
                 matchExpressions",
            ),
            ("namespaces: x", "line 1, column 1: namespaces: is a string, and must be a list; write [x]"),
            (
                "neverInjectSelector: {}",
                "line 1, column 1: neverInjectSelector: is an object, and must be a list; write it in [ ], or each item \
                 behind a dash",
            ),
            (
                "namespaces: [1]",
                "line 1, column 14: namespaces[0]: is a number, and must be a string; write it in quotes: \"1\"",
            ),
            (
                "platform: 1.5",
                "line 1, column 1: platform: is a number, and must be a string; write it in quotes: \"1.5\"",
            ),
            (
                "revision: on",
                "line 1, column 1: revision: is a boolean, and must be a string; write it in quotes",
            ),
            ("pack: [a]", "line 1, column 1: pack: is a list, and must be a string"),
            ("pack: ~", "line 1, column 1: pack: is null, and must be a string"),
            ("values: [a]", "line 1, column 1: values: is a list, and must be an object: name: value"),
            (
                "alwaysInjectSelector: [a]",
                "line 1, column 24: alwaysInjectSelector[0]: is a string, and must be an object: name: value",
            ),
            (
                "alwaysInjectSelector: [{matchExpressions: [{operator: In}]}]",
                "line 1, column 44: alwaysInjectSelector[0].matchExpressions[0]: key is missing",
            ),
        ] {
            let error = Settings::parse(text, "config.yaml").unwrap_err().to_string();
            assert_eq!(error, format!("config.yaml: {message}"), "{text}");
        }
    }
}
