//! The store of shared tokens with real servers: Redis alone, behind Sentinel and as a cluster.

/// Makes a test for each version of Redis from each function, which takes the version.
macro_rules! with_each_version {
    ($($function:ident),+ $(,)?) => {$(
        mod $function {
            use crate::shared_store::servers::Version;

            #[tokio::test]
            async fn debian_version_shows_it() {
                super::$function(Version::Debian).await;
            }

            #[tokio::test]
            async fn oldest_version_shows_it() {
                super::$function(Version::Oldest).await;
            }
        }
    )+};
}

mod cluster;
pub mod families;
mod faults;
mod hostile;
mod listening;
mod login;
mod relays;
mod sentinel;
#[allow(dead_code, reason = "tests of the whole sidecar use the rest")]
pub mod servers;
mod tls;

use std::time::Duration;

use ground::metrics::{StoreCallResult, StoreMetrics};
use redis::{Cmd, Value, cmd};
use shared::store::{Fault, Place, Settings, State, Store};
use tokio::time::Instant;

use crate::neighbour::eventually;

/// Time that a mint has for the store. No divisor of other times.
const PATIENCE: Duration = Duration::from_millis(53);

/// Time for a call that is answered, on a busy machine too.
const LEISURE: Duration = Duration::from_secs(5);

/// Time within which a call that is not sent fails, and within which a call that is sent ends. On a busy machine a test
/// waits for its turn; one that waits for a connection, or for a name, waits for far longer.
const AT_ONCE: Duration = Duration::from_millis(40);
const IN_TIME: Duration = Duration::from_millis(153);

pub fn settings(place: Place) -> Settings {
    Settings {
        place,
        tls: None,
        user: None,
        password: None,
        sentinel_user: None,
        sentinel_password: None,
        database: 0,
        patience: PATIENCE,
    }
}

/// A store, and what it counts.
struct Subject {
    store: Store,
    metrics: StoreMetrics,
}

impl Subject {
    fn at(place: Place) -> Self {
        Self::with(settings(place))
    }

    fn with(settings: Settings) -> Self {
        let metrics = StoreMetrics::detached();
        let store = Store::start(settings, metrics.clone()).expect("settings that fit");
        Self { store, metrics }
    }

    /// Starts a store, and waits until it is connected.
    async fn connected(place: Place) -> Self {
        let subject = Self::at(place);
        subject.is_connected().await;
        subject
    }

    async fn is_connected(&self) {
        self.state_is("connected", |state| state == State::Connected).await;
    }

    async fn state_is(&self, what: &str, expected: impl Fn(State) -> bool) {
        eventually(what, async || {
            let state = self.store.state();
            if expected(state) { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
    }

    /// Waits until an attempt to connect has ended with this fault.
    async fn is_refused(&self, fault: Fault) {
        self.state_is(&format!("{fault:?}"), |state| {
            state == State::Connecting { last: Some(fault) }
        })
        .await;
    }

    async fn call(&self, command: Cmd) -> Result<Value, Fault> {
        self.call_within(LEISURE, command).await
    }

    /// Calls as a mint does.
    async fn call_in_haste(&self, command: Cmd) -> Result<Value, Fault> {
        self.call_within(PATIENCE, command).await
    }

    async fn call_within(&self, within: Duration, command: Cmd) -> Result<Value, Fault> {
        let answers = self.store.call(vec![command], within).await?;
        let [answer] = <[Value; 1]>::try_from(answers).expect("one answer");
        Ok(answer)
    }

    /// Calls until an answer comes, and returns how long that took.
    async fn is_back(&self) -> Duration {
        let started = Instant::now();
        eventually("answers of the store", async || {
            self.call_in_haste(set("probe", "1")).await.map(drop).map_err(|fault| fault.to_string())
        })
        .await;
        started.elapsed()
    }

    fn count(&self, result: StoreCallResult) -> u64 {
        self.metrics.calls.get(result)
    }
}

fn set(key: &str, value: &str) -> Cmd {
    let mut command = cmd("SET");
    command.arg(key).arg(value).arg("PX").arg(60_000);
    command
}

fn get(key: &str) -> Cmd {
    let mut command = cmd("GET");
    command.arg(key);
    command
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}
