//! Cases, numbered as in the Autobahn test suite 25.10.1.

use super::frames::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT, close};
use super::material::{HTML, JSON, Material, NOISE, PICTURE, PROSE};
use super::utf8::KOSME;

/// Action of a client.
pub enum Step {
    /// Writes bytes in pieces of this many; each piece is a separate write.
    Write { bytes: Vec<u8>, chop: usize },
    /// Waits until the server has handled all bytes before.
    Fence,
    /// Sends a frame and waits for the server's frame, this many times.
    RoundTrips { frame: Vec<u8>, count: usize },
    /// Sends each message uncompressed and waits for its compressed echo. Then sends these compressed
    /// messages in fragments of so many bytes, and waits for their echoes.
    Compressed { material: Material, length: usize, count: usize, fragment: usize },
}

/// A case of the suite.
pub struct Case {
    /// Number of the case, such as `6.2.1`.
    pub number: String,
    /// Value of `Sec-WebSocket-Extensions`.
    pub offer: &'static str,
    pub steps: Vec<Step>,
    /// Least number of echoed messages, if the server has no choice.
    pub echoes: usize,
    /// Code with which the server closes.
    pub code: u16,
    /// Whether the steps themselves end with a Close.
    pub closes: bool,
}

/// Size of the parts that measure limits and performance.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Bytes of the largest message.
    pub largest: usize,
    pub round_trips: usize,
    pub compressed: usize,
}

/// Pieces in which frames are written.
#[derive(Clone, Copy)]
enum Chop {
    /// All frames in one piece.
    Once,
    /// A piece for each frame.
    Frames,
    /// A piece for each octet.
    Octets,
}

use Chop::{Frames, Octets, Once};

const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;
/// Code that is not on the wire: a Close without a code (RFC 6455 section 7.1.5).
pub const NO_CODE: u16 = 1005;

const NOT_UTF8: &[u8] = b"\xff\xfe\xfd\xfc\xfb\x00\xff";

/// A list of cases that is being built.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    /// Adds frames after which the connection is still good.
    fn fine(&mut self, number: impl Into<String>, echoes: usize, chop: Chop, frames: &[Frame]) {
        self.add(number, NORMAL, echoes, pieces(chop, frames));
    }

    /// Adds frames for which the server fails the connection.
    fn fails(&mut self, number: impl Into<String>, code: u16, echoes: usize, frames: &[Frame]) {
        self.add(number, code, echoes, pieces(Once, frames));
    }

    fn fails_chopped(&mut self, number: &str, chop: Chop, echoes: usize, frames: &[Frame]) {
        self.add(number, PROTOCOL_ERROR, echoes, pieces(chop, frames));
    }

    /// Adds frames with a Close among them.
    fn closes(&mut self, number: impl Into<String>, code: u16, frames: &[Frame]) {
        self.add(number, code, 0, pieces(Once, frames)).closes = true;
    }

    fn add(
        &mut self,
        number: impl Into<String>,
        code: u16,
        echoes: usize,
        steps: Vec<Step>,
    ) -> &mut Case {
        let number = number.into();
        self.0.push(Case { number, offer: "", steps, echoes, code, closes: false });
        self.0.last_mut().expect("just pushed")
    }
}

fn pieces(chop: Chop, frames: &[Frame]) -> Vec<Step> {
    let each = |size: fn(usize) -> usize| {
        let write = |frame: &Frame| {
            let bytes = frame.bytes();
            Step::Write { chop: size(bytes.len()), bytes }
        };
        frames.iter().map(write).collect()
    };
    match chop {
        Once => vec![in_chops(frames, usize::MAX)],
        Frames => each(|length| length),
        Octets => each(|_| 1),
    }
}

fn in_chops(frames: &[Frame], chop: usize) -> Step {
    Step::Write { bytes: frames.iter().flat_map(Frame::bytes).collect(), chop }
}

