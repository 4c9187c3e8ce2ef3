//! Frames as a client writes them, and frames of the server as the client reads them (RFC 6455 section 5.2).

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// An arbitrary mask: masks protect proxies that could take frames for requests.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client, valid or not.
#[derive(Clone)]
pub struct Frame {
    opcode: u8,
    last: bool,
    reserved: u8,
    mask: [u8; 4],
    payload: Vec<u8>,
}

impl Frame {
    /// Makes a frame that is a whole message.
    pub fn new(opcode: u8, payload: &[u8]) -> Self {
        Self { opcode, last: true, reserved: 0, mask: MASK, payload: payload.to_vec() }
    }

    /// Marks the frame as one that another frame continues.
    pub fn more(mut self) -> Self {
        self.last = false;
        self
    }

    /// Marks the frame as the last of its message.
    pub fn end(mut self) -> Self {
        self.last = true;
        self
    }

    /// Sets these of the three reserved bits.
    pub fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    /// Uses a mask of zeros, since masking megabytes is slow in a debug build.
    pub fn masked_by_nothing(mut self) -> Self {
        self.mask = [0; 4];
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let last = if self.last { 0x80 } else { 0 };
        let first = last | self.reserved << 4 | self.opcode;
        let mut bytes = Vec::with_capacity(self.payload.len() + 14);
        bytes.push(first);
        match self.payload.len() {
            length @ ..126 => bytes.push(0x80 | u8::try_from(length).expect("below 126")),
            length @ 126..65536 => {
                bytes.push(0xfe);
                bytes.extend(u16::try_from(length).expect("below 65536").to_be_bytes());
            }
            length => {
                bytes.push(0xff);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.mask);
        if self.mask == [0; 4] {
            bytes.extend(&self.payload);
        } else {
            let mask = self.mask.iter().cycle();
            bytes.extend(self.payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        }
        bytes
    }
}

/// Makes a Close with a code.
pub fn close(code: u16, reason: &[u8]) -> Frame {
    Frame::new(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A frame of the server.
pub struct Received {
    pub opcode: u8,
    pub compressed: bool,
    /// Position of the payload in the bytes read.
    pub payload: std::ops::Range<usize>,
}

/// Returns the frame that begins at `start`, if the whole frame is there.
pub fn parse(read: &[u8], start: usize) -> Option<Received> {
    let head = read.get(start..start + 2)?;
    let (length, begin) = match head[1] & 0x7f {
        126 => {
            let length = read.get(start + 2..start + 4)?.try_into().expect("two bytes");
            (usize::from(u16::from_be_bytes(length)), start + 4)
        }
        127 => {
            let length = read.get(start + 2..start + 10)?.try_into().expect("eight bytes");
            (usize::try_from(u64::from_be_bytes(length)).expect("it fits"), start + 10)
        }
        length => (usize::from(length), start + 2),
    };
    let payload = begin..begin + length;
    read.get(payload.clone())?;
    Some(Received { opcode: head[0] & 0x0f, compressed: head[0] & 0x40 != 0, payload })
}
