//! The front end for virtual machines: `cluster.env`, which the mesh gives to all of them, and `sidecar.env`,
//! which says what is special about this one. They are shell assignments, read and never run.

use std::collections::BTreeMap;

use crate::error::{Outcome, usage};
use crate::flags::{Flag, parse};
use crate::istio;
use crate::options::{Options, SHARED_FLAGS, Surroundings, Task};

const CLUSTER_FILE: &str = "/var/lib/istio/envoy/cluster.env";
const SIDECAR_FILE: &str = "/var/lib/istio/envoy/sidecar.env";
/// Somebody is logged in there.
const SSH: &str = "22";

pub(crate) const FLAGS: [Flag; 2] = [
    Flag::value(
        "cluster-env",
        None,
        "the mesh's file (ISTIO_CLUSTER_CONFIG, /var/lib/istio/envoy/cluster.env)",
    ),
    Flag::value(
        "sidecar-env",
        None,
        "this machine's file (ISTIO_SIDECAR_CONFIG, /var/lib/istio/envoy/sidecar.env)",
    ),
];

/// Reads a command line. What is not ours in it is istio-iptables', and wins over the files; the process's
/// own environment wins over them too, and sidecar.env over cluster.env.
pub(crate) fn options(arguments: &[String], surroundings: &Surroundings) -> Outcome<Options> {
    let known = [SHARED_FLAGS.as_slice(), FLAGS.as_slice(), istio::FLAGS.as_slice()].concat();
    let given = parse(arguments, &known)?;
    let clean = match given.words.as_slice() {
        [] => false,
        [word] if word == "clean" => true,
        [word, ..] => {
            return usage(format!(
                "vm takes flags and the word clean, and {word:?} is neither; see outrigger-init vm --help"
            ));
        }
    };
    // Files that only might be there are not missed; one that a flag names is.
    let assigned = |flag: &str, variable: &str, default: &str| match given.get(flag) {
        Some(file) if !std::path::Path::new(file).exists() => {
            usage(format!("--{flag}: there is no file {file}; name the one that the mesh gave this machine"))
        }
        Some(file) => read(file),
        None => read(surroundings.variable(variable).unwrap_or(default)),
    };
    let mut environment = BTreeMap::new();
    environment.extend(assigned("cluster-env", "ISTIO_CLUSTER_CONFIG", CLUSTER_FILE)?);
    environment.extend(assigned("sidecar-env", "ISTIO_SIDECAR_CONFIG", SIDECAR_FILE)?);
    environment.extend(surroundings.environment.clone());

    let custom = environment.get("ISTIO_CUSTOM_IP_TABLES").is_some_and(|value| value == "true");
    let defaults = defaults(&environment);
    let rest = arguments.iter().filter(|argument| *argument != "clean");
    let arguments: Vec<String> = defaults.into_iter().chain(without_files(rest)).collect();
    let merged = Surroundings { environment, etc: surroundings.etc.clone() };
    let mut options = istio::options(&arguments, &merged)?;
    if clean {
        options.task = Task::Clean;
    } else if custom && options.task == Task::Apply {
        options.task = Task::Nothing;
        options
            .warnings
            .push("ISTIO_CUSTOM_IP_TABLES is true: the rules are left to somebody else".to_owned());
    }
    Ok(options)
}

/// Our two flags are not istio-iptables'.
fn without_files<'a>(arguments: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut out = Vec::new();
    let mut skip = false;
    for argument in arguments {
        if std::mem::take(&mut skip) {
            continue;
        }
        match argument
            .strip_prefix("--")
            .and_then(|name| FLAGS.iter().find(|flag| name.starts_with(flag.name)))
        {
            Some(flag) => skip = argument.len() == flag.name.len() + 2,
            None => out.push(argument.clone()),
        }
    }
    out
}

