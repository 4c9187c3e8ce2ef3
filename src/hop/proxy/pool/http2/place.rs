//! A request's place on an HTTP/2 connection to the app.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;

use super::connection::Connection;
use crate::proxy::pool::Pool;
use ground::memory::Exchange;

/// Bytes that a request's body adds to the load of its connection: the app gives all request bodies on
/// a connection one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Load {
    /// No body.
    None,
    /// A body of so many bytes.
    Known(u64),
    /// A body of unknown length, which counts as it goes.
    Unknown,
}

/// Place of a request on a connection.
pub(in crate::proxy) struct Ticket {
    sender: SendRequest<Bytes>,
    connection: Arc<Connection>,
    pool: Arc<Pool>,
    is_reused: bool,
    load: Load,
    /// Bytes charged to the connection for the request's body. They count until the stream ends: only
    /// then has the app surely given the window back.
    charged: AtomicU64,
    /// Counts the request as one that may come to stand still.
    _exchange: Exchange,
}

impl Ticket {
    pub(super) fn new(
        sender: SendRequest<Bytes>,
        connection: Arc<Connection>,
        pool: Arc<Pool>,
        load: Load,
    ) -> Self {
        let is_reused = connection.begin_stream();
        let charged = if let Load::Known(bytes) = load { bytes } else { 0 };
        connection.charge(charged);
        let (charged, exchange) = (AtomicU64::new(charged), pool.memory.count_exchange());
        Self { sender, connection, pool, is_reused, load, charged, _exchange: exchange }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether other requests have used the connection before, so that the app may be closing it.
    pub(in crate::proxy) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Sends a request's head.
    pub(in crate::proxy) fn send(
        &mut self,
        head: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.sender.send_request(head, is_whole)
    }

    /// Charges the connection with a piece of the request's body, unless all of it is charged.
    pub(in crate::proxy) fn charge(&self, bytes: usize) {
        if self.load == Load::Unknown {
            self.charged.fetch_add(bytes as u64, Ordering::Relaxed);
            self.connection.charge(bytes as u64);
        }
    }

    /// Notes that the app wants no more requests on the connection for now.
    pub(in crate::proxy) fn calm(&self) {
        self.connection.calm();
    }

    /// Bytes that the connection has sent so far.
    pub(in crate::proxy) fn written(&self) -> u64 {
        self.connection.written()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.connection.discharge(*self.charged.get_mut());
        self.connection.end_stream();
        self.pool.give_places();
    }
}
