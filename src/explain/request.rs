//! The request to explain.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use serde::{Deserialize, Serialize};

use super::Unclear;
use super::curl::{self, split_header};
use crate::identity::Peer;
use crate::sidecar::explain::Question;
use crate::tls::CertificateNames;

/// A request to explain, also in the form in which it is sent to a running sidecar's admin port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Method. Empty stands for GET, or for POST if there is a body.
    pub method: String,
    /// A path, or an http or https URL, which brings the `Host` header.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Address of the peer that sends the request to the sidecar: the login proxy, as a rule. Loopback by
    /// default.
    pub peer: Option<IpAddr>,
    /// Names in the certificate that the peer shows. Empty if the peer shows no certificate.
    pub peer_names: Vec<String>,
    pub http2: bool,
    /// Response of the app, if it is known.
    pub response: Option<AppResponse>,
}

/// Response of the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Default for AppResponse {
    fn default() -> Self {
        Self { status: 200, headers: Vec::new() }
    }
}

/// The arguments of the command, as they were given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Headers, each as `Name: value`.
    pub headers: Vec<String>,
    pub peer: Option<IpAddr>,
    pub peer_names: Vec<String>,
    pub http2: bool,
    pub data: Option<String>,
    /// Headers, each as `Name: value`.
    pub response_headers: Vec<String>,
    pub response_status: Option<u16>,
    /// Words of the request line: `[METHOD] TARGET`.
    pub line: Vec<String>,
    /// The words of a curl command.
    pub curl_words: Vec<String>,
    /// A whole curl command.
    pub curl_line: Option<String>,
}

/// Headers that belong to one connection of HTTP/1.1 (RFC 9113 section 8.2.2).
const NOT_IN_HTTP2: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, UPGRADE];

impl Asked {
    /// Reads a request from the command line. Returns with it notes on the parts of a curl command that were
    /// not understood.
    ///
    /// # Errors
    ///
    /// If the command line names no request, or more than one, or is not understood.
    pub fn from_flags(flags: Flags) -> Result<(Self, Vec<String>), Unclear> {
        let (mut asked, notes) = match (&flags.curl_line, flags.curl_words.is_empty()) {
            (Some(_), false) => {
                return Err(Unclear::new("two curl commands were given", "give one of them"));
            }
            (Some(line), true) => curl::parse(&curl::words(line)?)?,
            (None, false) => curl::parse(&flags.curl_words)?,
            (None, true) => (Self::default(), Vec::new()),
        };
        match (&flags.line[..], asked.target.is_empty()) {
            ([target], true) => asked.target.clone_from(target),
            ([method, target], true) => {
                asked.method.clone_from(method);
                asked.target.clone_from(target);
            }
            ([], false) => {}
            ([], true) => {
                return Err(Unclear::new(
                    "no request was given",
                    "write: velt-sidecar explain GET /api/me",
                ));
            }
            (_, false) => {
                return Err(Unclear::new(
                    "two requests were given, one of them by curl",
                    "give one of them",
                ));
            }
            (_, true) => return Err(Unclear::new("too many words", "write: [METHOD] PATH")),
        }
        for header in &flags.headers {
            asked.headers.push(split_header(header)?);
        }
        asked.body = flags.data.unwrap_or(asked.body);
        asked.peer = flags.peer;
        asked.peer_names = flags.peer_names;
        asked.http2 |= flags.http2;
        if flags.response_status.is_some() || !flags.response_headers.is_empty() {
            let headers = flags.response_headers.iter().map(|header| split_header(header));
            asked.response = Some(AppResponse {
                status: flags.response_status.unwrap_or(200),
                headers: headers.collect::<Result<_, _>>()?,
            });
        }
        Ok((asked, notes))
    }

    /// Returns method, target and peer in a line.
    pub(super) fn head(&self) -> String {
        let version = if self.http2 { " over HTTP/2" } else { "" };
        format!("{} {}{version} from {}", self.method(), self.target, self.peer())
    }

    /// Returns the request as the sidecar would see it.
    ///
    /// # Errors
    ///
    /// If no client could send the request.
    pub(super) fn into_question(self) -> Result<Question, Unclear> {
        let names = CertificateNames::from_names(self.peer_names.iter().map(String::as_str));
        let shown = !self.peer_names.is_empty();
        let names = shown.then(|| Arc::new(names));
        let peer = Peer { address: self.peer(), encrypted: shown, names, port: None };
        let method = Method::from_bytes(self.method().as_bytes())
            .map_err(|_| Unclear::new("the method is not valid", "write GET, POST or the like"))?;
        let mut headers = header_map(&self.headers, self.http2)?;
        let uri = self.uri(&mut headers)?;
        let mut request = Request::new(Bytes::from(self.body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        *request.version_mut() = if self.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let response = self.response.map(AppResponse::into_response).transpose()?;
        Ok(Question { peer, request, response })
    }

    fn method(&self) -> &str {
        match (&*self.method, self.body.is_empty()) {
            ("", true) => "GET",
            ("", false) => "POST",
            (method, _) => method,
        }
    }

    fn peer(&self) -> IpAddr {
        self.peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Returns the target as it stands in a request. The host of a URL becomes a header. Over HTTP/2, the
    /// header `Host` becomes part of the target.
    fn uri(&self, headers: &mut HeaderMap) -> Result<Uri, Unclear> {
        // Clients do not send the fragment.
        let target = self.target.split('#').next().unwrap_or_default();
        let unclear = || {
            let problem =
                format!("{:?} is no path and no URL that a request could have", self.target);
            Unclear::new(problem, "write a path such as /api/me, or a URL, with spaces as %20")
        };
        let uri: Uri = target.parse().map_err(|_| unclear())?;
        if let Some(authority) = uri.authority() {
            if !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(unclear());
            }
            let authority = authority.as_str();
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let host = HeaderValue::from_str(host).map_err(|_| unclear())?;
            headers.entry(HOST).or_insert(host);
        } else if !target.starts_with('/') && target != "*" {
            return Err(unclear());
        }
        // Every client names a host.
        headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if !self.http2 {
            return path.parse().map_err(|_| unclear());
        }
        let host = headers.remove(HOST).expect("put there above");
        let host = host.to_str().map_err(|_| unclear())?;
        format!("http://{host}{path}").parse().map_err(|_| unclear())
    }
}

impl AppResponse {
    fn into_response(self) -> Result<Response<()>, Unclear> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(self.status).map_err(|_| {
            Unclear::new(format!("{} is no status", self.status), "write one from 100 to 999")
        })?;
        *response.headers_mut() = header_map(&self.headers, false)?;
        Ok(response)
    }
}

fn header_map(lines: &[(String, String)], http2: bool) -> Result<HeaderMap, Unclear> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let unclear =
            |problem: &str| Unclear::new(format!("the header {name:?} {problem}"), "leave it out");
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| unclear("has a name that no header may have"))?;
        // HTTP/1.1 cuts off outer spaces (RFC 9112 section 5.1), HTTP/2 leaves them.
        let value = if http2 { value } else { value.trim_matches([' ', '\t']) };
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| unclear("has a value that no header may have"))?;
        let odd_te = name == TE && value != "trailers";
        if http2 && (NOT_IN_HTTP2.contains(&name) || odd_te) {
            return Err(unclear("does not exist in HTTP/2 (RFC 9113 section 8.2.2)"));
        }
        headers.append(name, value);
    }
    Ok(headers)
}
