//! HTTP/2 connections to the app, and the places of requests on them.
//!
//! One connection is enough for an app that keeps up. Another is opened as soon as the first has no
//! place left, or a request's body stands still on it: all bodies on a connection share one window of
//! the app's.

mod connection;
mod line;
mod mailbox;
mod place;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::Ping;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use self::connection::{Connection, Room};
pub(in crate::proxy) use self::mailbox::Inbound;
pub(in crate::proxy) use self::place::{Load, Ticket};
use super::{Pool, Stream};
use crate::proxy::UpstreamError;
use ground::metrics::GaugeGuard;

/// Connections per thread at most. A request beyond them waits for a place.
const MAX_CONNECTIONS: usize = 128;

/// Time for which no further connection is tried after an attempt has failed, if requests can use the
/// connections that are open.
const RETRY: Duration = Duration::from_secs(1);

/// HTTP/2 connections to one app.
#[derive(Default)]
pub(super) struct Connections {
    /// Open connections, the oldest first. The oldest are filled first, so that the youngest become
    /// idle.
    open: Vec<Arc<Connection>>,
    waiting: VecDeque<Waiting>,
    is_opening: bool,
    /// Attempts to open a connection so far.
    attempts: u64,
    /// Whether the last attempt to open a connection has failed.
    has_failed: bool,
}

impl Connections {
    /// Whether requests must share the connections that are open, since no other can be opened.
    fn may_share(&self) -> bool {
        self.has_failed || self.open.len() >= MAX_CONNECTIONS
    }

    /// Whether a request with `load` must wait behind the requests that wait already. A waiting request
    /// with a body may lack only room in a window, so a request without a body need not wait behind it.
    fn has_priority_over(&self, load: Load) -> bool {
        self.waiting.iter().any(|waiting| load != Load::None || waiting.load == Load::None)
    }
}

struct Waiting {
    load: Load,
    /// Attempts to open a connection before the request began to wait.
    since: u64,
    told: Told,
}

/// Gives a waiting request its place, or the error.
type Told = oneshot::Sender<Result<Ticket, UpstreamError>>;

