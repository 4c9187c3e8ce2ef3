//! Ids of traces and spans.

use std::fmt;

/// Id of a trace: 16 bytes, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// Id of a span within its trace: 8 bytes, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// An id as text: lower-case hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Hex<const DIGITS: usize>([u8; DIGITS]);

impl TraceId {
    /// Returns `None` unless `text` is 32 lower-case hexadecimal digits, not all of them zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        parse(text).map(Self)
    }

    /// Returns the id as text.
    pub fn hex(self) -> Hex<32> {
        Hex(digits(&self.0))
    }

    /// Returns a number from 0 to 1 that is evenly spread over the traces, if their ids are random.
    pub(super) fn fraction(self) -> f64 {
        // Level 2 of the recommendation has the random part at the right.
        let mut random = [0; 8];
        random[1..].copy_from_slice(&self.0[9..]);
        u64::from_be_bytes(random) as f64 / (1_u64 << 56) as f64
    }
}

impl SpanId {
    /// Returns `None` unless `text` is 16 lower-case hexadecimal digits, not all of them zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        parse(text).map(Self)
    }

    /// Returns the id as text.
    pub fn hex(self) -> Hex<16> {
        Hex(digits(&self.0))
    }
}

impl<const DIGITS: usize> Hex<DIGITS> {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits")
    }
}

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Makes the ids of a new trace and of a span in it. The TLS library's generator is unpredictable, so a
/// client can't derive the trace ids of other clients from its own trace.
pub(super) fn random_trace() -> (TraceId, SpanId) {
    let ids: [u8; 24] = random();
    let (trace, span) = ids.split_at(16);
    (TraceId(trace.try_into().expect("16")), SpanId(span.try_into().expect("8")))
}

/// Makes the ids of two new spans of a trace.
pub(super) fn random_spans() -> (SpanId, SpanId) {
    let ids: [u8; 16] = random();
    let (one, other) = ids.split_at(8);
    (SpanId(one.try_into().expect("8")), SpanId(other.try_into().expect("8")))
}

/// Returns random bytes. An id of zeros only would be invalid; for 8 bytes the chance is 1 in 2^64.
fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's generator works");
    bytes
}

fn parse<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = pair(digits)?;
    }
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

/// Reads two lower-case hexadecimal digits.
pub(super) fn pair(digits: &[u8]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let [high, low] = digits else { return None };
    Some(digit(*high)? << 4 | digit(*low)?)
}

fn digits<const DIGITS: usize>(bytes: &[u8]) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (digits, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        digits.copy_from_slice(&hexadecimal(*byte));
    }
    digits
}

/// Writes a byte as two lower-case hexadecimal digits.
pub(super) fn hexadecimal(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}
