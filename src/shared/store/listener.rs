//! A connection for calls that block, which would hold up all others on a shared one.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::timeout;

use super::Store;
use super::connection::Connection;
use super::fault::Fault;

/// A connection of its own for `XREAD BLOCK`. Connects again by itself, at the next call after a fault, and follows
/// the store to another server.
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
    /// See [`Fault`]. After [`Fault::Timeout`] and [`Fault::Broken`] the command may or may not have been done.
    pub async fn call(&mut self, command: Cmd, within: Duration) -> Result<Value, Fault> {
        let address = self.store.address_for(&command).ok_or(Fault::NotConnected)?;
        let usable = |connection: &Connection| {
            connection.fault().is_none() && *connection.address() == address
        };
        let connection = match self.connection.take().filter(usable) {
            Some(connection) => connection,
            None => Connection::open(&address, &self.store.access()).await?,
        };
        let answers = timeout(within, connection.call(&[command])).await;
        // A connection whose answer is still to come is of no use for the next command.
        let answer = answers.unwrap_or(Err(Fault::Timeout))?.pop().ok_or(Fault::Garbage)?;
        let Value::ServerError(error) = &answer else {
            self.connection = Some(connection);
            return Ok(answer);
        };
        self.store.look();
        Err(Fault::of_answer(error))
    }
}
