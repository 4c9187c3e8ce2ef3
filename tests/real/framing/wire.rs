//! Connections of clients.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Then;
use super::stage::Stage;
use crate::frames::{Frame, GOAWAY, HEADERS, RESET, STATUS_200};
use crate::neighbour::{PATIENCE, claims_of};

/// Request that shows whether a connection still serves.
const LAST: &str =
    "GET /last HTTP/1.1\r\nhost: a\r\nx-forwarded-user: last\r\nconnection: close\r\n\r\n";

/// Status of an answer, and user of the token that came with it.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) user: Option<String>,
}

/// Connection of a client.
pub(super) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(super) fn over(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends the bytes that the sidecar still takes: it need not read the rest of a refused request.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("in time");
    }

    pub(super) async fn end(&mut self) {
        // The connection may be closed already.
        let _ = self.stream.shutdown().await;
    }

    /// Returns the next final answer, or `None` at the end of the connection.
    pub(super) async fn answer(&mut self) -> Result<Option<Answer>, String> {
        loop {
            let Some(head) = self.head().await? else { return Ok(None) };
            let status = head.get(9..12).and_then(|status| status.parse().ok());
            let status: u16 = status.ok_or_else(|| format!("no status in {head:?}"))?;
            if status == 100 {
                continue;
            }
            let length = header(&head, "content-length")
                .map_or(0, |length| length.parse().expect("a length of the sidecar's or an app's"));
            while self.read.len() < length {
                if !self.more().await? {
                    return Err(format!("a broken body after {head:?}"));
                }
            }
            self.read.drain(..length);
            let token = header(&head, "x-velt-token").map(claims_of);
            let user = token.map(|claims| claims["userId"].as_str().expect("a user").to_owned());
            return Ok(Some(Answer { status, user }));
        }
    }

    /// Checks the state of the connection after the last answer. Returns whether the connection served
    /// another request.
    ///
    /// # Errors
    ///
    /// Message that says what the connection did instead, such as the status of another answer.
    pub(super) async fn goes_on(&mut self, then: Then) -> Result<bool, String> {
        if then == Then::Left {
            self.end().await;
        } else if then != Then::Closed {
            self.send(LAST).await;
        }
        let after = self.answer().await?;
        let last = after.is_some();
        match (then, after) {
            (Then::Open | Then::Either, Some(Answer { status: 200, .. }))
            | (Then::Closed | Then::Either | Then::Left, None) => {}
            (_, None) => return Err("closed".to_owned()),
            (_, Some(Answer { status, .. })) => return Err(status.to_string()),
        }
        if last && self.answer().await?.is_some() {
            return Err("an answer too many".to_owned());
        }
        Ok(last)
    }

    async fn head(&mut self) -> Result<Option<String>, String> {
        loop {
            let end = self.read.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).map(Some).map_err(|error| error.to_string());
            }
            if !self.more().await? {
                let rest = String::from_utf8_lossy(&self.read);
                return if rest.is_empty() { Ok(None) } else { Err(format!("no head: {rest:?}")) };
            }
        }
    }

    /// Reads more bytes. Returns false at the end of the connection.
    async fn more(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        // A reset counts as an end of the connection.
        let read = read.map_err(|_| "the sidecar neither answers nor closes")?.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Sends frames and reads up to the end of the first stream. Only a 200 is told from the other results, which
/// are an answer, a reset, or the end of the connection.
pub(super) async fn converse_http2(stage: &Stage, bytes: &[u8]) -> Result<Answer, String> {
    let mut wire = stage.wire().await;
    wire.send(bytes).await;
    loop {
        let Some(frame) = Frame::take(&mut wire.read) else {
            if wire.more().await? {
                continue;
            }
            return Ok(Answer { status: 0, user: None });
        };
        match (frame.kind, frame.stream) {
            (HEADERS, 1) if frame.payload[0] == STATUS_200 => {
                return Ok(Answer { status: 200, user: None });
            }
            (HEADERS | RESET, 1) | (GOAWAY, _) => return Ok(Answer { status: 0, user: None }),
            _ => {}
        }
    }
}
