//! The Autobahn test suite's case list against a real WebSocket server (Node's `ws`), played directly and
//! through a sidecar. Both ways, the same frames must come back byte for byte, the connection must end in the
//! same way, and the server must have seen the same.
//!
//! The cases and their numbers, 1.1.1 to 13.7.18, are the suite's, but not the code: the suite's latest
//! release, 25.10.1, runs on Python 2 only, with Autobahn and Twisted of that time, and Debian has no Python
//! 2 since its release 12. A proxy's errors show in the bytes, and this test compares the bytes more strictly
//! than the suite's verdicts do. The server's close codes and the number of its echoes prove that the list
//! means what it says.
//!
//! 9.x has the suite's sizes if `VELT_SIDECAR_LONG` is set, and smaller sizes otherwise. 12.x and 13.x then
//! have 100 messages each, and 3 otherwise; the suite's 1000 messages are 40 GB through zlib, and would show
//! nothing more about a proxy. Where the suite waits for a second, this test waits for a ping of its own.

mod cases;
mod frames;
mod material;
mod utf8;

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use self::cases::{Case, NO_CODE, Scale, Step, cases};
use self::frames::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Received, TEXT, close, parse};
use crate::neighbour::{PATIENCE, Sidecar};
use crate::program::Program;
use crate::record::record;

const FENCE: &[u8] = b"fence";

const SMALL: Scale = Scale { largest: 1 << 20, round_trips: 100, compressed: 3 };
const LARGE: Scale = Scale { largest: 16 << 20, round_trips: 1000, compressed: 100 };

/// Answer as a client has seen it.
#[derive(PartialEq, Eq)]
struct Seen {
    status: String,
    /// Headers in lower case and sorted.
    headers: Vec<String>,
    /// Bytes after the head.
    bytes: Vec<u8>,
    /// End of the connection.
    end: String,
}

/// Connection of a client.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
    /// Number of bytes of `read` that have been parsed as frames.
    parsed: usize,
    echoes: usize,
    /// Code of the server's Close.
    code: Option<u16>,
    end: Option<String>,
}

impl Client {
    /// Connects and shakes hands. Returns the client, and the answer's status line and headers.
    async fn open(server: SocketAddr, case: &Case) -> (Self, String, Vec<String>) {
        let stream = TcpStream::connect(server).await.expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        let (read, parsed, echoes) = (Vec::new(), 0, 0);
        let mut client = Self { stream, read, parsed, echoes, code: None, end: None };
        let extensions = match case.offer {
            "" => String::new(),
            offer => format!("Sec-WebSocket-Extensions: {offer}\r\n"),
        };
        let request = format!(
            "GET /case/{} HTTP/1.1\r\nHost: app.example\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n{extensions}\r\n",
            case.number
        );
        client.write(request.as_bytes(), usize::MAX).await;
        let end = loop {
            if let Some(end) = client.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(client.more().await, "no answer to the handshake");
        };
        let head: Vec<u8> = client.read.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.trim_end().lines();
        let status = lines.next().expect("a status").to_owned();
        let mut headers: Vec<_> = lines
            .map(|line| line.split_once(':').expect("a header"))
            .map(|(name, value)| format!("{}: {}", name.to_lowercase(), value.trim()))
            .collect();
        headers.sort();
        (client, status, headers)
    }

    /// Whether the server has neither sent a Close nor ended the connection.
    fn is_open(&self) -> bool {
        self.code.is_none() && self.end.is_none()
    }

    async fn play(&mut self, step: &Step) {
        match step {
            Step::Write { bytes, chop } => self.write(bytes, *chop).await,
            Step::Fence => self.fence().await,
            Step::RoundTrips { frame, count } => {
                for _ in 0..*count {
                    self.write(frame, usize::MAX).await;
                    self.echo().await;
                }
            }
            Step::Compressed { material, length, count, fragment } => {
                let opcode = material.opcode;
                let mut compressed = Vec::new();
                for message in material.messages(*length, *count) {
                    self.write(&Frame::new(opcode, &message).bytes(), usize::MAX).await;
                    let echo = self.echo().await;
                    assert!(echo.compressed, "the server agreed to compress");
                    compressed.push(self.read[echo.payload].to_vec());
                }
                for message in compressed {
                    for (number, part) in message.chunks(*fragment).enumerate() {
                        let last = part.as_ptr_range().end == message.as_ptr_range().end;
                        let opcode = if number == 0 { opcode } else { CONTINUATION };
                        // The first reserved bit marks a compressed message (RFC 7692 section 6).
                        let frame =
                            Frame::new(opcode, part).reserved(if number == 0 { 4 } else { 0 });
                        let frame = if last { frame } else { frame.more() };
                        self.write(&frame.bytes(), usize::MAX).await;
                    }
                    self.echo().await;
                }
            }
        }
    }

    /// Writes the bytes that the server still takes: a server that has failed the connection may have gone.
    async fn write(&mut self, bytes: &[u8], chop: usize) {
        for piece in bytes.chunks(chop) {
            // Reads the answers meanwhile, since otherwise both sides could wait for each other.
            let mut rest = piece;
            while !rest.is_empty() && self.end.is_none() {
                let ready = tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE;
                let ready = timeout(PATIENCE, self.stream.ready(ready)).await;
                let ready = ready.expect("the server neither reads nor writes").expect("a socket");
                if ready.is_readable() {
                    self.read_what_is_there();
                }
                if ready.is_writable() {
                    match self.stream.try_write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            }
        }
    }

    fn read_what_is_there(&mut self) {
        let mut buffer = [0; 8192];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => self.end = Some("closed".into()),
                Ok(read) => {
                    self.read.extend_from_slice(&buffer[..read]);
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => self.end = Some(error.kind().to_string()),
            }
            return;
        }
    }

