//! The page as HTML. Everything that another part says is text, whatever it holds.

use std::fmt::Write as _;

use serde_json::Value;

use super::productpage::{DESCRIPTION, TITLE};

/// What of the details is shown, and under which name.
const DETAILS: [(&str, &str); 8] = [
    ("author", "Author"),
    ("year", "Year"),
    ("type", "Type"),
    ("pages", "Pages"),
    ("publisher", "Publisher"),
    ("language", "Language"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
];

const STYLE: &str = "\
body { max-width: 46em; margin: 0 auto; padding: 2em 1.5em; font: 16px/1.5 Georgia, serif; color: #222; background: #fdfcf9 }
header { border-bottom: 3px solid #1f5f8b; margin-bottom: 1.5em }
h1 { margin: 0 } header p { margin: 0.3em 0 1em; color: #555 }
main { display: flex; flex-wrap: wrap; gap: 2.5em }
section { flex: 1 1 18em }
h2 { font-size: 1.1em; color: #1f5f8b }
dl { display: grid; grid-template-columns: 6em 1fr; margin: 0 } dt { color: #777 } dd { margin: 0 }
blockquote { margin: 0 0 1.2em; padding-left: 1em; border-left: 3px solid #ddd }
cite { color: #777 } .stars { letter-spacing: 0.15em } .unavailable { color: #a33; font-style: italic }
footer { margin-top: 2em; color: #999; font-size: 0.85em }";

/// The page, of what details and reviews said, or why they said nothing.
pub(super) fn page(details: &Result<Value, String>, reviews: &Result<Value, String>) -> String {
    let (reviews, footer) = match reviews {
        Ok(reviews) => (quotes(reviews), footer(reviews)),
        Err(reason) => (unavailable("Reviews", reason), String::new()),
    };
    let details = match details {
        Ok(details) => definitions(details),
        Err(reason) => unavailable("Details", reason),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{TITLE}</title>\n<style>\n{STYLE}\n</style>\n</head>\n\
         <body>\n<header>\n<h1>{TITLE}</h1>\n<p>{DESCRIPTION}</p>\n</header>\n<main>\n\
         <section id=\"details\">\n<h2>Details</h2>\n{details}</section>\n\
         <section id=\"reviews\">\n<h2>Reviews</h2>\n{reviews}</section>\n</main>\n{footer}</body>\n</html>\n"
    )
}

fn unavailable(what: &str, reason: &str) -> String {
    format!("<p class=\"unavailable\">{what} are unavailable: {}</p>\n", escaped(reason))
}

fn definitions(details: &Value) -> String {
    let mut list = "<dl>\n".to_owned();
    for (field, name) in DETAILS {
        if let Some(value) = details.get(field) {
            let _ = writeln!(list, "<dt>{name}</dt><dd>{}</dd>", text(value));
        }
    }
    list + "</dl>\n"
}

fn quotes(reviews: &Value) -> String {
    let all = reviews["reviews"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|review| {
            format!(
                "<blockquote>{}<br><cite>{}</cite>{}</blockquote>\n",
                text(&review["text"]),
                text(&review["reviewer"]),
                rating(&review["rating"])
            )
        })
        .collect()
}

/// The stars of a review: none in a version without them.
fn rating(rating: &Value) -> String {
    if let Some(error) = rating.get("error") {
        return format!("<br><span class=\"unavailable\">{}</span>", text(error));
    }
    let Some(stars) = rating["stars"].as_u64() else { return String::new() };
    let shown: String = (1..=5).map(|star| if star <= stars { '★' } else { '☆' }).collect();
    let color = text(&rating["color"]);
    format!("<br><span class=\"stars\" style=\"color: {color}\" title=\"{stars} of 5\">{shown}</span>")
}

fn footer(reviews: &Value) -> String {
    let (version, pod) = (text(&reviews["version"]), text(&reviews["podname"]));
    format!("<footer>Reviews {version}, served by {pod}</footer>\n")
}

/// A value as the text of an element or an attribute.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escaped(text),
        other => escaped(&other.to_string()),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reviews(rating: &Value) -> Result<Value, String> {
        let review = json!({"reviewer": "Reviewer1", "text": "Good & short", "rating": rating});
        Ok(json!({"version": "v2", "podname": "reviews-v2-x", "reviews": [review]}))
    }

    #[test]
    fn stars_are_as_many_and_of_the_colour_that_reviews_say() {
        let page = page(
            &Ok(json!({"author": "W. S.", "pages": 200})),
            &reviews(&json!({"stars": 4, "color": "red"})),
        );
        assert!(page.contains("<dt>Author</dt><dd>W. S.</dd>\n<dt>Pages</dt><dd>200</dd>\n</dl>"), "{page}");
        assert!(page.contains("<blockquote>Good &amp; short<br><cite>Reviewer1</cite>"), "{page}");
        assert!(page.contains("style=\"color: red\" title=\"4 of 5\">★★★★☆</span>"), "{page}");
        assert!(page.contains("<footer>Reviews v2, served by reviews-v2-x</footer>"), "{page}");
        assert!(!page.contains("class=\"unavailable\""), "{page}");
    }

    #[test]
    fn what_is_unavailable_is_said_in_its_place() {
        let none = page(&Err("a > b".to_owned()), &Err("gone".to_owned()));
        assert!(
            none.contains("<h2>Details</h2>\n<p class=\"unavailable\">Details are unavailable: a &gt; b</p>"),
            "{none}"
        );
        assert!(
            none.contains("<h2>Reviews</h2>\n<p class=\"unavailable\">Reviews are unavailable: gone</p>"),
            "{none}"
        );
        let ratings = page(&Ok(json!({})), &reviews(&json!({"error": "ratings are unavailable: x"})));
        assert!(
            ratings.contains("<span class=\"unavailable\">ratings are unavailable: x</span>"),
            "{ratings}"
        );
        let without = page(&Ok(json!({})), &reviews(&Value::Null));
        assert!(!without.contains("class=\"stars\""), "{without}");
    }

    #[test]
    fn nothing_that_a_part_says_is_markup() {
        let script = "<script>\"&";
        let value = json!({"stars": 1, "color": script});
        let page = page(&Ok(json!({"author": script, "year": [script]})), &reviews(&value));
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("<dd>&lt;script&gt;&quot;&amp;</dd>"), "{page}");
        assert!(page.contains("style=\"color: &lt;script&gt;&quot;&amp;\""), "{page}");
    }
}
