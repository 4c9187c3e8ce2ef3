//! One connection to one server, from the login to the first fault.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, Value, cmd};
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::access::{Access, Login};
use super::bounded::Bounded;
use super::fault::Fault;
use super::settings::Address;
use super::stream;

/// Longest time to connect to one server, with the login and the checks.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// A connection that several calls share. The socket closes when the last holder drops the connection.
pub(super) struct Connection {
    multiplexed: MultiplexedConnection,
    address: Address,
    trouble: Arc<Trouble>,
    driver: AbortHandle,
}

/// First fault of a connection. After a fault the connection is not used any more.
#[derive(Default)]
pub(super) struct Trouble {
    fault: OnceLock<Fault>,
    told: Notify,
}

impl Trouble {
    pub(super) fn tell(&self, fault: Fault) {
        // Later faults follow from the first.
        let _ = self.fault.set(fault);
        self.told.notify_one();
    }
}

impl Connection {
    /// Connects to a server of the store, logs in, and checks that the server takes writes.
    pub(super) async fn open(address: &Address, access: &Access) -> Result<Self, Fault> {
        let opening = async {
            let connection = Self::dial(address, access).await?;
            connection.log_in(&access.server).await?;
            connection.check(access.database).await?;
            Ok(connection)
        };
        timeout(CONNECT, opening).await.unwrap_or(Err(Fault::Timeout))
    }

    /// Connects to a Sentinel, and logs in.
    pub(super) async fn open_sentinel(address: &Address, access: &Access) -> Result<Self, Fault> {
        let connection = Self::dial(address, access).await?;
        connection.log_in(&access.sentinel).await?;
        Ok(connection)
    }

    async fn dial(address: &Address, access: &Access) -> Result<Self, Fault> {
        let stream = stream::open(address, access.tls.as_ref()).await?;
        let trouble = Arc::<Trouble>::default();
        let stream = Bounded::new(stream, Arc::clone(&trouble));
        // Have the crate send no command of its own: a proxy may not know `CLIENT SETINFO`, and this module checks
        // each answer.
        let greeting = RedisConnectionInfo::default().set_skip_set_lib_name();
        // No time limit here: callers have their own, and a call that blocks has a longer one.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&greeting, stream, patient).await;
        let (multiplexed, driver) = opened.map_err(|error| Fault::of_error(&error))?;
        let ended = Arc::clone(&trouble);
        let driver = tokio::spawn(async move {
            driver.await;
            ended.tell(Fault::Broken);
        });
        let driver = driver.abort_handle();
        Ok(Self { multiplexed, address: address.clone(), trouble, driver })
    }

    async fn log_in(&self, login: &Login) -> Result<(), Fault> {
        let Some(password) = &login.password else { return Ok(()) };
        let mut command = cmd("AUTH");
        command.arg(login.user.as_ref()).arg(password.expose_secret());
        match &self.call(&[command]).await?[..] {
            [Value::Okay] => Ok(()),
            // Any error of the server's means that it does not take the login.
            [Value::ServerError(_)] => Err(Fault::Denied),
            _ => Err(Fault::Garbage),
        }
    }

    /// Selects the database, and checks that the server serves and takes writes. If the user may not run these
    /// commands, or a proxy does not know them, the connection is used all the same: later calls show whether the
    /// server serves.
    async fn check(&self, database: u32) -> Result<(), Fault> {
        if database != 0 {
            let mut command = cmd("SELECT");
            command.arg(database);
            if let [Value::ServerError(error)] = &self.call(&[command]).await?[..] {
                return Err(match Fault::of_answer(error) {
                    // The server has the command and refuses the number.
                    Fault::Other("ERR") => Fault::NoDatabase,
                    fault => fault,
                });
            }
        }
        let answers = self.call(&[cmd("PING"), cmd("ROLE")]).await?;
        match &answers[0] {
            Value::SimpleString(word) if word == "PONG" => {}
            // MISCONF: the server can't save its data, and takes no writes. Its entries can still be read.
            Value::ServerError(error) if matches!(error.code(), "NOPERM" | "MISCONF") => {}
            Value::ServerError(error) => return Err(Fault::of_answer(error)),
            _ => return Err(Fault::Garbage),
        }
        match role(&answers[1]) {
            Some(b"slave") => Err(Fault::ReadOnly),
            // The configured address is that of a Sentinel, not of a server.
            Some(b"sentinel") => Err(Fault::NoPrimary),
            _ => Ok(()),
        }
    }

    /// Asks whether the server still answers. Any answer will do.
    pub(super) async fn ping(&self) -> Result<(), Fault> {
        let answer = timeout(CONNECT, self.call(&[cmd("PING")])).await;
        answer.unwrap_or(Err(Fault::Timeout)).map(drop)
    }

    /// Sends commands in one piece, and returns their answers; an answer may be an error.
    pub(super) async fn call(&self, commands: &[Cmd]) -> Result<Vec<Value>, Fault> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let mut multiplexed = self.multiplexed.clone();
        let answers = multiplexed.send_packed_commands(&pipeline, 0, commands.len()).await;
        match answers {
            Ok(answers) if answers.len() == commands.len() => Ok(answers),
            Ok(_) => Err(Fault::Garbage),
            Err(error) => Err(self.fault().unwrap_or_else(|| Fault::of_error(&error))),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.trouble.fault.get().copied()
    }

    /// Notes that the connection is not to be used any more.
    pub(super) fn give_up(&self, fault: Fault) {
        self.trouble.tell(fault);
    }

    /// Waits for the first fault. One task at a time may wait.
    pub(super) async fn given_up(&self) -> Fault {
        loop {
            if let Some(fault) = self.fault() {
                return fault;
            }
            self.trouble.told.notified().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Returns the first word of an answer to `ROLE`.
fn role(answer: &Value) -> Option<&[u8]> {
    match answer {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(word)) => Some(word),
            _ => None,
        },
        _ => None,
    }
}
