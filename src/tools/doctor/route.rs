//! Connects to Velt step by step: the proxy in force, TCP, `CONNECT` at the proxy, TLS.
//!
//! reqwest takes the same steps, but its error does not name the step that failed.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::{Findings, Surroundings};
use ground::logging::Chain;
use ground::tls::CertificateFacts;
use token::velt::Settings;

/// Variables that name a proxy. The first variable that is set wins.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The way to a URL.
pub(super) struct Route {
    pub(super) proxy: Option<Proxy>,
    /// Description of the way, without a proxy's credentials.
    pub(super) said: String,
}

pub(super) struct Proxy {
    pub(super) variable: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the proxy is asked in plain HTTP, as most proxies are.
    plain: bool,
    credentials: Option<HeaderValue>,
}

/// Returns the way that [`ground::outgoing::client`] takes to `url`.
pub(super) fn route_to(url: &Url, around: &Surroundings) -> Route {
    let direct = |said: &str| Route { proxy: None, said: said.to_owned() };
    if url.scheme() != "https" {
        return direct("directly");
    }
    let set = |name: &&str| around.environment.contains_key(*name);
    let Some(variable) = PROXY_VARIABLES.into_iter().find(set) else { return direct("directly") };
    let uri: Option<Uri> = url.as_str().parse().ok();
    match uri.and_then(|uri| Matcher::from_system().intercept(&uri)) {
        Some(proxy) => {
            let uri = proxy.uri();
            let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default);
            let host = uri.host().unwrap_or_default().to_owned();
            let said = format!("through the proxy {host}:{port} ({variable})");
            let plain = uri.scheme_str() == Some("http");
            let credentials = proxy.basic_auth().cloned();
            Route { proxy: Some(Proxy { variable, host, port, plain, credentials }), said }
        }
        None => direct(&format!("directly, past {variable} (NO_PROXY)")),
    }
}

/// Measurements on the way to Velt.
pub(super) struct Way {
    /// Time to connect to the proxy if there is one, else to Velt.
    pub(super) tcp_time: Duration,
    /// Further time for the proxy's answer to `CONNECT`, if there is a proxy, and for the TLS handshake.
    pub(super) tls_time: Option<Duration>,
    pub(super) certificate: Option<CertificateFacts>,
}

/// Error of a step on the way to Velt.
pub(super) enum RouteError {
    /// No server listens there, or the way is blocked.
    Unreachable(io::Error),
    /// The proxy refuses to connect any client to Velt, or only this one.
    Refused(StatusCode),
    /// The proxy does not speak HTTP.
    NoProxy(hyper::Error),
    /// The server's certificate is not valid, or the server speaks no TLS.
    Tls(Box<dyn Error + Send + Sync>),
}

impl Way {
    /// Goes to the endpoint in `settings`, each step within the connect timeout.
    pub(super) async fn go(settings: &Settings, route: &Route) -> Result<Self, RouteError> {
        let url = &settings.endpoint;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let (first, first_port) = match &route.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (host, port),
        };
        let began = Instant::now();
        let connecting = TcpStream::connect((first.trim_matches(['[', ']']), first_port));
        let limit = settings.connect_timeout;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let stream = timeout(limit, connecting).await.unwrap_or_else(|_| Err(late()));
        let stream = stream.map_err(RouteError::Unreachable)?;
        let tcp_time = began.elapsed();
        let plain = url.scheme() != "https";
        // Other kinds of proxies are tried only as a whole, by the call that follows.
        if plain || route.proxy.as_ref().is_some_and(|proxy| !proxy.plain) {
            return Ok(Self { tcp_time, tls_time: None, certificate: None });
        }
        let began = Instant::now();
        let securing = async {
            match &route.proxy {
                Some(proxy) => {
                    let stream = pass(stream, proxy, &format!("{host}:{port}")).await?;
                    encrypt(stream, settings, host).await
                }
                None => encrypt(stream, settings, host).await,
            }
        };
        let secured = timeout(limit, securing).await;
        let certificate = secured.unwrap_or_else(|_| Err(RouteError::Tls(late().into())))?;
        Ok(Self { tcp_time, tls_time: Some(began.elapsed()), certificate })
    }
}

/// Has the proxy connect us with `target` (RFC 9110 section 9.3.6).
async fn pass(
    stream: TcpStream,
    proxy: &Proxy,
    target: &str,
) -> Result<TokioIo<hyper::upgrade::Upgraded>, RouteError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(RouteError::NoProxy)?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::connect(target).header(HOST, target);
    if let Some(credentials) = &proxy.credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a host and a port");
    let answer = sender.send_request(request).await.map_err(RouteError::NoProxy)?;
    if !answer.status().is_success() {
        return Err(RouteError::Refused(answer.status()));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(RouteError::NoProxy)?;
    Ok(TokioIo::new(upgraded))
}

/// Makes a TLS handshake, and returns facts about the server's certificate.
async fn encrypt(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    settings: &Settings,
    host: &str,
) -> Result<Option<CertificateFacts>, RouteError> {
    let tls = |error: Box<dyn Error + Send + Sync>| RouteError::Tls(error);
    let config = settings.roots.client_config().map_err(|error| tls(error.into()))?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| tls(error.into()))?;
    let greeting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = greeting.await.map_err(|error| tls(error.into()))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    Ok(shown.and_then(|certificate| CertificateFacts::of(certificate)))
}

impl RouteError {
    pub(super) fn report(&self, place: String, route: &Route, findings: &mut Findings) {
        let (said, proxied) = (&route.said, route.proxy.is_some());
        match self {
            Self::Unreachable(error) => {
                let remedy = if proxied {
                    "check the proxy's address, and that the pod may reach it"
                } else if error.kind() == io::ErrorKind::ConnectionRefused {
                    "start the server that velt.endpoint names (in tests: velt-sidecar emulator), or \
                     correct velt.endpoint; a firewall can refuse connections too: let this machine or \
                     pod reach Velt"
                } else {
                    "let this machine or pod reach Velt (firewall, NetworkPolicy), or set HTTPS_PROXY \
                     for the sidecar if the way out is a proxy"
                };
                findings.problem(place, format!("it can't be reached {said}: {error}"), remedy);
            }
            Self::Refused(status) => {
                let remedy = if *status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                    "write the proxy's user and password into its URL: http://user:password@host:port"
                } else {
                    "have the proxy let the pod through to Velt, or name Velt in NO_PROXY"
                };
                let what = format!("{said}: the proxy answers HTTP {}", status.as_u16());
                findings.problem(place, what, remedy);
            }
            Self::NoProxy(error) => {
                let what = format!("{said}: no answer of a proxy: {}", Chain(error));
                findings.problem(place, what, "check the proxy's port and scheme");
            }
            Self::Tls(error) => findings.problem(
                place,
                format!("{said}: a connection, but no TLS: {}", Chain(error.as_ref())),
                "if the certificate is not trusted, name who has signed it by outgoing.ca_file; a \
                 proxy that decrypts TLS has an authority of its own",
            ),
        }
    }
}
