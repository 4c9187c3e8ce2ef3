//! An app that answers before it has the whole request.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::frames::{DATA, END_STREAM, frame, opening_with, request};
use crate::support::raw::{RawApp, Wire};
use crate::support::velt::FakeVelt;
use crate::support::{PATIENCE, TestSidecar};

/// Bytes that no socket buffers hold.
const LARGE: usize = 16 << 20;

async fn sidecar(app: &RawApp, toml: &str) -> TestSidecar {
    TestSidecar::start(&app.address.to_string(), FakeVelt::start().await.address, toml)
}

/// Uploads, and reads the answer that comes meanwhile.
async fn upload(address: SocketAddr, bytes: usize, framing: &str) -> String {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
    let writing = tokio::spawn(async move {
        writer.write_all(head.as_bytes()).await.expect("the sidecar reads");
        let chunk = [b'x'; 8192];
        let mut left = bytes;
        while left > 0 {
            // The sidecar may close once it has answered.
            let Ok(written) = writer.write(&chunk[..left.min(chunk.len())]).await else { break };
            left -= written;
        }
        writer
    });
    let mut answer = Vec::new();
    // A reset after the answer ends the connection too.
    let _ = timeout(PATIENCE, reader.read_to_end(&mut answer)).await.expect("an end");
    writing.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_answer_arrives_though_the_app_closes() {
    for status in ["413 Content Too Large", "401 Unauthorized"] {
        let app = RawApp::serving(move |mut wire, _| async move {
            wire.head().await;
            let page = "no".repeat(700);
            let length = page.len();
            // Closing the socket with the rest unread resets the connection.
            wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{page}")).await;
        })
        .await;
        let sidecar = sidecar(&app, "").await;
        for _ in 0..30 {
            let framing = format!("content-length: {LARGE}");
            let answer = upload(sidecar.addresses.traffic, LARGE, &framing).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.ends_with("nono"), "{answer}");
        }
        let forwarded = sidecar.metric("requests_total{outcome=\"forwarded\"}").await;
        assert_eq!(forwarded, 30.0, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_that_closes_without_an_answer_is_broken() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
    })
    .await;
    let sidecar = sidecar(&app, "").await;
    for _ in 0..5 {
        let framing = format!("content-length: {LARGE}");
        let answer = upload(sidecar.addresses.traffic, LARGE, &framing).await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("app_broken"), "{answer}");
    }
}

#[tokio::test]
async fn upload_goes_on_after_its_answer() {
    const BYTES: usize = 23;
    let (whole, mut came) = mpsc::unbounded_channel();
    let app = RawApp::serving(move |mut wire, _| {
        let whole = whole.clone();
        async move {
            wire.head().await;
            wire.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            wire.read_exactly(BYTES).await;
            whole.send(()).expect("the test waits");
            wire.head().await;
            wire.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let sidecar = sidecar(&app, "[listen]\nheader_timeout = \"50ms\"\nidle_timeout = \"2s\"").await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BYTES}\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 202"));
    for _ in 0..BYTES {
        // All pauses together are longer than a head may take.
        sleep(Duration::from_millis(13)).await;
        wire.send("x").await;
    }
    timeout(PATIENCE, came.recv()).await.expect("the upload completes").expect("once");
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 204"), "the connection goes on");
    assert_eq!(app.connection_count(), 1, "and the app's too");
}

#[tokio::test]
async fn upload_goes_on_while_its_long_answer_is_not_read() {
    const BYTES: usize = 30_000;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (mut reader, mut writer) = stream.into_split();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.expect("a head"));
        }
        let answering = tokio::spawn(async move {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99000000\r\n\r\n";
            writer.write_all(head).await.expect("room");
            while writer.write_all(&[b'y'; 9_000]).await.is_ok() {}
        });
        let mut came = 0;
        while came < BYTES {
            // Beside the upload there are the sizes of its chunks.
            came += usize::from(reader.read_u8().await.expect("the upload") == b'x');
        }
        answering.abort();
    });
    let sidecar = TestSidecar::start(&address, FakeVelt::start().await.address, "");
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send(opening_with(&[(INITIAL_WINDOW_SIZE, 10)])).await;
    wire.send(request(1, 0, "POST", "/")).await;
    wire.frame_of(DATA).await;
    // The sidecar has a piece of the answer, of which the client takes no more.
    wire.send(frame(DATA, 0, 1, &[b'x'; BYTES / 2])).await;
    wire.send(frame(DATA, END_STREAM, 1, &[b'x'; BYTES / 2])).await;
    timeout(PATIENCE, app).await.expect("the app has the upload").expect("no panic");
}

#[tokio::test]
async fn upload_that_the_client_gives_up_after_its_answer_ends() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        wire.rest().await;
    })
    .await;
    let sidecar = sidecar(&app, "[listen]\nidle_timeout = \"300ms\"").await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 202"));
    assert_eq!(wire.rest().await, "", "the client has sent nothing for too long");
    sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_that_answers_and_reads_no_more_is_left() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
        std::future::pending::<()>().await;
    })
    .await;
    let sidecar = sidecar(&app, "").await;
    for framing in [format!("content-length: {LARGE}"), "transfer-encoding: chunked".to_owned()] {
        let mut wire = Wire::to(sidecar.addresses.traffic).await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n")).await;
        let answer = async {
            assert!(wire.head().await.starts_with("HTTP/1.1 200"));
            assert_eq!(wire.read_exactly(2).await, b"no");
        };
        answer.await;
        let chunk = format!("{:x}\r\n{}\r\n", LARGE, "x".repeat(LARGE));
        let chunk = if framing.ends_with("chunked") { chunk } else { "x".repeat(LARGE) };
        tokio::spawn(async move { wire.try_send(chunk).await });
    }
    sidecar.metric_reaches("app_connections", 0.0).await;
    sidecar.metric_reaches("connections_open", 0.0).await;
}
