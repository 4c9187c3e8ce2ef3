//! The primary that Sentinels elect (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>).

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::{sleep, timeout};

use super::access::Access;
use super::connection::Connection;
use super::fault::Fault;
use super::settings::Address;

/// Longest time to ask one Sentinel. There are several, so that the next can be asked if one is down.
const ASK: Duration = Duration::from_millis(500);

/// Pause between two questions which server is the primary. After a failover the former primary may go on serving for
/// eight seconds, until the Sentinels tell it, and does not get the forgets that the new primary gets.
const LOOK: Duration = Duration::from_secs(1);

/// The Sentinels, and the name of the primary.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    primary: String,
    /// Index of the Sentinel that is asked first: the one that last led to a primary.
    first: AtomicUsize,
}

impl fmt::Display for Sentinels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of the Sentinels", self.primary)
    }
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<Address>, primary: String) -> Self {
        Self { addresses, primary, first: AtomicUsize::new(0) }
    }

    /// Connects to the primary. A Sentinel that is cut off from the others still names the former primary. So the
    /// server is asked for its role, and if it is not the primary, the next Sentinel is asked.
    pub(super) async fn open_primary(&self, access: &Access) -> Result<Connection, Fault> {
        let first = self.first.load(Ordering::Relaxed);
        let mut refused: Vec<Address> = Vec::new();
        let mut fault = Fault::Broken;
        for step in 0..self.addresses.len() {
            let index = (first + step) % self.addresses.len();
            let asked = timeout(ASK, self.ask(&self.addresses[index], access)).await;
            let address = match asked.unwrap_or(Err(Fault::Timeout)) {
                Ok(address) if refused.contains(&address) => continue,
                Ok(address) => address,
                Err(error) => {
                    // A fault of a server that a Sentinel has named says more than the fault of a Sentinel.
                    if refused.is_empty() {
                        fault = error;
                    }
                    continue;
                }
            };
            match Connection::open(&address, access).await {
                Ok(connection) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => fault = error,
            }
            refused.push(address);
        }
        // The Sentinels still name a server that has become a replica.
        Err(if fault == Fault::ReadOnly { Fault::NoPrimary } else { fault })
    }

    /// Waits until a Sentinel names another server as the primary. Keeps one connection, and goes on to the next
    /// Sentinel after a fault.
    pub(super) async fn replaced(&self, server: &Address, access: &Access) {
        let mut index = self.first.load(Ordering::Relaxed);
        let mut connection = None;
        loop {
            sleep(LOOK).await;
            let asking = self.ask_on(&mut connection, index, access);
            match timeout(ASK, asking).await.unwrap_or(Err(Fault::Timeout)) {
                Ok(named) if named != *server => return,
                Ok(_) => {}
                // The fault of a Sentinel says nothing about the primary.
                Err(_) => {
                    connection = None;
                    index = (index + 1) % self.addresses.len();
                }
            }
        }
    }

    /// Asks the Sentinel over `connection`, which is opened first if there is none.
    async fn ask_on(
        &self,
        connection: &mut Option<Connection>,
        index: usize,
        access: &Access,
    ) -> Result<Address, Fault> {
        if connection.is_none() {
            let opened = Connection::open_sentinel(&self.addresses[index], access).await?;
            *connection = Some(opened);
        }
        let connection = connection.as_ref().ok_or(Fault::NotConnected)?;
        self.name_on(connection).await
    }

    async fn ask(&self, sentinel: &Address, access: &Access) -> Result<Address, Fault> {
        self.name_on(&Connection::open_sentinel(sentinel, access).await?).await
    }

    async fn name_on(&self, connection: &Connection) -> Result<Address, Fault> {
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        match &connection.call(&[command]).await?[..] {
            [Value::Array(parts)] => match &parts[..] {
                [Value::BulkString(host), Value::BulkString(port)] => address_of(host, port),
                _ => Err(Fault::Garbage),
            },
            [Value::Nil] => Err(Fault::NoPrimary),
            [Value::ServerError(error)] => Err(Fault::of_answer(error)),
            _ => Err(Fault::Garbage),
        }
    }
}

fn address_of(host: &[u8], port: &[u8]) -> Result<Address, Fault> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Fault::Garbage);
    let port = text(port)?.parse().map_err(|_| Fault::Garbage)?;
    Ok(Address::Tcp { host: text(host)?.to_owned(), port })
}
