//! Errors as a page, for a person whose browser loads one: plain HTML without scripts. Scripts and programs get JSON.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::inject::own_answer;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Kinds of request by which a browser loads a page that a person will see (Fetch standard, section 2.2.5).
const LOADS: [&[u8]; 3] = [b"document", b"iframe", b"frame"];

/// The page has one style sheet, in itself, and loads no other file.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
);

/// Whether a browser asks for a page: it prefers HTML to JSON (RFC 9110, section 12.5.1), and says, where it says
/// so at all, that it will show the answer to a person.
pub(crate) fn is_page_load(headers: &HeaderMap) -> bool {
    let shown = |dest: &HeaderValue| LOADS.contains(&dest.as_bytes());
    headers.get(SEC_FETCH_DEST).is_none_or(shown) && prefers_html(headers)
}

/// Whether `Accept` gives HTML a higher weight than JSON. Without the header, and where the weights are equal, the
/// answer is JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes).peekable();
    if lines.peek().is_none() {
        return false;
    }
    // The most specific range that fits decides, not the heaviest.
    let (mut html, mut json) = ((0, 0), (0, 0));
    for range in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        let is = |name: &[u8]| media.eq_ignore_ascii_case(name);
        for (found, exact, family) in [
            (&mut html, &b"text/html"[..], &b"text/*"[..]),
            (&mut json, b"application/json", b"application/*"),
        ] {
            let precision = match media {
                _ if is(exact) => 3,
                _ if is(family) => 2,
                b"*/*" => 1,
                _ => continue,
            };
            *found = (*found).max((precision, weight));
        }
    }
    html.1 > json.1
}

/// Reads a weight such as `q=0.8`, in thousandths. `None` if the parameter is another, and for a text that is no
/// weight.
fn weight(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, rest) = value.split_first()?;
    let digits = rest.strip_prefix(b".").unwrap_or(rest);
    if !matches!(whole, b'0' | b'1') || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths = digits.iter().chain(b"000").take(3);
    let fraction = thousandths.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((u16::from(whole - b'0') * 1000 + fraction).min(1000))
}

/// Makes the page for an error with this status, code and text.
pub(super) fn answer(status: StatusCode, code: &str, text: &str) -> Response<Bytes> {
    let (title, advice) = match status {
        StatusCode::UNAUTHORIZED => {
            ("You are not signed in", "Sign in, then load this page again.")
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            ("This app does not answer", "Wait a moment, then load this page again.")
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            ("This page is not available right now", "Wait a moment, then load this page again.")
        }
        _ => (
            "This page can't be shown",
            "Go back and try again. If that does not help, tell the operator of this app.",
        ),
    };
    let (status_line, text) = (status.as_u16(), escape(text));
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; \
         padding: 0 1rem }}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{advice}</p>\n\
         <p>For the operator: HTTP {status_line}, <code>{code}</code>. {text}</p>\n</body>\n</html>\n"
    );
    let mut response = own_answer(status, page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// Writes a text so that HTML takes none of it for markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(lines: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        is_page_load(&headers)
    }

    #[test]
    fn page_is_for_browsers_that_load_one() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, expected) in [
            (browser, true),
            ("text/html", true),
            ("TEXT/HTML", true),
            ("text/*", true),
            ("text/html;level=1", true),
            ("text/html ; q=0.5, */* ; q=0.4", true),
            ("text/html, application/json;q=0.9", true),
            ("text/html;q=0.5, application/json;q=0.5", false),
            ("text/html, application/json", false),
            ("application/json, text/html;q=0.1", false),
            ("text/html;q=0.3, application/*;q=0.4", false),
            ("text/html;q=0", false),
            ("text/html;q=0.000, */*", false),
            ("*/*", false),
            ("application/json", false),
            ("image/avif,image/webp,*/*", false),
            ("", false),
            (",,;q=1,", false),
        ] {
            assert_eq!(loads(&[("accept", accept)]), expected, "{accept}");
        }
        assert!(!loads(&[]));
        assert!(loads(&[("accept", "application/xml;q=0.9"), ("accept", "text/html")]));
        for (dest, expected) in
            [("document", true), ("iframe", true), ("empty", false), ("image", false), ("", false)]
        {
            assert_eq!(loads(&[("accept", browser), ("sec-fetch-dest", dest)]), expected, "{dest}");
        }
    }

    #[test]
    fn weights_are_read_as_the_standard_writes_them() {
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("Q=0.8", Some(800)),
            ("q=0.05", Some(50)),
            ("q=0.", Some(0)),
            ("q=1.000", Some(1000)),
            ("q=0", Some(0)),
            ("q=2", None),
            ("q=0.1234", None),
            ("q=", None),
            ("q=.5", None),
            ("q=0,5", None),
            ("level=1", None),
            ("q", None),
            ("", None),
        ] {
            assert_eq!(weight(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn page_shows_no_text_as_markup() {
        let page = answer(StatusCode::BAD_REQUEST, "bad_request", "<script>\"a\" & 'b'</script>");
        let text = String::from_utf8(page.body().to_vec()).expect("text");
        assert!(text.contains("&lt;script&gt;&quot;a&quot; &amp; 'b'&lt;/script&gt;"), "{text}");
        assert!(!text.contains("<script"), "{text}");
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(page.headers()["cache-control"], "no-store");
    }
}