impl Pool {
    /// Finds a place for a request. Opens another connection if necessary, and waits if there are too
    /// many.
    pub(in crate::proxy) async fn place(
        self: &Arc<Self>,
        load: Load,
    ) -> Result<Ticket, UpstreamError> {
        let waiting = {
            let mut connections = self.connections();
            if !connections.has_priority_over(load)
                && let Some(ticket) = self.take(&mut connections, load)
            {
                return Ok(ticket);
            }
            let (told, waiting) = oneshot::channel();
            let since = connections.attempts;
            connections.waiting.push_back(Waiting { load, since, told });
            self.open_another(&mut connections);
            waiting
        };
        match waiting.await {
            Ok(ticket) => ticket,
            Err(_) => Err(UpstreamError::Unreachable(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Closes connections that have had no request since the last call, but keeps one.
    pub(super) fn reap_http2(&self) {
        let mut spare = Vec::new();
        let mut connections = self.connections();
        let open = mem::take(&mut connections.open);
        for connection in open {
            if connections.open.is_empty() || connection.is_wanted() {
                connections.open.push(connection);
            } else {
                spare.push(connection);
            }
        }
        drop(connections);
        drop(spare);
    }

    /// Gives places to the requests that wait.
    fn give_places(self: &Arc<Self>) {
        loop {
            let mut connections = self.connections();
            let Some((told, ticket)) = self.next(&mut connections) else {
                self.open_another(&mut connections);
                return;
            };
            drop(connections);
            // A client that has left meanwhile leaves its place to the next.
            drop(told.send(Ok(ticket)));
        }
    }

    /// Takes the first waiting request for which there is a place.
    fn next(self: &Arc<Self>, connections: &mut Connections) -> Option<(Told, Ticket)> {
        connections.waiting.retain(|waiting| !waiting.told.is_closed());
        for load in [None, Some(Load::None)] {
            let first = |waiting: &Waiting| load.is_none_or(|load| waiting.load == load);
            let Some(position) = connections.waiting.iter().position(first) else { continue };
            let load = connections.waiting[position].load;
            if let Some(ticket) = self.take(connections, load) {
                let waiting = connections.waiting.remove(position)?;
                return Some((waiting.told, ticket));
            }
        }
        None
    }

    /// Takes a place on the oldest connection that has one. A request with a body joins a connection
    /// whose window other bodies may have used up only if no further connection can be opened.
    fn take(self: &Arc<Self>, connections: &mut Connections, load: Load) -> Option<Ticket> {
        let (mut found, mut gone) = (None::<(SendRequest<Bytes>, &Arc<Connection>)>, false);
        for connection in &connections.open {
            let sender = match connection.room() {
                Room::For(sender) => sender,
                Room::None => continue,
                Room::Gone => {
                    gone = true;
                    continue;
                }
            };
            if connection.fits(load) {
                found = Some((sender, connection));
                break;
            }
            let least = found.as_ref().map(|(_, other)| other.charged());
            if connections.may_share() && least.is_none_or(|least| connection.charged() < least) {
                found = Some((sender, connection));
            }
        }
        let found = found.map(|(sender, connection)| {
            Ticket::new(sender, Arc::clone(connection), Arc::clone(self), load)
        });
        if gone {
            connections.open.retain(|connection| !matches!(connection.room(), Room::Gone));
        }
        found
    }

    fn open_another(self: &Arc<Self>, connections: &mut Connections) {
        if connections.waiting.is_empty()
            || connections.is_opening
            || connections.open.len() >= MAX_CONNECTIONS
        {
            return;
        }
        connections.is_opening = true;
        connections.attempts += 1;
        let pool = Arc::clone(self);
        // A task of its own: if one client leaves, the other requests still need the connection.
        tokio::spawn(async move {
            let opened = pool.connect_http2().await;
            let is_useless = pool.opened(opened);
            pool.give_places();
            if is_useless {
                sleep(RETRY).await;
            }
            pool.connections().is_opening = false;
            pool.give_places();
        });
    }

    /// Notes the result of an attempt to open a connection, and returns whether the next attempt should
    /// wait. If no connection is open, requests that waited when the attempt began get the error; all
    /// waiting requests get it if the attempt timed out.
    fn opened(&self, opened: Result<Arc<Connection>, UpstreamError>) -> bool {
        let mut connections = self.connections();
        connections.has_failed = opened.is_err();
        let error = match opened {
            Ok(connection) => {
                let is_useless = connection.limit() == 0;
                connections.open.push(connection);
                return is_useless;
            }
            Err(error) => error,
        };
        connections.open.retain(|connection| !matches!(connection.room(), Room::Gone));
        if !connections.open.is_empty() {
            return true;
        }
        let took_too_long = match &error {
            UpstreamError::Unreachable(cause) => cause.kind() == io::ErrorKind::TimedOut,
            error => matches!(error, UpstreamError::Timeout),
        };
        let attempt = connections.attempts;
        for waiting in mem::take(&mut connections.waiting) {
            if took_too_long || waiting.since < attempt {
                let _ = waiting.told.send(Err(again(&error)));
            } else {
                connections.waiting.push_back(waiting);
            }
        }
        false
    }

    async fn connect_http2(self: &Arc<Self>) -> Result<Arc<Connection>, UpstreamError> {
        match self.dial(true).await? {
            Stream::Tcp(stream) => self.greet(stream).await,
            Stream::Tls(stream) => self.greet(stream).await,
            Stream::Unix(stream) => self.greet(stream).await,
        }
    }

    /// Opens a connection, and waits for the app's settings, which say how many requests the app takes.
    async fn greet<T>(self: &Arc<Self>, stream: T) -> Result<Arc<Connection>, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let opened = Connection::open(stream).await;
        let (connection, mut pings, driving) = opened.map_err(UpstreamError::BrokenStream)?;
        let connection = Arc::new(connection);
        let vitals = Arc::clone(connection.vitals());
        let (told, greeted) = oneshot::channel();
        let watching = tokio::spawn(async move {
            // The app sends its settings before its answer to the ping, so they have arrived by then.
            let answered = pings.ping(Ping::opaque()).await;
            if told.send(answered).is_ok() {
                vitals.watch(pings).await;
            }
        });
        let open = GaugeGuard::raise(&self.metrics.connections);
        let (pool, driven) = (Arc::downgrade(self), Arc::downgrade(&connection));
        let task = tokio::spawn(async move {
            // Requests on the connection get the error; the end of an idle connection is not reported.
            let ended = driving.await;
            watching.abort();
            drop(open);
            if let (Some(pool), Some(driven)) = (pool.upgrade(), driven.upgrade()) {
                pool.connections().open.retain(|connection| !Arc::ptr_eq(connection, &driven));
                pool.give_places();
            }
            ended
        });
        // A busy app may be slow. But requests that can wait for another connection need not wait for
        // this one.
        let is_first = self.connections().open.is_empty();
        let patience = if is_first { self.response_timeout } else { self.connect_timeout };
        match timeout(patience, greeted).await {
            Ok(Ok(Ok(_))) => Ok(connection),
            Err(_) => {
                task.abort();
                Err(UpstreamError::Timeout)
            }
            _ => match task.await {
                Ok(Err(error)) => Err(UpstreamError::BrokenStream(error)),
                _ => Err(UpstreamError::BrokenStream(h2::Reason::PROTOCOL_ERROR.into())),
            },
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.http2.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies an error, for another request that waits.
fn again(error: &UpstreamError) -> UpstreamError {
    match error {
        UpstreamError::Unreachable(error) => {
            UpstreamError::Unreachable(io::Error::new(error.kind(), error.to_string()))
        }
        UpstreamError::BrokenStream(error) => {
            let reason = error.reason().unwrap_or(h2::Reason::PROTOCOL_ERROR);
            UpstreamError::BrokenStream(reason.into())
        }
        _ => UpstreamError::Timeout,
    }
}
