//! Body of a response as it comes from the app, over either version of HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;
use super::pool::http2::Inbound;
use super::upload::Uploading;
use ground::memory::Demand;

/// Body of a response from the app.
pub(super) enum Arriving {
    Http1 {
        body: Incoming,
        demand: Arc<Demand>,
    },
    Http2 {
        body: Inbound,
        /// Rest of the request's body, if the app has answered before all of the body was sent. Boxed,
        /// because such answers are rare.
        uploading: Option<Box<Uploading>>,
    },
}

impl Arriving {
    pub(super) fn http2(body: Inbound, uploading: Option<Uploading>) -> Self {
        Self::Http2 { body, uploading: uploading.map(Box::new) }
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1 { body, demand } => {
                demand.wants();
                let frame = Pin::new(&mut *body).poll_frame(context);
                if matches!(&frame, Poll::Ready(Some(Ok(_)))) && !body.is_end_stream() {
                    demand.meet(body.size_hint().lower());
                }
                frame.map(|frame| frame.map(|frame| frame.map_err(BodyError::App)))
            }
            Self::Http2 { body, .. } => {
                let frame = body.poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(BodyError::AppStream)))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { body, .. } => body.is_end_stream(),
            Self::Http2 { body, .. } => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { body, .. } => body.size_hint(),
            Self::Http2 { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Self::Http2 { body, uploading: Some(uploading) } = self
            && body.is_end_stream()
        {
            uploading.answered();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::Empty;
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::task::yield_now;

    use super::*;
    use ground::memory::{Memory, Thrift};

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 90000\r\n\r\n";
    const LENGTH: usize = 90_000;
    /// Bytes that wait between the app and the sidecar.
    const ON_THE_WAY: usize = 1_000;

    #[tokio::test]
    async fn body_is_read_on_demand_while_memory_is_short() {
        let memory = Memory::default();
        let _held: Vec<_> = (0..100).map(|_| memory.count_exchange()).collect();
        let (ours, mut theirs) = duplex(ON_THE_WAY);
        let demand = Arc::new(Demand::default());
        let io = TokioIo::new(Thrift::app(ours, memory, Arc::clone(&demand)));
        let (mut sender, connection) = handshake(io).await.expect("a connection");
        tokio::spawn(connection);
        let left = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&left);
        tokio::spawn(async move {
            let _ = theirs.read(&mut [0; 1024]).await.expect("a request");
            theirs.write_all(HEAD).await.expect("room");
            while theirs.write_all(b"x").await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let request = http::Request::new(Empty::<Bytes>::new());
        let response = sender.send_request(request).await.expect("an answer");
        let mut arriving = Arriving::Http1 { body: response.into_body(), demand };
        let mut read = 0;
        while !arriving.is_end_stream() {
            let frame = poll_fn(|context| arriving.poll_frame(context)).await.expect("a frame");
            read += frame.expect("no error").data_ref().expect("data").len();
            for _ in 0..5_000 {
                yield_now().await;
            }
            let ahead = left.load(Ordering::Relaxed) - read;
            assert!(ahead <= ON_THE_WAY || read == LENGTH, "{ahead} bytes after {read}");
        }
        assert_eq!(read, LENGTH);
    }
}
