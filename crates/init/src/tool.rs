//! The tools of iptables as processes: started, fed, listened to.
//!
//! The standard library can start any program in any way, and puts 64 signals in order for it. This starts a tool in
//! the one way that is needed here, with a tenth of the system calls: the start of its tool is what a run waits for.

// `clone`, `execve`, and what has to happen between the two.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::{Error, Read as _, Result, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::error::{Failure, Outcome};

type Arguments = &'static [&'static str];

/// A tool at work.
pub(crate) struct Running {
    program: PathBuf,
    arguments: Arguments,
    /// What it was fed.
    input: String,
    /// Another file for the lock of legacy iptables.
    lock: Option<&'static str>,
    process: Pid,
    /// Where it waits for its rules, if it reads any.
    stdin: Option<File>,
    /// Where it prints, if it does, and where it complains. These are files in memory: nobody has to be woken to
    /// empty them.
    printed: Option<File>,
    complaint: File,
}

impl Running {
    /// One that prints, or one that is to be fed.
    pub(crate) fn start(program: PathBuf, arguments: Arguments, prints: bool) -> Outcome<Running> {
        Running::start_with_lock(program, arguments, prints, None)
    }

    fn start_with_lock(
        program: PathBuf,
        arguments: Arguments,
        prints: bool,
        lock: Option<&'static str>,
    ) -> Outcome<Running> {
        let start = || {
            let complaint = in_memory("complaint")?;
            let (theirs, stdin, printed) = if prints {
                let nothing = OpenOptions::new().read(true).open("/dev/null")?.into();
                (above_standard(nothing)?, None, Some(in_memory("printed")?))
            } else {
                let (theirs, ours) = std::io::pipe()?;
                (above_standard(theirs.into())?, Some(File::from(above_standard(ours.into())?)), None)
            };
            let output = printed.as_ref().unwrap_or(&complaint).as_raw_fd();
            let standard = [theirs.as_raw_fd(), output, complaint.as_raw_fd()];
            let process = spawn(&program, arguments, lock, standard)?;
            Ok((process, stdin, printed, complaint))
        };
        match start() {
            Ok((process, stdin, printed, complaint)) => {
                let input = String::new();
                Ok(Running { program, arguments, input, lock, process, stdin, printed, complaint })
            }
            Err(error) => Err(cannot_run(&program, &error)),
        }
    }

    /// Gives it its rules; with their end it begins to work.
    pub(crate) fn feed(mut self, text: &str) -> Running {
        if let Some(mut stdin) = self.stdin.take() {
            // If the tool ended early, it says why.
            let _ = stdin.write_all(text.as_bytes());
        }
        text.clone_into(&mut self.input);
        self
    }

    /// What it printed.
    pub(crate) fn finish(mut self) -> Outcome<String> {
        // One that was not fed is not to wait for it.
        drop(self.stdin.take());
        let ended = wait(self.process).and_then(|success| match success {
            true => Ok((true, self.printed.as_mut().map_or(Ok(String::new()), content)?)),
            false => Ok((false, content(&mut self.complaint)?)),
        });
        let complaint = match ended {
            Ok((true, printed)) => return Ok(printed),
            Ok((false, complaint)) => complaint,
            Err(error) => return Err(cannot_run(&self.program, &error)),
        };
        // A read-only root has no place for the lock. Against ourselves there is one on the namespace.
        if self.lock.is_none() && complaint.contains("lock file") {
            let prints = self.printed.is_some();
            let again = Running::start_with_lock(self.program, self.arguments, prints, Some("/dev/null"))?;
            return again.feed(&self.input).finish();
        }
        Err(explain(&self.program, complaint.trim()))
    }
}

fn in_memory(name: &str) -> Result<File> {
    Ok(File::from(above_standard(memfd_create(name, MemfdFlags::CLOEXEC)?)?))
}

/// Who starts us may have closed 0, 1 or 2; what is opened then gets their numbers, and would be in its own way when it
/// is put there for the tool.
fn above_standard(descriptor: OwnedFd) -> Result<OwnedFd> {
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    Ok(fcntl_dupfd_cloexec(&descriptor, 3)?)
}

