//! Programs that people run, through two sidecars: the client's and the server's. Needs root, nft, ip, and what
//! `tests/programs/install` installs.
#![cfg(feature = "program-tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::namespace::{Namespace, PEER_V4, Pod};
use support::{Sidecar, ask, eventually, metric};

/// A folder that goes away with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("outrigger-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server, as long as this value lives.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client's pod and a server's, each with a sidecar.
struct Mesh {
    client: Sidecar,
    server: Sidecar,
    pod: Pod,
}

impl Mesh {
    fn new() -> Mesh {
        let pod = Pod::new();
        Mesh { client: pod.sidecar(&[]), server: pod.sidecar_of_peer(), pod }
    }

    /// Starts a server in its pod and waits until it listens on `port`.
    fn serve(&self, port: u16, mut command: Command) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server(command.spawn().unwrap());
        eventually(&format!("{command:?} listens on {port}"), || {
            assert_eq!(server.0.try_wait().unwrap(), None, "{command:?} has ended");
            self.pod.peer.connect((PEER_V4, port).into()).ok()
        });
        server
    }

    /// Runs a client in its pod, which has to succeed; gives what it said.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.pod.inside.command(program).args(arguments).stdin(Stdio::null()).output().unwrap();
        succeeded(&output, &format!("{program} {}", arguments.join(" ")))
    }

    /// The sum of a metric, as the client's sidecar reports it of outbound and the server's of inbound connections.
    fn metrics(&self, name: &str, labels: &[&str]) -> [f64; 2] {
        let of = |namespace: &Namespace, sidecar: &Sidecar, reporter: &str| {
            let stream = namespace.connect(sidecar.at("metrics")).unwrap();
            let text = ask(stream, "GET", "/stats/prometheus").1;
            metric(&text, name, &[labels, &[reporter]].concat())
        };
        [
            of(&self.pod.inside, &self.client, "reporter=\"source\""),
            of(&self.pod.peer, &self.server, "reporter=\"destination\""),
        ]
    }

    /// Both sidecars have seen so many HTTP requests.
    fn saw_requests(&self, count: u32, labels: &[&str]) {
        eventually("all requests are counted", || {
            (self.metrics("istio_requests_total", labels) == [f64::from(count); 2]).then_some(())
        });
    }

    /// Both sidecars have carried connections as bytes, and seen no HTTP.
    fn saw_bytes(&self) {
        assert!(self.metrics("istio_tcp_connections_opened_total", &[]).iter().all(|count| *count >= 1.0));
        assert_eq!(self.metrics("istio_requests_total", &[]), [0.0; 2]);
    }
}

