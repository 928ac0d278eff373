//! One process beside the node: its log, its signals, its end.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::{NODE, beside};
use crate::cluster::until;

/// How a replica is started, where not as by the manifests.
#[derive(Debug, Default)]
pub(crate) struct How<'a> {
    /// The ServiceAccount.
    pub account: Option<&'a str>,
    /// The address of the API server.
    pub server: Option<&'a str>,
    /// More of its command line.
    pub options: &'a [&'a str],
    /// Variables of its environment.
    pub environment: &'a [(&'a str, &'a str)],
}

/// A process, known by its number outside of the cluster's namespaces.
#[derive(Debug)]
pub(crate) struct Process {
    /// `nsenter`, which waits for the process.
    outer: Child,
    number: u32,
    log: NamedTempFile,
}

impl Process {
    pub(crate) fn start(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let log = NamedTempFile::new().expect("a file");
        let file = || log.reopen().expect("a file");
        let mut command = beside("env");
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(file()).stderr(file());
        let outer = command.spawn().expect("nsenter starts");
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let number = until("a process", || {
            let children = std::fs::read_to_string(&children).map_err(|e| e.to_string())?;
            children.trim().parse().map_err(|_| format!("children: {children:?}"))
        });
        Process { outer, number, log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("a log")
    }

    fn signal(&self, signal: &str, numbers: &[u32]) {
        let numbers = numbers.iter().map(u32::to_string);
        let sent = Command::new("kill").arg(format!("-{signal}")).args(numbers).status();
        assert!(sent.expect("kill runs").success(), "{signal}");
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.signal("STOP", &[self.number]);
    }

    /// SIGCONT, also for nsenter, which stops with its child.
    pub(crate) fn thaw(&self) {
        self.signal("CONT", &[self.number, self.outer.id()]);
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) fn kill(mut self) -> String {
        self.signal("KILL", &[self.number]);
        self.signal("CONT", &[self.outer.id()]);
        self.outer.wait().expect("nsenter ends");
        self.log()
    }

    /// SIGTERM; returns when it has ended, with its log.
    pub(crate) fn terminate(mut self) -> String {
        self.signal("TERM", &[self.number]);
        self.outer.wait().expect("nsenter ends");
        self.log()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.outer.try_wait(), Ok(None)) {
            self.signal("KILL", &[self.number]);
            self.signal("CONT", &[self.outer.id()]);
            let _ = self.outer.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A replica of an installation.
#[derive(Debug)]
pub(crate) struct Replica {
    pub identity: String,
    pub process: Process,
    /// Of the webhook: `address:port`.
    pub address: String,
    metrics: String,
}

impl Replica {
    pub(super) fn start(
        identity: &str,
        name: &str,
        settings: &Path,
        kubeconfig: &Path,
        how: &How,
    ) -> Replica {
        let mut environment = vec![("HOSTNAME", identity), ("KUBECONFIG", kubeconfig.to_str().unwrap())];
        environment.extend_from_slice(how.environment);
        let any = format!("{NODE}:0");
        let listen = ["--listen", &any, "--metrics-listen", &any];
        let which = ["--installation", name, "--config", settings.to_str().unwrap()];
        let arguments = [&["serve", "--log-format=json"], &which[..], &listen, how.options].concat();
        let process = Process::start(env!("CARGO_BIN_EXE_outrigger"), &arguments, &environment);
        let line = until("a replica that listens", || {
            let log = process.log();
            let line = lines(&log).find(|line| line["message"] == "serving");
            line.ok_or(log)
        });
        let text = |field: &str| line[field].as_str().expect("an address").to_owned();
        let (address, metrics) = (text("address"), text("metrics"));
        Replica { identity: identity.to_owned(), process, address, metrics }
    }

    /// How often the log has this message, or one that begins so.
    pub(crate) fn count(&self, message: &str) -> usize {
        count(&self.process.log(), message)
    }

    /// Waits until the log has this message.
    pub(crate) fn said(&self, message: &str) {
        until(&format!("{message:?} in the log of {}", self.identity), || {
            if self.count(message) > 0 { Ok(()) } else { Err(self.process.log()) }
        });
    }

    /// What the plain port answers to a path.
    ///
    /// # Errors
    /// Another status than 200, or no answer.
    pub(crate) fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("http://{}{path}", self.metrics);
        let got = beside("busybox").args(["wget", "-qO-", &url]).output().expect("busybox runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        if got.status.success() { Ok(text(got.stdout)) } else { Err(text(got.stderr)) }
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> Result<u64, String> {
        let metrics = self.get("/metrics")?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.ok_or(format!("no {name}"))?.parse().map_err(|e| format!("{name}: {e}"))
    }

    pub(crate) fn leads(&self) -> Result<bool, String> {
        Ok(self.metric("outrigger_leader")? == 1)
    }
}

/// The lines of a log.
pub(super) fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// How many lines of a log have a message that begins so.
pub(super) fn count(log: &str, message: &str) -> usize {
    lines(log).filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).count()
}
