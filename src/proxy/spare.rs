//! What it takes to send a request once more, if the connection that it went out on turns out to be
//! dead.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;

use super::request_body::RequestBody;

/// A request without a body, written down. Kept for nearly every request and needed for nearly
/// none: a cloned header map costs as much as parsing one, two allocations and a count for each
/// header, and the text of it one.
pub(super) struct Spare {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Text,
}

/// Headers as lines of `name:value`, in one allocation. No name has a colon in it and no value one
/// of the two ends that a line can have.
struct Text(Vec<u8>);

/// What ends a line.
const END: u8 = b'\n';

/// What ends one whose value must not be indexed on the next hop either (RFC 7541 section 6.2.3).
const SENSITIVE_END: u8 = b'\r';

/// Most requests' headers fit.
const USUAL_BYTES: usize = 1024;

impl Spare {
    /// `None` for a request that must not be sent twice: one that is not idempotent (RFC 9110
    /// section 9.2.2), or whose body is gone once it has been sent.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Self> {
        let idempotent = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        if !idempotent || !request.body().is_end_stream() {
            return None;
        }
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: Text::of(request.headers()),
        })
    }

    /// The request again.
    pub(super) fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::default());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.read();
        request
    }
}

impl Text {
    fn of(headers: &HeaderMap) -> Self {
        let mut text = Vec::with_capacity(USUAL_BYTES);
        for (name, value) in headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(b':');
            text.extend_from_slice(value.as_bytes());
            text.push(if value.is_sensitive() { SENSITIVE_END } else { END });
        }
        Self(text)
    }

    fn read(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in self.0.split_inclusive(|byte| matches!(*byte, END | SENSITIVE_END)) {
            let (end, line) = line.split_last().expect("a line has an end");
            let colon = line.iter().position(|byte| *byte == b':').expect("written with one");
            let name = HeaderName::from_bytes(&line[..colon]).expect("written as a name");
            let mut value =
                HeaderValue::from_bytes(&line[colon + 1..]).expect("written as a value");
            value.set_sensitive(*end == SENSITIVE_END);
            headers.append(name, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_may_be_sent_twice_is_kept() {
        let spare_of = |method: &str| {
            let request = Request::builder().method(method).body(RequestBody::default());
            Spare::of(&request.expect("a request")).is_some()
        };
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            assert!(spare_of(method), "{method}");
        }
        for method in ["POST", "PATCH", "LOCK"] {
            assert!(!spare_of(method), "{method}");
        }
    }

    #[test]
    fn the_request_is_the_same_again() {
        let mut request = Request::get("http://app.example/a%2Fb?q=%41").version(Version::HTTP_2);
        for value in ["", "a:b", "x\ty", "ü"] {
            request = request.header("X-Repeated", value.as_bytes());
        }
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let request = request.header("authorization", secret).body(RequestBody::default());
        let request = request.expect("a request");
        let again = Spare::of(&request).expect("it may be sent twice").into_request();
        assert_eq!(again.method(), request.method());
        assert_eq!(again.uri(), request.uri());
        assert_eq!(again.version(), request.version());
        assert_eq!(again.headers(), request.headers());
        let sensitive = again.headers().iter().filter(|(_, value)| value.is_sensitive());
        assert_eq!(sensitive.map(|(name, _)| name).collect::<Vec<_>>(), ["authorization"]);
    }

    proptest! {
        #[test]
        fn whatever_headers_there_are_they_come_back(
            lines in vec(("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", vec(any::<u8>(), 0..40)), 0..30),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(name, value);
                }
            }
            prop_assert_eq!(Text::of(&headers).read(), headers);
        }
    }
}
