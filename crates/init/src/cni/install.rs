//! `install-cni`: brings this very program to a node as a plugin, chains it into the list of plugins that the runtime
//! takes, sees to it that it stays there, and takes both away at its end.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outrigger_contract::CNI_PLUGIN;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::chain;
use crate::error::{Outcome, failed, usage};
use crate::flags::{Flag, parse};
use crate::log::Log;

pub(crate) const FLAGS: [Flag; 4] = [
    Flag::value("bin-dir", None, "the node's folder of CNI plugins (/host/opt/cni/bin)"),
    Flag::value("conf-dir", None, "the node's folder of CNI configurations (/host/etc/cni/net.d)"),
    Flag::switch("check", None, "change nothing: fail if the plugin is not in place"),
    Flag::value("log-format", None, "plain or json (plain)"),
];

/// How long until it looks again though nothing has told it to; a change of the folder wakes it at once.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// A runtime reads a changed list on its own time, and until then calls the plugin.
const FAREWELL: Duration = Duration::from_secs(2);

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// Set by a signal.
static ENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_: i32) {
    ENDING.store(true, Ordering::Relaxed);
}

/// Where a node keeps plugins and their configuration, as this process sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) bin: PathBuf,
    pub(crate) conf: PathBuf,
    /// Only look.
    pub(crate) check: bool,
    pub(crate) log_json: bool,
}

pub(crate) fn options(arguments: &[String]) -> Outcome<Options> {
    let given = parse(arguments, &FLAGS)?;
    given.flags_alone("install-cni")?;
    let path = |flag: &str, otherwise: &str| PathBuf::from(given.get(flag).unwrap_or(otherwise));
    let log_json = match given.get("log-format") {
        None | Some("plain") => false,
        Some("json") => true,
        Some(other) => return usage(format!("--log-format: {other:?} is neither plain nor json")),
    };
    Ok(Options {
        bin: path("bin-dir", "/host/opt/cni/bin"),
        conf: path("conf-dir", "/host/etc/cni/net.d"),
        check: given.switched("check"),
        log_json,
    })
}

/// Works until a signal ends it.
pub(crate) fn run(options: &Options, log: Log) -> Outcome<()> {
    let program = match fs::read("/proc/self/exe") {
        Ok(program) => program,
        Err(error) => return failed(format!("cannot read this program (/proc/self/exe): {error}")),
    };
    let plugin = options.bin.join(CNI_PLUGIN);
    if options.check {
        return check(options, &plugin, &program);
    }
    crate::signal(SIGTERM, end as *const () as usize);
    crate::signal(SIGINT, end as *const () as usize);
    let changes = watch(options)?;
    let mut said = String::new();
    while !ENDING.load(Ordering::Relaxed) {
        // The program comes before the list that names it.
        match place(&plugin, &program).and_then(|placed| Ok((placed, chain_in(&options.conf)?))) {
            Ok((placed, chained)) => {
                if placed {
                    log.info("plugin installed", &[("file", plugin.display().to_string().into())]);
                }
                if let Some(list) = chained {
                    log.info("plugin chained", &[("file", list.display().to_string().into())]);
                }
                said.clear();
            }
            // Often the network of the node is not set up yet. Said once, and tried again.
            Err(reason) if reason != said => {
                log.warn(&reason);
                said = reason;
            }
            Err(_) => {}
        }
        wait(&changes);
    }
    withdraw(options, &plugin, log)
}

/// That the plugin is this program, and that the runtime's list has it.
fn check(options: &Options, plugin: &Path, program: &[u8]) -> Outcome<()> {
    if !fs::read(plugin).is_ok_and(|there| there == program) {
        return failed(format!(
            "{}: it is not there, or of another version; run outrigger-init install-cni on this node, as manifests/cni does",
            plugin.display()
        ));
    }
    match chosen(&options.conf).and_then(|file| Ok((read(&file, chain::with)?.is_none(), file))) {
        Ok((true, _)) => Ok(()),
        Ok((false, file)) => failed(format!(
            "{}: it lacks the plugin at its end; run outrigger-init install-cni on this node, as manifests/cni does",
            file.display()
        )),
        Err(reason) => failed(reason),
    }
}

