//! The book keeps its word: every test that docs/security.md names is there, and every message that the webhook warns with has
//! its remedy in docs/troubleshoot.md.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All Rust sources below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let of = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(extension) if extension == "rs" => vec![fs::read_to_string(&path).unwrap()],
        _ => Vec::new(),
    };
    fs::read_dir(folder).unwrap().flat_map(|entry| of(entry.unwrap().path())).collect()
}

/// The names of all tests in a source.
fn tests(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = function.and_then(|rest| rest.split('(').next())
            && std::mem::take(&mut is_test)
        {
            found.insert(name.to_owned());
        }
    }
    found
}

/// The messages of a source that is warned or complained with: the last text of each such call.
fn messages(source: &str) -> Vec<&str> {
    let starts =
        ["tracing::warn!(", "tracing::error!("].into_iter().flat_map(|call| source.match_indices(call));
    let call = |(at, name): (usize, &str)| {
        let (inside, mut depth) = (&source[at + name.len()..], 1);
        let end = inside.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            depth == 0
        });
        inside[..end?].rsplit('"').nth(1)
    };
    starts.filter_map(call).collect()
}

/// What stands in backticks and can only be the name of a test: words of small letters, three at least.
fn named(page: &str) -> BTreeSet<&str> {
    let is_name = |span: &&str| {
        span.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && span.matches('_').count() >= 2
    };
    page.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn the_page_on_security_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "tests", "crates"].into_iter().flat_map(|folder| sources(&root.join(folder)));
    let there: BTreeSet<String> = sources.flat_map(|source| tests(&source)).collect();
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let named = named(&page);
    let missing: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:?}");
    assert!(named.len() > 60, "only {} proofs are named", named.len());
}

#[test]
fn every_warning_of_the_webhook_is_in_the_book_with_its_remedy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = fs::read_to_string(root.join("docs/troubleshoot.md")).unwrap();
    let sources = sources(&root.join("src"));
    let all: BTreeSet<&str> = sources.iter().flat_map(|source| messages(source)).collect();
    // A message that goes on is in the book with its beginning.
    let told = |message: &str| {
        let beginning = message.split([';', ':', '{']).next().unwrap().trim_end();
        book.contains(&format!("`{beginning}"))
    };
    let missing: Vec<_> = all.iter().filter(|message| !told(message)).collect();
    assert!(missing.is_empty(), "docs/troubleshoot.md lacks these messages: {missing:?}");
    assert!(all.len() > 10, "only {all:?} were found");
}
