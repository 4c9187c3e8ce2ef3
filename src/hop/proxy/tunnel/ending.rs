//! Reasons of the sidecar's own to end a tunnel: the end of the sidecar, and the recall of one tunnel.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Closing, Recall};
use ground::metrics::TunnelEnd;

/// Time that both ends of a recalled tunnel have to close in their own way.
const RECALL_PATIENCE: Duration = Duration::from_secs(5);

/// Reason for the sidecar's Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    GoingAway,
    Recalled,
}

impl Reason {
    /// Returns the Close frame, unmasked as a server's are (RFC 6455 section 7.4.1). Code 1001, "going away": the
    /// client should connect again. Code 1008, "policy violation", is the general code for an end on purpose.
    pub fn close_frame(self) -> [u8; 4] {
        let [high, low] = match self {
            Self::GoingAway => 1001_u16,
            Self::Recalled => 1008,
        }
        .to_be_bytes();
        [0x88, 2, high, low]
    }

    /// Returns the end of a tunnel whose client was told this reason.
    pub fn end(self) -> TunnelEnd {
        match self {
            Self::GoingAway => TunnelEnd::Told,
            Self::Recalled => TunnelEnd::SignedOut,
        }
    }
}

/// Wishes of the sidecar's own that one tunnel ends.
#[derive(Clone)]
pub struct Ending {
    closing: watch::Receiver<Closing>,
    recall: Option<Recall>,
}

impl Ending {
    pub fn new(closing: watch::Receiver<Closing>, recall: Option<Recall>) -> Self {
        Self { closing, recall }
    }

    /// Resolves when the client has to be told that the tunnel ends.
    pub async fn told(mut self) -> Reason {
        let closing = reached(&mut self.closing, Closing::Told);
        let Some(recall) = &mut self.recall else {
            closing.await;
            return Reason::GoingAway;
        };
        tokio::select! {
            () = closing => Reason::GoingAway,
            () = recall.recalled() => Reason::Recalled,
        }
    }

    /// Resolves when the tunnel has to end at once, whether its ends have closed or not.
    pub async fn cut(mut self) -> TunnelEnd {
        let cut = reached(&mut self.closing, Closing::Cut);
        let Some(recall) = &mut self.recall else {
            cut.await;
            return TunnelEnd::Cut;
        };
        tokio::select! {
            () = cut => TunnelEnd::Cut,
            () = async {
                recall.recalled().await;
                sleep(RECALL_PATIENCE).await;
            } => TunnelEnd::SignedOut,
        }
    }
}

/// Resolves when `closing` has reached `stage`, or when the sender of `closing` is gone.
async fn reached(closing: &mut watch::Receiver<Closing>, stage: Closing) {
    let _ = closing.wait_for(|closing| *closing >= stage).await;
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::time::Instant;

    use super::super::Recaller;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn recalled_tunnel_is_told_at_once_and_cut_later() {
        let (_stage, closing) = watch::channel(Closing::NotYet);
        let (recaller, recall) = Recaller::pair();
        let ending = Ending::new(closing, Some(recall));
        let began = Instant::now();
        recaller.recall();
        assert_eq!(ending.clone().told().await, Reason::Recalled);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(!recaller.is_over());
        assert_eq!(ending.cut().await, TunnelEnd::SignedOut);
        assert_eq!(began.elapsed(), RECALL_PATIENCE);
        assert!(recaller.is_over());
    }

    #[tokio::test]
    async fn dropped_recaller_leaves_the_tunnel_open() {
        let (stage, closing) = watch::channel(Closing::NotYet);
        let (recaller, recall) = Recaller::pair();
        drop(recaller);
        let mut told = pin!(Ending::new(closing, Some(recall)).told());
        let is_pending = poll_fn(|context| Poll::Ready(told.as_mut().poll(context).is_pending()));
        assert!(is_pending.await);
        stage.send_replace(Closing::Told);
        assert_eq!(told.await, Reason::GoingAway);
    }
}