fn content(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for its end: whether that was a success.
fn wait(process: Pid) -> Result<bool> {
    loop {
        match waitpid(Some(process), WaitOptions::empty()) {
            Ok(ended) => return Ok(ended.is_some_and(|(_, status)| status.exit_status() == Some(0))),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// clone(2) and signal(7).
const CLONE_VM: c_int = 0x100;
const CLONE_VFORK: c_int = 0x4000;
const SIGCHLD: c_int = 17;
const SIGPIPE: c_int = 13;
const DEFAULT: usize = 0;
/// Bytes of stack for what runs until the tool does: three calls deep.
const STACK: usize = 16 * 1024;

unsafe extern "C" {
    static environ: *const *const c_char;
    fn clone(
        run: extern "C" fn(*mut c_void) -> c_int,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
        ...
    ) -> c_int;
    fn execve(
        program: *const c_char,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    safe fn signal(number: c_int, handler: usize) -> usize;
}

/// What the new process does before it is the tool.
struct Start {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// What becomes its standard input, output and error.
    standard: [RawFd; 3],
    /// Why it did not become the tool.
    failure: Option<Error>,
}

/// Starts a program with these files for its standard ones, with our environment, and in the way of vfork(2): in our
/// memory, while we stand still until it is the program or has failed.
fn spawn(program: &Path, arguments: Arguments, lock: Option<&str>, standard: [RawFd; 3]) -> Result<Pid> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(Error::other);
    let name = text(program.as_os_str())?;
    let words: Result<Vec<CString>> = arguments.iter().map(|word| text(word.as_ref())).collect();
    let words = words?;
    let mut pointers = vec![name.as_ptr()];
    pointers.extend(words.iter().map(|word| word.as_ptr()));
    pointers.push(std::ptr::null());

    let lock = lock.map(|lock| text(format!("XTABLES_LOCKFILE={lock}").as_ref())).transpose()?;
    let mut environment: Vec<*const c_char> = lock.iter().map(|lock| lock.as_ptr()).collect();
    // SAFETY: the C library keeps this list of pointers, with a null at its end; nobody here changes the environment.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            environment.push(*next);
            next = next.add(1);
        }
    }
    environment.push(std::ptr::null());

    let mut start = Start {
        program: name.as_ptr(),
        arguments: pointers.as_ptr(),
        environment: environment.as_ptr(),
        standard,
        failure: None,
    };
    let mut stack = Vec::<u8>::with_capacity(STACK);
    let flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    // SAFETY: the stack grows down from the end of memory that is ours and that nothing else uses. `start` and all that
    // it points to live until `clone` is back here, which with CLONE_VFORK is when the new process has left our memory.
    // Until then no other code of this process runs: it has one thread here, and no signal handlers.
    let process = unsafe {
        let top = stack.as_mut_ptr().add(STACK);
        clone(become_tool, top.cast(), flags, (&raw mut start).cast())
    };
    let process = if process < 0 { Err(Error::last_os_error()) } else { Ok(Pid::from_raw(process)) };
    match (process?, start.failure) {
        (Some(process), None) => Ok(process),
        (Some(process), Some(failure)) => {
            wait(process)?;
            Err(failure)
        }
        (None, _) => Err(Error::other("the new process has no id")),
    }
}

/// The new process. It makes system calls and nothing else: all memory is that of the old one.
extern "C" fn become_tool(start: *mut c_void) -> c_int {
    // SAFETY: this is the `Start` of `spawn`, which waits; what it points to is whole.
    unsafe {
        let start = start.cast::<Start>();
        for (from, to) in (*start).standard.iter().zip(0..) {
            if dup2(*from, to) < 0 {
                (*start).failure = Some(Error::last_os_error());
                return 127;
            }
        }
        // We ignore it, and a program inherits what is ignored.
        signal(SIGPIPE, DEFAULT);
        execve((*start).program, (*start).arguments, (*start).environment);
        (*start).failure = Some(Error::last_os_error());
    }
    127
}

fn cannot_run(program: &Path, error: &Error) -> Failure {
    Failure::Run(format!("{}: cannot run it: {error}", program.display()))
}

/// A tool's complaint with what helps.
fn explain(tool: &Path, complaint: &str) -> Failure {
    // What a tool says of itself is of no use here.
    let complaint: Vec<&str> = complaint
        .lines()
        .filter(|line| !line.starts_with("Try `") && !line.starts_with("Perhaps "))
        .collect();
    let complaint = complaint.join(" ");
    let says = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    let help = if says(&["ermission denied", "not permitted", "must be root"]) {
        "the process needs the capability NET_ADMIN in this network namespace, and for legacy iptables NET_RAW too"
    } else if says(&["unable to initialize", "can't initialize"]) {
        "either the process lacks the capability NET_ADMIN (legacy iptables: NET_RAW too), or the kernel lacks the \
         module of that table (iptable_nat, iptable_mangle, iptable_raw); load it on the node with modprobe, \
         or try --backend nftables"
    } else if says(&["xtables lock"]) {
        "something else held the lock for 30 seconds; find out what programs rules on this node"
    } else if says(&[
        "Table does not exist",
        "No chain/target/match",
        "does not exist",
        "missing kernel module",
    ]) {
        "the kernel lacks a module that iptables needs (legacy: iptable_nat, iptable_mangle, iptable_raw, xt_REDIRECT, \
         xt_owner; nft: nft_compat and the same xt_ modules); load it on the node with modprobe, or try --backend nftables"
    } else {
        "see --dry-run for the rules"
    };
    Failure::Run(format!("{} failed: {complaint}; {help}", tool.display()))
}