/// What the VM's own start script passes: without a range nothing is captured outbound, without ports
/// nothing inbound, and never SSH.
pub(crate) fn defaults(environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut pass = |flag: &str, value: &str| arguments.extend([format!("--{flag}"), value.to_owned()]);
    if let Some(port) = environment.get("ENVOY_PORT").filter(|port| !port.is_empty()) {
        pass("envoy-port", port);
    }
    let local = environment.get("ISTIO_LOCAL_EXCLUDE_PORTS").map(String::as_str).unwrap_or_default();
    // The old files document this name, which no script ever read.
    let inbound = environment.get("ISTIO_INBOUND_EXCLUDE_PORTS").map(String::as_str).unwrap_or_default();
    let excluded: Vec<&str> = [SSH, local, inbound].into_iter().flat_map(crate::values::items).collect();
    let mut unique: Vec<&str> = Vec::new();
    excluded.iter().for_each(|port| {
        if !unique.contains(port) {
            unique.push(port);
        }
    });
    pass("istio-local-exclude-ports", &unique.join(","));
    arguments
}

/// The assignments in a file; a file that is not there has none.
fn read(path: &str) -> Outcome<BTreeMap<String, String>> {
    match std::fs::read_to_string(path) {
        Ok(content) => assignments(path, &content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => usage(format!("{path}: cannot read it: {error}")),
    }
}

/// `NAME=value` lines, with `export`, quotes and comments as a shell has them. What a shell would have to
/// work out is an error: these files come from elsewhere, and this program is powerful.
pub(crate) fn assignments(path: &str, content: &str) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (number, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| usage(format!("{path}, line {}: {what}: {line:?}", number + 1));
        let Some((name, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=') else {
            return wrong("this is no assignment; write NAME=value");
        };
        let name = name.trim_start();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal) {
            return wrong("this is no name of a variable");
        }
        let value = match unquote(value) {
            Some(value) => value,
            None => return wrong("quotes do not match, or something follows them"),
        };
        if value.contains(['$', '`']) {
            return wrong("values are taken as they are; write out what $ or ` stands for");
        }
        found.insert(name.to_owned(), value.to_owned());
    }
    Ok(found)
}

fn unquote(value: &str) -> Option<&str> {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (inside, after) = rest.split_once(quote)?;
            let after = after.trim();
            return (after.is_empty() || after.starts_with('#')).then_some(inside);
        }
    }
    // A comment begins after a space only.
    let end = value.find(" #").unwrap_or(value.len());
    let value = value[..end].trim_end();
    (!value.contains(['"', '\'']) && !value.contains(char::is_whitespace)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(content: &str) -> Option<String> {
        assignments("file", content).ok()?.remove("A")
    }

    #[test]
    fn assignments_as_a_shell_has_them() {
        for (content, value) in [
            ("A=1", "1"),
            ("export A=1", "1"),
            ("  A='1 # 2'  # three", "1 # 2"),
            ("A=\"1,2\"", "1,2"),
            ("A=1 # two", "1"),
            ("A=", ""),
            ("A=1\nA=2", "2"),
            ("# A=0\n\nA=*", "*"),
        ] {
            assert_eq!(one(content).as_deref(), Some(value), "{content:?}");
        }
    }

    #[test]
    fn what_a_shell_would_run_is_refused_with_its_line() {
        for bad in
            ["A=$(id)", "A=`id`", "A=$B", "A=1 2", "A='1", "A=1'", "id", "1A=1", "A-B=1", "=1", "A='1'2"]
        {
            let error = assignments("cluster.env", &format!("# first\n{bad}")).unwrap_err().to_string();
            assert!(error.starts_with("cluster.env, line 2"), "{bad}: {error}");
        }
    }

    #[test]
    fn ssh_is_never_captured_and_both_files_count() {
        let environment = [("ISTIO_LOCAL_EXCLUDE_PORTS", "22,15090"), ("ISTIO_INBOUND_EXCLUDE_PORTS", "9")];
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(defaults(&environment), ["--istio-local-exclude-ports", "22,15090,9"]);
    }

    #[test]
    fn our_own_flags_do_not_reach_istios() {
        let arguments = ["--cluster-env", "a", "-u", "1", "--sidecar-env=b", "-n"].map(str::to_owned);
        assert_eq!(without_files(arguments.iter()), ["-u", "1", "-n"]);
    }
}
