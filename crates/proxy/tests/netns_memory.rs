//! A sidecar whose memory is full lets clients wait, and lives. Needs root, ip, nsenter and a control group hierarchy for
//! memory, v1 or v2.
#![cfg(feature = "netns-tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::namespace::{PEER_V4, Pod};
use support::{ask, each, eventually, head, metric, patient};

/// Memory that the sidecar may have.
const LIMIT: u64 = 48 << 20;
/// Length of each answer.
const BYTES: usize = 4_000_000;

/// A control group that bounds memory; dropping it removes it.
struct Group {
    path: PathBuf,
    /// Hierarchy v1 or v2.
    v1: bool,
}

impl Group {
    fn new() -> Group {
        let mount = Path::new("/sys/fs/cgroup");
        let v1 = mount.join("memory/memory.limit_in_bytes").exists();
        let parent = if v1 { mount.join("memory") } else { mount.to_owned() };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = parent.join(format!(
            "outrigger-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        if !v1 {
            std::fs::write(parent.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        std::fs::create_dir(&path).unwrap();
        let group = Group { path, v1 };
        let file = if v1 { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(group.path.join(file), LIMIT.to_string()).unwrap();
        group
    }

    /// A number of `file`, by its name or alone.
    fn number(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.path.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name:?} in {text:?}")).trim().parse().unwrap()
    }

    /// How often the limit was met.
    fn met(&self) -> u64 {
        if self.v1 { self.number("memory.failcnt", "") } else { self.number("memory.events", "max ") }
    }

    /// How many processes were killed for it.
    fn killed(&self) -> u64 {
        let file = if self.v1 { "memory.oom_control" } else { "memory.events" };
        self.number(file, "oom_kill ")
    }

    /// Fills what is free with a file's pages, which the kernel takes away again when they are wanted.
    fn fill(&self, file: &Path) {
        let script = "echo $$ >\"$0/cgroup.procs\" && exec cat \"$1\"";
        let mut cat = Command::new("sh");
        cat.args(["-c", script]).arg(&self.path).arg(file).stdout(std::process::Stdio::null());
        assert!(cat.status().unwrap().success());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes its time with processes that have ended.
        eventually("the group is removed", || std::fs::remove_dir(&self.path).ok());
    }
}

/// A file of twice the limit whose pages are not in memory; it goes away with this value.
struct File(PathBuf);

impl File {
    fn new() -> File {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("outrigger-memory-{}-{number}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        (&file).write_all(&vec![b'x'; 2 * LIMIT as usize]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// HTTP/2: answers every request with the same body.
fn serve_http2(listener: TcpListener, body: Bytes) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.unwrap().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let body = body.clone();
                let answer = service_fn(move |_| {
                    let body = body.clone();
                    async move { Ok::<_, Infallible>(http::Response::new(Full::new(body))) }
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let server = hyper::server::conn::http2::Builder::new(executor);
                tokio::spawn(async move { server.serve_connection(TokioIo::new(stream), answer).await });
            }
        });
    });
}

/// An HTTP/2 client's first words: so many requests, and windows of 2 GiB for the answers, so that only the reader's pace
/// counts.
fn requests(count: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
    };
    // SETTINGS with INITIAL_WINDOW_SIZE, WINDOW_UPDATE, and HEADERS: GET http / test.
    frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    for number in 0..count {
        frame(1, 5, 2 * number + 1, b"\x82\x86\x84\x41\x04test");
    }
    bytes
}

/// What clients of each port say first: HTTP/1, HTTP/2, and bytes.
fn asking() -> [(u16, Vec<u8>); 3] {
    [(80, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_vec()), (81, requests(8)), (9000, Vec::new())]
}

/// A pod in whose group there is no memory but what the kernel can take back, with servers for all ports.
fn pod_and_group(file: &File) -> (Pod, Group) {
    let (pod, group) = (Pod::new(), Group::new());
    each(pod.peer.listen(PEER_V4, 80), |mut stream| {
        loop {
            head(&mut stream)?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").ok()?;
            stream.write_all(&vec![b'x'; BYTES]).ok()?;
        }
    });
    each(pod.peer.listen(PEER_V4, 8080), |mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").ok()
    });
    each(pod.peer.listen(PEER_V4, 9000), |mut stream| stream.write_all(&vec![b'x'; BYTES]).ok());
    serve_http2(pod.peer.listen(PEER_V4, 81), Bytes::from(vec![b'x'; BYTES]));
    group.fill(&file.0);
    assert!(group.met() > 0, "the group is full");
    (pod, group)
}

/// A client that has asked, and does not read: what is under way to it is the sidecar's to keep.
fn slow(pod: &Pod, port: u16, said: &[u8]) -> TcpStream {
    let mut stream = patient(pod.inside.connect((PEER_V4, port).into()).unwrap());
    stream.write_all(said).unwrap();
    stream
}

fn served(pod: &Pod) {
    let stream = pod.inside.connect((PEER_V4, 8080).into()).unwrap();
    assert_eq!(ask(stream, "GET", "/"), (200, "ok".to_owned()));
}

#[test]
fn memory_that_is_full_of_files_is_taken_back_for_slow_readers() {
    const CLIENTS: usize = 10;
    let file = File::new();
    let (pod, group) = pod_and_group(&file);
    let mut sidecar = pod.sidecar_in(&group.path, &[]);
    let mut readers: Vec<(u16, TcpStream)> = Vec::new();
    for (port, said) in asking() {
        readers.extend((0..CLIENTS).map(|_| (port, slow(&pod, port, &said))));
        // Others are served all the while.
        group.fill(&file.0);
        (0..20).for_each(|_| served(&pod));
    }
    // And so is each of the slow ones in the end; of HTTP/2, some of the first frames.
    for (port, mut stream) in readers {
        let wanted = if port == 81 { 100_000 } else { BYTES };
        let mut piece = vec![0; 64 * 1024];
        let mut got = 0;
        while got < wanted {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "{port} ended after {got} bytes");
            got += count;
        }
    }
    assert_eq!((sidecar.child.try_wait().unwrap(), group.killed()), (None, 0));
    drop(sidecar);
}

#[test]
fn a_sidecar_whose_memory_is_full_lets_clients_wait_and_serves_them_later() {
    const MOST: usize = 1000;
    let file = File::new();
    let (pod, group) = pod_and_group(&file);
    let mut sidecar = pod.sidecar_in(&group.path, &[]);
    let waits = || {
        let text = pod.metrics(&sidecar);
        metric(&text, "outrigger_limits_met_total", &["limit=\"memory\"", "reporter=\"source\""]) > 0.0
    };
    let mut readers: Vec<TcpStream> = Vec::new();
    while !waits() {
        assert!(readers.len() < MOST, "{MOST} slow readers fit into {LIMIT} bytes");
        let stream = slow(&pod, 81, &requests(8));
        // Either its answers begin, or it has to wait.
        stream.set_nonblocking(true).unwrap();
        eventually("an answer", || (stream.peek(&mut [0]).is_ok() || waits()).then_some(()));
        readers.push(stream);
    }
    assert_eq!((sidecar.child.try_wait().unwrap(), group.killed()), (None, 0));
    drop(readers);
    (0..20).for_each(|_| served(&pod));
    assert_eq!((sidecar.child.try_wait().unwrap(), group.killed()), (None, 0));
    drop(sidecar);
}
