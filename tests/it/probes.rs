//! `velt-sidecar health` and `drain`, which a kubelet runs in an image without a shell.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::support::Stage;
use crate::support::binary::{CREDENTIALS, Finished, PORTS, Running, finished, finished_in};
use crate::support::client::Client;
use crate::support::raw::Wire;

const ADMIN: &str = "VELT_SIDECAR_ADMIN__ADDRESS";

async fn health(more: &[&str]) -> Finished {
    finished(&[&["health"][..], more].concat(), &[]).await
}

#[tokio::test]
async fn a_serving_sidecar_is_healthy_by_every_probe_and_says_nothing() {
    let stage = Stage::set("").await;
    let url = format!("http://{}", stage.sidecar.addresses.admin);
    for probe in [&[][..], &["--live"], &["--ready"], &["--startup"]] {
        let finished = health(&[probe, &["--admin", &url]].concat()).await;
        let printed = (&*finished.stdout, &*finished.stderr);
        assert_eq!((finished.code, printed), (Some(0), ("", "")), "{probe:?}");
    }
}

#[tokio::test]
async fn draining_sidecar_is_alive_but_not_ready() {
    let mut stage = Stage::set("[shutdown]\ngrace = \"60s\"").await;
    stage.sidecar.terminate();
    stage.sidecar.metric_reaches("ready", 0.0).await;
    let url = format!("http://{}/", stage.sidecar.addresses.admin);
    for (probe, code) in [("--live", 0), ("--startup", 0), ("--ready", 1)] {
        let finished = health(&[probe, "--admin", &url]).await;
        assert_eq!(finished.code, Some(code), "{probe} {}", finished.stderr);
        assert_eq!(finished.stderr.contains("503 Service Unavailable: draining"), code == 1);
    }
}

/// A stand-in that answers a connection with `answer`, or never.
async fn answering(answer: Option<&'static str>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // The stand-in reads the whole question, because closing before its end would reset the
        // connection.
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut question).await.expect("the question");
        }
        match answer {
            // The probe may have seen enough and closed the connection.
            Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
            None => std::future::pending().await,
        }
    });
    address
}

