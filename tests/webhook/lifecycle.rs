//! Start and stop.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::client::{eventually, pod, post_head, review};
use crate::server::{ANYWHERE, Folder, HEAD, Server, command, refused};

#[test]
fn a_port_in_use_names_address_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in [
        ["--listen", &address, "--metrics-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--metrics-listen", &address],
    ] {
        let (code, said) = refused(&arguments);
        assert_eq!(code, Some(1));
        assert!(said.contains(&format!("cannot listen on {address}: Address already in use")), "{said}");
        assert!(said.contains("ss -ltnp") && said.contains("or choose another"), "{said}");
    }
}

#[test]
fn bad_settings_are_refused_at_start_with_their_place() {
    let folder = Folder::new();
    for (settings, message) in [
        ("polciy: enabled\n", "line 3, column 1: polciy: there is no such field; did you mean policy?"),
        ("policy: sometimes\n", "line 3, column 1: policy: \"sometimes\" is none of off, disabled, enabled"),
        ("templates:\n  mine: |\n    a: 1\n    b: {{#if x}}\n", "mine"),
        ("defaultTemplates: [nowhere]\n", "there is no template \"nowhere\""),
        ("pack: nowhere\n", "nowhere"),
    ] {
        let config = folder.write("config.yaml", &format!("{HEAD}{settings}"));
        let (code, said) = refused(&[&["--config", &config][..], &ANYWHERE].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(message), "{said} does not say {message}");
    }
    let (code, said) = refused(&["--config", &folder.path("none.yaml")]);
    assert_eq!(code, Some(1));
    assert!(said.contains("none.yaml: No such file or directory"), "{said}");
    assert_eq!(refused(&["--listen", "nowhere"]).0, Some(2));
}

/// Left by an earlier process of the same id, which was killed.
#[test]
fn a_folder_that_is_there_is_not_in_the_way_and_is_left_alone() {
    let folder = Folder::new();
    let serve = "mkdir \"$TMPDIR/outrigger-$$\" && exec \"$0\" serve \"$@\"";
    let mut child = Command::new("bash")
        .args(["-c", serve, env!("CARGO_BIN_EXE_outrigger")])
        .args(ANYWHERE)
        .env("TMPDIR", folder.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let curl = printed.find(|line| line.as_ref().unwrap().trim().starts_with("curl "));
    assert!(curl.is_some(), "it did not start");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let left: Vec<_> =
        std::fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [format!("outrigger-{}", child.id()).as_str()]);
}

#[test]
fn the_printed_commands_work() {
    let mut child = command(&ANYWHERE).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut said = String::new();
    let mut piece = [0; 4096];
    while !said.lines().any(|line| line.trim().starts_with("curl ")) || !said.ends_with("/inject\n\n") {
        let length = stdout.read(&mut piece).unwrap();
        assert!(length > 0, "{said}");
        said += std::str::from_utf8(&piece[..length]).unwrap();
    }
    let curl = said.lines().find(|line| line.trim().starts_with("curl ")).unwrap().trim();
    let output = Command::new("bash").args(["-c", curl]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["patch"].is_string());
    // The file to apply is what is printed.
    let apply = said.lines().find_map(|line| line.trim().strip_prefix("kubectl apply -f ")).unwrap();
    let file = std::fs::read_to_string(apply).unwrap();
    let (_, printed) = said.split_once("call it:\n\n").unwrap();
    let (printed, _) = printed.split_once("\nTo give it that:").unwrap();
    let printed: String = printed.lines().map(|line| line[2..].to_owned() + "\n").collect();
    assert_eq!(printed, file);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert!(!std::path::Path::new(apply).exists(), "the files to try it with are gone");
}

#[test]
fn sigterm_lets_requests_in_flight_finish() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start("");
        let body = review(&pod("cart")).to_string();
        let (first, rest) = body.split_at(body.len() / 2);
        let mut idle = server.client();
        assert_eq!(idle.get("/readyz").status, 200);
        let mut busy = server.client();
        busy.send(post_head("/inject", "application/json", body.len())).unwrap();
        busy.send(first).unwrap();
        server.metric_becomes("outrigger_requests_in_flight", 1.0);
        server.signal(signal);
        // Whoever is idle is sent away, whoever is new is not let in, whoever is at it may finish.
        idle.closed();
        eventually("the end of accepting", || TcpStream::connect(server.address).is_err());
        busy.send(rest).unwrap();
        let answer = busy.answer().unwrap();
        assert!(answer.injected(&pod("cart")).is_some());
        assert!(answer.head.contains("connection: close"), "{}", answer.head);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut server = Server::start("");
    let mut busy = server.client();
    busy.send(post_head("/inject", "application/json", 10)).unwrap();
    busy.send("{").unwrap();
    server.metric_becomes("outrigger_requests_in_flight", 1.0);
    server.signal("INT");
    server.log("stopping: no longer ready", |_| true);
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1));
}

/// Few enough open files that connections run out of them.
#[test]
fn without_open_files_it_waits_and_goes_on() {
    let server = Server::start_by("", |command| {
        let mut limited = Command::new("bash");
        limited.args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""]).arg(command.get_program());
        limited.args(command.get_args()).env_remove("RUST_LOG").stdin(Stdio::null());
        limited
    });
    let mut kept = server.client();
    let crowd: Vec<_> = (0..60).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.log("cannot accept connections", |line| line["error"].as_str().unwrap().contains("open files"));
    assert!(kept.post("/inject", &review(&pod("cart"))).injected(&pod("cart")).is_some());
    drop(crowd);
    assert!(server.ask(&review(&pod("cart"))).injected(&pod("cart")).is_some());
    // Backed off from 10 ms to 1 s: a busy loop would have counted thousands.
    let errors = server.metric("outrigger_accept_errors_total");
    assert!((1.0..200.0).contains(&errors), "{errors}");
}
