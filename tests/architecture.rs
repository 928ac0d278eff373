//! The map of the code in docs/architecture.md is drawn from the code: each room with its own first sentence and what it stands
//! on, above all that it stands on. `OUTRIGGER_WRITE_DOCS=1 cargo test --workspace --test architecture` draws it anew.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What is there for tests alone, or only holds the rooms together.
const NO_ROOMS: [&str; 5] = ["lib", "main", "tests", "fuzz", "properties"];

/// A file or folder of a program's sources.
struct Room {
    sentence: String,
    stands_on: BTreeSet<String>,
}

/// All sources of a room but its tests.
fn sources(path: &Path) -> Vec<PathBuf> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    if name.ends_with("tests") || name == "harness" || NO_ROOMS.contains(&name) {
        return Vec::new();
    }
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| sources(&entry.unwrap().path())).collect();
    }
    vec![path.to_owned()]
}

/// The first sentence of what a source says of itself.
fn first_sentence(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
    paragraph[..end].replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

/// The names that follow `crate::`, but in comments and tests.
fn named(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = source.lines().map(|line| line.split("//").next().unwrap());
    let names = code.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[..end].to_owned()
    });
    names.collect()
}

/// The rooms of a program by name.
fn rooms(folder: &Path) -> BTreeMap<String, Room> {
    let mut rooms = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let texts: Vec<String> =
            sources(&path).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        if texts.is_empty() {
            continue;
        }
        let door = if path.is_dir() { path.join("mod.rs") } else { path };
        let sentence = first_sentence(&fs::read_to_string(door).unwrap());
        assert!(!sentence.is_empty(), "{name} does not say what it is");
        rooms.insert(name, Room { sentence, stands_on: texts.iter().flat_map(|text| named(text)).collect() });
    }
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
const FOLDERS: [&str; 1] = ["src"];
