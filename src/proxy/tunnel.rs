//! WebSockets: a tunnel that exists only after the app has agreed to it.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use crate::metrics::GaugeGuard;

/// A client's wish for a WebSocket, until the app has answered it.
pub(super) struct Handshake {
    client: OnUpgrade,
    /// What the app must answer to this very request (RFC 6455 section 4.2.2).
    accept: String,
}

impl Handshake {
    /// Takes the client's side out of a request that `is_websocket`.
    pub(super) fn begin<B>(request: &mut Request<B>) -> Self {
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
        let accept = derive_accept_key(key);
        Self { client: hyper::upgrade::on(request), accept }
    }

    /// Whether a 101 answers this handshake and nothing else.
    pub(super) fn is_answered_by(&self, response: &Response<Incoming>) -> bool {
        let headers = response.headers();
        let is = |name, expected: &str| {
            let mut values = headers.get_all(name).iter();
            let only = values.next().filter(|_| values.next().is_none());
            only.map(HeaderValue::as_bytes)
                .is_some_and(|value| value.eq_ignore_ascii_case(expected.as_bytes()))
        };
        is(UPGRADE, "websocket")
            && headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| *accept == *self.accept)
    }

    /// Joins both sides once the 101 has reached the client.
    pub(super) fn join(self, app: OnUpgrade, open: &IntGauge, mut closing: watch::Receiver<bool>) {
        let open = GaugeGuard::raise(open);
        tokio::spawn(async move {
            let tunnel = async {
                let (client, app) = tokio::try_join!(self.client, app)?;
                let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
                copy_bidirectional(&mut client, &mut app).await?;
                Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
            };
            tokio::select! {
                ended = tunnel => if let Err(error) = ended {
                    // One side broke off, as browsers do when a tab closes.
                    debug!(%error, "WebSocket tunnel ended");
                },
                // Gone altogether counts as closing.
                _ = closing.wait_for(|closing| *closing) => {}
            }
            drop(open);
        });
    }
}

/// Puts back what `strip_hop_by_hop` took, for the hop that really upgrades.
pub(super) fn set_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
