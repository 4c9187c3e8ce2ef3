//! Places in which a request may hold an assertion: a header, or cookies.

use std::borrow::Cow;
use std::fmt;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::InvalidAssertion;
use crate::Refusal;
use ground::metrics::RefusalKind;

/// Most pieces into which a cookie is cut. A browser keeps 4 KiB in a cookie, and servers take heads of 8 to
/// 64 KiB.
const MAX_CHUNKS: usize = 16;

/// Place of an assertion in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `Authorization` is read as `Bearer`, any other header as the bare token.
    Header(HeaderName),
    Cookie(CookieName),
}

/// Name of a cookie, in which one `*` may stand for one or more characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName {
    before: Box<str>,
    /// Text behind the `*`, if there is one.
    after: Option<Box<str>>,
}

/// Places of an assertion, in the order in which they are tried. At most one of them is a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<Place>);

/// Value of a cookie, whole or put together from its pieces, and the name under which it came, without the
/// number of a piece. No `Debug`: the holder of a session's cookie has the session.
pub(super) struct Cookie<'a> {
    pub(super) name: &'a str,
    pub(super) value: Cow<'a, [u8]>,
}

impl CookieName {
    /// Reads a name (RFC 6265 section 4.1.1) with at most one `*`. `None` if `text` is no such name.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?={}"#.contains(&byte);
        let (before, after) = match text.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let is_name = !before.is_empty()
            && text.bytes().all(legal)
            && !after.is_some_and(|after| after.contains('*'));
        is_name.then(|| Self { before: before.into(), after: after.map(Box::from) })
    }

    /// Whether browsers guard this name (`__Secure-`, `__Host-`; RFC 6265bis section 4.1.3) and not `other`, which is
    /// the same name without the guard. Libraries use one of the two, by the scheme of the app's address.
    fn is_guarded_form_of(&self, other: &Self) -> bool {
        let bare =
            ["__Secure-", "__Host-"].iter().find_map(|guard| self.before.strip_prefix(guard));
        bare == Some(&*other.before) && self.after == other.after
    }

    fn matches(&self, name: &str) -> bool {
        match &self.after {
            None => *self.before == *name,
            Some(after) => {
                name.len() > self.before.len() + after.len()
                    && name.starts_with(&*self.before)
                    && name.ends_with(&**after)
            }
        }
    }

    /// Finds the one cookie of this name. A cookie that is too long for a browser comes in pieces, `name.0`,
    /// `name.1` and so on, as the libraries of Auth.js and Supabase cut them. Pieces count only where the
    /// whole cookie is not there, and up to the first that is missing.
    ///
    /// Cookies of several names that fit are one assertion that is not valid.
    ///
    /// # Errors
    ///
    /// A cookie, or a piece of one, that came twice. Browsers send the cookie of a parent domain and that of
    /// the host side by side, in an order that servers may not rely on (RFC 6265 section 4.2.2), and pages of
    /// other subdomains may set the former.
    pub(super) fn find<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<Result<Cookie<'a>, InvalidAssertion>>, Refusal> {
        let mut found: Vec<Piece<'a>> = Vec::new();
        for (name, value) in pairs(headers) {
            let piece = match piece_of(name).filter(|(base, _)| self.matches(base)) {
                Some((base, number)) => Piece { name: base, number: Some(number), value },
                None if self.matches(name) => Piece { name, number: None, value },
                None => continue,
            };
            // More than one cookie has pieces. A client may send thousands of names that fit a pattern.
            if found.len() > MAX_CHUNKS {
                return Ok(Some(Err(InvalidAssertion::SeveralCookies)));
            }
            if found.iter().any(|other| (other.name, other.number) == (piece.name, piece.number)) {
                return Err(Refusal::Ambiguous { kind: RefusalKind::CookieTwice, header: COOKIE });
            }
            found.push(piece);
        }
        // Libraries clear a cookie by an empty value.
        found.retain(|piece| !piece.value.is_empty());
        let Some(first) = found.first() else { return Ok(None) };
        if found.iter().any(|piece| piece.name != first.name) {
            return Ok(Some(Err(InvalidAssertion::SeveralCookies)));
        }
        Ok(joined(found).map(Ok))
    }
}

