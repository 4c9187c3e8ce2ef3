//! Content and form of a line: the same fields in the same order as JSON or as text.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{StatusCode, Version};

use super::Format;
use ground::logging::must_be_escaped;
use ground::metrics::{HeaderDelivery, Label as _, Outcome};
use ground::trace::{Hex, TraceId};

/// End of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last byte has been sent.
    Whole,
    ClientLeft,
    AppBrokeOff,
    /// Nothing had moved for `app.stream_idle_timeout`.
    Idle,
}

impl End {
    /// Returns the word for the line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::ClientLeft => "client_left",
            Self::AppBrokeOff => "app_broke_off",
            Self::Idle => "idle",
        }
    }
}

/// Facts about a request. None of them is a secret: the target's path without its query, and no header.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// Time at which the request's head had arrived.
    pub time: SystemTime,
    pub peer: IpAddr,
    pub method: &'a str,
    /// Path of the target, without the query, which may hold anything.
    pub path: &'a str,
    pub version: Version,
    /// Status of the response. `None` if the client left before there was a response.
    pub status: Option<StatusCode>,
    pub outcome: Outcome,
    /// Result of the token's delivery, if the response could have had a token.
    pub token: Option<HeaderDelivery>,
    /// Bytes of the request's body, as it came.
    pub request_bytes: u64,
    /// Bytes of the response's body, as it went out.
    pub response_bytes: u64,
    /// Time to the last byte of the response.
    pub total: Duration,
    /// The sidecar's own share of the time to the response's head.
    pub added: Duration,
    /// The wait for the head of the app's response, if the app was asked.
    pub app: Option<Duration>,
    pub end: End,
    pub trace: Option<TraceId>,
    /// User of the request. `None` leaves the field out, `Some(None)` says that no user is signed in.
    pub user: Option<Option<&'a str>>,
}

impl Line<'_> {
    /// Whether the request went well, so that its line is like others and may be left out by sampling.
    pub(super) fn went_well(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Forwarded | Outcome::Upgraded | Outcome::TokenServed | Outcome::CheckAnswered
        ) && self.status.is_some_and(|status| status.as_u16() < 400)
            && self.end == End::Whole
    }

    /// Appends this line to `out`, with its end.
    pub fn format(&self, format: Format, out: &mut Vec<u8>) {
        let mut fields = Fields { out, is_json: format == Format::Json, first: true };
        fields.time("time", self.time);
        fields.displayed("peer", &self.peer);
        fields.text("method", self.method);
        fields.text("path", self.path);
        fields.word("protocol", Some(protocol(self.version)));
        fields.number("status", self.status.map(|status| status.as_u16().into()));
        fields.word("outcome", Some(self.outcome.as_str()));
        fields.word("token", self.token.map(HeaderDelivery::as_str));
        fields.number("request_bytes", Some(self.request_bytes));
        fields.number("response_bytes", Some(self.response_bytes));
        fields.millis("total_ms", Some(self.total));
        fields.millis("added_ms", Some(self.added));
        fields.millis("app_ms", self.app);
        fields.word("end", Some(self.end.as_str()));
        fields.word("trace_id", self.trace.map(TraceId::hex).as_ref().map(Hex::as_str));
        match self.user {
            Some(Some(user)) => fields.text("user", user),
            Some(None) => fields.word("user", None),
            None => {}
        }
        fields.end();
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// The fields of a line, written one after the other: in one order for both formats.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    is_json: bool,
    first: bool,
}

impl Fields<'_> {
    fn key(&mut self, key: &str) {
        let (open, between, quote) = if self.is_json { ("{", ",", "\"") } else { ("", " ", "") };
        self.put(if self.first { open } else { between });
        self.first = false;
        self.put(quote);
        self.put(key);
        self.put(if self.is_json { "\":" } else { "=" });
    }

    fn end(&mut self) {
        self.put(if self.is_json { "}\n" } else { "\n" });
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn absent(&mut self) {
        self.put(if self.is_json { "null" } else { "-" });
    }

    /// Writes a value that needs no escaping, and in text no quotes.
    fn word(&mut self, key: &str, word: Option<&str>) {
        self.key(key);
        let Some(word) = word else { return self.absent() };
        self.quote();
        self.put(word);
        self.quote();
    }

    fn quote(&mut self) {
        if self.is_json {
            self.out.push(b'"');
        }
    }

    fn displayed(&mut self, key: &str, value: &dyn std::fmt::Display) {
        self.key(key);
        self.quote();
        // Writing to memory does not fail.
        let _ = write!(self.out, "{value}");
        self.quote();
    }

    /// Writes a value of any content: in quotes and escaped, in text as well.
    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.out.push(b'"');
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if text.bytes().all(is_plain) {
            self.put(text);
        } else {
            for char in text.chars() {
                self.escaped(char);
            }
        }
        self.out.push(b'"');
    }

    fn escaped(&mut self, char: char) {
        if must_be_escaped(char) {
            let _ = write!(self.out, "\\u{:04x}", u32::from(char));
        } else {
            if matches!(char, '"' | '\\') {
                self.out.push(b'\\');
            }
            self.put(char.encode_utf8(&mut [0; 4]));
        }
    }

    fn number(&mut self, key: &str, number: Option<u64>) {
        self.key(key);
        match number {
            Some(number) => self.digits(number, 1),
            None => self.absent(),
        }
    }

    /// Writes a time in milliseconds with three decimals.
    fn millis(&mut self, key: &str, duration: Option<Duration>) {
        self.key(key);
        let Some(duration) = duration else { return self.absent() };
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.digits(micros / 1000, 1);
        self.out.push(b'.');
        self.digits(micros % 1000, 3);
    }

    /// Writes a time in RFC 3339 to the millisecond, in UTC.
    fn time(&mut self, key: &str, time: SystemTime) {
        self.key(key);
        self.quote();
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let parts = [
            (year, 4, '-'),
            (month, 2, '-'),
            (day, 2, 'T'),
            (second / 3600, 2, ':'),
            (second / 60 % 60, 2, ':'),
            (second % 60, 2, '.'),
            (since.subsec_millis().into(), 3, 'Z'),
        ];
        for (number, width, after) in parts {
            self.digits(number, width);
            self.out.push(after as u8);
        }
        self.quote();
    }

    /// Writes a number in decimal, with zeros in front up to `width`.
    fn digits(&mut self, mut number: u64, width: usize) {
        // The largest number has 20 digits.
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while number > 0 || digits.len() - first < width {
            first -= 1;
            digits[first] = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
        self.out.extend_from_slice(&digits[first..]);
    }
}

/// Returns year, month and day of a day since 1970, in the Gregorian calendar. Years are counted from March,
/// so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    // Count from the first of March of the year 0; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
