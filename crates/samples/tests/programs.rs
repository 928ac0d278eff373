//! The program as it is run: curl's output and exit status, the end of a server at SIGTERM, and the manifests of `samples/`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outrigger-samples");

/// A server of ours on loopback, until it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(name: &str, env: &[(&str, &str)]) -> Server {
        let mut command = Command::new(PROGRAM);
        command.args([name, "127.0.0.1:0"]).envs(env.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listens on ").unwrap_or_else(|| panic!("{line:?}"));
        Server { address: address.to_owned(), child }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends it by a signal, and waits for its end.
    fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        send(&self.child, signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn curl(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("curl").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What curl prints when all goes well.
fn fetched(arguments: &[&str]) -> String {
    let output = curl(arguments);
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&fetched(arguments)).unwrap()
}

/// A failure's exit status and what it says.
fn failed(arguments: &[&str]) -> (i32, String) {
    let output = curl(arguments);
    (output.status.code().unwrap(), text(&output.stderr))
}

/// Answers one connection with these bytes when a request's head is there, then closes it.
fn answers(bytes: &'static [u8]) -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream.write_all(bytes).unwrap();
        request
    });
    (url, server)
}

#[test]
fn a_request_carries_what_its_options_say() {
    let httpbin = Server::start("httpbin", &[]);
    let anything = httpbin.url("/anything?q=1");
    let json = json_of(&["-s", &anything]);
    assert_eq!((&json["method"], &json["args"]), (&json!("GET"), &json!({"q": "1"})));
    assert_eq!(json["origin"], "127.0.0.1");
    let agent = format!("outrigger-samples-curl/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(json["headers"], json!({"Accept": "*/*", "Host": httpbin.address, "User-Agent": agent}));

    let json =
        json_of(&["-s", "-XPUT", "-d", "a=1", "-d", "b=2", "-H", "Host: books", "-H", "accept:", &anything]);
    assert_eq!((&json["method"], &json["form"]), (&json!("PUT"), &json!({"a": "1", "b": "2"})));
    let headers = &json["headers"];
    assert_eq!((&headers["Host"], &headers["Content-Length"]), (&json!("books"), &json!("7")));
    assert!(headers.get("Accept").is_none(), "{headers}");

    let typed = ["-s", "-H", "Content-Type: application/json", "-d", "{\"a\": []}"];
    let json = json_of(&[&typed[..], &[&httpbin.url("/post")]].concat());
    assert_eq!((&json["json"], &json["form"]), (&json!({"a": []}), &json!({})));
}

#[test]
fn heads_are_printed_when_asked_for() {
    let httpbin = Server::start("httpbin", &[]);
    let url = httpbin.url("/response-headers?x-a=b");
    let text_of = fetched(&["-si", &url]);
    let (head, body) = text_of.split_once("\r\n\r\n").unwrap();
    assert_eq!(head.lines().next(), Some("HTTP/1.1 200 OK"));
    assert!(head.contains("\r\nx-a: b"), "{head}");
    assert_eq!(body, "{\n  \"x-a\": \"b\"\n}\n");

    let head = fetched(&["-I", &url]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head:?}");
    assert!(head.contains("content-length: 17\r\n"), "{head:?}");

    let output = curl(&["-sv", &url]);
    let said = text(&output.stderr);
    assert!(said.contains("\n> GET /response-headers?x-a=b HTTP/1.1\n> host: 127.0.0.1:"), "{said}");
    assert!(said.contains("\n< HTTP/1.1 200 OK\n") && said.contains("\n< x-a: b\n"), "{said}");
    assert_eq!(text(&output.stdout), "{\n  \"x-a\": \"b\"\n}\n");
}

#[test]
fn bodies_go_to_files_and_what_is_written_out_to_stdout() {
    let httpbin = Server::start("httpbin", &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bytes");
    let path = file.to_str().unwrap();
    let format = "%{http_code} %{size_download} %{content_type}\\n";
    // The first output is for the first URL; the second body goes to stdout.
    let urls = [httpbin.url("/bytes/100000"), httpbin.url("/get")];
    let out = fetched(&["-s", "-o", path, "-w", format, &urls[0], &urls[1]]);
    assert!(out.starts_with("200 100000 application/octet-stream\n{"), "{out}");
    assert!(out.ends_with(" application/json\n"), "{out}");
    assert_eq!(fs::metadata(&file).unwrap().len(), 100_000);
    assert_eq!(fetched(&["-s", "-o", "/dev/null", "-w", "%{http_code}", &httpbin.url("/status/418")]), "418");

    let output = curl(&["-s", "-o", "/dev/null", "-w", "%{nothing}|", &urls[1]]);
    assert_eq!(text(&output.stdout), "|");
    assert_eq!(text(&output.stderr), "curl: unknown --write-out variable: 'nothing'\n");
}

#[test]
fn failures_have_curls_exit_status_and_a_reason() {
    let httpbin = Server::start("httpbin", &[]);
    // 22: the answer is an error, and nothing of its body is shown.
    let refused = httpbin.url("/nothing");
    let output = curl(&["-f", &refused]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(22), String::new()));
    assert_eq!(text(&output.stderr), "curl: (22) The requested URL returned error: 404\n");
    assert_eq!(failed(&["-sf", &refused]), (22, String::new()));
    assert_eq!(failed(&["-sSf", &refused]).1, "curl: (22) The requested URL returned error: 404\n");
    assert!(fetched(&["-s", &refused]).contains("there is nothing at /nothing"));

    // 7: nobody listens where the socket is bound.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (status, reason) = failed(&["-w", "%{http_code}", &format!("http://127.0.0.1:{port}/")]);
    assert_eq!(status, 7);
    assert!(
        reason.starts_with(&format!("curl: (7) Failed to connect to 127.0.0.1 port {port}: ")),
        "{reason}"
    );

    // 6: no resolver is asked for a label of more than 63 letters.
    let host = format!("{}.test", "a".repeat(64));
    assert_eq!(failed(&[&host]), (6, format!("curl: (6) Could not resolve host: {host}\n")));

    // 1, 2, 3: what was asked for makes no sense.
    let (status, reason) = failed(&["https://httpbin/"]);
    assert_eq!(
        (status, reason.starts_with("curl: (1) Protocol \"https\" not supported")),
        (1, true),
        "{reason}"
    );
    let (status, reason) = failed(&["--compressed", &refused]);
    assert_eq!(
        (status, reason.starts_with("curl: option --compressed: is unknown\n")),
        (2, true),
        "{reason}"
    );
    assert_eq!(failed(&["-s", "http://"]).0, 3);

    // 23, 26: files.
    assert_eq!(failed(&["-s", "-o", "/nowhere/at/all", &httpbin.url("/get")]).0, 23);
    assert_eq!(failed(&["-d", "@/nowhere/at/all", &httpbin.url("/post")]).0, 26);

    // The status is that of the last.
    assert_eq!(failed(&["-sf", &refused, &httpbin.url("/status/200")]).0, 0);
}

#[test]
fn a_transfer_ends_when_its_time_is_over() {
    // It takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let output = curl(&["-m", "0.2", "-w", "%{http_code} %{exitcode}", &url]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(28), "000 28".to_owned()));
    let said = text(&output.stderr);
    assert!(said.starts_with("curl: (28) Operation timed out after "), "{said}");
    assert!(said.ends_with(" milliseconds with 0 bytes received\n"), "{said}");
}

#[test]
fn what_fails_for_now_is_asked_again_as_often_as_was_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for status in ["503 Service Unavailable", "200 OK", "503 Service Unavailable", "404 Not Found"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{}",
                &status[..3]
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert_eq!(fetched(&["-sf", "--retry", "1", &url]), "200");
    let output = curl(&["-f", "--retry", "2", &url]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(22), String::new()));
    let said = "curl: (22) The requested URL returned error: 503\ncurl: this may pass; trying again in 1 s, 2 times at most\n\
                curl: (22) The requested URL returned error: 404\n";
    assert_eq!(text(&output.stderr), said);
    server.join().unwrap();
    assert_eq!(
        failed(&["--retry", "soon", &url]),
        (2, "curl: option --retry: \"soon\" is no number of times\n".to_owned())
    );
}

#[test]
fn answers_that_are_none_have_a_status_of_their_own() {
    for (bytes, status, reason) in [
        (&b""[..], 52, "curl: (52) Empty reply from server\n"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
            18,
            "curl: (18) end of response with bytes missing\n",
        ),
        (b"220 mail\r\n\r\n", 8, "curl: (8) Weird server reply: "),
    ] {
        let (url, server) = answers(bytes);
        let (got, said) = failed(&[&url]);
        assert_eq!((got, said.starts_with(reason)), (status, true), "{said}");
        let request = text(&server.join().unwrap());
        assert!(request.starts_with("GET / HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
    }
}

#[test]
fn bookinfo_is_four_programs_that_call_one_another() {
    let ratings = Server::start("ratings", &[]);
    let details = Server::start("details", &[]);
    let port = |server: &Server| server.address.rsplit(':').next().unwrap().to_owned();
    let local = |name: &'static str, server: &Server| {
        [(format!("{name}_HOSTNAME"), "127.0.0.1".to_owned()), (format!("{name}_SERVICE_PORT"), port(server))]
    };
    let start = |name: &str, env: &[(String, String)]| {
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Server::start(name, &env)
    };
    for (version, color) in [("v1", None), ("v2", Some("black")), ("v3", Some("red"))] {
        let own =
            [("SERVICE_VERSION".to_owned(), version.to_owned()), ("HOSTNAME".to_owned(), "pod-7".to_owned())];
        let reviews = start("reviews", &[&local("RATINGS", &ratings)[..], &own].concat());
        let others = [local("RATINGS", &ratings), local("DETAILS", &details), local("REVIEWS", &reviews)];
        let productpage = start("productpage", &others.concat());
        let page = fetched(&["-s", &productpage.url("/productpage")]);
        assert!(page.contains("<dt>Year</dt><dd>1595</dd>"), "{page}");
        assert!(page.contains(&format!("Reviews {version}, served by pod-7")), "{page}");
        match color {
            Some(color) => {
                assert!(page.contains(&format!("style=\"color: {color}\" title=\"5 of 5\"")), "{page}")
            }
            None => assert!(!page.contains("class=\"stars\""), "{page}"),
        }
        let json = json_of(&["-s", &productpage.url("/api/v1/products/0/reviews")]);
        assert_eq!(
            (&json["version"], &json["reviews"][0]["rating"]["color"]),
            (&json!(version), &json!(color))
        );
        let json = json_of(&["-s", &productpage.url("/api/v1/products/0/ratings")]);
        assert_eq!(json, json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}));
    }
}

#[test]
fn servers_end_at_sigterm_whatever_they_are_doing() {
    for name in ["httpbin", "productpage", "details", "reviews", "ratings"] {
        assert_eq!(Server::start(name, &[]).end(Signal::TERM).code(), Some(0), "{name}");
    }
    let mut httpbin = Server::start("httpbin", &[]);
    // A request that has arrived, and one that has not.
    let mut slow = TcpStream::connect(&httpbin.address).unwrap();
    slow.write_all(b"GET /stream/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /delay/10 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut byte = [0];
    slow.read_exact(&mut byte).unwrap();
    let mut half = TcpStream::connect(&httpbin.address).unwrap();
    half.write_all(b"GET /head").unwrap();
    assert_eq!(httpbin.end(Signal::INT).code(), Some(0));
}

#[test]
fn sleep_ends_at_sigterm_or_when_its_time_is_over() {
    let status = Command::new(PROGRAM).args(["sleep", "0"]).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let output = Command::new(PROGRAM).args(["sleep", "soon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "error: sleep: \"soon\" is no time: expected seconds, or infinity\n");

    let mut child = Command::new(PROGRAM).arg("sleep").spawn().unwrap();
    // It minds the signal once it says so to the kernel: until then, SIGTERM would end it by itself.
    let id = child.id();
    let minds = || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    };
    while !minds() {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    send(&child, Signal::TERM);
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn a_link_is_the_program_that_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("curl");
    std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    let output = Command::new(&link).arg("--version").output().unwrap();
    assert!(text(&output.stdout).starts_with("curl of outrigger-samples "), "{output:?}");
    let output = Command::new(PROGRAM).arg("wget").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: wget: no program is called \"wget\""), "{output:?}");
    let output = Command::new(PROGRAM).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    for name in ["sleep", "curl", "httpbin", "productpage", "details|reviews|ratings"] {
        assert!(text(&output.stdout).contains(&format!("\n  outrigger-samples {name} ")), "{output:?}");
    }
}

/// The folder above the crates.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_manifests_name_images_of_this_version() {
    let mut images = Vec::new();
    for name in ["sleep", "httpbin", "bookinfo"] {
        let text = fs::read_to_string(root().join(format!("samples/{name}.yaml"))).unwrap();
        let of_file: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        let image = format!("localhost/outrigger-samples-{name}:{}", env!("CARGO_PKG_VERSION"));
        assert!(!of_file.is_empty() && of_file.iter().all(|found| *found == image), "{name}: {of_file:?}");
        images.push(format!("outrigger-samples-{name}.Containerfile"));
    }
    let files = fs::read_dir(root().join("images"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.filter(|name| name.starts_with("outrigger-samples-")).collect();
    files.sort();
    images.sort();
    assert_eq!(files, images);
}