/// Returns the whole list.
pub fn cases(scale: Scale) -> Vec<Case> {
    let mut cases = Cases::default();
    framing(&mut cases);
    pings(&mut cases);
    reserved_bits(&mut cases);
    opcodes(&mut cases);
    fragmentation(&mut cases);
    utf8(&mut cases);
    utf8_sequences(&mut cases);
    closing(&mut cases);
    limits(&mut cases, scale);
    let fragments = fragments(TEXT, &vec![b'*'; 65536], 1300);
    cases.fine("10.1.1", 1, Once, &fragments);
    compression(&mut cases, scale);
    cases.0
}

fn framing(cases: &mut Cases) {
    for (part, opcode, byte) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
        for (number, length) in [0, 125, 126, 127, 128, 65535, 65536].into_iter().enumerate() {
            let frame = Frame::new(opcode, &vec![byte; length]);
            cases.fine(format!("1.{part}.{}", number + 1), 1, Once, &[frame]);
        }
        let frame = Frame::new(opcode, &vec![byte; 65536]);
        cases.add(format!("1.{part}.8"), NORMAL, 1, vec![in_chops(&[frame], 997)]);
    }
}

fn pings(cases: &mut Cases) {
    let ping = |payload: &[u8]| Frame::new(PING, payload);
    let unsolicited = || Frame::new(PONG, b"unsolicited pong payload");
    cases.fine("2.1", 0, Once, &[ping(b"")]);
    cases.fine("2.2", 0, Once, &[ping(b"Hello, world!")]);
    cases.fine("2.3", 0, Once, &[ping(NOT_UTF8)]);
    cases.fine("2.4", 0, Once, &[ping(&[0xfe; 125])]);
    cases.fails("2.5", PROTOCOL_ERROR, 0, &[ping(&[0xfe; 126])]);
    cases.fine("2.6", 0, Octets, &[ping(&[0xfe; 125])]);
    cases.closes("2.7", NORMAL, &[Frame::new(PONG, b""), close(NORMAL, b"")]);
    cases.closes("2.8", NORMAL, &[unsolicited(), close(NORMAL, b"")]);
    cases.fine("2.9", 0, Once, &[unsolicited(), ping(b"ping payload")]);
    let ten: Vec<_> = (0..10).map(|n| ping(format!("payload-{n}").as_bytes())).collect();
    cases.fine("2.10", 0, Once, &ten);
    cases.fine("2.11", 0, Octets, &ten);
}

fn reserved_bits(cases: &mut Cases) {
    let hello = |opcode, bits| Frame::new(opcode, b"Hello, world!").reserved(bits);
    cases.fails("3.1", PROTOCOL_ERROR, 0, &[hello(TEXT, 1)]);
    for (number, bits, chop) in [("3.2", 2, Once), ("3.3", 3, Frames), ("3.4", 4, Octets)] {
        let frames = [hello(TEXT, 0), hello(TEXT, bits), Frame::new(PING, b"")];
        cases.fails_chopped(number, chop, 1, &frames);
    }
    cases.fails("3.5", PROTOCOL_ERROR, 0, &[Frame::new(BINARY, NOT_UTF8).reserved(5)]);
    cases.fails("3.6", PROTOCOL_ERROR, 0, &[hello(PING, 6)]);
    cases.fails("3.7", PROTOCOL_ERROR, 0, &[Frame::new(CLOSE, b"").reserved(7)]);
}

fn opcodes(cases: &mut Cases) {
    for (part, first) in [(1, 3), (2, 11)] {
        let with = |opcode, payload: &[u8]| Frame::new(opcode, payload);
        let hello = || with(TEXT, b"Hello, world!");
        let number = |last| format!("4.{part}.{last}");
        cases.fails(number(1), PROTOCOL_ERROR, 0, &[with(first, b"")]);
        let payload = b"reserved opcode payload";
        cases.fails(number(2), PROTOCOL_ERROR, 0, &[with(first + 1, payload)]);
        for (last, opcode, payload, chop) in [
            (3, first + 2, &b""[..], Once),
            (4, first + 3, b"Hello, world!", Once),
            (5, first + 4, b"Hello, world!", Octets),
        ] {
            let frames = [hello(), with(opcode, payload), with(PING, b"")];
            cases.fails_chopped(&number(last), chop, 1, &frames);
        }
    }
}

