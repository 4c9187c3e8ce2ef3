//! A client of the matrix: over HTTP/1.1 it has a connection for each request, over HTTP/2 one for all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::app::Body;

/// Protocol that a client speaks with the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
    TlsHttp1,
    TlsHttp2,
}

impl Speaks {
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::TlsHttp1, Self::TlsHttp2];

    pub fn is_tls(self) -> bool {
        matches!(self, Self::TlsHttp1 | Self::TlsHttp2)
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::TlsHttp2)
    }

    /// Name of the protocol in a TLS handshake.
    pub fn alpn(self) -> &'static [u8] {
        if self.is_http2() { b"h2" } else { b"http/1.1" }
    }
}

/// Time within which an answer must come while another request stands still. An answer that had to wait
/// for the request that stands still would never come.
pub const PROMPT: Duration = Duration::from_secs(6);

/// The client's receive buffer, so that little of a body has been taken when the client reads nothing.
const RECEIVE_BUFFER: u32 = 16 * 1024;

/// Bytes of a TCP segment on a network.
const SEGMENT: u32 = 1_460;

/// Windows of the client: those of all streams together fit the connection's, so that the client itself
/// never holds one answer up for another.
const STREAM_WINDOW: u32 = 8 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// A stream of either kind.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub struct Client {
    address: SocketAddr,
    speaks: Speaks,
    tls: Option<Arc<ClientConfig>>,
    shared: OnceCell<http2::SendRequest<Body>>,
}

impl Client {
    pub fn new(address: SocketAddr, speaks: Speaks, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { address, speaks, tls, shared: OnceCell::new() }
    }

    /// Copy of this client that shares no connection with it.
    pub fn another(&self) -> Self {
        Self::new(self.address, self.speaks, self.tls.clone())
    }

    /// Copy of this client that shares its connection over HTTP/2.
    pub async fn sharing(&self) -> Self {
        let shared = OnceCell::new();
        if self.speaks.is_http2() {
            // `set` can't fail: `shared` is new.
            let _ = shared.set(self.multiplexed().await);
        }
        Self { shared, ..self.another() }
    }

    /// Connection on which no byte has been sent yet.
    pub async fn connect(&self) -> Box<dyn Duplex> {
        self.connect_over(TcpSocket::new_v4().expect("a socket")).await
    }

    async fn connect_over(&self, socket: TcpSocket) -> Box<dyn Duplex> {
        socket.set_recv_buffer_size(RECEIVE_BUFFER).expect("an option");
        let stream = socket.connect(self.address).await.expect("it listens");
        stream.set_nodelay(true).expect("an option");
        SockRef::from(&stream).set_send_buffer_size(64 * 1024).expect("an option");
        let Some(tls) = &self.tls else { return Box::new(stream) };
        let name = ServerName::try_from("localhost").expect("a name");
        let greeted = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        Box::new(greeted.expect("a handshake"))
    }

    /// Sends a request and waits for the head of its answer, but not for longer than [`PROMPT`].
    pub async fn send(&self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let what = format!("{} {}", request.method(), request.uri());
        let sent = timeout(PROMPT, self.begin(request)).await;
        sent.unwrap_or_else(|_| panic!("{what} is not answered within {PROMPT:?}"))
    }

    /// Sends a request and waits for the head of its answer, without a time limit.
    pub async fn begin(&self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let path = request.uri().clone();
        if self.speaks.is_http2() {
            let scheme = if self.speaks.is_tls() { "https" } else { "http" };
            *request.uri_mut() = format!("{scheme}://localhost{path}").parse().expect("a URI");
            *request.version_mut() = Version::HTTP_2;
            return self.multiplexed().await.send_request(request).await;
        }
        request.headers_mut().insert("host", "localhost".parse().expect("a value"));
        let socket = TcpSocket::new_v4().expect("a socket");
        // With the segments of loopback, the kernel would take 2.6 MB of an unread answer
        // (`benches/peers stalls`).
        SockRef::from(&socket).set_tcp_mss(SEGMENT).expect("an option");
        let stream = TokioIo::new(self.connect_over(socket).await);
        let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        // An error of the connection reaches its requests too.
        tokio::spawn(async move { drop(connection.await) });
        sender.send_request(request).await
    }

    async fn multiplexed(&self) -> http2::SendRequest<Body> {
        let shared = self.shared.get_or_init(async || {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(TokioIo::new(self.connect().await))
                .await
                .expect("HTTP/2");
            tokio::spawn(async move { drop(connection.await) });
            sender
        });
        shared.await.clone()
    }
}