#[tokio::test]
async fn health_fails_for_closed_foreign_and_silent_ports() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let nobody = free.local_addr().expect("it is bound");
    drop(free);
    let endless = "HTTP/1.1 500 Oops\r\n\r\n".to_owned() + &"x\u{1b}\n".repeat(100_000);
    let endless: &'static str = endless.leak();
    for (address, said) in [
        (nobody, "no sidecar answers at 127.0.0.1:"),
        (answering(Some("SSH-2.0-OpenSSH_9.2\r\n")).await, "is not from an admin port"),
        (answering(Some("")).await, "is not from an admin port"),
        (answering(Some(endless)).await, "500 Internal Server Error: xxx"),
        (answering(None).await, "no sidecar answers at 127.0.0.1:"),
    ] {
        let started = Instant::now();
        let finished = health(&["--admin", &format!("http://{address}")]).await;
        assert_eq!(finished.code, Some(1), "{said}");
        assert!(finished.stderr.contains(said), "{said}: {}", finished.stderr);
        assert!(finished.stderr.len() < 400 && !finished.stderr.contains('\u{1b}'));
        assert!(started.elapsed() < Duration::from_secs(15), "{said}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn health_finds_the_admin_port_where_the_sidecar_does() {
    let (running, _, admin) = Running::sidecar(&[(ADMIN, "0.0.0.0:0")]).await;
    let (any, own) = (format!("0.0.0.0:{}", admin.port()), format!("127.0.0.1:{}", admin.port()));
    // The address comes from the environment; `0.0.0.0` means this machine.
    let finished = finished(&["health"], &[(ADMIN, &any)]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sidecar.toml");
    let named = file.to_str().expect("a plain path");
    // The address comes from the file, even if the rest of the file is broken: the running sidecar has
    // read the file long ago.
    let broken = format!("[admin]\naddress = \"{own}\"\n[listen]\nadress = 5\n");
    std::fs::write(&file, broken).expect("a disk");
    for arguments in [&["health"][..], &["health", "--config", named]] {
        let finished = finished_in(folder.path(), arguments, &[]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
    // The environment wins over the file, and the flag wins over both.
    let elsewhere = &[CREDENTIALS[0], (ADMIN, "127.0.0.1:1")];
    let finished = finished_in(folder.path(), &["health"], elsewhere).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let url = format!("http://{own}");
    let finished = finished_in(folder.path(), &["health", "--admin", &url], elsewhere).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(PORTS[1].0, ADMIN);
    drop(running);
}

#[tokio::test]
async fn invalid_admin_address_is_a_usage_error() {
    for arguments in [
        &["--admin", "https://127.0.0.1:9901"][..],
        &["--admin", "127.0.0.1:9901"],
        &["--admin", "http://"],
        &["--live", "--ready"],
        &["--config"],
    ] {
        let finished = health(arguments).await;
        assert_eq!(finished.code, Some(64), "{arguments:?}: {}", finished.stderr);
    }
    let finished = health(&["--config", "/nonexistent/sidecar.toml"]).await;
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
}

#[tokio::test]
async fn drained_sidecar_leaves_as_at_sigterm_and_ends_at_sigterm() {
    let mut stage = Stage::set("[shutdown]\ngrace = \"60s\"").await;
    let mut idle = Wire::to(stage.sidecar.addresses.traffic).await;
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.app.requests_reach(1).await;
    let admin = stage.sidecar.addresses.admin;
    let url = format!("http://{admin}");
    // `drain` runs twice, as in a hook that is tried again.
    for _ in 0..2 {
        let drained = finished(&["drain", "--admin", &url], &[]).await;
        let printed = (&*drained.stdout, &*drained.stderr);
        assert_eq!((drained.code, printed), (Some(0), ("", "")));
        assert_eq!(health(&["--ready", "--admin", &url]).await.code, Some(1), "at once");
        assert_eq!(health(&["--live", "--admin", &url]).await.code, Some(0));
    }
    let answer = stage.get_as("ada", "/").await;
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    stage.sidecar.terminate();
    assert_eq!(stage.get_as("ada", "/").await.status(), 200, "the grace time is not over");
}

#[tokio::test]
async fn drain_time_counts_towards_the_grace_time() {
    let (mut running, _, admin) = Running::sidecar(&[("VELT_SIDECAR_SHUTDOWN__GRACE", "2s")]).await;
    let started = Instant::now();
    let url = format!("http://{admin}");
    let drained = finished(&["drain", "--wait", "2s", "--admin", &url], &[]).await;
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    assert!(started.elapsed() >= Duration::from_secs(2), "it waits: {:?}", started.elapsed());
    running.line_with("draining, as an admin call asked").await;
    let told = Instant::now();
    running.signal("TERM");
    let (status, printed) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{printed}");
    assert!(told.elapsed() < Duration::from_millis(1500), "{:?} more", told.elapsed());
}

#[tokio::test]
async fn t51_pages_proxies_and_forms_cannot_start_a_drain() {
    let stage = Stage::set("").await;
    let admin = stage.sidecar.addresses.admin;
    let json = "application/json";
    for (name, value, kind, status) in [
        ("origin", "https://evil.example", json, 403),
        ("sec-fetch-site", "none", json, 403),
        ("x-forwarded-for", "10.0.0.7", json, 403),
        ("host", "rebound.evil.example", json, 403),
        ("accept", "*/*", "text/plain", 415),
        ("accept", "*/*", json, 200),
    ] {
        let ready = stage.metric("ready").await;
        assert_eq!(ready, 1.0, "{name}: {value}");
        let host = admin.to_string();
        let asking = Client::to(admin).post("/drain", "{}").without("host");
        let asking = if name == "host" { asking } else { asking.header("host", &host) };
        let answer = asking.header("content-type", kind).header(name, value).send().await;
        assert_eq!(answer.status(), status, "{name}: {value}: {}", answer.text());
    }
    assert_eq!(stage.metric("ready").await, 0.0);
}

#[tokio::test]
async fn drain_without_a_sidecar_fails() {
    for (arguments, code) in [
        (&["--admin", "http://127.0.0.1:1"][..], 69),
        (&["--admin", "127.0.0.1:9901"], 64),
        (&["--wait", "soon"], 64),
    ] {
        let drained = finished(&[&["drain"][..], arguments].concat(), &[]).await;
        assert_eq!(drained.code, Some(code), "{arguments:?}: {}", drained.stderr);
    }
}
