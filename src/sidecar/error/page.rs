//! Errors as a page, for a person whose browser loads one: plain HTML without scripts. Scripts and programs get JSON.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::inject::own_answer;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Kinds of request by which a browser loads a page that a person will see (Fetch standard, section 2.2.5).
const LOADS: [&[u8]; 3] = [b"document", b"iframe", b"frame"];

/// The page has one style sheet, in itself, and loads no other file.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
);

/// Longest `Accept` that is read, in bytes, of all its lines. Browsers send up to 200; a longer one gets JSON, because
/// it is read with each request.
const MAX_ACCEPT: usize = 1024;

/// Whether a browser asks for a page: it prefers HTML to JSON (RFC 9110, section 12.5.1), and says, where it says
/// so at all, that it will show the answer to a person.
pub(crate) fn is_page_load<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let loads = matches!(*request.method(), Method::GET | Method::HEAD | Method::POST);
    let shown = |dest: &HeaderValue| LOADS.contains(&dest.as_bytes());
    let by_script = headers.contains_key(UPGRADE) || headers.contains_key(X_REQUESTED_WITH);
    loads && headers.get(SEC_FETCH_DEST).is_none_or(shown) && !by_script && prefers_html(headers)
}

/// Whether `Accept` gives HTML a higher weight than JSON. Without the header, and where the weights are equal, the
/// answer is JSON.
fn prefers_html(headers: &HeaderMap) -> bool {
    let lines = || headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    if lines().map(<[u8]>::len).sum::<usize>() > MAX_ACCEPT {
        return false;
    }
    // The most specific range that fits decides, not the heaviest.
    let (mut html, mut json) = ((0, 0), (0, 0));
    for range in lines().flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(weight).unwrap_or(1000);
        let (for_html, for_json) = match &*media {
            b"text/html" => (3, 0),
            b"text/*" => (2, 0),
            b"application/*" => (0, 2),
            b"*/*" => (1, 1),
            // Such as `application/problem+json`.
            media if media.ends_with(b"json") => (0, 3),
            _ => (0, 0),
        };
        html = html.max((for_html, weight * u16::from(for_html > 0)));
        json = json.max((for_json, weight * u16::from(for_json > 0)));
    }
    html.1 > json.1
}

/// Reads a weight such as `q=0.8`, in thousandths. `None` if the parameter is another; a weight that can't be read
/// is 0.
fn weight(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at(parameter.iter().position(|byte| *byte == b'=')?);
    let is_weight = name.trim_ascii().eq_ignore_ascii_case(b"q");
    is_weight.then(|| thousandths(&value[1..]).unwrap_or(0))
}

/// Reads a number from 0 to 1 with at most three digits behind its point (RFC 9110, section 12.4.2).
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, rest) = value.split_first()?;
    let digits = rest.strip_prefix(b".").unwrap_or(rest);
    if !matches!(whole, b'0' | b'1') || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let fraction = digits.iter().chain(b"000").take(3);
    let fraction = fraction.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((u16::from(whole - b'0') * 1000 + fraction).min(1000))
}

/// Makes the page for an error with this status, code and text.
pub(super) fn answer(status: StatusCode, code: &str, text: &str) -> Response<Bytes> {
    let (title, advice) = match status {
        StatusCode::UNAUTHORIZED => {
            ("You are not signed in", "Sign in, then load this page again.")
        }
        _ if code.starts_with("app_") => {
            ("This app does not answer", "Wait a moment, then load this page again.")
        }
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => {
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

    fn request(lines: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in lines {
            let name = HeaderName::from_static(name);
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request
    }

    fn loads(lines: &[(&'static str, &'static str)]) -> bool {
        is_page_load(&request(lines))
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
            ("application/problem+json, text/html;q=0.1", false),
            ("text/html;q=0.1, application/vnd.api+json", false),
            ("text/html;q=\"0\"", false),
            ("text/html; q = 0", false),
            ("text/html;q=-1", false),
            ("", false),
            (",,;q=1,", false),
        ] {
            assert_eq!(loads(&[("accept", accept)]), expected, "{accept}");
        }
        assert!(!loads(&[]));
        for by_script in [("x-requested-with", "XMLHttpRequest"), ("upgrade", "websocket")] {
            assert!(!loads(&[("accept", browser), by_script]), "{by_script:?}");
        }
        for (method, expected) in [
            (Method::HEAD, true),
            (Method::POST, true),
            (Method::OPTIONS, false),
            (Method::PUT, false),
        ] {
            let mut request = request(&[("accept", browser)]);
            *request.method_mut() = method.clone();
            assert_eq!(is_page_load(&request), expected, "{method}");
        }
        let mut long = request(&[("accept", "text/html"), ("accept", "text/html")]);
        assert!(is_page_load(&long));
        let commas = HeaderValue::from_str(&",".repeat(MAX_ACCEPT)).expect("a value");
        long.headers_mut().append(ACCEPT, commas);
        assert!(!is_page_load(&long));
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
            (" q = 1", Some(0)),
            ("q=2", Some(0)),
            ("q=0.1234", Some(0)),
            ("q=", Some(0)),
            ("q=.5", Some(0)),
            ("q=0,5", Some(0)),
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