fn fragmentation(cases: &mut Cases) {
    let first = |payload: &str| Frame::new(TEXT, payload.as_bytes()).more();
    let next = |payload: &str| Frame::new(CONTINUATION, payload.as_bytes()).more();
    let last = |payload: &str| Frame::new(CONTINUATION, payload.as_bytes());
    let text = |payload: &str| Frame::new(TEXT, payload.as_bytes());
    let ping = |payload: &str| Frame::new(PING, payload.as_bytes());
    for (number, opcode) in [("5.1", PING), ("5.2", PONG)] {
        let frames = [Frame::new(opcode, b"fragment1").more(), last("fragment2")];
        cases.fails(number, PROTOCOL_ERROR, 0, &frames);
    }
    let two = [first("fragment1"), last("fragment2")];
    let around = [first("fragment1"), ping("ping payload"), last("fragment2")];
    let lonely = [last("non-continuation payload"), text("Hello, world!")];
    let lonely_first = [next("non-continuation payload"), text("Hello, world!")];
    for (offset, chop) in [Once, Frames, Octets].into_iter().enumerate() {
        cases.fine(format!("5.{}", 3 + offset), 1, chop, &two);
        cases.fine(format!("5.{}", 6 + offset), 1, chop, &around);
        cases.fails_chopped(&format!("5.{}", 9 + offset), chop, 0, &lonely);
        cases.fails_chopped(&format!("5.{}", 12 + offset), chop, 0, &lonely_first);
    }
    let nothing_to_continue =
        [first("fragment1"), last("fragment2"), next("fragment3"), text("fragment4")];
    cases.fails("5.15", PROTOCOL_ERROR, 1, &nothing_to_continue);
    let twice = |frames: [Frame; 3]| [frames.clone(), frames].concat();
    let frames = twice([next("fragment1"), first("fragment2"), last("fragment3")]);
    cases.fails("5.16", PROTOCOL_ERROR, 0, &frames);
    let frames = twice([last("fragment1"), first("fragment2"), last("fragment3")]);
    cases.fails("5.17", PROTOCOL_ERROR, 0, &frames);
    cases.fails("5.18", PROTOCOL_ERROR, 0, &[first("fragment1"), text("fragment2")]);
    for (number, chop) in [("5.19", Once), ("5.20", Frames)] {
        let mut steps = pieces(chop, &[first("fragment1"), next("fragment2"), ping("pongme 1!")]);
        steps.push(Step::Fence);
        let rest = [next("fragment3"), next("fragment4"), ping("pongme 2!"), last("fragment5")];
        steps.extend(pieces(chop, &rest));
        cases.add(number, NORMAL, 1, steps);
    }
}

/// Splits a message into frames with so many bytes each.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Frame> {
    let parts = payload.chunks(size).enumerate();
    let frame = |(number, part): (usize, &[u8])| {
        Frame::new(if number == 0 { opcode } else { CONTINUATION }, part).more()
    };
    let mut frames: Vec<_> = parts.map(frame).collect();
    if let Some(last) = frames.pop() {
        frames.push(last.end());
    }
    frames
}

