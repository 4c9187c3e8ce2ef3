//! A connection for calls that block. On a shared connection, they would hold up all other calls.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::timeout;

use super::Store;
use super::connection::Connection;
use super::fault::Fault;

/// A connection of its own for `XREAD BLOCK`. Connects again at the next call after a fault, and when another server
/// has taken over the stream.
pub struct Listener {
    store: Store,
    connection: Option<Connection>,
}

impl Listener {
    pub(super) fn new(store: Store, connection: Option<Connection>) -> Self {
        Self { store, connection }
    }

    /// Sends a command, and waits `within` for its answer, which includes the time that the command blocks.
    ///
    /// # Errors
    ///
    /// See [`Fault`]. After [`Fault::Timeout`] and [`Fault::Broken`] the server may or may not have run the command.
    pub async fn call(&mut self, command: Cmd, within: Duration) -> Result<Value, Fault> {
        let called = self.call_uncounted(command, within).await;
        self.store.count_own(called.as_ref().err().copied());
        called
    }

    async fn call_uncounted(&mut self, command: Cmd, within: Duration) -> Result<Value, Fault> {
        let address = self.store.address_for(&command).ok_or(Fault::NotConnected)?;
        let before = self.connection.take().filter(|connection| connection.fault().is_none());
        // Another server may lack what this one had: the caller has to look.
        if before.as_ref().is_some_and(|before| *before.address() != address) {
            return Err(Fault::Broken);
        }
        let connection = match before {
            Some(connection) => connection,
            None => self.store.open_own(&address).await?,
        };
        let answers = timeout(within, connection.call(&[command])).await;
        // After a fault the connection is dropped: an answer that comes late would be taken for the next one.
        let answer = answers.unwrap_or(Err(Fault::Timeout))?.pop().ok_or(Fault::Garbage)?;
        let Value::ServerError(error) = &answer else {
            self.connection = Some(connection);
            return Ok(answer);
        };
        self.store.look();
        Err(Fault::of_answer(error))
    }
}
