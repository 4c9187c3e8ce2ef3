//! WebSockets: a tunnel that exists only after the app has agreed to it, and that ends with a Close frame
//! when the sidecar ends.

mod direction;
mod ending;
mod frames;
mod recall;

use std::error::Error;
use std::io;
use std::time::Duration;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use self::direction::{Direction, Farewell, open};
use self::ending::Ending;
pub use self::frames::Frames;
pub use self::recall::{Recall, Recaller};
use super::stream_clock::StreamClock;
use ground::metrics::{AppMetrics, GaugeGuard, TunnelEnd};

/// Time for which one direction of a tunnel goes on after the other direction has ended. A WebSocket has no
/// use for half a connection (RFC 6455 section 7.1.1), except for bytes under way.
const HALF_CLOSED: Duration = Duration::from_secs(30);

/// Stage of the sidecar's shutdown, for tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closing {
    NotYet,
    /// The sidecar tells the client, and lets both ends close in their own way.
    Told,
    /// The tunnels end now.
    Cut,
}

/// A client's wish for a WebSocket, until the app has answered it.
pub(super) struct Handshake {
    client: OnUpgrade,
    /// Value of `Sec-WebSocket-Accept` that the app must answer to this very request (RFC 6455 section
    /// 4.2.2).
    accept: String,
    /// Wish of another part of the sidecar to end the tunnel, if the part has left a way to say so.
    recall: Option<Recall>,
}

impl Handshake {
    /// Takes the client's side out of a request that `is_websocket`.
    pub(super) fn begin<B>(request: &mut Request<B>) -> Self {
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
        let accept = derive_accept_key(key);
        let recall = request.extensions_mut().remove();
        Self { client: hyper::upgrade::on(request), accept, recall }
    }

    /// Whether a 101 answers this handshake and nothing else.
    pub(super) fn is_answered_by<B>(&self, response: &Response<B>) -> bool {
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
        mut self,
        app: OnUpgrade,
        metrics: &AppMetrics,
        closing: watch::Receiver<Closing>,
        clock: StreamClock,
    ) {
        let open = GaugeGuard::raise(&metrics.tunnels);
        let ends = metrics.tunnel_ends.clone();
        tokio::spawn(async move {
            let ending = Ending::new(closing, self.recall.take());
            let end = tokio::select! {
                end = self.tunnel(app, ending.clone(), &clock) => end,
                end = ending.cut() => end,
                () = clock.ran_out() => TunnelEnd::Idle,
            };
            ends.increment(end);
            drop(open);
        });
    }

    async fn tunnel(self, app: OnUpgrade, ending: Ending, clock: &StreamClock) -> TunnelEnd {
        match self.carry(app, ending, clock).await {
            Ok(Farewell::Said(reason)) => reason.end(),
            Ok(Farewell::Unsaid) => TunnelEnd::Closed,
            Err(error) => {
                // One side broke off, as browsers do when a tab closes.
                debug!(%error, "WebSocket tunnel broke off");
                TunnelEnd::Broken
            }
        }
    }

    /// Carries each direction in a task of its own, because a message in one direction is no reason to look
    /// for a message in the other. Both directions end when this future ends or is dropped.
    async fn carry(
        self,
        app: OnUpgrade,
        ending: Ending,
        clock: &StreamClock,
    ) -> Result<Farewell, Box<dyn Error + Send + Sync>> {
        let (client, app) = tokio::try_join!(self.client, app)?;
        let (from_client, to_client, _watcher) = open(client);
        let (from_app, to_app, _) = open(app);
        let mut directions = JoinSet::new();
        directions.spawn(Direction::new(from_client, to_app).carry(clock.clone()));
        directions.spawn(Direction::new(from_app, to_client).carry_frames(ending, clock.clone()));
        both(directions).await
    }
}

/// Waits for both directions, but not for long after the first has ended: the peer that has closed may
/// be gone, while the other peer keeps its socket.
async fn both(
    mut directions: JoinSet<io::Result<Farewell>>,
) -> Result<Farewell, Box<dyn Error + Send + Sync>> {
    let mut next = directions.join_next().await;
    while let Some(ended) = next {
        if let said @ Farewell::Said(_) = ended?? {
            // Both directions have ended.
            return Ok(said);
        }
        next = timeout(HALF_CLOSED, directions.join_next()).await.unwrap_or(None);
    }
    Ok(Farewell::Unsaid)
}

/// Puts back the headers that `strip_hop_by_hop` took, for the hop that really upgrades.
pub(super) fn set_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};
    use tokio::time::Instant;

    use super::*;

    async fn half_closed_tunnel_ends(app_closes: bool) {
        let ((mut client, of_client), (mut app, of_app)) = (duplex(64), duplex(64));
        let ((from_client, to_client), (from_app, to_app)) = (split(of_client), split(of_app));
        let (_not_yet, closing) = watch::channel(Closing::NotYet);
        let mut directions = JoinSet::new();
        directions.spawn(Direction::new(from_client, to_app).carry(StreamClock::default()));
        let frames = Direction::new(from_app, to_client);
        directions.spawn(frames.carry_frames(Ending::new(closing, None), StreamClock::default()));
        let tunnel = tokio::spawn(both(directions));

        let (closed, other) =
            if app_closes { (&mut app, &mut client) } else { (&mut client, &mut app) };
        let began = Instant::now();
        closed.shutdown().await.expect("open");
        // The other peer sees the end, may still send, and keeps its socket.
        assert_eq!(other.read(&mut [0; 1]).await.expect("an end"), 0);
        other.write_all(b"x").await.expect("half of it is open");
        assert_eq!(closed.read_u8().await.expect("a byte"), b'x');
        assert!(matches!(tunnel.await.expect("no panic"), Ok(Farewell::Unsaid)));
        assert_eq!(began.elapsed(), HALF_CLOSED);
        assert_eq!(closed.read(&mut [0; 1]).await.expect("an end"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tunnel_ends_soon_after_one_peer_has_closed() {
        half_closed_tunnel_ends(true).await;
        half_closed_tunnel_ends(false).await;
    }
}
