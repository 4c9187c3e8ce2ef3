//! A rehearsal of the commands that sharing needs, for `doctor`: with keys of its own, which it deletes.

use std::time::Duration;

use redis::Cmd;

use crate::lease::{RELEASE, RENEW};
use crate::place::StoreKeys;
use crate::seal::Name;
use crate::store::{Fault, Store};
use crate::{FORGET_LIFE, nonce};

/// Time limit of all commands together.
const PATIENCE: Duration = Duration::from_secs(2);

/// Life of the keys, if they can't be deleted, in milliseconds.
const LIFE: u64 = 5_000;

/// Does once what sharing does: takes, renews and gives back a lease, writes and reads a mark, adds to a stream and
/// reads it.
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
        command("XRANGE", &[&stream, "-", "+", "COUNT", "1"]),
        command("XREAD", &["COUNT", "1", "STREAMS", &stream, "0-0"]),
        command("DEL", &[&stream]),
    ];
    store.call(commands, PATIENCE).await.map(|_| ())
}
