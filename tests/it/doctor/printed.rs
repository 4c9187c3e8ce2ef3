//! Output of the command: text that agrees with its JSON, and exit codes.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::no_secret;
use crate::support::app::{FakeApp, plain};
use crate::support::binary::{CREDENTIALS, Finished, finished_in};
use crate::support::certificates::{Authority, Folder, VALID, terminate};
use crate::support::velt::FakeVelt;

/// Runs `doctor` in a folder with this configuration.
async fn doctor(toml: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("sidecar.toml"), toml).expect("written");
    let environment = [&CREDENTIALS[..], environment].concat();
    let arguments = [&["doctor"], arguments].concat();
    let finished = finished_in(folder.path(), &arguments, &environment).await;
    no_secret(&finished.stdout);
    assert_eq!(finished.stderr, "");
    finished
}

/// A configuration in which nothing is wrong.
fn good(app: SocketAddr, velt: SocketAddr) -> String {
    format!(
        "[listen]\naddress = \"127.0.0.1:0\"\nmax_connections = 100\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\
         [app]\naddress = \"{app}\"\nidle_timeout = \"40ms\"\n\
         [velt]\nendpoint = \"http://{velt}/\"\n[cache]\nmax_bytes = \"1MiB\"\n"
    )
}

#[tokio::test]
async fn json_and_text_say_the_same() {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    velt.answer_with(403, r#"{"error":{"status":"PERMISSION_DENIED","message":"canary"}}"#);
    let toml = good(app.address, velt.address).replace("127.0.0.1:0", "0.0.0.0:0");
    let text = doctor(&toml, &[], &[]).await;
    let json = doctor(&toml, &["--json"], &[]).await;
    assert_eq!((text.code, json.code), (Some(69), Some(69)), "{}", text.stdout);
    insta::assert_snapshot!("refused_by_velt", lines(&text.stdout).join("\n"));
    let document: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(document["exit_code"], 69);
    let mut lines = text.stdout.lines();
    for finding in document["findings"].as_array().expect("findings") {
        let of = |key: &str| finding[key].as_str().expect("a string");
        let line = lines.next().expect("a line");
        let (mark, rest) = line.split_at(9);
        let severity = mark.trim().to_ascii_lowercase();
        assert_eq!(
            (severity.as_str(), rest.split(' ').next()),
            (of("severity"), Some(of("check")))
        );
        let said = format!("{}: {}", of("where"), of("what"));
        assert_eq!(mask(&rest[13..]), mask(&said));
        if let Some(remedy) = finding["remedy"].as_str() {
            assert_eq!(lines.next().expect("a line").trim(), format!("-> {remedy}"));
        }
    }
    let counts = &document["counts"];
    let count = |key: &str| counts[key].as_u64().expect("a count");
    let (ok, note, warning, problem) =
        (count("ok"), count("note"), count("warning"), count("problem"));
    assert_eq!((note, warning, problem), (2, 0, 1));
    assert_eq!(lines.next(), Some(&*format!("{ok} ok, 2 notes, 0 warnings, 1 problem")));
    assert_eq!(lines.next(), None);
}

#[tokio::test]
async fn exit_code_of_doctor_suits_an_init_container() {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let toml = good(app.address, velt.address);
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("an address")
    };
    let alone = good(gone, gone);
    let wide = format!("{toml}[identity]\ntrusted_peers = [\"10.0.0.0/8\"]\n");
    for (toml, arguments, code) in [
        (&*toml, &[][..], 0),
        (&toml, &["--strict"], 0),
        (&wide, &[], 0),
        (&wide, &["--strict"], 69),
        (&alone, &[], 69),
        (&alone, &["--no-mint"], 69),
        (&alone, &["--init"], 0),
        (&alone, &["--init", "--strict"], 69),
        ("[app]\nadress = \"x\"", &["--init"], 78),
        (&toml, &["--config", "nowhere.toml"], 78),
    ] {
        let finished = doctor(toml, arguments, &[]).await;
        assert_eq!(finished.code, Some(code), "{arguments:?}\n{}", finished.stdout);
    }
    for arguments in [&["doctor", "--timeout", "soon"][..], &["doctor", "--user"]] {
        let folder = tempfile::tempdir().expect("a folder");
        let finished = finished_in(folder.path(), arguments, &CREDENTIALS).await;
        assert_eq!(finished.code, Some(64), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn the_proxy_that_is_in_force_is_told_without_its_credentials() {
    let (app, velt, folder) = (FakeApp::start().await, FakeVelt::start().await, Folder::new());
    let authority = Authority::new();
    let config = authority.issue(&["localhost"], VALID).server(&["http/1.1"]);
    let velt = terminate(velt.address, config).await;
    let ca = folder.write("ca.crt", authority.pem());
    let toml = good(app.address, velt)
        .replace(&format!("http://{velt}/"), &format!("https://localhost:{}/", velt.port()));
    let toml = format!("{toml}[outgoing]\nca_file = {ca:?}\n");
    let (proxy, asked) = forward_proxy().await;
    let url = format!("http://canary-user:canary-password@{proxy}");
    let through = format!("reached through the proxy {proxy} (HTTPS_PROXY)");
    for (environment, part, calls) in [
        // `doctor` connects three times: step by step, for a GET, and for the mint.
        (vec![("HTTPS_PROXY", &*url)], &*through, 3),
        (vec![("HTTPS_PROXY", &*url)], "its certificate is by \"CN=root", 3),
        (vec![("ALL_PROXY", &*url)], &*through.replace("HTTPS", "ALL"), 3),
        (
            vec![("HTTPS_PROXY", &*url), ("NO_PROXY", "localhost")],
            "reached directly, past HTTPS_PROXY (NO_PROXY)",
            0,
        ),
        (vec![], "reached directly: TCP", 0),
    ] {
        asked.lock().expect("no panic").clear();
        let finished = doctor(&toml, &["--strict"], &environment).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stdout);
        assert!(finished.stdout.contains(part), "{part} is not in\n{}", finished.stdout);
        let asked = asked.lock().expect("no panic");
        assert_eq!(asked.len(), calls, "{environment:?}");
        let with_credentials =
            |head: &String| head.to_ascii_lowercase().contains("\r\nproxy-authorization: basic ");
        assert!(asked.iter().all(with_credentials), "{asked:?}");
    }
}

#[tokio::test]
async fn refusal_of_a_proxy_is_told_from_a_missing_proxy() {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let toml = good(app.address, velt.address).replace("http://", "https://");
    let picky = FakeApp::answering(|arrived| {
        let mut response = plain("canary");
        *response.status_mut() = match arrived.header("proxy-authorization") {
            None => http::StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Some(_) => http::StatusCode::FORBIDDEN,
        };
        response
    })
    .await;
    let picky = picky.address;
    let gone = "http://canary-user:canary-password@127.0.0.1:1".to_owned();
    for (url, part) in [
        (gone, "it can't be reached through the proxy 127.0.0.1:1 (HTTPS_PROXY)"),
        (format!("http://{picky}"), "(HTTPS_PROXY): the proxy answers HTTP 407"),
        (format!("http://canary:canary@{picky}"), "(HTTPS_PROXY): the proxy answers HTTP 403"),
    ] {
        let finished = doctor(&toml, &["--no-mint"], &[("HTTPS_PROXY", &url)]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stdout);
        assert!(finished.stdout.contains(part), "{part} is not in\n{}", finished.stdout);
        assert!(finished.stdout.contains("1 warning, 0 problems"), "{}", finished.stdout);
    }
}

#[tokio::test]
async fn file_that_hangs_delays_no_other_check() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo is installed").success());
    let toml = format!("[identity]\nsecret_header = \"x-secret\"\nsecret_file = {pipe:?}\n");
    let finished = doctor(&toml, &["--init", "--timeout", "100ms"], &[]).await;
    assert_eq!(finished.code, Some(78), "{}", finished.stdout);
    assert!(finished.stdout.contains("did not end within 100ms"), "{}", finished.stdout);
}

/// Starts a forward proxy on loopback, and returns the heads of the requests that the proxy gets.
async fn forward_proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let journal = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        // A client that only checks whether the proxy accepts connections.
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8(head).expect("text");
                let target = head.split(' ').nth(1).expect("a target").to_owned();
                journal.lock().expect("no panic").push(head);
                let mut server = TcpStream::connect(target).await.expect("it listens");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("it reads");
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, asked)
}

/// Returns the lines with each number masked, and without the limits of the machine.
fn lines(text: &str) -> Vec<String> {
    let limits = |line: &str| match line.split_once(" limits ") {
        Some((mark, _)) => format!("{mark} limits"),
        None => mask(line),
    };
    text.lines().map(limits).collect()
}

/// Masks each number in `text` as `#`, and gives all times the same unit.
fn mask(text: &str) -> String {
    let mut masked = String::new();
    let mut number = false;
    for char in text.chars() {
        let goes_on = char.is_ascii_digit() || number && char == '.';
        if goes_on && !number {
            masked.push('#');
        }
        number = goes_on;
        if !goes_on {
            masked.push(char);
        }
    }
    for unit in ["µs", "ms", "ns"] {
        masked = masked.replace(&format!("#{unit}"), "#s");
    }
    masked
}