fn succeeded(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What `tests/programs/install` has put into the user's cache.
fn installed(name: &str) -> String {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let path = cache.join("outrigger-programs").join(name);
    assert!(path.exists(), "{} is missing: run crates/proxy/tests/programs/install", path.display());
    path.to_str().unwrap().to_owned()
}

/// As a user that is not root: some servers insist.
fn as_user(namespace: &Namespace, user: &str, program: &str) -> Command {
    let mut command = namespace.command("setpriv");
    command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups", program]);
    command
}

/// nginx on 80 (HTTP/1) and 81 (HTTP/2), with a folder `files` that takes uploads, and `/whole` on 81 that answers only
/// when it has read the whole request.
fn nginx(mesh: &Mesh, folder: &Folder) -> Server {
    let dir = folder.0.display();
    fs::create_dir(folder.path("files")).unwrap();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/log;
        events {{ }}
        http {{
          access_log off; client_max_body_size 0; root {dir};
          client_body_temp_path {dir}/files/.b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
          uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
          server {{ listen 80; location = / {{ return 200 hello; }} location /files {{ dav_methods PUT; }} }}
          server {{ listen 81 http2; location = / {{ return 200 hello; }} location /files {{ dav_methods PUT; }}
                    location = /whole {{ proxy_pass http://10.9.0.1:80/; }} }}
        }}"
    );
    fs::write(folder.path("nginx.conf"), config).unwrap();
    let mut command = mesh.pod.peer.command("/usr/sbin/nginx");
    command.args(["-e", &folder.path("log"), "-c", &folder.path("nginx.conf")]);
    let server = mesh.serve(81, command);
    eventually("nginx listens on 80", || mesh.pod.peer.connect((PEER_V4, 80).into()).ok());
    server
}

/// Bytes that compress badly and differ at every offset.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn curl_gets_from_nginx_what_it_gave_it() {
    let (mesh, folder) = (Mesh::new(), Folder::new("curl"));
    let _nginx = nginx(&mesh, &folder);
    let up = folder.path("up");
    fs::write(&up, noise(5 << 20)).unwrap();
    let mut requests = 0;
    for (version, port) in [("--http1.1", 80), ("--http1.0", 80), ("--http2-prior-knowledge", 81)] {
        let curl = |arguments: &[&str]| {
            mesh.run("curl", &[&["-sS", "--fail", "--max-time", "60", version], arguments].concat())
        };
        let at = |path: &str| format!("http://10.9.0.1:{port}{path}");
        let name = format!("/files/{version}");
        assert_eq!(curl(&[&at("/")]), "hello", "{version}");
        // The second goes over the same connection; with HTTP/2, some versions of curl fail to.
        if port == 80 {
            assert_eq!(curl(&[&at("/"), &at("/")]), "hellohello", "{version}");
            requests += 2;
        }
        // More than a megabyte: curl waits for 100 Continue.
        curl(&["-T", &up, &at(&name)]);
        let down = folder.path("down");
        curl(&["-o", &down, &at(&name)]);
        assert!(fs::read(&down).unwrap() == fs::read(&up).unwrap(), "{version}: a file came back changed");
        assert_eq!(curl(&["-r", "1000000-1000999", "-o", &down, "-w", "%{http_code}", &at(&name)]), "206");
        assert!(fs::read(&down).unwrap() == fs::read(&up).unwrap()[1_000_000..1_001_000]);
        let head = curl(&["-I", &at(&name)]);
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        assert_eq!(field("content-length").as_deref(), Some("5242880"), "{version}: {head}");
        let date = field("last-modified").unwrap();
        assert_eq!(
            curl(&["-H", &format!("if-modified-since: {date}"), "-w", "%{http_code}", &at(&name)]),
            "304"
        );
        let missing = mesh.pod.inside.command("curl").args(["-s", "--fail", version, &at("/none")]).output();
        assert_eq!(missing.unwrap().status.code(), Some(22), "{version}: 404");
        requests += 7;
    }
    // Chunked, as of a length that nobody knows.
    let name = "http://10.9.0.1:80/files/chunked";
    mesh.run("curl", &["-sS", "--fail", "-H", "transfer-encoding: chunked", "-T", &up, name]);
    assert!(fs::read(folder.path("files/chunked")).unwrap() == fs::read(&up).unwrap());
    mesh.saw_requests(requests + 1, &["request_protocol=\"http\""]);
}

/// HTTP/2: tells the client to go on, reads what it sends, gives it an early hint, and says how much it sent.
async fn interim(stream: tokio::net::TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut answer) = accepted?;
        tokio::spawn(async move {
            assert_eq!(request.headers()["expect"], "100-continue");
            answer.send_informational(http::Response::builder().status(100).body(()).unwrap()).unwrap();
            let (mut body, mut length) = (request.into_body(), 0);
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                length += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            let hint = http::Response::builder().status(103).header("link", "</a.css>; rel=preload");
            answer.send_informational(hint.body(()).unwrap()).unwrap();
            let mut to = answer.send_response(http::Response::new(()), false).unwrap();
            to.send_data(format!("{length} bytes").into(), true).unwrap();
        });
    }
    Ok(())
}

fn serve_interim(listener: TcpListener) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.unwrap().block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(interim(stream));
            }
        });
    });
}

