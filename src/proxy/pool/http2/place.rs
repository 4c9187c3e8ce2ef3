//! A request's place on an HTTP/2 connection to the app.

use std::sync::Arc;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;

use super::connection::Connection;
use crate::proxy::pool::Pool;

/// How much of the window that all request bodies of a connection share a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Load {
    /// Nothing: there is no body.
    None,
    /// A little, or it is not known.
    Light,
    /// As much as there is, for as long as the app does not read.
    Heavy,
}

/// A request's place on a connection.
pub(in crate::proxy) struct Ticket {
    sender: SendRequest<Bytes>,
    connection: Arc<Connection>,
    pool: Arc<Pool>,
    is_reused: bool,
    /// From the first moment, or the next request would get the same connection.
    burden: Option<Burden>,
}

impl Ticket {
    pub(super) fn new(
        sender: SendRequest<Bytes>,
        connection: Arc<Connection>,
        pool: Arc<Pool>,
        load: Load,
    ) -> Self {
        let is_reused = connection.begin_stream();
        let burden = (load == Load::Heavy).then(|| Burden::on(&connection));
        Self { sender, connection, pool, is_reused, burden }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether others have used the connection before, so that the app may be closing it.
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

    /// What the request is to its connection while its body is sent.
    pub(in crate::proxy) fn burden(&mut self) -> Option<Burden> {
        self.burden.take()
    }

    /// Marks the connection: the app has stopped to read this request's body.
    pub(in crate::proxy) fn weigh_down(&self) -> Burden {
        Burden::on(&self.connection)
    }

    /// Bytes that the connection has sent so far.
    pub(in crate::proxy) fn written(&self) -> u64 {
        self.connection.written()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.connection.end_stream();
        self.pool.seat();
    }
}

/// Marks a connection whose window a request's body may have used up, so that others with a body go
/// elsewhere.
pub(in crate::proxy) struct Burden(Arc<Connection>);

impl Burden {
    fn on(connection: &Arc<Connection>) -> Self {
        connection.begin_heavy();
        Self(Arc::clone(connection))
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.0.end_heavy();
    }
}
