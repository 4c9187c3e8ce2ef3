//! Bounds on what a server may send: a stream that fails when an answer is larger than any that a call can need, or
//! when an answer comes without a command.
//!
//! The parser of the crate `redis` has no such bounds. It collects as many bytes as a header announces, even after
//! the caller has given up. And it would take an answer without a command for the answer to the next command.
//! `tests/real/shared_store/hostile.rs` has servers that send such answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Trouble;
use super::fault::Fault;

/// Most bytes of one value. The longest values that calls need are a sealed token and the text of `INFO`.
pub(crate) const LONGEST_VALUE: u64 = 64 * 1024;

/// Most values in one answer, nested values included, and most bytes. The largest answers that calls need are those
/// to `XREAD`, with 1,000 events of each of two streams, and to `CLUSTER SLOTS`.
const MOST_VALUES: u64 = 16 * 1024;
const LONGEST_ANSWER: u64 = 1024 * 1024;

/// Most bytes of a line: `+OK`, a number, or the text of an error.
const LONGEST_LINE: usize = 4 * 1024;

/// First bytes of values.
const KINDS: &[u8] = b"+-:$*_#,(!=%|~>";

/// No bounds, for the sidecar's own commands: the same code scans them, to count them.
const UNBOUNDED: Bounds = Bounds { value: u64::MAX, values: u64::MAX, answer: u64::MAX };
const BOUNDS: Bounds = Bounds { value: LONGEST_VALUE, values: MOST_VALUES, answer: LONGEST_ANSWER };

/// A connection whose answers are bounded.
pub(super) struct Bounded<S> {
    stream: S,
    commands: Scanner,
    answers: Scanner,
    /// Takes the reason why the stream fails, because calls see only that it has.
    trouble: Arc<Trouble>,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, trouble: Arc<Trouble>) -> Self {
        let (commands, answers) = (Scanner::new(UNBOUNDED), Scanner::new(BOUNDS));
        Self { stream, commands, answers, trouble }
    }

    fn check(&mut self, read: &[u8]) -> io::Result<()> {
        let within = self.answers.scan(read);
        let asked = self.answers.whole <= self.commands.whole;
        let checked = within.and_then(|()| {
            if asked { Ok(()) } else { Err(beyond("an answer without a question")) }
        });
        checked.inspect_err(|_| self.trouble.tell(Fault::Garbage))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.check(&buffer.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.commands.scan(&bytes[..written])?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Limits of a [`Scanner`].
struct Bounds {
    value: u64,
    values: u64,
    answer: u64,
}

/// Follows the protocol's framing (RESP2 and RESP3, <https://redis.io/docs/latest/develop/reference/protocol-spec/>)
/// without looking at content.
struct Scanner {
    bounds: Bounds,
    place: Place,
    /// Values that the current answer still lacks.
    missing: u64,
    /// Values and bytes that the current answer has announced so far.
    values: u64,
    bytes: u64,
    /// Answers that are complete.
    whole: u64,
}

/// Part of the stream in which the next byte is.
enum Place {
    /// The first byte of a value, which says its kind.
    Kind,
    /// The rest of the first line, which is a number for some kinds.
    Line { kind: u8, line: Number },
    /// The bytes of a value, and the line end after them.
    Bytes { left: u64 },
}

/// The number in a line, so far.
#[derive(Default)]
struct Number {
    length: usize,
    digits: u64,
    negative: bool,
    garbled: bool,
}

impl Number {
    fn push(&mut self, byte: u8) {
        self.length += 1;
        match byte {
            b'-' if self.length == 1 => self.negative = true,
            b'0'..=b'9' => {
                let digits = self.digits.saturating_mul(10);
                self.digits = digits.saturating_add(u64::from(byte - b'0'));
            }
            b'\r' => {}
            _ => self.garbled = true,
        }
    }

    /// Returns the number; `None` if it is negative, which stands for an absent value.
    fn value(&self) -> io::Result<Option<u64>> {
        if self.garbled || self.length < 2 {
            return Err(beyond("a length that is no number"));
        }
        Ok((!self.negative).then_some(self.digits))
    }
}

impl Scanner {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, place: Place::Kind, missing: 1, values: 0, bytes: 0, whole: 0 }
    }

    fn scan(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Bytes { left } => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.end_value();
                    }
                    continue;
                }
                Place::Kind => self.begin_value(first)?,
                Place::Line { kind, line } if first == b'\n' => {
                    let (kind, line) = (*kind, std::mem::take(line));
                    self.end_line(kind, &line)?;
                }
                Place::Line { line, .. } => {
                    line.push(first);
                    if line.length > LONGEST_LINE {
                        return Err(beyond("a long line"));
                    }
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    fn begin_value(&mut self, kind: u8) -> io::Result<()> {
        if !KINDS.contains(&kind) {
            return Err(beyond("another protocol"));
        }
        self.place = Place::Line { kind, line: Number::default() };
        self.announce(1, 0)
    }

    fn end_line(&mut self, kind: u8, line: &Number) -> io::Result<()> {
        let parts = match kind {
            b'$' | b'!' | b'=' => {
                let Some(length) = line.value()? else {
                    self.end_value();
                    return Ok(());
                };
                if length > self.bounds.value {
                    return Err(beyond("a long value"));
                }
                self.place = Place::Bytes { left: length + 2 };
                return self.announce(0, length);
            }
            b'*' | b'~' | b'>' => line.value()?.unwrap_or(0),
            b'%' => line.value()?.unwrap_or(0).saturating_mul(2),
            // Pairs of attributes, and the value that they belong to.
            b'|' => line.value()?.unwrap_or(0).saturating_mul(2).saturating_add(1),
            _ => {
                self.end_value();
                return self.announce(0, line.length as u64);
            }
        };
        // Values that have begun, and values that headers have announced: the parser has allocated memory for both.
        let announced = self.values.saturating_add(self.missing);
        if parts > self.bounds.values.saturating_sub(announced) {
            return Err(beyond("many values"));
        }
        self.missing = self.missing.saturating_add(parts);
        self.end_value();
        Ok(())
    }

    fn announce(&mut self, values: u64, bytes: u64) -> io::Result<()> {
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > self.bounds.values || self.bytes > self.bounds.answer {
            return Err(beyond("a large answer"));
        }
        Ok(())
    }

    fn end_value(&mut self) {
        self.place = Place::Kind;
        self.missing -= 1;
        if self.missing == 0 {
            self.whole += 1;
            (self.missing, self.values, self.bytes) = (1, 0, 0);
        }
    }
}

