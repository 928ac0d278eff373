//! A list of plugins (`.conflist`) with this plugin at its end, and without it. Pure: texts in, texts out.

use outrigger_contract::CNI_PLUGIN;
use serde_json::Value;

use super::entry;

/// The file of a folder that a runtime takes: the first by name of those that it reads.
pub(crate) fn chosen<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let read = |name: &&str| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    names.into_iter().filter(read).min()
}

/// The list with this plugin at its end; `None` if it is there already.
///
/// # Errors
/// Why this is no list of plugins.
pub(crate) fn with(list: &str) -> Result<Option<String>, String> {
    let mut list = parse(list)?;
    let plugins = plugins(&mut list)?;
    if plugins.iter().filter(|plugin| is_ours(plugin)).eq([&entry()]) && plugins.last().is_some_and(is_ours) {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(entry());
    write(&list).map(Some)
}

/// The list without this plugin; `None` if it is not there.
///
/// # Errors
/// Why this is no list of plugins.
pub(crate) fn without(list: &str) -> Result<Option<String>, String> {
    let mut list = parse(list)?;
    let plugins = plugins(&mut list)?;
    let all = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.len() == all { Ok(None) } else { write(&list).map(Some) }
}

fn parse(list: &str) -> Result<Value, String> {
    serde_json::from_str(list).map_err(|error| format!("it is no JSON: {error}"))
}

fn plugins(list: &mut Value) -> Result<&mut Vec<Value>, String> {
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut);
    plugins.filter(|plugins| !plugins.is_empty()).ok_or_else(|| {
        "it has no list `plugins`, so that nothing can be chained: make it a .conflist of its one plugin"
            .to_owned()
    })
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == CNI_PLUGIN
}

fn write(list: &Value) -> Result<String, String> {
    match serde_json::to_string_pretty(list) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(error.to_string()),
    }
}
