//! Floods over HTTP/2. Known attacks have names: rapid reset (CVE-2023-44487), the CONTINUATION flood
//! (CVE-2024-27316), `MadeYouReset` (CVE-2025-8671), and the attacks of CVE-2019-9511 to 9518.

use super::{End, Flood, play_all};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RESET, SETTINGS,
    WINDOW_UPDATE, block, frame, literal, opening, opening_with, request, stream,
};

/// Frames sent at once, so that the attackers are not the slowest part.
const BATCH: u32 = 100;

/// Youngest entry of the dynamic table as an indexed field (RFC 7541 sections 2.3.3 and 6.1).
const YOUNGEST: u8 = 0x80 | 0x3e;

const INITIAL_WINDOW_SIZE: u16 = 4;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

fn batch(nth: u32, make: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (BATCH * nth..BATCH * (nth + 1)).flat_map(make).collect()
}

/// Returns the opening and a request whose answer does not end, so that the connection is never idle.
fn busy() -> Vec<u8> {
    [opening(), request(1, END_STREAM, "GET", "/held")].concat()
}

/// Returns the opening and a request that never ends.
fn posting() -> Vec<u8> {
    [opening(), request(1, 0, "POST", "/sink")].concat()
}

fn resets() -> Vec<Flood> {
    let flood = End::Closed("http2_flood");
    let rapid = |nth| {
        batch(nth, |nth| {
            let cancel = frame(RESET, 0, stream(nth), &8_u32.to_be_bytes());
            [request(stream(nth), END_STREAM, "GET", "/held"), cancel].concat()
        })
    };
    // Each frame makes the sidecar reset the stream that the attacker has just opened.
    let no_window = |nth| {
        batch(nth, |nth| {
            let update = frame(WINDOW_UPDATE, 0, stream(nth), &[0; 4]);
            [request(stream(nth), END_STREAM, "GET", "/held"), update].concat()
        })
    };
    let overflow = |nth| {
        batch(nth, |nth| {
            let update = frame(WINDOW_UPDATE, 0, stream(nth), &LARGEST_WINDOW.to_be_bytes());
            [request(stream(nth), END_STREAM, "GET", "/held"), update].concat()
        })
    };
    let itself = |nth| {
        batch(nth, |nth| {
            let on_itself = [&stream(nth).to_be_bytes()[..], &[0]].concat();
            let priority = frame(PRIORITY, 0, stream(nth), &on_itself);
            [request(stream(nth), END_STREAM, "GET", "/held"), priority].concat()
        })
    };
    let malformed = |nth| {
        batch(nth, |nth| {
            let fields = block(&[(":method", "GET"), ("connection", "close")]);
            frame(HEADERS, END_HEADERS | END_STREAM, stream(nth), &fields)
        })
    };
    let more_data = |nth| {
        batch(nth, |nth| {
            let data = frame(DATA, 0, stream(nth), b"more");
            [request(stream(nth), END_STREAM, "GET", "/held"), data].concat()
        })
    };
    vec![
        Flood::new("rapid reset", opening(), rapid, flood),
        Flood::new("MadeYouReset, no window", opening(), no_window, End::Closed("http2_error")),
        Flood::new("MadeYouReset, window overflow", opening(), overflow, flood),
        Flood::new("MadeYouReset, priority", opening(), itself, flood),
        Flood::new("malformed heads", opening(), malformed, flood),
        Flood::new("DATA after the end", opening(), more_data, End::Closed("http2_error")),
    ]
}

fn header_lists() -> Vec<Flood> {
    let flood = End::Closed("http2_flood");
    let headers = |flags, stream, fields: &[u8]| frame(HEADERS, flags, stream, fields);
    let start = [opening(), headers(END_STREAM, 1, &[])].concat();
    let empty = |nth| batch(nth, |_| frame(CONTINUATION, 0, 1, &[]));
    let full = |nth| {
        batch(nth, |nth| {
            frame(CONTINUATION, 0, 1, &block(&[(&format!("x-{nth}"), &"a".repeat(1000))]))
        })
    };
    // One entry of 4,000 bytes in the dynamic table, to which each further field refers with one byte.
    let bomb = |nth: u32| {
        let mut fields = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
        if nth == 0 {
            fields.extend(literal(0x40, "x-bomb", &"b".repeat(4000)));
        }
        fields.extend([YOUNGEST].repeat(10_000));
        frame(HEADERS, END_HEADERS | END_STREAM, stream(nth), &fields)
    };
    // Each request is within the limit for bytes.
    let small_bomb = |nth| {
        batch(nth, |nth| {
            let path = [(":method", "GET"), (":scheme", "http"), (":path", "/held")];
            let mut fields = block(&path);
            if nth == 0 {
                fields.extend(literal(0x40, "x-bomb", ""));
            }
            fields.extend([YOUNGEST].repeat(1000));
            frame(HEADERS, END_HEADERS | END_STREAM, stream(nth), &fields)
        })
    };
    // Between the limit and four times the limit, for which the answer is 431.
    let over = |nth| {
        let mut fields = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/held")]);
        for name in ["x-a", "x-b", "x-c", "x-d", "x-e", "x-f", "x-g"] {
            fields.extend(literal(0, name, &"a".repeat(10_000)));
        }
        let mut frames = Vec::new();
        let pieces: Vec<_> = fields.chunks(16_000).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let (kind, start) = if index == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            let end = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
            frames.extend(frame(kind, start | end, stream(nth), piece));
        }
        frames
    };
    vec![
        Flood::new("CONTINUATION, empty", start.clone(), empty, flood),
        Flood::new("CONTINUATION, full", start, full, flood),
        Flood::new("HPACK bomb", opening(), bomb, flood),
        Flood::new("HPACK bomb within bytes", opening(), small_bomb, flood),
        Flood::new("header lists over the limit", opening(), over, End::Closed("idle")),
    ]
}