#[test]
fn curl_hears_interim_answers_over_http2() {
    let mesh = Mesh::new();
    serve_interim(mesh.pod.peer.listen(PEER_V4, 82));
    // Without 100 Continue it would wait for longer than it may take.
    let patience = ["--expect100-timeout", "300", "--max-time", "60"];
    let arguments = [
        "-sSi",
        "--http2-prior-knowledge",
        "-H",
        "expect: 100-continue",
        "-d",
        "six by",
        "http://10.9.0.1:82/",
    ];
    let said = mesh.run("curl", &[&patience[..], &arguments].concat());
    let heads: Vec<&str> = said.lines().filter(|line| line.starts_with("HTTP/2 ")).map(str::trim).collect();
    assert_eq!(heads, ["HTTP/2 100", "HTTP/2 103", "HTTP/2 200"], "{said}");
    assert!(said.contains("\nlink: </a.css>; rel=preload\r\n") && said.ends_with("6 bytes"), "{said}");
}

#[test]
fn h2spec_passes() {
    let (mesh, folder) = (Mesh::new(), Folder::new("h2spec"));
    let _nginx = nginx(&mesh, &folder);
    let report = folder.path("report.xml");
    // An answer that comes before the request is whole would end streams that h2spec is about to break.
    let arguments = ["-h", "10.9.0.1", "-p", "81", "-P", "/whole", "-o", "10", "-j", &report];
    let output = mesh.pod.inside.command(&installed("h2spec")).args(arguments).output().unwrap();
    let said = succeeded(&output, "h2spec");
    let sum = said.lines().rev().find(|line| line.contains(" tests, ")).unwrap();
    assert_eq!(sum, "145 tests, 145 passed, 0 skipped, 0 failed", "{said}");
}

#[test]
fn the_interoperability_cases_of_grpc_pass() {
    let mesh = Mesh::new();
    let mut command = mesh.pod.peer.command(&installed("grpc-server"));
    command.args(["-port", "10000"]);
    let _server = mesh.serve(10_000, command);
    let cases = [
        "empty_unary",
        "large_unary",
        "client_streaming",
        "server_streaming",
        "ping_pong",
        "empty_stream",
        "timeout_on_sleeping_server",
        "cancel_after_begin",
        "cancel_after_first_response",
        "status_code_and_message",
        "special_status_message",
        "custom_metadata",
        "unimplemented_method",
        "unimplemented_service",
    ];
    let client = installed("grpc-client");
    for case in cases {
        mesh.run(&client, &["-server_host", "10.9.0.1", "-server_port", "10000", "-test_case", case]);
    }
    let ok = ["request_protocol=\"grpc\"", "grpc_response_status=\"0\""];
    eventually("successes are counted", || {
        (mesh.metrics("istio_requests_total", &ok) == [8.0; 2]).then_some(())
    });
    for status in ["2", "12"] {
        let label = format!("grpc_response_status=\"{status}\"");
        assert!(
            mesh.metrics("istio_requests_total", &[&label]).iter().all(|count| *count >= 1.0),
            "{status}"
        );
    }
}

#[test]
fn redis_is_carried_as_bytes() {
    let (mesh, folder) = (Mesh::new(), Folder::new("redis"));
    let mut command = mesh.pod.peer.command("redis-server");
    command.args([
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        &folder.path(""),
    ]);
    let _server = mesh.serve(6379, command);
    let redis = |arguments: &[&str]| mesh.run("redis-cli", &[&["-h", "10.9.0.1"], arguments].concat());
    assert_eq!(redis(&["set", "a", "1"]), "OK\n");
    assert_eq!(redis(&["incr", "a"]), "2\n");
    // A value of 3 MB, there and back.
    assert_eq!(redis(&["eval", "return redis.call('set', 'b', string.rep('x', 3000000))", "0"]), "OK\n");
    assert_eq!(redis(&["get", "b"]).len(), 3_000_001);
    // 50 connections, 16 commands at a time.
    let said = mesh
        .run("redis-benchmark", &["-h", "10.9.0.1", "-n", "20000", "-P", "16", "-q", "-t", "set,lrange_100"]);
    assert!(!said.contains("Error") && said.contains("SET: "), "{said}");
    mesh.saw_bytes();
}