fn beyond(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of answers that are complete in `bytes`, or the bound that they break. Scans them at once,
    /// and byte by byte.
    fn answers(bytes: &[u8]) -> Result<u64, String> {
        let scan = |size: usize| {
            let mut scanner = Scanner::new(BOUNDS);
            let outcome = bytes.chunks(size).try_for_each(|piece| scanner.scan(piece));
            outcome.map(|()| scanner.whole).map_err(|error| error.to_string())
        };
        let whole = scan(bytes.len());
        assert_eq!(whole, scan(1), "pieces make no difference");
        whole
    }

    #[test]
    fn scanner_counts_answers_of_every_kind() {
        for one in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "$5\r\nhe\r\no\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n:1\r\n*2\r\n$1\r\na\r\n+b\r\n$-1\r\n",
            "%1\r\n+key\r\n*1\r\n:7\r\n",
            "|1\r\n+a\r\n+b\r\n:1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(12345678901234567890\r\n",
            "=7\r\ntxt:abc\r\n",
            "!5\r\nERR x\r\n",
            "~1\r\n:1\r\n",
            ">1\r\n+push\r\n",
        ] {
            assert_eq!(answers(one.as_bytes()), Ok(1), "{one:?}");
            assert_eq!(answers(one.repeat(3).as_bytes()), Ok(3), "{one:?}");
            assert_eq!(answers(&one.as_bytes()[..one.len() - 1]), Ok(0), "{one:?} without its end");
        }
    }

    #[test]
    fn scanner_refuses_what_no_call_asks_for() {
        let long_line = format!("+{}\r\n", "a".repeat(LONGEST_LINE + 1));
        let many_long = "$65536\r\n".to_owned() + &"a".repeat(65_536) + "\r\n";
        let large = "*17\r\n".to_owned() + &many_long.repeat(17);
        for hostile in [
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "\x15\x03\x01",
            "$65537\r\n",
            "$99999999999999999999999\r\n",
            "$x\r\n",
            "$\r\n",
            "*1000000000\r\n",
            "*16385\r\n",
            "*9000\r\n*9000\r\n",
            "%18446744073709551615\r\n",
            "|9223372036854775808\r\n",
            "=70000\r\n",
            &"*1000\r\n".repeat(17),
            &long_line,
            &large,
        ] {
            let bound = answers(hostile.as_bytes());
            assert!(bound.is_err(), "{:?}: {bound:?}", &hostile[..hostile.len().min(30)]);
        }
        assert_eq!(answers(many_long.as_bytes()), Ok(1));
    }
}
