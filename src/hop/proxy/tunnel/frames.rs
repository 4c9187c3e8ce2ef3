//! Boundaries between WebSocket frames (RFC 6455 section 5.2), so that a Close frame of the sidecar fits in
//! between. Payloads are counted and never looked at.

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes of a head that has not come whole.
    head: [u8; MAX_HEAD],
    head_length: usize,
    /// Bytes of the payload that are still to come.
    payload: u64,
    closed: bool,
    lost: bool,
}

/// Two bytes, eight of a long length, four of a mask.
const MAX_HEAD: usize = 14;

const OPCODE_CLOSE: u8 = 8;

impl Frames {
    /// Whether a frame of the sidecar may go out now: between two frames, and before the Close.
    pub fn may_interject(&self) -> bool {
        self.head_length == 0 && self.payload == 0 && !self.closed && !self.lost
    }

    /// Takes note of the bytes that pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.pass_one(bytes)..];
        }
    }

    /// Takes note of no more than the rest of the frame under way, and returns the length of this rest. A
    /// frame that has not begun is not under way.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.may_interject() {
            passed += self.pass_one(&bytes[passed..]);
        }
        passed
    }

    /// Takes note of some bytes of one frame, at least one, and returns their number.
    fn pass_one(&mut self, bytes: &[u8]) -> usize {
        if self.lost {
            return bytes.len();
        }
        if self.payload > 0 {
            let passed =
                usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.payload -= passed as u64;
            return passed;
        }
        self.head[self.head_length] = bytes[0];
        self.head_length += 1;
        self.end_head();
        1
    }

    fn end_head(&mut self) {
        let head = &self.head[..self.head_length];
        let &[first, second, ref rest @ ..] = head else { return };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (long, length) = match second & 0x7f {
            126 => {
                let Some(bytes) = rest.first_chunk() else { return };
                (bytes.len(), u64::from(u16::from_be_bytes(*bytes)))
            }
            127 => {
                let Some(bytes) = rest.first_chunk() else { return };
                (bytes.len(), u64::from_be_bytes(*bytes))
            }
            short => (0, u64::from(short)),
        };
        if rest.len() < long + mask {
            return;
        }
        // The highest bit of a length must be 0: a peer that sets the bit does not speak WebSocket.
        self.lost = length > i64::MAX as u64;
        self.closed |= first & 0x0f == OPCODE_CLOSE;
        self.payload = length;
        self.head_length = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a server sends it, or with a mask as a client does.
    fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match payload.len() {
            short @ ..126 => frame.push(mask | u8::try_from(short).expect("below 126")),
            middle @ ..65_536 => {
                frame.push(mask | 0x7e);
                frame.extend(u16::try_from(middle).expect("below 65,536").to_be_bytes());
            }
            long => {
                frame.push(mask | 0x7f);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(payload);
        frame
    }

    proptest! {
        #[test]
        fn frame_boundaries_are_found_in_any_pieces(
            lengths in prop::collection::vec(prop_oneof![0..5_usize, 120..130_usize, 65_530..65_540_usize], 1..5),
            masked: bool,
            chop in 1..5000_usize,
            cut in 0..1000_usize,
        ) {
            let frames: Vec<_> = lengths.iter().map(|length| frame(2, masked, &vec![7; *length])).collect();
            let whole = frames.concat();
            let mut ends = vec![0];
            for frame in &frames {
                ends.push(ends[ends.len() - 1] + frame.len());
            }
            let mut follower = Frames::default();
            let mut passed = 0;
            for piece in whole.chunks(chop) {
                follower.pass(piece);
                passed += piece.len();
                prop_assert_eq!(follower.may_interject(), ends.contains(&passed));
            }
            // Wherever the bytes are cut, the rest of the frame ends where the frame ends.
            let cut = cut % whole.len();
            let mut follower = Frames::default();
            follower.pass(&whole[..cut]);
            let end = cut + follower.finish(&whole[cut..]);
            let next = ends.iter().find(|end| **end >= cut).expect("the last is the end");
            prop_assert_eq!(end, *next);
            prop_assert!(follower.may_interject());
        }

        #[test]
        fn frame_follower_takes_any_bytes_without_a_panic(bytes: Vec<u8>, chop in 1..20_usize) {
            let (mut follower, mut other) = (Frames::default(), Frames::default());
            for piece in bytes.chunks(chop) {
                follower.pass(piece);
                prop_assert!(other.finish(piece) <= piece.len());
            }
        }
    }

    #[test]
    fn nothing_is_sent_after_a_close_or_into_a_broken_frame() {
        let mut follower = Frames::default();
        follower.pass(&frame(OPCODE_CLOSE, false, &[3, 232]));
        assert!(!follower.may_interject());
        let mut follower = Frames::default();
        follower.pass(&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!follower.may_interject());
        assert_eq!(follower.finish(b"whatever"), 8);
    }
}