/// A cookie that was found, or a piece of one.
struct Piece<'a> {
    /// Name of the whole cookie.
    name: &'a str,
    /// `None` for the whole cookie.
    number: Option<usize>,
    value: &'a [u8],
}

/// Joins the pieces of one cookie. `None` if the first is missing.
fn joined(mut pieces: Vec<Piece<'_>>) -> Option<Cookie<'_>> {
    pieces.sort_unstable_by_key(|piece| piece.number);
    let first = pieces.first()?;
    let name = first.name;
    match first.number {
        None => Some(Cookie { name, value: Cow::Borrowed(first.value) }),
        Some(0) => {
            let in_order =
                pieces.iter().enumerate().take_while(|(at, piece)| piece.number == Some(*at));
            let value = in_order.flat_map(|(_, piece)| piece.value.iter().copied()).collect();
            Some(Cookie { name, value: Cow::Owned(value) })
        }
        Some(_) => None,
    }
}

/// Splits the name of a piece: `name.7` into `name` and 7. `None` if `name` is no piece's name.
fn piece_of(name: &str) -> Option<(&str, usize)> {
    let (base, number) = name.rsplit_once('.')?;
    let plain = number == "0" || !number.starts_with('0');
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: usize = number.parse().ok().filter(|_| plain && digits)?;
    (number < MAX_CHUNKS).then_some((base, number))
}

/// Returns the names and values of all cookies (RFC 6265 section 5.4). Cookies whose name is no text are left
/// out: no name in a configuration fits them.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let name = std::str::from_utf8(pair[..equals].trim_ascii()).ok()?;
        Some((name, unquoted(pair[equals + 1..].trim_ascii())))
    })
}

/// Takes off the quotes that may stand around a value (RFC 6265 section 4.1.1).
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

impl Places {
    /// Makes a list of places. `None` if it is empty or has more than one header.
    pub fn new(places: Vec<Place>) -> Option<Self> {
        let headers = places.iter().filter(|place| matches!(place, Place::Header(_))).count();
        (!places.is_empty() && headers <= 1).then_some(Self(places))
    }

    /// Returns the places in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Place> {
        self.0.iter()
    }

    /// Whether a cookie that was found makes `place` count for nothing: the same name with a guard. Pages of other
    /// subdomains can set the name without the guard.
    pub(super) fn is_superseded(place: &Place, found: &[&CookieName]) -> bool {
        let Place::Cookie(name) = place else { return false };
        found.iter().any(|found| found.is_guarded_form_of(name))
    }

    /// Returns the header among the places.
    pub fn header(&self) -> Option<&HeaderName> {
        self.0.iter().find_map(|place| match place {
            Place::Header(header) => Some(header),
            Place::Cookie(_) => None,
        })
    }

    /// Whether one of the places is a cookie.
    pub fn have_cookie(&self) -> bool {
        self.0.iter().any(|place| matches!(place, Place::Cookie(_)))
    }

    /// Whether a request has something in one of the places, an assertion or not.
    pub fn are_in(&self, headers: &HeaderMap) -> bool {
        self.0.iter().any(|place| match place {
            Place::Header(header) => headers.contains_key(header),
            Place::Cookie(name) => !matches!(name.find(headers), Ok(None)),
        })
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            None => formatter.write_str(&self.before),
            Some(after) => write!(formatter, "{}*{after}", self.before),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(header) => header.fmt(formatter),
            Self::Cookie(name) => write!(formatter, "the cookie {name}"),
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, place) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { " or " };
            write!(formatter, "{between}{place}")?;
        }
        Ok(())
    }
}

/// Returns the token in a header's value; `None` if the value is no assertion at all.
pub(super) fn bearer<'a>(header: &HeaderName, value: &'a [u8]) -> Option<&'a [u8]> {
    if header != AUTHORIZATION {
        return Some(value);
    }
    // RFC 9110 section 11.1: the scheme is in any case, one or more spaces follow.
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests;
