//! Byte sequences of the cases 6.5 to 6.23, from Markus Kuhn's "UTF-8 decoder capability and stress test",
//! valid and not.

/// A Greek word with an accent that takes three bytes, which the suite uses often.
pub const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// Returns a list for each second number, in the suite's order.
pub fn sequences() -> Vec<Vec<Vec<u8>>> {
    let own = |list: &[&[u8]]| list.iter().map(|sequence| sequence.to_vec()).collect::<Vec<_>>();
    let prefixes = (1..=KOSME.len()).map(|length| KOSME[..length].to_vec()).collect();
    let mut lists = vec![
        // 6.5: some valid ones
        own(&[
            b"hello$world",
            "hello¢world".as_bytes(),
            "hello€world".as_bytes(),
            b"hello\xf0\xa4\xad\xa2world",
            KOSME,
        ]),
        prefixes,
        // 6.7: the first of each length, 6.8: of lengths that are no longer valid
        own(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        own(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
        // 6.9: the last of each length, 6.10: of lengths that are no longer valid
        own(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        own(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        // 6.11: other boundaries
        own(&[
            b"\xed\x9f\xbf",
            b"\xee\x80\x80",
            b"\xef\xbf\xbd",
            b"\xf4\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
        ]),
    ];
    lists.extend(incomplete());
    lists.extend(overlong());
    lists.extend(code_points());
    lists
}

/// Returns the sequences of 6.12 to 6.16.
fn incomplete() -> Vec<Vec<Vec<u8>>> {
    let continuations = |count: usize| (0..count).map(|n| [0x80, 0xbf][n % 2]).collect::<Vec<u8>>();
    let mut unexpected = vec![vec![0x80], vec![0xbf]];
    unexpected.extend((2..=6).map(continuations));
    unexpected.push((0x80..0xbf).collect());
    let starts = [(0xc0, 0xdf), (0xe0, 0xef), (0xf0, 0xf7), (0xf8, 0xfb), (0xfc, 0xfd)];
    let lonely = |(from, to): (u8, u8)| (from..to).flat_map(|start| [start, b' ']).collect();
    let cut_off: Vec<Vec<u8>> = [
        &b"\xc0"[..],
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ]
    .map(<[u8]>::to_vec)
    .into();
    let all_of_them = vec![cut_off.concat()];
    let impossible = vec![vec![0xfe], vec![0xff], vec![0xfe, 0xfe, 0xff, 0xff]];
    vec![unexpected, starts.map(lonely).into(), cut_off, all_of_them, impossible]
}

/// Returns the sequences of 6.17 to 6.19: `/`, the largest character, and NUL, each in more bytes than it
/// needs.
fn overlong() -> Vec<Vec<Vec<u8>>> {
    let starts = [0xc0, 0xe0, 0xf0, 0xf8, 0xfc];
    let ending_in = |last: u8| {
        let sequence = |(more, start): (usize, u8)| {
            let mut sequence = vec![start];
            sequence.resize(more + 1, 0x80);
            sequence.push(last);
            sequence
        };
        starts.into_iter().enumerate().map(sequence).collect::<Vec<_>>()
    };
    let largest = [
        &b"\xc1\xbf"[..],
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf8\x87\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
    ];
    vec![ending_in(0xaf), largest.map(<[u8]>::to_vec).into(), ending_in(0x80)]
}

/// Returns the sequences of 6.20 to 6.23: surrogates, alone and in pairs, then noncharacters and special
/// characters.
fn code_points() -> Vec<Vec<Vec<u8>>> {
    let surrogate = |(second, third): (u8, u8)| vec![0xed, second, third];
    let highs = [(0xa0, 0x80), (0xad, 0xbf), (0xae, 0x80), (0xaf, 0xbf)].map(surrogate);
    let lows = [(0xb0, 0x80), (0xbe, 0x80), (0xbf, 0xbf)].map(surrogate);
    let single = [&highs[..], &lows].concat();
    let paired = highs
        .iter()
        .flat_map(|high| [&lows[0], &lows[2]].map(|low| [high.as_slice(), low].concat()))
        .collect();
    let encoded =
        |point: u32| char::from_u32(point).expect("no surrogate").to_string().into_bytes();
    // The last two code points of every plane and, within each plane, of every quarter from the first on.
    let mut not_characters = vec![encoded(0xfffe), encoded(0xffff)];
    for start in 0xf0..=0xf4_u8 {
        for second in [0x8f, 0x9f, 0xaf, 0xbf_u8] {
            for last in [0xbe, 0xbf] {
                let sequence = vec![start, second, 0xbf, last];
                if std::str::from_utf8(&sequence).is_ok() {
                    not_characters.push(sequence);
                }
            }
        }
    }
    let specials = (0xfff9..=0xffff).map(encoded).collect();
    vec![single, paired, not_characters, specials]
}
