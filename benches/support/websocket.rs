//! A WebSocket on which the app answers each frame with a frame (RFC 6455).

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Result;

/// Path of the WebSocket at the app.
pub const PATH: &str = "/live";

/// A text frame of five bytes, masked with zeros, as a client sends it (section 5.2).
const ASKING: [u8; 11] = *b"\x81\x85\0\0\0\0hello";

/// A text frame of five bytes, as a server sends it.
const ANSWER: [u8; 7] = *b"\x81\x05hello";

/// Client's end of the WebSocket.
pub struct WebSocket(TcpStream);

impl WebSocket {
    /// Opens a WebSocket through the sidecar at `address`.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let handshake = format!(
            "GET {PATH} HTTP/1.1\r\nHost: app.example.com\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             X-Forwarded-User: user-0000001@example.com\r\n\r\n"
        );
        stream.write_all(handshake.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("a wrong answer: {}", String::from_utf8_lossy(&head)).into());
        }
        Ok(Self(stream))
    }

    /// Sends a frame and reads the answer to the frame.
    pub async fn exchange(&mut self) -> Result<()> {
        self.0.write_all(&ASKING).await?;
        let mut answer = [0; ANSWER.len()];
        self.0.read_exact(&mut answer).await?;
        if answer == ANSWER { Ok(()) } else { Err("a frame came as another".into()) }
    }
}

/// Answers the handshake as the app does, and then each frame.
pub fn switch(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        let (mut io, mut frame) = (TokioIo::new(upgraded), [0; ASKING.len()]);
        // Ends when the client closes the WebSocket.
        while io.read_exact(&mut frame).await.is_ok() && io.write_all(&ANSWER).await.is_ok() {}
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        // Value for the key of the handshake, from section 1.3.
        .header(SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        .body(Full::default());
    answer.expect("headers of constants")
}
