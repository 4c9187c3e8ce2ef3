//! The demo's panel in pages of the reader's app: which documents get its script, and how.
//!
//! The script stands first in the head and runs before the page's own scripts, so that it sees their first
//! requests too. Only documents change; all else of the app passes byte for byte.

mod insertion;
mod policy;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use self::insertion::Inserting;
pub use self::policy::Admission;
use hop::proxy::Body;

/// Body of an answer of the front: as it came, or with the panel's script in it.
pub type FrontBody = Inserting<Body>;

/// Path of the panel's script.
pub const SCRIPT: &str = "/__velt-demo/panel.js";

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Result of a look at a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placed {
    /// The script is in the document.
    In(Admission),
    /// The document is compressed, although the front asked for it as it is.
    Compressed,
    /// Not a document with a body: nothing to do.
    NoDocument,
}

/// Whether a browser will show the response to this request as a page in a tab or a window.
pub fn is_navigation<B>(request: &Request<B>) -> bool {
    let to = request.headers().get(SEC_FETCH_DEST);
    request.method() != Method::HEAD && to.is_some_and(|to| to == "document")
}

/// Asks the app for a whole document that is not compressed. A 304 would bring the app's own policy to the
/// browser's copy of a document whose script needs the demo's.
pub fn ask_for_whole(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(IF_NONE_MATCH);
    headers.remove(IF_MODIFIED_SINCE);
}

/// Passes a response on as it is.
pub fn unchanged(response: Response<Body>) -> Response<FrontBody> {
    response.map(Inserting::nothing)
}

/// Puts the panel's script into the response to a navigation.
pub fn place(mut response: Response<Body>) -> (Placed, Response<FrontBody>) {
    if !has_document(&response) {
        return (Placed::NoDocument, unchanged(response));
    }
    let coding = response.headers().get(CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return (Placed::Compressed, unchanged(response));
    }
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    weaken_tag(headers);
    let (admission, nonce) = policy::admit(headers, fresh_nonce);
    let nonce = nonce.map(|nonce| format!(" nonce=\"{nonce}\"")).unwrap_or_default();
    let policy = admission.as_str();
    let tag = format!("<script src=\"{SCRIPT}\"{nonce} data-policy=\"{policy}\"></script>");
    let response = response.map(|body| Inserting::tag(body, Bytes::from(tag)));
    (Placed::In(admission), response)
}

/// Whether the response has a whole HTML document of the app's, in an encoding that begins like ASCII.
fn has_document(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let has_body = !matches!(
        response.status(),
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
            | StatusCode::SWITCHING_PROTOCOLS
            // Pages of the sidecar about an app that does not answer.
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    ) && headers.get(CONTENT_LENGTH).is_none_or(|length| length != "0");
    let lower = |name| {
        let value = headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(value).to_ascii_lowercase()
    };
    let kind = lower(CONTENT_TYPE);
    let is_html = kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html");
    let is_wide = kind.contains("utf-16") || kind.contains("utf-32");
    has_body && is_html && !is_wide && !lower(CONTENT_DISPOSITION).starts_with("attachment")
}

/// Says that the document equals the app's in meaning and not in bytes (RFC 9110 section 8.8.1).
fn weaken_tag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return;
    };
    let weak = [b"W/", tag.as_bytes()].concat();
    headers.insert(ETAG, HeaderValue::from_bytes(&weak).expect("made of a header value"));
}

fn fresh_nonce() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system has random bytes");
    STANDARD.encode(bytes)
}
