//! Length of an app's answer: the headers that reach the client must state it in one way only (RFC 9112
//! section 6.3).
//!
//! hyper reads the body of an answer correctly, in any order of its headers, and hands the headers on as
//! they came. With a `Content-Length` that the body does not have, the client would get
//! the body cut off, or wait for the rest.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::UpstreamError;
use super::arriving::Arriving;
use super::headers::items;
use ground::names::Names;

/// Leaves a `Content-Length` in an answer's headers only if it is the length of the body. `names` are the
/// names of the headers. Must run before the hop-by-hop headers are removed.
///
/// # Errors
///
/// [`UpstreamError::Framing`] if the end of the body can't be known.
pub(super) fn settle(response: &mut Response<Arriving>, names: Names) -> Result<(), UpstreamError> {
    let is_coded = names.may_have(&TRANSFER_ENCODING);
    if !is_coded && !names.may_have(&CONTENT_LENGTH) {
        return Ok(());
    }
    let has_body = !response.body().is_end_stream();
    let status = response.status();
    // No Content-Length in 1xx and 204: RFC 9110 section 8.6.
    let must_have_none = status == StatusCode::NO_CONTENT || status.is_informational();
    let headers = response.headers_mut();
    match if is_coded { coding(headers) } else { Coding::None } {
        Coding::Unknown if has_body => return Err(UpstreamError::Framing),
        Coding::Chunked | Coding::Unknown => drop(headers.remove(CONTENT_LENGTH)),
        Coding::None if must_have_none => drop(headers.remove(CONTENT_LENGTH)),
        Coding::None => match length(headers) {
            Length::Plain => {}
            Length::Repeated(length) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            Length::Unreadable if has_body => return Err(UpstreamError::Framing),
            Length::Unreadable => drop(headers.remove(CONTENT_LENGTH)),
        },
    }
    Ok(())
}

/// Whether bytes that are no answer may follow an answer with this status and these headers, so that its
/// connection must not be used again. Servers that put `Transfer-Encoding` or a length on an answer without
/// a body send the last chunk or the body too.
pub(super) fn may_be_followed(status: StatusCode, headers: &HeaderMap, names: Names) -> bool {
    let is_coded = || names.may_have(&TRANSFER_ENCODING) && headers.contains_key(TRANSFER_ENCODING);
    match status {
        StatusCode::NOT_MODIFIED => is_coded(),
        StatusCode::NO_CONTENT => {
            is_coded() || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
        }
        _ => false,
    }
}

/// Coding of a body, as `Transfer-Encoding` states it.
#[derive(Debug, PartialEq, Eq)]
enum Coding {
    /// No coding. RFC 2616 section 3.6 had the word `identity` for this.
    None,
    /// `chunked`. Apps that say `chunked` twice have coded the body once.
    Chunked,
    /// Another coding, which would reach the client undecoded, or a list that does not end with
    /// `chunked`, which hyper would not decode.
    Unknown,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut coding = Coding::None;
    for word in items(headers, &TRANSFER_ENCODING) {
        coding = match coding {
            Coding::None if word.eq_ignore_ascii_case(b"identity") => Coding::None,
            Coding::None | Coding::Chunked if word.eq_ignore_ascii_case(b"chunked") => {
                Coding::Chunked
            }
            _ => return Coding::Unknown,
        };
    }
    coding
}

/// Length of a body, as `Content-Length` states it.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    /// One number in one line, or no such header.
    Plain,
    /// One number more than once, in several lines or in a list.
    Repeated(u64),
    /// Several numbers, or no number.
    Unreadable,
}

fn length(headers: &HeaderMap) -> Length {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Length::Plain };
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if lines.next().is_none() && is_number(first.as_bytes()) {
        return Length::Plain;
    }
    let mut numbers = items(headers, &CONTENT_LENGTH).map(|word| {
        let digits = Some(word).filter(|word| is_number(word));
        std::str::from_utf8(digits?).ok()?.parse::<u64>().ok()
    });
    match numbers.next().flatten() {
        Some(length) if numbers.all(|other| other == Some(length)) => Length::Repeated(length),
        _ => Length::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, lines: &[&'static str]) -> HeaderMap {
        let name = http::HeaderName::from_static(name);
        lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn only_chunked_is_decoded() {
        for (lines, expected) in [
            (&[] as &[_], Coding::None),
            (&["chunked"], Coding::Chunked),
            (&["Chunked"], Coding::Chunked),
            (&["chunked", "chunked"], Coding::Chunked),
            (&["chunked,\tchunked "], Coding::Chunked),
            (&["identity"], Coding::None),
            (&["identity, chunked"], Coding::Chunked),
            (&["gzip, chunked"], Coding::Unknown),
            (&["gzip", "chunked"], Coding::Unknown),
            (&["chunked", "gzip"], Coding::Unknown),
            (&["chunked, identity"], Coding::Unknown),
            (&["chunked,"], Coding::Unknown),
            (&["chunked;q=1"], Coding::Unknown),
            (&["xchunked"], Coding::Unknown),
            (&["gzip"], Coding::Unknown),
            (&[""], Coding::Unknown),
        ] {
            assert_eq!(coding(&headers("transfer-encoding", lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn equal_lengths_count_as_one_and_unequal_are_unreadable() {
        for (lines, expected) in [
            (&[] as &[_], Length::Plain),
            (&["5"], Length::Plain),
            (&["5", "5"], Length::Repeated(5)),
            (&["5, 5"], Length::Repeated(5)),
            (&["5,5", "05"], Length::Repeated(5)),
            (&["5", "6"], Length::Unreadable),
            (&["5, 6"], Length::Unreadable),
            (&["5,"], Length::Unreadable),
            (&["+5"], Length::Unreadable),
            (&["-5"], Length::Unreadable),
            (&["5 5"], Length::Unreadable),
            (&[""], Length::Unreadable),
            (&["99999999999999999999, 99999999999999999999"], Length::Unreadable),
        ] {
            assert_eq!(length(&headers("content-length", lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn bodiless_answer_may_be_followed_by_the_body_it_announces() {
        let chunked = headers("transfer-encoding", &["chunked"]);
        let long = headers("content-length", &["5"]);
        let none = headers("content-length", &["0"]);
        for (status, headers, expected) in [
            (204, &chunked, true),
            (204, &long, true),
            (204, &none, false),
            (304, &chunked, true),
            (304, &long, false),
            (200, &chunked, false),
        ] {
            let (status, names) =
                (StatusCode::from_u16(status).expect("a status"), Names::of(headers));
            assert_eq!(may_be_followed(status, headers, names), expected, "{status} {headers:?}");
        }
    }
}
