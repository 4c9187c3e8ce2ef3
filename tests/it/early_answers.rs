//! Answers that come before the client has sent its whole request.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{DATA, END_STREAM, RESET, WINDOW_UPDATE, frame, opening_with, request};
use crate::support::certificates::{Authority, Folder, VALID, connect};
use crate::support::raw::{Wire, unused_address};
use crate::support::velt::FakeVelt;
use crate::support::{PATIENCE, Stage, TestSidecar};

/// Bytes of an upload: more than the kernel's buffers of both ends hold.
const UPLOAD: usize = 23_000_001;

/// Sends a head and a whole body of [`UPLOAD`] bytes, as Python's `http.client` does, and only then
/// reads the answer.
async fn upload<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, head: &str) -> String {
    let sent = async {
        stream.write_all(head.as_bytes()).await?;
        let chunk = vec![b'x'; 50_000];
        let mut left = UPLOAD;
        while left > 0 {
            let next = left.min(chunk.len());
            stream.write_all(&chunk[..next]).await?;
            left -= next;
        }
        stream.flush().await
    };
    timeout(PATIENCE, sent).await.expect("sent in time").expect("the sidecar reads to the end");
    let mut answer = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time") {
        // Over TLS the sidecar announces the end of the connection.
        Ok(_) => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
    }
    String::from_utf8(answer).expect("text")
}

fn post(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {UPLOAD}\r\n{more}\r\n")
}

/// Causes of an early answer: a name, the status, and a head that brings the answer about.
fn early() -> [(&'static str, &'static str, String); 6] {
    const ADA: &str = "x-forwarded-user: ada\r\n";
    [
        (
            "an ambiguous user",
            "400",
            post("/", "x-forwarded-user: ada\r\nx-forwarded-user: eve\r\n"),
        ),
        ("no identity", "401", post("/api/velt/token", "")),
        ("a large body for a token", "413", post("/api/velt/token", ADA)),
        ("a broken head", "400", "POST / HTTP/1.1\r\nhost\r\n\r\n".to_owned()),
        ("a long head", "431", format!("POST / HTTP/1.1\r\nx-long: {}", "a".repeat(70_000))),
        (
            "a method that is not spoken",
            "501",
            format!("TRACE / HTTP/1.1\r\nhost: a\r\ncontent-length: {UPLOAD}\r\n\r\n"),
        ),
    ]
}

#[tokio::test]
async fn early_answer_reaches_client_that_is_sending() {
    let stage = Stage::set("").await;
    for (name, status, head) in early() {
        let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await;
        let answer = upload(stream.expect("it listens"), &head).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{name}: {answer:?}");
    }
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
}

#[tokio::test]
async fn early_answer_reaches_client_that_is_sending_over_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], VALID));
    let stage = Stage::set(&folder.toml()).await;
    let config = authority.client(None, &[]);
    for (name, status, head) in early() {
        let stream = connect(stage.sidecar.addresses.traffic, &config).await;
        let answer = upload(stream.expect("a handshake"), &head).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{name}: {answer:?}");
    }
    // The sidecar tells a client without TLS to use TLS.
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens");
    let answer = upload(stream, &post("/", "")).await;
    assert_eq!(answer.split(' ').nth(1), Some("400"), "{answer:?}");
}

#[tokio::test]
async fn early_answer_over_http2_is_whole_before_the_reset() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const NO_ERROR: [u8; 4] = [0; 4];
    let stage = Stage::set("").await;
    // Windows with room for the whole answer, and for ten bytes of the answer at a time.
    for window in [65_535, 10] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(opening_with(&[(INITIAL_WINDOW_SIZE, window)])).await;
        wire.send(request(1, 0, "POST", "/api/velt/token")).await;
        wire.send(frame(DATA, 0, 1, &[b' '; 9_000])).await;
        let (mut answer, mut ended) = (Vec::new(), false);
        let reset = loop {
            let frame_seen = wire.frame().await;
            match frame_seen.kind {
                DATA => {
                    answer.extend_from_slice(&frame_seen.payload);
                    ended = frame_seen.flags & END_STREAM != 0;
                    wire.send(frame(WINDOW_UPDATE, 0, 1, &10_u32.to_be_bytes())).await;
                }
                RESET => break frame_seen,
                _ => {}
            }
        };
        let answer = String::from_utf8(answer).expect("text");
        assert!(ended && answer.contains("\"code\":\"no_identity\""), "{answer:?}");
        assert_eq!(reset.payload, NO_ERROR);
    }
}

#[tokio::test]
async fn unreachable_app_is_told_to_client_that_is_sending() {
    let velt = FakeVelt::start().await;
    let sidecar = TestSidecar::start(&unused_address().await.to_string(), velt.address, "");
    let stream = TcpStream::connect(sidecar.addresses.traffic).await.expect("it listens");
    let answer = upload(stream, &post("/", "")).await;
    assert_eq!(answer.split(' ').nth(1), Some("502"), "{answer:?}");
}

#[tokio::test]
async fn lingering_clients_make_room_for_others() {
    let stage = Stage::set("[listen]\nmax_connections = 8").await;
    let mut lingering = Vec::new();
    for _ in 0..7 {
        let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await;
        let mut stream = stream.expect("it listens");
        stream.write_all(post("/api/velt/token", "").as_bytes()).await.expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 401");
        lingering.push(stream);
    }
    // The clients neither send nor close, and yet their connections end.
    let gone = stage.sidecar.metric_reaches("connections_open", 0.0);
    timeout(Duration::from_secs(5), gone).await.expect("soon");
}

#[tokio::test]
async fn client_that_holds_its_body_back_is_told_of_the_end() {
    let stage = Stage::set("[identity]\nrequire_on = [\"/private/*\"]").await;
    for (path, status) in [("/api/velt/token", "401"), ("/private/form", "401")] {
        let head = |more: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n{more}\r\n")
        };
        // A client that sends its body at once, or has none, keeps the connection.
        let empty = head("Expect: 100-continue\r\n").replace(": 5\r\n", ": 0\r\n");
        for (request, ends) in [
            (head("Expect: 100-continue\r\n"), true),
            (head("Expect: 100-Continue\r\n"), true),
            (head("") + "abcde", false),
            (empty, false),
        ] {
            let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
            wire.send(&request).await;
            let answer = wire.head().await.to_lowercase();
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
            assert_eq!(answer.contains("\r\nconnection: close\r\n"), ends, "{request}: {answer}");
        }
    }
}
