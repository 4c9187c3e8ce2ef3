//! Rest of a request over HTTP/2 that has been answered.
//!
//! Dropping the request's body before its end would reset the stream at once, and curl throws away an
//! answer that is followed by a reset while curl is still sending. So the body is read to its end,
//! within bounds. Over HTTP/1.1 the listener does the same for the whole connection.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::Buf;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// Longest time that a client may send nothing, and most time and most bytes in all.
const QUIET: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Body of a request, which is read to its end if it is dropped earlier and `linger` has been called.
pub(super) struct Unread {
    /// Body; `None` only while it is dropped.
    incoming: Option<Incoming>,
    lingers: bool,
}

impl Unread {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), lingers: false }
    }

    /// Reads the rest when the body is dropped. Called for bodies that come over HTTP/2.
    pub(super) fn linger(&mut self) {
        self.lingers = true;
    }
}

impl Deref for Unread {
    type Target = Incoming;

    fn deref(&self) -> &Incoming {
        self.incoming.as_ref().expect("the body is not dropped yet")
    }
}

impl DerefMut for Unread {
    fn deref_mut(&mut self) -> &mut Incoming {
        self.incoming.as_mut().expect("the body is not dropped yet")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let incoming = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
        // Without a runtime the connection is gone as well.
        if let (true, Some(incoming), Ok(runtime)) = (self.lingers, incoming, Handle::try_current())
        {
            runtime.spawn(discard(incoming));
        }
    }
}

async fn discard(mut incoming: Incoming) {
    let end = Instant::now() + MOST;
    let mut left = MOST_BYTES;
    while left > 0 {
        let until = (Instant::now() + QUIET).min(end);
        let Ok(Some(Ok(frame))) = timeout_at(until, incoming.frame()).await else { break };
        left = left.saturating_sub(frame.data_ref().map_or(0, Buf::remaining));
    }
}
