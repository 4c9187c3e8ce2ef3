//! Kinds of values: how to write each, and what to say about a text that is not valid.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::schema::{Form, LARGEST, SIZE, TIME};

/// A value that can be written in the file or in a variable.
pub trait Setting: Sized {
    /// Description of valid values, for a complaint.
    const EXPECTED: &'static str;
    /// Whether TOML has such a value bare rather than in quotes.
    const BARE: bool = false;
    /// Form of valid values in the JSON schema. Refuses no value that [`Self::parse`] takes.
    fn form() -> Form;
    /// Reads `text`. Returns `None` if `text` is not such a value.
    fn parse(text: &str) -> Option<Self>;
    /// Returns what to write in place of `text`, which is not such a value, if that can be told.
    fn correction(_text: &str) -> Option<String> {
        None
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a string that is not empty";
    fn form() -> Form {
        Form::Text(r"\S")
    }
    fn parse(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| text.to_owned())
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "\"/path/to/file\"";
    fn form() -> Form {
        Form::Text(".")
    }
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    const BARE: bool = true;
    fn form() -> Form {
        Form::Flag
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A count that is not zero.
impl Setting for u64 {
    const EXPECTED: &'static str = "a whole number from 1 on";
    const BARE: bool = true;
    fn form() -> Form {
        Form::Whole { least: 1, most: LARGEST }
    }
    fn parse(text: &str) -> Option<Self> {
        let number: Self = text.parse().ok().filter(|number| (1..=1 << 40).contains(number))?;
        // Accept only the spelling that TOML accepts too: a variable could hold "007".
        (number.to_string() == text).then_some(number)
    }
}

/// A count that is not zero.
impl Setting for usize {
    const EXPECTED: &'static str = u64::EXPECTED;
    const BARE: bool = true;
    fn form() -> Form {
        u64::form()
    }
    fn parse(text: &str) -> Option<Self> {
        Self::try_from(u64::parse(text)?).ok()
    }
}

/// A number that may be zero.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub usize);

impl Setting for Count {
    const EXPECTED: &'static str = "a whole number, such as 256, or 0 for none";
    const BARE: bool = true;
    fn form() -> Form {
        Form::Whole { least: 0, most: LARGEST }
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "0" => Some(Self(0)),
            _ => usize::parse(text).map(Self),
        }
    }
}

/// A share of a whole, from 0.0 to 1.0.
#[derive(Clone, Copy, Debug)]
pub struct Share(pub f64);

impl Setting for Share {
    const EXPECTED: &'static str = "a number from 0.0 to 1.0, such as 0.05";
    const BARE: bool = true;
    fn form() -> Form {
        Form::Share
    }
    fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let share = text.parse().ok().filter(|share| plain && (0.0..=1.0).contains(share))?;
        Some(Self(share))
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an IP address and port, such as \"0.0.0.0:8080\"";
    fn form() -> Form {
        Form::Text(r"^[0-9A-Fa-f.:%\[\]]+:[0-9]+$")
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for HeaderName {
    const EXPECTED: &'static str = "the name of a header, such as \"X-Forwarded-User\"";
    fn form() -> Form {
        Form::Text(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes()).ok()
    }
}

impl Setting for IpNet {
    const EXPECTED: &'static str = "an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\"";
    fn form() -> Form {
        Form::Text(
            "^([0-9]{1,3}\\.){3}[0-9]{1,3}(/0*([0-9]|[12][0-9]|3[0-2]))?$\
              |^[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*(/[0-9]{1,3})?$",
        )
    }
    fn parse(text: &str) -> Option<Self> {
        let range = text
            .parse()
            .ok()
            .or_else(|| Some(Self::from(text.parse::<std::net::IpAddr>().ok()?)))?;
        Some(match range {
            // ::ffff:10.0.0.0/104 is 10.0.0.0/8, and peers are compared in the IPv4 form.
            Self::V6(mapped) if mapped.prefix_len() >= 96 => match mapped.addr().to_ipv4_mapped() {
                Some(address) => {
                    let length = mapped.prefix_len() - 96;
                    Self::V4(ipnet::Ipv4Net::new(address, length).expect("at most 32"))
                }
                None => range,
            },
            _ => range,
        })
    }
}

/// A time that may be zero.
impl Setting for Duration {
    const EXPECTED: &'static str = "a time of at most a day, such as \"250ms\", \"5s\" or \"2m\"";
    fn form() -> Form {
        Form::Text(TIME)
    }
    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|character: char| !character.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let millis = match unit {
            "ms" => number,
            "s" => number.checked_mul(1000)?,
            "m" => number.checked_mul(60_000)?,
            "h" => number.checked_mul(3_600_000)?,
            _ => return None,
        };
        (millis <= 86_400_000).then(|| Self::from_millis(millis))
    }
}

/// A time that is not zero.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Duration);

impl Setting for Span {
    const EXPECTED: &'static str = "a time from \"1ms\" to \"24h\", such as \"5s\" or \"2m\"";
    fn form() -> Form {
        Form::Span
    }
    fn parse(text: &str) -> Option<Self> {
        <Duration as Setting>::parse(text).filter(|time| !time.is_zero()).map(Self)
    }
}

/// A time that is not zero, or none at all.
#[derive(Clone, Copy, Debug)]
pub struct Limit(pub Option<Duration>);

impl Setting for Limit {
    const EXPECTED: &'static str = "\"off\", or a time from \"1ms\" to \"24h\", such as \"5m\"";
    fn form() -> Form {
        Form::Limit
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self(None)),
            _ => Span::parse(text).map(|span| Self(Some(span.0))),
        }
    }
}

/// A number of bytes that is not zero.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Setting for Bytes {
    const EXPECTED: &'static str = "a size, such as \"512KiB\" or \"64MiB\"";
    fn form() -> Form {
        Form::Text(SIZE)
    }
    fn parse(text: &str) -> Option<Self> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1_u64 << 30)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| text.ends_with(unit))?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0).map(Self)
    }
}
