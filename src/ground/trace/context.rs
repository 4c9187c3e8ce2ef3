//! `traceparent`: the trace to which a request belongs, and the span that sent the request (W3C Trace
//! Context, level 1, section 3.2).

use http::{HeaderMap, HeaderValue};

use super::id::{SpanId, TraceId, hexadecimal, pair};

/// Content of a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: TraceId,
    /// The span that sent the request.
    pub parent: SpanId,
    pub flags: Flags,
}

/// Flags of a trace that the sidecar knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    const SAMPLED: u8 = 0b01;
    /// The id is random: defined in level 2 of the recommendation, which requires that the flag is passed on.
    const RANDOM: u8 = 0b10;

    /// Returns the flags of a trace that starts in the sidecar.
    pub fn of_new(sampled: bool) -> Self {
        Self(if sampled { Self::SAMPLED } else { 0 })
    }

    /// Whether a client or proxy may have recorded the request, and wants the sidecar to record it.
    pub fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    /// Returns the flags as a number.
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl Context {
    /// Reads `traceparent`. `None` if the header is absent, repeated or malformed: the app could read such a
    /// header in another way, and `tracestate` then means nothing either.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(super::TRACEPARENT).iter();
        let only = lines.next().filter(|_| lines.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    /// Reads the value of a `traceparent`. Version 00 must match exactly; of a later version, the part that
    /// it has in common with version 00 is read.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(55)?;
        let version = pair(&known[..2])?;
        let later = version > 0 && rest.first().is_none_or(|byte| *byte == b'-');
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if version == 0xff || !dashes || !(later || rest.is_empty()) {
            return None;
        }
        Some(Self {
            trace: TraceId::parse(&known[3..35])?,
            parent: SpanId::parse(&known[36..52])?,
            // The sidecar must not pass on other flags (section 3.2.2.5).
            flags: Flags(pair(&known[53..])? & (Flags::SAMPLED | Flags::RANDOM)),
        })
    }

    /// Returns the context as the value of a header, in version 00.
    pub fn header(&self) -> HeaderValue {
        let mut value = *b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-00";
        value[3..35].copy_from_slice(self.trace.hex().as_str().as_bytes());
        value[36..52].copy_from_slice(self.parent.hex().as_str().as_bytes());
        value[53..].copy_from_slice(&hexadecimal(self.flags.bits()));
        HeaderValue::from_bytes(&value).expect("digits and dashes")
    }
}
