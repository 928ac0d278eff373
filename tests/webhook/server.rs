//! The real binary, on ports that the kernel chooses.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use outrigger::certificates::{Made, make, unix_now};
use serde_json::Value;
use tokio_rustls::rustls::ClientConfig;

use crate::client::{Answer, Client, DEADLINE, eventually, read_answer, trusting};

/// A folder of a test's own, gone when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("webhook-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes files as a kubelet does that mounts a ConfigMap or a Secret: `NAME -> ..data/NAME`, `..data -> ..VERSION`.
    /// It swaps `..data`.
    pub(crate) fn mount(&self, version: usize, files: &[(&str, &str)]) {
        let folder = format!("..{version}");
        fs::create_dir(self.0.join(&folder)).unwrap();
        let link = |to: &str, name: &str| {
            symlink(to, self.0.join("..new")).unwrap();
            fs::rename(self.0.join("..new"), self.0.join(name)).unwrap();
        };
        for (name, contents) in files {
            self.write(&format!("{folder}/{name}"), contents);
        }
        link(&folder, "..data");
        for (name, _) in files.iter().filter(|(name, _)| !self.0.join(name).is_symlink()) {
            link(&format!("..data/{name}"), name);
        }
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, contents: &str) -> String {
        fs::write(self.0.join(name), contents).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines that settings begin with.
pub(crate) const HEAD: &str = "apiVersion: outrigger.dev/v1alpha1\nkind: InjectorConfig\n";

/// Ports that the kernel chooses.
pub(crate) const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

/// `outrigger serve` with a certificate from files.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<Value>,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub tls: Arc<ClientConfig>,
    pub folder: Folder,
}

/// `outrigger serve` with these arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.arg("serve").args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What `outrigger serve` says when it does not start: exit code and stderr.
pub(crate) fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(arguments).stdout(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Writes a certificate for loopback as `tls.crt` and `tls.key`.
pub(crate) fn write_certificate(folder: &Folder) -> Made {
    let made = make(&["127.0.0.1".to_owned()], 1, unix_now()).unwrap();
    folder.write("tls.crt", &made.certificate);
    folder.write("tls.key", &made.key);
    made
}

impl Server {
    /// Starts with settings (the lines after `kind`), and waits until it serves.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_by(settings, |command| command)
    }

    /// Starts by a command that `wrap` may change.
    pub(crate) fn start_by(settings: &str, wrap: impl Fn(Command) -> Command) -> Self {
        let folder = Folder::new();
        let made = write_certificate(&folder);
        let config = folder.write("config.yaml", &format!("{HEAD}{settings}"));
        let (certificate, key) = (folder.path("tls.crt"), folder.path("tls.key"));
        let files = ["--config", &config, "--cert", &certificate, "--key", &key];
        let command = command(&[&files[..], &ANYWHERE, &["--log-level", "debug"]].concat());
        let mut child = wrap(command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = log_lines(&mut child);
        let mut server = Self {
            child,
            lines,
            address: ([0, 0, 0, 0], 0).into(),
            metrics: ([0, 0, 0, 0], 0).into(),
            tls: trusting(&made.ca),
            folder,
        };
        let line = server.log("serving", |_| true);
        server.address = line["address"].as_str().unwrap().parse().unwrap();
        server.metrics = line["metrics"].as_str().unwrap().parse().unwrap();
        server
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address, &self.tls)
    }

    /// Posts one review to `/inject`.
    pub(crate) fn ask(&self, review: &Value) -> Answer {
        self.client().post("/inject", review)
    }

    /// Waits for a log line.
    pub(crate) fn log(&self, message: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no log line {message:?}"));
            if line["message"] == message && wanted(&line) {
                return line;
            }
        }
    }

    /// A path of the plain-HTTP port.
    pub(crate) fn admin(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: metrics\r\n\r\n").unwrap();
        read_answer(&mut stream).unwrap()
    }

    /// The value of a metric, by its name with labels; zero where it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let answer = self.admin("/metrics");
        assert_eq!(answer.status, 200);
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub(crate) fn metric_becomes(&self, name: &str, value: f64) {
        eventually(&format!("{name} {value}"), || self.metric(name) == value);
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = RefCell::new(&mut self.child);
        eventually("the end of the process", || child.borrow_mut().try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads stderr on a thread of its own, so that the program never waits for us.
fn log_lines(child: &mut Child) -> Receiver<Value> {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            let _ = sender.send(line);
        }
    });
    lines
}
