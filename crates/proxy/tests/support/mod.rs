//! What the tests share: the sidecar as a process, and an HTTP client that reads what it answers.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(any(feature = "netns-tests", feature = "program-tests"))]
pub(crate) mod namespace;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// A test that has to wait longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Has the sidecar pass responses on as they are, byte for byte.
pub(crate) const PLAIN: (&str, &str) =
    ("PROXY_CONFIG", r#"{"proxyHeaders": {"envoyDebugHeaders": {"disabled": true}}}"#);

/// Variables of the ports that the kernel chooses in tests.
pub(crate) const PORTS: [&str; 4] =
    ["OUTRIGGER_OUTBOUND_PORT", "OUTRIGGER_INBOUND_PORT", "ENVOY_STATUS_PORT", "ENVOY_PROMETHEUS_PORT"];

/// The sidecar on loopback, all ports chosen by the kernel.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
    command.args(["proxy", "sidecar", "--statusPort=0", "--proxyAdminPort", "0"]);
    command.env("OUTRIGGER_BIND", "127.0.0.1");
    for port in PORTS {
        command.env(port, "0");
    }
    command
}

/// A running sidecar. Dropping it kills it.
pub(crate) struct Sidecar {
    pub child: Child,
    /// The ports that it says it is bound to, by the names in its log.
    pub ports: BTreeMap<String, u16>,
    log: Receiver<String>,
}

impl Sidecar {
    /// Starts `command`, which must lead to `outrigger-proxy proxy`, and waits until it says that it is ready.
    pub(crate) fn start(mut command: Command) -> Sidecar {
        command.arg("--log_as_json").stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("the sidecar starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut sidecar = Sidecar { child, ports: BTreeMap::new(), log };
        let ready = sidecar.logged("ready");
        for (name, value) in ready.as_object().unwrap() {
            if let Some(port) = value.as_u64().and_then(|number| u16::try_from(number).ok()) {
                sidecar.ports.insert(name.clone(), port);
            }
        }
        sidecar
    }

    /// Waits for the log line whose message is `message`.
    pub(crate) fn logged(&self, message: &str) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                self.log.recv_timeout(left).unwrap_or_else(|_| panic!("no {message:?} in the log:\n{seen}"));
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&line)
                && value["message"] == message
            {
                return value;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// Where it listens on loopback.
    pub(crate) fn at(&self, name: &str) -> SocketAddr {
        ([127, 0, 0, 1], self.port(name)).into()
    }

    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until the sidecar has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("the sidecar ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until `question` has an answer.
pub(crate) fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Accepts for ever; each connection is served by `serve` in a thread of its own.
pub(crate) fn each(listener: TcpListener, serve: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            let thread = std::thread::Builder::new().stack_size(128 * 1024);
            thread.spawn(move || serve(patient(stream))).unwrap();
        }
    });
}

/// Reads a head to its end; `None` where the stream has another end.
pub(crate) fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// One request on a connection of its own: status and body.
pub(crate) fn ask(stream: TcpStream, method: &str, path: &str) -> (u16, String) {
    let mut stream = patient(stream);
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(TcpStream::connect(address).unwrap(), "GET", path)
}

/// A port that refuses connections while its socket is held: it is taken, and nobody listens. The port of a listener that
/// was closed would be anybody's, such as another test's.
pub(crate) fn refusing() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// Reads at most one byte. A read with a deadline can be interrupted when the machine stands still for a moment.
pub(crate) fn read_byte(stream: &mut TcpStream) -> std::io::Result<usize> {
    loop {
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A stream that fails a test instead of hanging it.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The sum of the samples of `name` in `text` whose labels hold all of `labels`.
pub(crate) fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
