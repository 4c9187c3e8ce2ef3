//! The request to explain.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use serde::{Deserialize, Serialize};

use super::QuestionError;
use ground::peer::{Peer, is_own};
use ground::tls::CertificateNames;
use sidecar::explain::Question;

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

/// Headers that belong to one connection of HTTP/1.1 (RFC 9113 section 8.2.2).
const NOT_IN_HTTP2: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, UPGRADE];

impl Asked {
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
    pub(super) fn into_question(self) -> Result<Question, QuestionError> {
        let names = CertificateNames::from_names(self.peer_names.iter().map(String::as_str));
        let shown = !self.peer_names.is_empty();
        let names = shown.then(|| Arc::new(names));
        let is_here = is_own(self.peer());
        let peer = Peer { encrypted: shown, names, is_here, ..Peer::at(self.peer()) };
        let method = Method::from_bytes(self.method().as_bytes()).map_err(|_| {
            QuestionError::new("the method is not valid", "write GET, POST or the like")
        })?;
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
    fn uri(&self, headers: &mut HeaderMap) -> Result<Uri, QuestionError> {
        // Clients do not send the fragment.
        let target = self.target.split('#').next().unwrap_or_default();
        let invalid = || {
            let problem =
                format!("{:?} is no path and no URL that a request could have", self.target);
            QuestionError::new(
                problem,
                "write a path such as /api/me, or a URL, with spaces as %20",
            )
        };
        let uri: Uri = target.parse().map_err(|_| invalid())?;
        if let Some(authority) = uri.authority() {
            if !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(invalid());
            }
            let authority = authority.as_str();
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let host = HeaderValue::from_str(host).map_err(|_| invalid())?;
            headers.entry(HOST).or_insert(host);
        } else if !target.starts_with('/') && target != "*" {
            return Err(invalid());
        }
        // Every client names a host.
        headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if !self.http2 {
            return path.parse().map_err(|_| invalid());
        }
        let host = headers.remove(HOST).expect("put there above");
        let host = host.to_str().map_err(|_| invalid())?;
        format!("http://{host}{path}").parse().map_err(|_| invalid())
    }
}

impl AppResponse {
    fn into_response(self) -> Result<Response<()>, QuestionError> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(self.status).map_err(|_| {
            QuestionError::new(format!("{} is no status", self.status), "write one from 100 to 999")
        })?;
        *response.headers_mut() = header_map(&self.headers, false)?;
        Ok(response)
    }
}

fn header_map(lines: &[(String, String)], http2: bool) -> Result<HeaderMap, QuestionError> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let invalid = |problem: &str| {
            QuestionError::new(format!("the header {name:?} {problem}"), "leave it out")
        };
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid("has a name that no header may have"))?;
        // HTTP/1.1 cuts off outer spaces (RFC 9112 section 5.1), HTTP/2 leaves them.
        let value = if http2 { value } else { value.trim_matches([' ', '\t']) };
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| invalid("has a value that no header may have"))?;
        let odd_te = name == TE && value != "trailers";
        if http2 && (NOT_IN_HTTP2.contains(&name) || odd_te) {
            return Err(invalid("does not exist in HTTP/2 (RFC 9113 section 8.2.2)"));
        }
        headers.append(name, value);
    }
    Ok(headers)
}
