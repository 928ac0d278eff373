//! The map of the code in docs/architecture.md is drawn from the code: each room with its own first sentence and what it stands
//! on, above all that it stands on. `OUTRIGGER_WRITE_DOCS=1 cargo test --workspace --test architecture` draws it anew.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// A part of a program: a file or a folder of its sources.
struct Room {
    sentence: String,
    stands_on: BTreeSet<String>,
}

/// The modules that a source declares, but for those of tests, and where they are.
fn modules(source: &Path) -> Vec<(String, PathBuf)> {
    let is_door = ["lib", "main", "mod"].iter().any(|name| source.file_stem().unwrap() == *name);
    let folder = if is_door { source.parent().unwrap().to_owned() } else { source.with_extension("") };
    let text = fs::read_to_string(source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let mut for_tests = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("#[") {
            for_tests |= line.starts_with("#[cfg(") && !line.contains("not(");
            continue;
        }
        let for_tests = std::mem::take(&mut for_tests);
        let declared = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
        let Some((visibility, name)) = declared.filter(|_| !for_tests) else { continue };
        if visibility.is_empty() || visibility.starts_with("pub") {
            let file = folder.join(name).with_extension("rs");
            found
                .push((name.to_owned(), if file.exists() { file } else { folder.join(name).join("mod.rs") }));
        }
    }
    found
}

/// A source and those of all its modules.
fn sources(source: &Path) -> Vec<String> {
    let below = modules(source).into_iter().flat_map(|(_, path)| sources(&path));
    std::iter::once(fs::read_to_string(source).unwrap()).chain(below).collect()
}

/// The first sentence of what a source says of itself.
fn first_sentence(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
    paragraph[..end].replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

/// The rooms that a source names by a path from the root of the library, but in comments and tests.
fn named(source: &str, library: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = source.lines().map(|line| line.split("//").next().unwrap()).collect();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for root in ["crate::", library] {
        for rest in code.split(root).skip(1) {
            match rest.strip_prefix('{') {
                None => names.extend([word(rest)]),
                Some(group) => {
                    let mut depth = 1;
                    let end = group.find(|c| {
                        depth += i32::from(c == '{') - i32::from(c == '}');
                        depth == 0
                    });
                    names.extend(group[..end.unwrap()].split([',', '{', '}']).map(|part| word(part.trim())));
                }
            }
        }
    }
    names
}

/// The rooms of a program by name.
fn rooms(folder: &Path) -> BTreeMap<String, Room> {
    let roots = [folder.join("lib.rs"), folder.join("main.rs")];
    let modules = roots.iter().filter(|root| root.exists()).flat_map(|root| modules(root));
    let mut rooms: BTreeMap<String, Room> = modules
        .map(|(name, path)| {
            let texts = sources(&path);
            let sentence = first_sentence(&texts[0]);
            assert!(!sentence.is_empty(), "{name} does not say what it is");
            let stands_on = texts.iter().flat_map(|text| named(text, " outrigger::")).collect();
            (name, Room { sentence, stands_on })
        })
        .collect();
    let names: BTreeSet<String> = rooms.keys().cloned().collect();
    for (name, room) in &mut rooms {
        room.stands_on.retain(|below| below != name && names.contains(below));
    }
    rooms
}

/// The names in an order in which each comes before all that it stands on: those first on which nobody stands.
///
/// # Errors
/// Rooms that stand on one another.
fn from_the_top(rooms: &BTreeMap<String, Room>) -> Result<Vec<&str>, BTreeSet<&str>> {
    let mut left: BTreeSet<&str> = rooms.keys().map(String::as_str).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let carried: BTreeSet<&str> =
            left.iter().flat_map(|name| &rooms[*name].stands_on).map(String::as_str).collect();
        let free: Vec<&str> = left.difference(&carried).copied().collect();
        if free.is_empty() {
            return Err(left);
        }
        left.retain(|name| !free.contains(name));
        order.extend(free);
    }
    Ok(order)
}

/// The rooms of a program as a table.
fn table(folder: &str) -> String {
    let rooms = rooms(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let order = from_the_top(&rooms)
        .unwrap_or_else(|knot| panic!("{folder}: these stand on one another, or on some that do: {knot:?}"));
    let mut text = "| room | what it is | stands on |\n|---|---|---|\n".to_owned();
    for name in order {
        let Room { sentence, stands_on } = &rooms[name];
        let below: Vec<&str> = stands_on.iter().map(String::as_str).collect();
        writeln!(text, "| `{name}` | {sentence} | {} |", below.join(", ")).unwrap();
    }
    text
}

#[test]
fn the_map_is_what_the_code_is() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let written = fs::read_to_string(&page).unwrap();
    let mut drawn = written.clone();
    for folder in FOLDERS {
        let (begin, end) = (format!("<!-- the rooms of {folder} -->\n"), "<!-- until here -->");
        let start = drawn.find(&begin).unwrap_or_else(|| panic!("{begin} is missing")) + begin.len();
        let length = drawn[start..].find(end).unwrap();
        drawn.replace_range(start..start + length, &table(folder));
    }
    if std::env::var_os("OUTRIGGER_WRITE_DOCS").is_some() {
        fs::write(&page, &drawn).unwrap();
    } else {
        assert_eq!(written, drawn, "docs/architecture.md is out of date: set OUTRIGGER_WRITE_DOCS=1");
    }
}

/// The sources of the three programs.
const FOLDERS: [&str; 3] = ["src", "crates/init/src", "crates/proxy/src"];
