//! WebSockets: a tunnel that exists only after the app has agreed to it, and that ends with a word
//! when the sidecar ends.

mod frames;

use std::error::Error;
use std::io;
use std::pin::pin;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

pub use self::frames::Frames;
use super::stream_clock::StreamClock;
use crate::dozing::Dozing;
use crate::metrics::{AppMetrics, GaugeGuard, TunnelEnd};

/// Read at a time, in each direction.
const BUFFER_BYTES: usize = 8 * 1024;

/// A Close frame, unmasked as a server's are, with code 1001, "going away" (RFC 6455 section
/// 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// What tunnels are to do about the end of the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closing {
    NotYet,
    /// Tell the client, and let both ends close in their own way.
    Told,
    /// End now.
    Cut,
}

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
    pub(super) fn join(
        self,
        app: OnUpgrade,
        metrics: &AppMetrics,
        closing: watch::Receiver<Closing>,
        clock: StreamClock,
    ) {
        let open = GaugeGuard::raise(&metrics.tunnels);
        let ends = metrics.tunnel_ends.clone();
        tokio::spawn(async move {
            let mut cut = closing.clone();
            let event = pin!(async {
                tokio::select! {
                    () = reached(&mut cut, Closing::Cut) => TunnelEnd::Cut,
                    () = clock.ran_out() => TunnelEnd::Idle,
                }
            });
            let end = tokio::select! {
                end = self.tunnel(app, closing, &clock) => end,
                end = Dozing::new(event) => end,
            };
            ends.increment(end);
            drop(open);
        });
    }

    async fn tunnel(
        self,
        app: OnUpgrade,
        closing: watch::Receiver<Closing>,
        clock: &StreamClock,
    ) -> TunnelEnd {
        let carried = async {
            let (client, app) = tokio::try_join!(self.client, app)?;
            let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
            let (from_app, to_app) = tokio::io::split(TokioIo::new(app));
            // A message in one direction is no reason to look for one in the other.
            let upwards = pin!(carry(from_client, to_app, clock));
            let downwards = pin!(carry_frames(from_app, to_client, closing, clock));
            let (mut upwards, mut downwards) = (Dozing::new(upwards), Dozing::new(downwards));
            let farewell = tokio::select! {
                carried = &mut upwards => { carried?; downwards.await? }
                farewell = &mut downwards => match farewell? {
                    // Both have said their last word.
                    Farewell::Said => Farewell::Said,
                    Farewell::Unsaid => { upwards.await?; Farewell::Unsaid }
                },
            };
            Ok::<_, Box<dyn Error + Send + Sync>>(farewell)
        };
        match carried.await {
            Ok(Farewell::Said) => TunnelEnd::Told,
            Ok(Farewell::Unsaid) => TunnelEnd::Closed,
            Err(error) => {
                // One side broke off, as browsers do when a tab closes.
                debug!(%error, "WebSocket tunnel broke off");
                TunnelEnd::Broken
            }
        }
    }
}

/// Whether we have told the client that we are going away.
enum Farewell {
    Unsaid,
    Said,
}

/// Carries bytes until their end, and the end itself: half a close leaves the other half open.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    clock: &StreamClock,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        clock.moved();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Carries the app's frames to the client, and ends them with a Close of ours when told to. What
/// the app says after that is dropped (RFC 6455 section 5.5.1): it hears the client's answer to the
/// Close, and closes.
async fn carry_frames(
    mut app: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    mut closing: watch::Receiver<Closing>,
    clock: &StreamClock,
) -> io::Result<Farewell> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut frames = Frames::default();
    let (mut leaving, mut farewell) = (false, Farewell::Unsaid);
    let told = pin!(reached(&mut closing, Closing::Told));
    let mut told = Dozing::new(told);
    loop {
        let read = tokio::select! {
            read = app.read(&mut buffer) => Some(read?),
            () = &mut told, if !leaving => None,
        };
        leaving |= read.is_none();
        clock.moved();
        if read == Some(0) {
            client.shutdown().await?;
            return Ok(farewell);
        }
        let bytes = &buffer[..read.unwrap_or(0)];
        match farewell {
            Farewell::Said => {}
            Farewell::Unsaid if !leaving => {
                frames.pass(bytes);
                client.write_all(bytes).await?;
            }
            Farewell::Unsaid => {
                let rest_of_frame = frames.finish(bytes);
                client.write_all(&bytes[..rest_of_frame]).await?;
                if frames.may_interject() {
                    client.write_all(&GOING_AWAY).await?;
                    farewell = Farewell::Said;
                }
            }
        }
    }
}

/// Resolves when closing has come that far; its sender being gone altogether counts as that.
async fn reached(closing: &mut watch::Receiver<Closing>, stage: Closing) {
    let _ = closing.wait_for(|closing| *closing >= stage).await;
}

/// Puts back what `strip_hop_by_hop` took, for the hop that really upgrades.
pub(super) fn set_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