fn utf8(cases: &mut Cases) {
    let three = |middle: &[u8]| {
        let middle = Frame::new(CONTINUATION, middle).more();
        [Frame::new(TEXT, b"").more(), middle, Frame::new(CONTINUATION, b"")]
    };
    cases.fine("6.1.1", 1, Once, &[Frame::new(TEXT, b"")]);
    cases.fine("6.1.2", 1, Once, &three(b""));
    cases.fine("6.1.3", 1, Once, &three(b"middle frame payload"));
    let mixed = "Hello-µ@ßöäüàá-UTF-8!!";
    let (one, two) = mixed.split_at(mixed.find('ü').expect("it has one"));
    let halves =
        [Frame::new(TEXT, one.as_bytes()).more(), Frame::new(CONTINUATION, two.as_bytes())];
    cases.fine("6.2.1", 1, Once, &[Frame::new(TEXT, mixed.as_bytes())]);
    cases.fine("6.2.2", 1, Once, &halves);
    cases.fine("6.2.3", 1, Once, &fragments(TEXT, mixed.as_bytes(), 1));
    cases.fine("6.2.4", 1, Once, &fragments(TEXT, KOSME, 1));
    let surrogate = [KOSME, b"\xed\xa0\x80", b"edited"].concat();
    cases.fails("6.3.1", INVALID_PAYLOAD, 0, &[Frame::new(TEXT, &surrogate)]);
    cases.fails("6.3.2", INVALID_PAYLOAD, 0, &fragments(TEXT, &surrogate, 1));
    let beyond = [KOSME, b"\xf4\x90\x80\x80", b"edited"].concat();
    for (number, cuts) in [("6.4.1", [11, 15]), ("6.4.2", [12, 13])] {
        let part = |opcode, from: usize, to: usize| Frame::new(opcode, &beyond[from..to]).more();
        let steps = vec![
            in_chops(&[part(TEXT, 0, cuts[0])], usize::MAX),
            Step::Fence,
            in_chops(&[part(CONTINUATION, cuts[0], cuts[1])], usize::MAX),
            Step::Fence,
            in_chops(&[part(CONTINUATION, cuts[1], beyond.len()).end()], usize::MAX),
        ];
        cases.add(number, INVALID_PAYLOAD, 0, steps);
    }
    // Within a frame there is no answer to wait for: only the pieces are the suite's.
    for (number, cuts) in [("6.4.3", [11, 15]), ("6.4.4", [12, 13])] {
        let frame = Frame::new(TEXT, &beyond).bytes();
        let head = frame.len() - beyond.len();
        let piece = |from: usize, to: usize| {
            let bytes = frame[from..to].to_vec();
            Step::Write { bytes, chop: usize::MAX }
        };
        let (one, two) = (head + cuts[0], head + cuts[1]);
        let steps = vec![piece(0, one), piece(one, two), piece(two, frame.len())];
        cases.add(number, INVALID_PAYLOAD, 0, steps);
    }
}

/// Adds 6.5 to 6.23, after Markus Kuhn's list.
fn utf8_sequences(cases: &mut Cases) {
    for (part, sequences) in super::utf8::sequences().into_iter().enumerate() {
        for (last, sequence) in sequences.into_iter().enumerate() {
            let number = format!("6.{}.{}", part + 5, last + 1);
            let frame = Frame::new(TEXT, &sequence);
            if std::str::from_utf8(&sequence).is_ok() {
                cases.fine(number, 1, Once, &[frame]);
            } else {
                cases.fails(number, INVALID_PAYLOAD, 0, &[frame]);
            }
        }
    }
}

fn closing(cases: &mut Cases) {
    let hello = || Frame::new(TEXT, b"Hello World!");
    let normal = || close(NORMAL, b"");
    let empty = || Frame::new(CLOSE, b"");
    cases.fine("7.1.1", 1, Once, &[hello()]);
    cases.closes("7.1.2", NORMAL, &[normal(), empty()]);
    cases.closes("7.1.3", NORMAL, &[normal(), Frame::new(PING, b"")]);
    cases.closes("7.1.4", NORMAL, &[normal(), hello()]);
    let halves = [Frame::new(TEXT, b"fragment1").more(), Frame::new(CONTINUATION, b"fragment2")];
    cases.closes("7.1.5", NORMAL, &[halves[0].clone(), normal(), halves[1].clone()]);
    let long = Frame::new(TEXT, &repeated(b"BAsd7&jh23", 256 * 1024));
    cases.closes("7.1.6", NORMAL, &[long, hello(), normal(), Frame::new(PING, b"")]);
    cases.closes("7.3.1", NO_CODE, &[empty()]);
    cases.closes("7.3.2", PROTOCOL_ERROR, &[Frame::new(CLOSE, b"a")]);
    cases.closes("7.3.3", NORMAL, &[normal()]);
    cases.closes("7.3.4", NORMAL, &[close(NORMAL, b"Hello World!")]);
    cases.closes("7.3.5", NORMAL, &[close(NORMAL, &[b'*'; 123])]);
    cases.closes("7.3.6", PROTOCOL_ERROR, &[close(NORMAL, &[b'*'; 124])]);
    let reason = [KOSME, b"\xed\xa0\x80edited"].concat();
    cases.closes("7.5.1", INVALID_PAYLOAD, &[close(NORMAL, &reason)]);
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (number, code) in valid.into_iter().enumerate() {
        cases.closes(format!("7.7.{}", number + 1), code, &[close(code, b"")]);
    }
    let invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    for (number, code) in invalid.into_iter().enumerate() {
        cases.closes(format!("7.9.{}", number + 1), PROTOCOL_ERROR, &[close(code, b"")]);
    }
    cases.closes("7.13.1", PROTOCOL_ERROR, &[close(5000, b"")]);
    cases.closes("7.13.2", PROTOCOL_ERROR, &[close(65535, b"")]);
}

