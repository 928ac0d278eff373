//! A page of `docs/compatibility/`: what a test found, compared with what is written there.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Set to write the pages anew: `OUTRIGGER_WRITE_DOCS=1 cargo test --workspace --test compatibility`.
const WRITE: &str = "OUTRIGGER_WRITE_DOCS";

/// A table as Markdown has it.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// Fails unless the page `name` says just this, or writes it where that is asked for.
pub(crate) fn holds(name: &str, text: &str) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let docs = root.ancestors().map(|folder| folder.join("docs")).find(|docs| docs.is_dir()).unwrap();
    let page = docs.join("compatibility").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(page.parent().unwrap()).unwrap();
        std::fs::write(&page, text).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    for (number, (is, should)) in written.lines().zip(text.lines()).enumerate() {
        assert_eq!(is, should, "docs/compatibility/{name}:{} is out of date: set {WRITE}=1", number + 1);
    }
    assert_eq!(written.lines().count(), text.lines().count(), "docs/compatibility/{name}: set {WRITE}=1");
}
