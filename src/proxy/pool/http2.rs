//! The one HTTP/2 connection to the app that all requests of a thread share.

use std::io;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Pool, Stream};
use crate::proxy::UpstreamError;
use crate::proxy::request_body::RequestBody;

type Http2 = http2::SendRequest<RequestBody>;

/// The one HTTP/2 connection.
#[derive(Default)]
pub(super) struct SharedHttp2 {
    sender: Option<Http2>,
    /// Counts the connections that there have been.
    number: u64,
    /// When opening one took too long last.
    timed_out: Option<Instant>,
}

/// The shared use of the HTTP/2 connection.
pub(in crate::proxy) struct Shared {
    /// The connection to send on.
    pub(in crate::proxy) sender: Http2,
    number: u64,
    reused: bool,
}

impl Shared {
    /// Whether others have used it before, so that the app may be closing it.
    pub(in crate::proxy) fn is_reused(&self) -> bool {
        self.reused
    }
}

impl Pool {
    /// The shared HTTP/2 connection, opened if need be. Whoever comes meanwhile waits for it
    /// instead of opening another, and if it takes too long, all have waited long enough. One that
    /// has been seen to be `dead` is not handed out again, even if its task has not noticed yet.
    pub(in crate::proxy) async fn http2(
        &self,
        dead: Option<Shared>,
    ) -> Result<Shared, UpstreamError> {
        let came = Instant::now();
        let mut shared = self.http2.lock().await;
        let number = shared.number;
        let is_dead = dead.is_some_and(|dead| dead.number == number);
        let usable = shared.sender.as_ref().filter(|sender| !sender.is_closed() && !is_dead);
        if let Some(sender) = usable {
            return Ok(Shared { sender: sender.clone(), number, reused: true });
        }
        if shared.timed_out.is_some_and(|at| at >= came) {
            return Err(UpstreamError::Unreachable(io::ErrorKind::TimedOut.into()));
        }
        let connected = self.connect_http2().await;
        if let Err(UpstreamError::Unreachable(cause)) = &connected
            && cause.kind() == io::ErrorKind::TimedOut
        {
            shared.timed_out = Some(Instant::now());
        }
        let sender = connected?;
        shared.number += 1;
        shared.sender = Some(sender.clone());
        Ok(Shared { sender, number: shared.number, reused: false })
    }

    async fn handshake_http2<T>(&self, stream: T) -> Result<Http2, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let builder = http2::Builder::new(TokioExecutor::new());
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(UpstreamError::Broken)?;
        self.drive(connection);
        Ok(sender)
    }

    async fn connect_http2(&self) -> Result<Http2, UpstreamError> {
        match self.dial(true).await? {
            Stream::Tcp(stream) => self.handshake_http2(stream).await,
            Stream::Tls(stream) => self.handshake_http2(stream).await,
            Stream::Unix(stream) => self.handshake_http2(stream).await,
        }
    }
}