#[test]
fn postgresql_is_carried_as_bytes() {
    let (mesh, folder) = (Mesh::new(), Folder::new("postgresql"));
    let bin = newest(Path::new("/usr/lib/postgresql")).join("bin");
    std::os::unix::fs::chown(&folder.0, Some(65_534), Some(65_534)).unwrap();
    let data = folder.path("data");
    let mut initdb = as_user(&mesh.pod.peer, "nobody", bin.join("initdb").to_str().unwrap());
    let initdb =
        initdb.args(["-D", &data, "-U", "shop", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8"]);
    succeeded(&initdb.output().unwrap(), "initdb");
    fs::write(folder.path("data/pg_hba.conf"), "host all all all trust\n").unwrap();
    let mut command = as_user(&mesh.pod.peer, "nobody", bin.join("postgres").to_str().unwrap());
    command.args(["-D", &data, "-c", "listen_addresses=*", "-c", "fsync=off", "-k", &data]);
    let _server = mesh.serve(5432, command);
    let psql = |query: &str| {
        mesh.run(
            "psql",
            &["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", query, "postgresql://shop@10.9.0.1/postgres"],
        )
    };
    eventually("PostgreSQL has started", || {
        let asked = ["-h", "10.9.0.1", "-t", "20"];
        mesh.pod.inside.command("pg_isready").args(asked).status().unwrap().success().then_some(())
    });
    assert_eq!(psql("select 6 * 7"), "42\n");
    psql("create table a (n int); insert into a select generate_series(1, 100000)");
    assert_eq!(psql("select count(*), sum(n) from a"), "100000|5000050000\n");
    assert_eq!(psql("select repeat('x', 10000000)").len(), 10_000_001);
    mesh.saw_bytes();
}

#[test]
fn mariadb_is_carried_as_bytes_by_a_port_that_is_known_and_by_one_that_is_not() {
    let (mesh, folder) = (Mesh::new(), Folder::new("mariadb"));
    let data = folder.path("data");
    fs::create_dir(&data).unwrap();
    let mut command = mesh.pod.peer.command("/usr/sbin/mariadbd");
    command.args(["--no-defaults", "--user=root", "--skip-grant-tables", "--bind-address=0.0.0.0"]);
    command.args([
        &format!("--datadir={data}"),
        &format!("--socket={data}/socket"),
        &format!("--pid-file={data}/pid"),
    ]);
    // Its own port is known for a server that speaks first; the extra one is not.
    command.args(["--port=3306", "--extra-port=3307", "--innodb-flush-log-at-trx-commit=0"]);
    let _server = mesh.serve(3307, command);
    for port in ["3306", "3307"] {
        let sql = |query: &str| {
            let to =
                ["--no-defaults", "--protocol=tcp", "-h", "10.9.0.1", "-P", port, "-N", "-B", "-e", query];
            mesh.run("mariadb", &to)
        };
        assert_eq!(sql("select 6 * 7"), "42\n");
        assert_eq!(
            sql(
                "create database if not exists s; create or replace table s.a (n int); use s; insert into a select seq from seq_1_to_10000; select sum(n) from a"
            ),
            "50005000\n"
        );
        assert_eq!(sql("select repeat('x', 10000000)").len(), 10_000_001);
    }
    mesh.saw_bytes();
}

#[test]
fn websockets_are_carried() {
    let mesh = Mesh::new();
    let python = installed("python/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/websocket.py");
    let mut command = mesh.pod.peer.command(&python);
    command.args([script, "serve", "0.0.0.0", "8080"]);
    let _server = mesh.serve(8080, command);
    assert_eq!(mesh.run(&python, &[script, "ask", "10.9.0.1", "8080"]), "ok\n");
    mesh.saw_requests(1, &["request_protocol=\"http\"", "response_code=\"101\""]);
}

#[test]
fn no_request_of_a_load_fails() {
    let (mesh, folder) = (Mesh::new(), Folder::new("load"));
    let _nginx = nginx(&mesh, &folder);
    let said =
        mesh.run("wrk", &["-t", "1", "-c", "100", "-d", "2", "--timeout", "20", "http://10.9.0.1:80/"]);
    assert!(
        said.contains(" requests in ") && !said.contains("Socket errors") && !said.contains("Non-2xx"),
        "{said}"
    );
    let said = mesh.run("h2load", &["-n", "20000", "-c", "10", "-m", "20", "http://10.9.0.1:81/"]);
    assert!(said.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}

/// The folder whose name is the largest number.
fn newest(folder: &Path) -> PathBuf {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|path| number(path).is_some()).max_by_key(number).expect("PostgreSQL is installed")
}
