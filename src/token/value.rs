//! Text of a token, in as little memory as possible: a cache may hold a hundred thousand tokens.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;

/// A JWT as it is sent: visible ASCII that is a valid header value. `Debug` does not print the token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenValue(HeaderValue);

impl TokenValue {
    /// Length of the longest token accepted, in bytes: fits a response head that common proxies pass on (ALB
    /// takes 32 KiB of response headers, HTTP/2 peers announce 16 KiB by default).
    pub const MAX_BYTES: usize = 12 * 1024;

    /// Returns `None` unless `text` is 1 to [`Self::MAX_BYTES`] bytes of visible ASCII that need no escaping
    /// in a JSON string. Every JWT has this form (RFC 7515 section 7.1).
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(legal) {
            return None;
        }
        let mut value = HeaderValue::from_maybe_shared(held(text.as_bytes())).ok()?;
        // Keeps the token out of `Debug` and out of HPACK's dynamic table.
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// Returns the token as a header value, marked sensitive. Cloning shares the bytes.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Returns the token as text, for the body of a token route.
    pub fn expose(&self) -> &str {
        self.0.to_str().expect("visible ASCII by construction")
    }
}

impl fmt::Debug for TokenValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenValue(..)")
    }
}

/// Copies a token into one allocation, together with the count of its owners.
///
/// `Bytes::copy_from_slice` puts the count into 32 bytes of its own once a clone is made, so a look-up reads
/// one more place in memory. With the count in the same allocation, the size of a token is part of a type.
/// The sizes below are the allocator's sizes, each less 16 bytes for the fields that `bytes` puts before the
/// token. The fields of today take one word; earlier versions took two.
///
/// Lengths that are left out would waste more in the next size than a count takes. Above 2 KB the gain is
/// small.
fn held(token: &[u8]) -> Bytes {
    match token.len() {
        225..=240 => with_count::<240>(token),
        257..=304 => with_count::<304>(token),
        321..=368 => with_count::<368>(token),
        385..=432 => with_count::<432>(token),
        449..=496 => with_count::<496>(token),
        513..=624 => with_count::<624>(token),
        641..=752 => with_count::<752>(token),
        769..=880 => with_count::<880>(token),
        897..=1008 => with_count::<1008>(token),
        1025..=1264 => with_count::<1264>(token),
        1281..=1520 => with_count::<1520>(token),
        1537..=1776 => with_count::<1776>(token),
        1793..=2032 => with_count::<2032>(token),
        _ => Bytes::copy_from_slice(token),
    }
}

/// Copies a token of up to `N` bytes into one allocation with the count.
fn with_count<const N: usize>(token: &[u8]) -> Bytes {
    let mut filled = [0; N];
    filled[..token.len()].copy_from_slice(token);
    let mut bytes = Bytes::from_owner(filled);
    bytes.truncate(token.len());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_any_length_comes_back_byte_for_byte() {
        let text: String =
            (b'a'..=b'z').cycle().take(TokenValue::MAX_BYTES).map(char::from).collect();
        // Covers every edge of the table and the longest token.
        for length in (1..=2100).chain([TokenValue::MAX_BYTES - 1, TokenValue::MAX_BYTES]) {
            let token = TokenValue::parse(&text[..length]).expect("a token");
            assert_eq!(token.expose(), &text[..length]);
            assert_eq!(token.header(), &text[..length]);
            assert!(token.header().is_sensitive());
        }
    }

    #[test]
    fn clones_of_a_token_share_its_bytes() {
        for length in [1, 240, 900, TokenValue::MAX_BYTES] {
            let token = TokenValue::parse(&"x".repeat(length)).expect("a token");
            let place = token.expose().as_ptr();
            let (header, clone) = (token.header(), token.clone());
            assert_eq!(header.as_bytes().as_ptr(), place);
            assert_eq!(clone.expose().as_ptr(), place);
            drop((token, header));
            assert_eq!(clone.expose(), "x".repeat(length));
        }
    }

    #[test]
    fn token_value_prints_no_token() {
        let token = TokenValue::parse(&"x".repeat(900)).expect("a token");
        let printed = format!("{token:?} {:?}", token.header());
        assert_eq!(printed, "TokenValue(..) Sensitive");
    }
}
