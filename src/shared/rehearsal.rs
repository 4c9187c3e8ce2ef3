//! A rehearsal for `doctor` of the commands that sharing tokens needs. It uses keys of its own, and deletes them.

use std::time::Duration;

use redis::Cmd;

use crate::lease::{RELEASE, RENEW};
use crate::place::StoreKeys;
use crate::seal::Name;
use crate::store::{Fault, Store};
use crate::{FORGET_LIFE, nonce};

/// Time limit of all commands together.
const PATIENCE: Duration = Duration::from_secs(2);

/// Life of the lease in milliseconds, in case it can't be given back.
const LIFE: u64 = 5_000;

/// Runs each command of sharing once: takes, renews, reads and gives back a lease, and adds to a stream, reads and
/// deletes the stream.
///
/// # Errors
///
/// The first fault, such as a right that the user lacks.
pub async fn rehearse(store: &Store, prefix: &str) -> Result<(), Fault> {
    let keys = StoreKeys::new(prefix.to_owned());
    let name = Name::new(nonce());
    let (lease, stream) = (keys.lease(name), format!("{}:rehearsal", keys.forgets()));
    let command = |word: &str, arguments: &[&str]| {
        let mut command = redis::cmd(word);
        command.arg(arguments);
        command
    };
    let life = LIFE.to_string();
    let oldest = FORGET_LIFE.as_millis().to_string();
    let commands: Vec<Cmd> = vec![
        command("SET", &[&lease, "rehearsal", "NX", "PX", &life]),
        command("EVAL", &[RENEW, "1", &lease, "rehearsal", &life]),
        command("GET", &[&lease]),
        command("PTTL", &[&lease]),
        command("EVAL", &[RELEASE, "1", &lease, "rehearsal"]),
        command("XADD", &[&stream, "MINID", "~", &oldest, "*", "e", "rehearsal"]),
        command("PEXPIRE", &[&stream, &life]),
        command("XRANGE", &[&stream, "-", "+", "COUNT", "1"]),
        command("XREAD", &["COUNT", "1", "STREAMS", &stream, "0-0"]),
        command("DEL", &[&stream]),
    ];
    store.call(commands, PATIENCE).await.map(|_| ())
}
