//! The end of one tunnel by the wish of another part of the sidecar, which knows whose tunnel it is. The proxy does
//! not know that.

use std::future::pending;

use tokio::sync::watch;

/// Ends one tunnel. Dropping it leaves the tunnel open.
pub struct Recaller(watch::Sender<bool>);

/// The tunnel's side of a [`Recaller`]. As an extension of a request for a WebSocket it reaches the tunnel.
#[derive(Clone)]
pub struct Recall(watch::Receiver<bool>);

impl Recaller {
    /// Makes both sides.
    pub fn pair() -> (Self, Recall) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Recall(receiver))
    }

    /// Ends the tunnel, or the one that is about to open.
    pub fn recall(&self) {
        self.0.send_replace(true);
    }

    /// Whether the tunnel has ended, or the app did not open one.
    pub fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

impl Recall {
    /// Resolves when the tunnel has to end.
    pub(super) async fn recalled(&mut self) {
        if self.0.wait_for(|recalled| *recalled).await.is_err() {
            // The other side was dropped: the tunnel ends by itself.
            pending::<()>().await;
        }
    }
}
