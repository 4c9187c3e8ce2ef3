//! HTTP/2 frames made by hand (RFC 9113), for bytes that no library would send.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `:status: 200` (RFC 7541 appendix A), which comes first in an answer's HEADERS.
pub const STATUS_200: u8 = 0x88;

/// First bytes of a connection (RFC 9113 section 3.4).
pub const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's length, kind, flags and stream.
const HEAD: usize = 9;

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Takes the first frame off the bytes read, if the whole frame is there.
    pub fn take(read: &mut Vec<u8>) -> Option<Self> {
        let length = u32::from_be_bytes([0, *read.first()?, *read.get(1)?, *read.get(2)?]);
        let end = HEAD + usize::try_from(length).expect("24 bits");
        if read.len() < end {
            return None;
        }
        let bytes: Vec<u8> = read.drain(..end).collect();
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let payload = bytes[HEAD..].to_vec();
        Some(Self { kind: bytes[3], flags: bytes[4], stream, payload })
    }
}

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("24 bits").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the first bytes of a client: the preface and its settings, with default values only.
pub fn opening() -> Vec<u8> {
    opening_with(&[])
}

/// Returns the first bytes of a client with some settings (RFC 9113 section 6.5.2).
pub fn opening_with(settings: &[(u16, u32)]) -> Vec<u8> {
    let setting = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = settings.iter().flat_map(setting).collect();
    [PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// Returns the stream of the client's nth request, counted from 0.
pub fn stream(nth: u32) -> u32 {
    2 * nth + 1
}

/// Encodes a request's HEADERS.
pub fn request(stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
    frame(HEADERS, END_HEADERS | flags, stream, &block(&fields))
}

/// Encodes fields as literals without an index (RFC 7541 section 6.2.2), not compressed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0, name, value)).collect()
}

/// Encodes a field as a literal. An `indexing` of 0 leaves the field out of the dynamic table, 0x40 puts it
/// there (RFC 7541 sections 6.2.1 and 6.2.2).
pub fn literal(indexing: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![indexing];
    for text in [name, value] {
        // An integer with a prefix of seven bits (RFC 7541 section 5.1).
        match text.len() {
            length @ 0..127 => bytes.push(u8::try_from(length).expect("seven bits")),
            length => {
                bytes.push(127);
                let mut rest = length - 127;
                while rest > 127 {
                    bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).expect("seven bits"));
            }
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}