fn repeated(pattern: &[u8], length: usize) -> Vec<u8> {
    pattern.iter().copied().cycle().take(length).collect()
}

fn limits(cases: &mut Cases, scale: Scale) {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let sizes = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB];
    let kinds = [(TEXT, &b"BAsd7&jh23"[..]), (BINARY, b"\x00\xfe\x23\xfa\xf0")];
    for (kind, (opcode, pattern)) in kinds.into_iter().enumerate() {
        for (number, size) in sizes.into_iter().enumerate() {
            let frame = Frame::new(opcode, &repeated(pattern, size.min(scale.largest)));
            let number = format!("9.{}.{}", 1 + kind, number + 1);
            cases.fine(number, 1, Once, &[frame.masked_by_nothing()]);
        }
        let payload = vec![b'*'; (4 * MIB).min(scale.largest)];
        for number in 0..9 {
            let size = 64 << (2 * number);
            let mut frames = fragments(opcode, &payload, size.min(4 * MIB));
            frames = frames.into_iter().map(Frame::masked_by_nothing).collect();
            cases.fine(format!("9.{}.{}", 3 + kind, number + 1), 1, Once, &frames);
        }
        for number in 0..6 {
            let frame = Frame::new(opcode, &repeated(pattern, MIB.min(scale.largest)));
            let steps = vec![in_chops(&[frame.masked_by_nothing()], 64 << number)];
            cases.add(format!("9.{}.{}", 5 + kind, number + 1), NORMAL, 1, steps);
        }
        for (number, length) in [0, 16, 64, 256, 1024, 4096].into_iter().enumerate() {
            let frame = Frame::new(opcode, &vec![b'*'; length]).bytes();
            let steps = vec![Step::RoundTrips { frame, count: scale.round_trips }];
            let number = format!("9.{}.{}", 7 + kind, number + 1);
            cases.add(number, NORMAL, scale.round_trips, steps);
        }
    }
}

/// Bytes and fragments of a message, in 12.x and 13.x alike. 0 means one frame.
const COMPRESSED: [(usize, usize); 18] = [
    (16, 0),
    (64, 0),
    (256, 0),
    (1024, 0),
    (4096, 0),
    (8192, 0),
    (16384, 0),
    (32768, 0),
    (65536, 0),
    (131_072, 0),
    (8192, 256),
    (16384, 256),
    (32768, 256),
    (65536, 256),
    (131_072, 256),
    (131_072, 1024),
    (131_072, 4096),
    (131_072, 32768),
];

fn compression(cases: &mut Cases, scale: Scale) {
    const PLAIN: &str = "permessage-deflate; client_max_window_bits";
    let mut group = |part: String, offer, material: Material| {
        for (number, (length, fragment)) in COMPRESSED.into_iter().enumerate() {
            let fragment = if fragment == 0 { usize::MAX } else { fragment };
            let count = scale.compressed;
            let steps = vec![Step::Compressed { material, length, count, fragment }];
            let number = format!("{part}.{}", number + 1);
            cases.add(number, NORMAL, 2 * count, steps).offer = offer;
        }
    };
    for (number, material) in [JSON, PICTURE, PROSE, HTML, NOISE].into_iter().enumerate() {
        group(format!("12.{}", number + 1), PLAIN, material);
    }
    let offers = [
        PLAIN,
        "permessage-deflate; server_no_context_takeover; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=15; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; \
         client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=15; \
         client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; \
         client_max_window_bits, permessage-deflate; server_no_context_takeover, \
         permessage-deflate",
    ];
    for (number, offer) in offers.into_iter().enumerate() {
        group(format!("13.{}", number + 1), offer, JSON);
    }
}
