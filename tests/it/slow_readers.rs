//! Clients that read slowly and steadily, and clients that have stopped reading.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::frames::{DATA, END_STREAM, RESET, WINDOW_UPDATE, frame, opening_with, request};
use crate::support::app::FakeApp;
use crate::support::certificates::{Authority, Folder, VALID};
use crate::support::raw::Wire;
use crate::support::{PATIENCE, Stage};

/// Bytes of an answer: more than the kernel's buffers of both ends hold by default.
const BODY: usize = 19_000_000;

/// Limit within twice which the client reads less than a third of the kernel's send buffer, but within once
/// several times the 192 KiB that an HTTP/2 answer hands out at a time: a loaded machine reads more slowly.
const LIMIT: &str = "[listen]\nwrite_timeout = \"2300ms\"\n";
const SLOWLY: Duration = Duration::from_millis(9_700);
const PIECE: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(110);

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// A setting of HTTP/2 (RFC 9113 section 6.5.2), and the largest window.
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW: u32 = 0x7fff_ffff;

async fn app() -> FakeApp {
    let body = Bytes::from(vec![b'x'; BODY]);
    FakeApp::answering(move |_| {
        Response::new(Full::new(body.clone()).map_err(|never| match never {}).boxed())
    })
    .await
}

/// A connection whose client's kernel holds little of what its program has not read.
async fn narrow(stage: &Stage) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(32 * 1024).expect("an option of sockets");
    socket.connect(stage.sidecar.addresses.traffic).await.expect("it listens")
}

/// Asks, reads slowly for a while, then reads the rest, and counts the bytes.
async fn read_slowly<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, ask: &[u8]) -> usize {
    stream.write_all(ask).await.expect("the sidecar reads");
    let (mut piece, mut count) = (vec![0; PIECE], 0);
    let began = Instant::now();
    while began.elapsed() < SLOWLY {
        count += stream.read(&mut piece).await.expect("it is not cut off");
        // The client is slow: it pauses after each piece.
        sleep(PAUSE).await;
    }
    while count < BODY {
        let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("bytes in time");
        match read.expect("it is not cut off") {
            0 => break,
            read => count += read,
        }
    }
    count
}

#[tokio::test]
async fn steady_slow_reader_is_not_cut_off() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], VALID));
    let stage = Stage::with(app().await, LIMIT).await;
    let secure = Stage::with(app().await, &format!("{}{LIMIT}", folder.toml())).await;
    let http2 = [
        opening_with(&[(INITIAL_WINDOW_SIZE, WINDOW)]),
        frame(WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes()),
        request(1, END_STREAM, "GET", "/"),
    ]
    .concat();
    let connector = TlsConnector::from(authority.client(None, &[]));
    let name = ServerName::try_from("localhost").expect("a name");
    let encrypted = connector.connect(name, narrow(&secure).await).await;
    let counts = tokio::join!(
        async { read_slowly(narrow(&stage).await, GET).await },
        async { read_slowly(narrow(&stage).await, &http2).await },
        read_slowly(encrypted.expect("a handshake"), GET),
    );
    let counts = <[usize; 3]>::from(counts);
    assert!(counts.iter().all(|count| *count >= BODY), "{counts:?} of {BODY}");
    let stalled = "connections_closed_total{reason=\"stalled\"}";
    assert_eq!((stage.metric(stalled).await, secure.metric(stalled).await), (0.0, 0.0));
}

#[tokio::test]
async fn reader_that_has_stopped_is_cut_off() {
    let stage = Stage::with(app().await, LIMIT).await;
    let mut stream = narrow(&stage).await;
    stream.write_all(GET).await.expect("the sidecar reads");
    let mut beginning = vec![0; 100_000];
    stream.read_exact(&mut beginning).await.expect("the beginning");
    stage.sidecar.metric_reaches("connections_closed_total{reason=\"stalled\"}", 1.0).await;
}

/// Stops reading one answer over HTTP/2, but reads on for its other requests.
#[tokio::test]
async fn answer_that_is_not_read_is_ended_alone() {
    let stage = Stage::with(app().await, LIMIT).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send([opening_with(&[]), request(1, END_STREAM, "GET", "/")].concat()).await;
    // The client takes as much as its window lets through, and no more.
    let reset = wire.frame_of(RESET).await;
    assert_eq!(reset.stream, 1);
    stage.sidecar.metric_reaches("requests_in_flight", 0.0).await;
    wire.send(frame(WINDOW_UPDATE, 0, 0, &1_000_u32.to_be_bytes())).await;
    wire.send(request(3, END_STREAM, "GET", "/api/velt/token")).await;
    loop {
        let frame = wire.frame_of(DATA).await;
        if frame.stream == 3 {
            break;
        }
    }
}