fn watch(options: &Options) -> Outcome<OwnedFd> {
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let watched = inotify::init(flags).and_then(|changes| {
        use inotify::WatchFlags as On;
        let events = On::CLOSE_WRITE | On::MOVED_FROM | On::MOVED_TO | On::DELETE;
        for folder in [&options.bin, &options.conf] {
            inotify::add_watch(&changes, folder, events)?;
        }
        Ok(changes)
    });
    watched.or_else(|errno| {
        failed(format!(
            "cannot watch {} (--bin-dir) and {} (--conf-dir): {errno}; they are folders of the node, mounted by hostPath",
            options.bin.display(),
            options.conf.display()
        ))
    })
}

/// Until something in the folders changes, a signal comes, or it is time to look again.
fn wait(changes: &OwnedFd) {
    let _ = poll(&mut [PollFd::new(changes, PollFlags::IN)], Some(&LOOK));
    let mut events = [0; 4096];
    while !matches!(rustix::io::read(changes, &mut events), Ok(0) | Err(_)) {}
}

/// Makes `plugin` be this program; says whether it had to.
fn place(plugin: &Path, program: &[u8]) -> Result<bool, String> {
    if fs::read(plugin).is_ok_and(|there| there == program) {
        return Ok(false);
    }
    let written = replace(plugin, program, 0o755);
    written.map(|()| true).map_err(|error| format!("{}: cannot write the plugin: {error}", plugin.display()))
}

/// The list that the runtime takes.
fn chosen(folder: &Path) -> Result<PathBuf, String> {
    let names = names(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    chain::chosen(names.iter().map(String::as_str)).map(|name| folder.join(name)).ok_or_else(|| {
        format!("{}: no plugin is configured yet; waiting for the node's network", folder.display())
    })
}

/// Chains the plugin into that list; gives the file that it changed.
fn chain_in(folder: &Path) -> Result<Option<PathBuf>, String> {
    let file = chosen(folder)?;
    let changed = rewrite(&file, chain::with)?;
    Ok(changed.then_some(file))
}

/// Takes the plugin out of every list, then the program away.
fn withdraw(options: &Options, plugin: &Path, log: Log) -> Outcome<()> {
    let names = match names(&options.conf) {
        Ok(names) => names,
        Err(error) => return failed(format!("{}: {error}", options.conf.display())),
    };
    for file in names.iter().filter(|name| name.ends_with(".conflist")).map(|name| options.conf.join(name)) {
        match rewrite(&file, chain::without) {
            Ok(true) => log.info("plugin taken out", &[("file", file.display().to_string().into())]),
            Ok(false) => {}
            // A list that is none has nothing of ours.
            Err(reason) => log.warn(&reason),
        }
    }
    std::thread::sleep(FAREWELL);
    match fs::remove_file(plugin) {
        Ok(()) => log.info("plugin removed", &[("file", plugin.display().to_string().into())]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return failed(format!("{}: cannot remove it: {error}", plugin.display())),
    }
    Ok(())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

type Edit = fn(&str) -> Result<Option<String>, String>;

/// A file as `edit` would have it; `None` if it is so already.
fn read(file: &Path, edit: Edit) -> Result<Option<String>, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string());
    text.and_then(|text| edit(&text)).map_err(|error| format!("{}: {error}", file.display()))
}

/// Changes a file by `edit`; says whether it changed.
fn rewrite(file: &Path, edit: Edit) -> Result<bool, String> {
    let Some(text) = read(file, edit)? else { return Ok(false) };
    let written =
        fs::metadata(file).and_then(|there| replace(file, text.as_bytes(), there.permissions().mode()));
    written.map(|()| true).map_err(|error| format!("{}: cannot write it: {error}", file.display()))
}

/// Puts a whole file in the place of another: who reads it sees the old one or the new one. The name that it has until
/// then is none that a runtime reads.
fn replace(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let draft = file.with_file_name(format!(".{name}.outrigger"));
    fs::write(&draft, content)?;
    fs::set_permissions(&draft, Permissions::from_mode(mode & 0o7777))?;
    // A plugin that is there after a crash of the node is there whole.
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, file)
}
