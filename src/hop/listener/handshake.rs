//! TLS handshakes: limited in number and in time, and each one counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::connection_state::ConnectionState;
use super::lingering::{Patience, linger};
use ground::logging::Chain;
use ground::metrics::{HandshakeResult, ListenerMetrics, Protocol};
use ground::tcp::{Watch, Watched};
use ground::tls::{CertificateNames, ServerTls};

/// The first byte of every TLS connection: a record with a handshake in it (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Answer to a browser or a probe that speaks plain HTTP to this port.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 40\r\nConnection: close\r\n\r\n\
    This port speaks TLS: ask with https://\n";

/// Patience with a client that was told to speak TLS and goes on sending; this time does not count as a
/// handshake.
const AFTER_PLAIN_ANSWER: Patience = Patience { most: Duration::from_secs(5), ..Patience::SHORT };

/// Sends [`PLAIN_ANSWER`]. Best effort: the client may have left.
async fn say_what_is_spoken(mut stream: TcpStream) {
    if stream.write_all(PLAIN_ANSWER).await.is_ok() && stream.shutdown().await.is_ok() {
        linger(stream, true, || AFTER_PLAIN_ANSWER).await;
    }
}

/// Result of a handshake: the client's stream, its protocol, and the names in the client's certificate.
pub(super) type Greeted = (TlsStream<Watched<TcpStream>>, Protocol, Option<Arc<CertificateNames>>);

/// A handshake that failed, and has been counted.
pub(super) struct HandshakeFailed;

/// Carries out TLS handshakes.
#[derive(Clone)]
pub(super) struct Handshakes {
    tls: Arc<ServerTls>,
    /// Limits handshakes at the same time, because a handshake costs far more than a request.
    permits: Arc<Semaphore>,
    metrics: ListenerMetrics,
}

impl Handshakes {
    pub(super) fn new(tls: Arc<ServerTls>, metrics: ListenerMetrics) -> Self {
        let permits = Arc::new(Semaphore::new(tls.settings().max_handshakes));
        Self { tls, permits, metrics }
    }

    /// Carries out one handshake within its time, which begins now: a client that says nothing
    /// holds no permit.
    pub(super) async fn greet(
        &self,
        stream: TcpStream,
        state: &Arc<ConnectionState>,
    ) -> Result<Greeted, HandshakeFailed> {
        let greeting = timeout(self.tls.settings().handshake_timeout, self.shake(stream, state));
        let result = greeting.await.unwrap_or(Err(HandshakeResult::Timeout));
        let counted = result.as_ref().map_or_else(|failed| *failed, |_| HandshakeResult::Completed);
        self.metrics.handshakes.increment(counted);
        result.map_err(|_| HandshakeFailed)
    }

    async fn shake(
        &self,
        stream: TcpStream,
        state: &Arc<ConnectionState>,
    ) -> Result<Greeted, HandshakeResult> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE_RECORD => {}
            Ok(1) => {
                if first[0].is_ascii_uppercase() {
                    say_what_is_spoken(stream).await;
                }
                return Err(HandshakeResult::NotTls);
            }
            _ => return Err(HandshakeResult::ClientGone),
        }
        let _permit = self.permits.acquire().await.expect("never closed");
        let acceptor = TlsAcceptor::from(self.tls.config());
        let watched = Watch::over(stream, Arc::clone(state) as _);
        let stream = acceptor.accept(watched).await.map_err(|error| {
            debug!(error = %Chain(&error), "a TLS handshake failed");
            HandshakeResult::Failed
        })?;
        let (_, session) = stream.get_ref();
        // A client that does not say what it speaks speaks HTTP/1.1 (RFC 9110 section 4.2.2).
        let http2 = session.alpn_protocol() == Some(b"h2");
        let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let names = certificate.map(|shown| Arc::new(CertificateNames::of(shown)));
        Ok((stream, protocol, names))
    }
}