    /// Reads more bytes. Returns false at the end of the connection.
    async fn more(&mut self) -> bool {
        if self.end.is_none() {
            let mut buffer = [0; 8192];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            match read.expect("the server neither answers nor closes") {
                Ok(0) => self.end = Some("closed".into()),
                Ok(read) => self.read.extend_from_slice(&buffer[..read]),
                Err(error) => self.end = Some(error.kind().to_string()),
            }
        }
        self.end.is_none()
    }

    /// Returns the next frame, or `None` at the end of the connection.
    async fn frame(&mut self) -> Option<Received> {
        let frame = loop {
            if let Some(frame) = parse(&self.read, self.parsed) {
                break frame;
            }
            if !self.more().await {
                return None;
            }
        };
        self.parsed = frame.payload.end;
        match frame.opcode {
            TEXT | BINARY => self.echoes += 1,
            CLOSE if self.code.is_none() => {
                let code = self.read[frame.payload.clone()].first_chunk();
                self.code = Some(code.map_or(NO_CODE, |code| u16::from_be_bytes(*code)));
            }
            _ => {}
        }
        Some(frame)
    }

    async fn echo(&mut self) -> Received {
        let frame = self.frame().await.expect("an echo");
        assert!(matches!(frame.opcode, TEXT | BINARY), "opcode {}", frame.opcode);
        frame
    }

    /// Waits until the server has handled all frames that it will handle.
    async fn fence(&mut self) {
        if self.is_open() {
            self.write(&Frame::new(PING, FENCE).bytes(), usize::MAX).await;
        }
        while self.is_open() {
            let Some(frame) = self.frame().await else { return };
            if frame.opcode == PONG && &self.read[frame.payload] == FENCE {
                return;
            }
        }
    }

    /// Ends the connection as the suite does, where the server closes first.
    async fn finish(&mut self, closed: bool) {
        if !closed {
            self.fence().await;
            // A Close of the client's own, or the answer to the server's Close.
            self.write(&close(1000, b"").bytes(), usize::MAX).await;
        }
        while self.is_open() {
            self.frame().await;
        }
        // A server that has failed the connection waits for the client's end.
        let _ = self.stream.shutdown().await;
        while self.frame().await.is_some() {}
    }
}

/// Plays a case, and returns what the client has seen.
///
/// # Errors
///
/// Fails if the server does not do what the suite requires.
async fn play(server: SocketAddr, case: &Case) -> Result<Seen, String> {
    let (mut client, status, headers) = Client::open(server, case).await;
    for step in &case.steps {
        client.play(step).await;
    }
    client.finish(case.closes).await;
    let (echoes, code) = (client.echoes, client.code.unwrap_or_default());
    if echoes < case.echoes || code != case.code {
        return Err(format!("{echoes} echoes and {code}, not {} and {}", case.echoes, case.code));
    }
    Ok(Seen { status, headers, bytes: client.read, end: client.end.expect("it has ended") })
}

/// Plays a case directly and through the sidecar, and compares the results.
///
/// # Errors
///
/// The first difference.
async fn compare(
    program: &mut Program,
    app: SocketAddr,
    sidecar: SocketAddr,
    case: &Case,
) -> Result<(), String> {
    let direct = play(app, case).await.map_err(|error| format!("direct: {error}"))?;
    let direct_app = program.line().await;
    let mut through = play(sidecar, case).await.map_err(|error| format!("through: {error}"))?;
    let through_app = program.line().await;
    // Documented: the sidecar adds `Date` to an answer without it.
    through.headers.retain(|header| !header.starts_with("date: "));
    let told = |what: &str, direct: &Value, through: &Value| {
        if direct == through { Ok(()) } else { Err(format!("{what}: {direct}, not {through}")) }
    };
    told("the server", &direct_app, &through_app)?;
    told("the end", &direct.end.into(), &through.end.into())?;
    told("the status", &direct.status.into(), &through.status.into())?;
    told("the headers", &direct.headers.into(), &through.headers.into())?;
    let (direct, through) = (direct.bytes, through.bytes);
    let same =
        direct.iter().zip(&through).take_while(|(direct, through)| direct == through).count();
    if direct == through {
        return Ok(());
    }
    Err(format!("bytes: {} and {}, the same up to {same}", direct.len(), through.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_autobahn_ends_the_same_direct_and_through() {
    let long = env::var_os("VELT_SIDECAR_LONG").is_some();
    let started = Instant::now();
    let (mut program, app) = Program::node("websocket_app.js", &[]).listening().await;
    let sidecar = Sidecar::start(app).await;
    let cases = cases(if long { LARGE } else { SMALL });
    assert_eq!(cases.len(), 517, "as many as the suite has");
    let mut failures = Vec::new();
    // Cases and failures of each chapter of the suite.
    let mut chapters: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for case in &cases {
        let sidecar = sidecar.addresses.traffic;
        let chapter = case.number.split('.').next().expect("a number");
        let counts = chapters.entry(chapter).or_default();
        counts.0 += 1;
        if let Err(failure) = compare(&mut program, app, sidecar, case).await {
            counts.1 += 1;
            failures.push(format!("{}: {failure}", case.number));
        }
    }
    for (chapter, (played, failed)) in chapters {
        record("websocket", chapter, &json!({ "cases": played, "failed": failed }));
    }
    println!("{} cases twice in {:.1?}", cases.len(), started.elapsed());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