fn control_frames() -> Vec<Flood> {
    let ping = |nth| batch(nth, |nth| frame(PING, 0, 0, &u64::from(nth).to_be_bytes()));
    let acknowledgement =
        |nth| batch(nth, |nth| frame(PING, ACK, 0, &u64::from(nth).to_be_bytes()));
    let settings = |nth| batch(nth, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    let acknowledged = |nth| batch(nth, |_| frame(SETTINGS, ACK, 0, &[]));
    let update = |nth| batch(nth, |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()));
    let priority = |nth| batch(nth, |nth| frame(PRIORITY, 0, stream(nth) + 2, &[0, 0, 0, 1, 7]));
    let unknown = |nth| batch(nth, |_| frame(0x2a, 0, 0, b"unknown"));
    let mut unread = Flood::new("PING, answers unread", busy(), ping, End::Closed("stalled"));
    unread.reads = false;
    let mut settings_unread =
        Flood::new("SETTINGS, answers unread", busy(), settings, End::Closed("stalled"));
    settings_unread.reads = false;
    vec![
        Flood::new("PING", busy(), ping, End::Borne),
        Flood::new("PING, no request", opening(), ping, End::Closed("idle")),
        unread,
        Flood::new("PING acknowledgements", busy(), acknowledgement, End::Borne),
        Flood::new("SETTINGS", busy(), settings, End::Borne),
        settings_unread,
        Flood::new("SETTINGS acks", busy(), acknowledged, End::Closed("http2_error")),
        Flood::new("WINDOW_UPDATE", busy(), update, End::Borne),
        Flood::new("PRIORITY", busy(), priority, End::Borne),
        Flood::new("frames of unknown kinds", busy(), unknown, End::Borne),
    ]
}

fn bodies() -> Vec<Flood> {
    let flood = End::Closed("http2_flood");
    let empty = |nth| batch(nth, |_| frame(DATA, 0, 1, &[]));
    let padded = |nth| batch(nth, |_| frame(DATA, 8, 1, &[&[255][..], &[0; 255]].concat()));
    let tiny = |nth| batch(nth, |_| frame(DATA, 0, 1, b"a"));
    vec![
        Flood::new("empty DATA", posting(), empty, flood),
        Flood::new("DATA of padding", posting(), padded, flood),
        Flood::new("DATA of one byte", posting(), tiny, flood),
    ]
}

/// Returns floods of 200 requests at once whose answers the client does not read.
fn windows() -> Vec<Flood> {
    let endless = |opening: Vec<u8>| {
        let requests = (0..200).flat_map(|nth| request(stream(nth), END_STREAM, "GET", "/endless"));
        [opening, requests.collect()].concat()
    };
    let nothing = |_| Vec::new();
    let open = [
        opening_with(&[(INITIAL_WINDOW_SIZE, LARGEST_WINDOW)]),
        frame(WINDOW_UPDATE, 0, 0, &(LARGEST_WINDOW - 65_535).to_be_bytes()),
    ];
    let mut unread =
        Flood::new("200 answers, unread", endless(open.concat()), nothing, End::Closed("stalled"));
    unread.reads = false;
    let zero = opening_with(&[(INITIAL_WINDOW_SIZE, 0)]);
    let zero = Flood::new("200 answers, no window", endless(zero), nothing, End::Borne);
    let silent = [opening(), frame(HEADERS, 0, 1, &[])].concat();
    let slow = Flood::new("half a head", silent, nothing, End::Closed("idle"));
    [unread, zero, slow]
        .into_iter()
        .map(|mut flood| {
            // 800 streams, with 64 KiB for each and as much for the data that the app sends.
            (flood.step, flood.connections, flood.growth) = (None, 4, 200.0);
            flood
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_http2_floods_leave_other_clients_served() {
    let floods = resets().into_iter().chain(header_lists()).chain(control_frames());
    play_all(floods.chain(bodies()).chain(windows()).collect()).await;
}
