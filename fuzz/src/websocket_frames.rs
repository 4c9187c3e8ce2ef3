//! Ends of frames, as the tunnel follows them: compared with a second, plain implementation of RFC 6455
//! section 5.2.
//!
//! The first byte of the input is the length of the pieces into which the rest is cut; the second is the
//! offset at which the tunnel is asked for the end of a frame.

use hop::proxy::Frames;

/// # Panics
///
/// Panics if the tunnel could write a frame of its own into a frame of the app.
pub fn check(input: &[u8]) {
    let [chop, cut, bytes @ ..] = input else { return };
    let chop = usize::from(*chop).max(1);
    let boundaries = boundaries(bytes);
    let is_boundary = |at: usize| boundaries.contains(&at);

    let mut frames = Frames::default();
    let mut passed = 0;
    for piece in bytes.chunks(chop) {
        frames.pass(piece);
        passed += piece.len();
        assert_eq!(frames.may_interject(), is_boundary(passed), "after {passed} bytes");
    }

    let cut = usize::from(*cut).min(bytes.len());
    let mut frames = Frames::default();
    frames.pass(&bytes[..cut]);
    let end = cut + frames.finish(&bytes[cut..]);
    assert!(end <= bytes.len());
    let expected = (cut..=bytes.len()).find(|at| is_boundary(*at)).unwrap_or(bytes.len());
    assert_eq!(end, expected, "cut at {cut}");
}

/// Returns every position between two frames, up to a Close frame or to bytes that are no frame.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut found = vec![0];
    let mut at = 0_usize;
    loop {
        let rest = &bytes[at..];
        let [first, second, ..] = *rest else { break };
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = rest.get(2..2 + wide) else { break };
        let length = if wide == 0 {
            u64::from(second & 0x7f)
        } else {
            length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
        };
        let head = 2 + wide + if second & 0x80 == 0 { 0 } else { 4 };
        let Some(end) = usize::try_from(length).ok().and_then(|length| length.checked_add(head))
        else {
            break;
        };
        if first & 0x0f == 8 || length >> 63 == 1 || end > rest.len() {
            break;
        }
        at += end;
        found.push(at);
    }
    found
}
