//! Fetches one document of keys.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, HeaderValue};
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Url};
use tokio::time::timeout;

use ground::metrics::KeyFetchResult;
use ground::outgoing::{self, TlsError};
use ground::tls::Roots;

/// Longest document of keys, in bytes. Documents have one to ten keys, so a longer document holds something
/// else.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// Longest time for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time for the whole of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A document as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub document: Vec<u8>,
    /// Time for which the publisher calls the document fresh (`max-age`), if the publisher says so.
    pub max_age: Option<Duration>,
}

/// Makes a document of whose age its publisher says nothing.
impl From<Vec<u8>> for Fetched {
    fn from(document: Vec<u8>) -> Self {
        Self { document, max_age: None }
    }
}

/// Future of a fetch.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

/// Source of documents by URL. Tests replace the source, so that they control the time.
pub trait Fetch: Send + Sync + 'static {
    fn fetch<'a>(&'a self, url: &'a Url) -> Fetching<'a>;
}

/// Reason why there is no document: a fault of the publisher or of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    Unreachable,
    Timeout,
    /// The answer is 404 or 403: S3, and services built on S3, answer so if there is no such document.
    NotFound,
    Status,
    /// The answer is a redirect, which is not followed: keys come from the configured place only.
    Redirect,
    TooLarge,
    /// The answer is compressed, although the sidecar did not ask for compression.
    Encoded,
    /// The answer is no document of keys.
    Malformed,
}

impl fmt::Display for FetchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unreachable => "there is no connection to it",
            Self::Timeout => "it does not answer in time",
            Self::NotFound => "it answers that there is no such document",
            Self::Status => "it answers with an error",
            Self::Redirect => "it answers with a redirect, which is not followed",
            Self::TooLarge => "its answer is too long for a set of keys",
            Self::Encoded => "its answer is compressed, which the sidecar did not ask for",
            Self::Malformed => "its answer holds no keys that can check a signature",
        })
    }
}

impl FetchError {
    pub(super) fn result(self) -> KeyFetchResult {
        match self {
            Self::Unreachable => KeyFetchResult::Unreachable,
            Self::Timeout => KeyFetchResult::Timeout,
            Self::NotFound => KeyFetchResult::NotFound,
            Self::Status => KeyFetchResult::Status,
            Self::Redirect => KeyFetchResult::Redirect,
            Self::TooLarge => KeyFetchResult::TooLarge,
            Self::Encoded | Self::Malformed => KeyFetchResult::Malformed,
        }
    }
}

/// [`Fetch`] over HTTP.
pub struct HttpFetch {
    http: Client,
}

impl HttpFetch {
    /// Makes a client for `url` and documents below it, on a server for which `roots` vouch.
    ///
    /// # Errors
    ///
    /// If TLS can't be set up.
    pub fn new(url: &Url, roots: &Roots) -> Result<Self, TlsError> {
        Ok(Self { http: outgoing::client(url, roots, CONNECT_TIMEOUT)? })
    }

    async fn get(&self, url: &Url) -> Result<Fetched, FetchError> {
        let json = HeaderValue::from_static("application/json, */*");
        let answer = self.http.get(url.clone()).header(ACCEPT, json).send().await;
        let answer = answer.map_err(|error| transport_error(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Err(FetchError::NotFound),
            status if status.is_redirection() => return Err(FetchError::Redirect),
            _ => return Err(FetchError::Status),
        }
        if answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(FetchError::Encoded);
        }
        let max_age = max_age(answer.headers());
        let body = outgoing::read_capped(answer, MAX_DOCUMENT_BYTES).await;
        let document = body.map_err(|error| transport_error(&error))?;
        Ok(Fetched { document: document.ok_or(FetchError::TooLarge)?, max_age })
    }
}

impl Fetch for HttpFetch {
    fn fetch<'a>(&'a self, url: &'a Url) -> Fetching<'a> {
        Box::pin(async move {
            timeout(FETCH_TIMEOUT, self.get(url)).await.unwrap_or(Err(FetchError::Timeout))
        })
    }
}

/// Reads `max-age` (RFC 9111 section 5.2.2.1). `None` if it is missing or no number.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut directives = lines.flat_map(|line| line.split(',')).map(str::trim);
    let seconds = directives.find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then_some(value)
    })?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

fn transport_error(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() { FetchError::Timeout } else { FetchError::Unreachable }
}
