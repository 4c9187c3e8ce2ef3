//! Failures of calls to the store, and who or what has caused them.

use std::error::Error;
use std::fmt;

use ground::metrics::{StoreCallResult, StoreConnectResult};
use redis::{ErrorKind, RedisError, ServerError};

/// Failure of a call to the store, or of an attempt to connect. Holds no text of the server, because an answer may
/// repeat a command with a secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// There is no connection; the call was not sent.
    NotConnected,
    /// Calls are suspended, because the last calls failed; the call was not sent.
    Suspended,
    /// Too many calls are under way; the call was not sent.
    Busy,
    /// No answer came in time.
    Timeout,
    /// The connection could not be opened, or broke.
    Broken,
    /// The certificate of the server is not accepted, or the server speaks no TLS.
    Untrusted,
    /// The server does not accept the user or the password, or the user lacks a right.
    Denied,
    /// The server is a replica, which takes no writes.
    ReadOnly,
    /// The Sentinels name no server that is a primary, or the address of a Sentinel was given for that of a server.
    NoPrimary,
    /// The server has reached its `maxmemory` and may not remove entries.
    Full,
    /// The server has no database of the configured number.
    NoDatabase,
    /// The server is loading its data.
    Loading,
    /// The answer does not follow the protocol, or is larger than any that a call can need.
    Garbage,
    /// An error of another kind, by the first word of the server's answer.
    Other(&'static str),
}

/// Cause of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Too many calls of the sidecar itself.
    Ours,
    /// The network, or a server that is down: a client can't tell one from the other.
    Network,
    Server,
    /// Settings of the sidecar or of the server.
    Operator,
}

/// First words of error answers, besides those for which [`Fault::of_code`] has a variant. Any other word becomes
/// `unknown`, because a server may send any text.
const CODES: [&str; 17] = [
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "ERR",
    "EXECABORT",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOGOODSLAVE",
    "NOREPLICAS",
    "NOSCRIPT",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGTYPE",
];

impl Fault {
    /// Fault of a call about a key that holds a value of another kind than the sidecar's.
    pub(crate) const WRONG_KIND: Self = Self::Other("WRONGTYPE");

    /// Returns the fault that an error of the connection shows.
    pub(super) fn of_error(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => Self::Timeout,
            ErrorKind::Io => Self::Broken,
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let code = error.code().unwrap_or_default();
                Self::of_code(inner_code(code, error.detail().unwrap_or_default()))
            }
            _ => Self::Garbage,
        }
    }

    /// Returns the fault that an error answer of the server shows.
    pub(super) fn of_answer(error: &ServerError) -> Self {
        Self::of_code(inner_code(error.code(), error.details().unwrap_or_default()))
    }

    fn of_code(code: &str) -> Self {
        match code {
            "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => Self::Denied,
            "READONLY" => Self::ReadOnly,
            "OOM" => Self::Full,
            "LOADING" => Self::Loading,
            code => {
                let known = CODES.iter().find(|known| **known == code);
                Self::Other(known.copied().unwrap_or("unknown"))
            }
        }
    }

    /// Whether the fault makes it likely that the next call waits in vain too.
    pub(super) fn is_outage(self) -> bool {
        matches!(self, Self::Timeout | Self::Broken | Self::Garbage)
    }

    /// Returns the cause, which decides where an operator looks first.
    pub fn blame(self) -> Blame {
        match self {
            Self::Busy => Blame::Ours,
            Self::NotConnected | Self::Suspended | Self::Timeout | Self::Broken => Blame::Network,
            Self::Untrusted
            | Self::Denied
            | Self::ReadOnly
            | Self::NoPrimary
            | Self::NoDatabase
            | Self::Full
            // The address is that of a node of a cluster.
            | Self::Other("MOVED") => Blame::Operator,
            Self::Loading | Self::Garbage | Self::Other(_) => Blame::Server,
        }
    }

    /// Returns the label under which a call with this fault is counted.
    pub(super) fn call_result(self) -> StoreCallResult {
        match self {
            Self::NotConnected => StoreCallResult::NotConnected,
            Self::Suspended => StoreCallResult::Suspended,
            Self::Busy => StoreCallResult::Busy,
            Self::Timeout => StoreCallResult::Timeout,
            Self::Broken | Self::Untrusted | Self::Garbage => StoreCallResult::Broken,
            Self::Denied => StoreCallResult::Denied,
            Self::ReadOnly => StoreCallResult::ReadOnly,
            Self::Full => StoreCallResult::Full,
            Self::NoPrimary | Self::NoDatabase | Self::Loading | Self::Other(_) => {
                StoreCallResult::Failed
            }
        }
    }

    /// Returns the label under which an attempt to connect with this fault is counted.
    pub(super) fn connect_result(self) -> StoreConnectResult {
        match self {
            Self::Timeout => StoreConnectResult::Timeout,
            Self::NotConnected | Self::Suspended | Self::Busy | Self::Broken => {
                StoreConnectResult::Unreachable
            }
            Self::Untrusted => StoreConnectResult::Untrusted,
            Self::Denied => StoreConnectResult::Denied,
            Self::ReadOnly | Self::NoPrimary => StoreConnectResult::NoPrimary,
            Self::NoDatabase | Self::Full | Self::Loading | Self::Garbage | Self::Other(_) => {
                StoreConnectResult::NotReady
            }
        }
    }
}

/// Texts that a server writes where a script has run a command for which the user lacks a right: Redis up to 7.0, and
/// later versions and Valkey.
const DENIED_IN_SCRIPT: [&str; 2] =
    ["The user executing the script can't", "ACL failure in script"];

/// Returns the code of an error, also of an error inside a script. Servers before Redis 7 put the inner error into
/// the text of the outer:
/// `ERR Error running script (call to f_..): @user_script:1: @user_script: 1: -READONLY You can't ..`. No server gives
/// the code of a right that is missing.
fn inner_code<'a>(code: &'a str, details: &'a str) -> &'a str {
    if code != "ERR" {
        return code;
    }
    if DENIED_IN_SCRIPT.iter().any(|text| details.contains(text)) {
        return "NOPERM";
    }
    if !details.starts_with("Error running script") {
        return code;
    }
    let inner = details.split_once(": -").and_then(|(_, rest)| rest.split(' ').next());
    inner.unwrap_or(code)
}

impl fmt::Display for Fault {
    /// Says what happened and, where the operator can do something, what that is.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotConnected => "not connected",
            Self::Suspended => "calls are suspended after several that failed",
            Self::Busy => "too many calls are under way",
            Self::Timeout => "no answer in time",
            Self::Broken => "the server can't be reached, or broke the connection off",
            Self::Untrusted => {
                "the server's certificate is not accepted, or the server speaks no TLS: check \
                 the roots, the host name and the port"
            }
            Self::Denied => {
                "user, password or rights are not accepted: check them, and the server's ACL"
            }
            Self::ReadOnly => {
                "the server is a replica: name the primary, or use Sentinel or a cluster"
            }
            Self::NoPrimary => "the Sentinels know no primary of this name, or it is not reachable",
            Self::Full => {
                "the server's memory is full: raise maxmemory, and set maxmemory-policy \
                 to volatile-ttl"
            }
            Self::NoDatabase => {
                "the server has no database of the number in shared.database: most have 16, numbered \
                 from 0, and a node of a cluster has database 0 alone"
            }
            Self::Loading => "the server is loading its data",
            Self::Garbage => "the answer is not Redis's, or is too large",
            Self::Other("WRONGTYPE") => {
                "a key below shared.prefix holds a value of another program's: delete it, and give each \
                 program a prefix and an ACL user of its own"
            }
            Self::Other("MOVED") => "the server is a node of a cluster: name it as a cluster",
            Self::Other("MISCONF") => {
                "the server can't save its data and takes no writes: see its log"
            }
            Self::Other(code) => return write!(formatter, "the server answered {code}"),
        })
    }
}

impl Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_servers_have_their_fault() {
        for (answer, expected) in [
            ("-WRONGPASS invalid username-password pair or user is disabled.", Fault::Denied),
            ("-NOAUTH Authentication required.", Fault::Denied),
            ("-NOPERM this user has no permissions to run the 'set' command", Fault::Denied),
            ("-DENIED Redis is running in protected mode", Fault::Denied),
            ("-READONLY You can't write against a read only replica.", Fault::ReadOnly),
            ("-OOM command not allowed when used memory > 'maxmemory'.", Fault::Full),
            ("-LOADING Redis is loading the dataset in memory", Fault::Loading),
            (
                "-WRONGTYPE Operation against a key holding the wrong kind",
                Fault::Other("WRONGTYPE"),
            ),
            ("-NOSCRIPT No matching script.", Fault::Other("NOSCRIPT")),
            ("-ERR unknown command", Fault::Other("ERR")),
            (
                "-ERR Error running script (call to f_401d): @user_script:1: @user_script: 1: \
                 -READONLY You can't write against a read only replica.",
                Fault::ReadOnly,
            ),
            (
                "-ERR Error running script (call to f_842c): @user_script:6: @user_script: 6: \
                 -OOM command not allowed when used memory > 'maxmemory'.",
                Fault::Full,
            ),
            ("-ERR Error running script (call to f_1): @user_script:1: x", Fault::Other("ERR")),
            (
                "-ERR Error running script (call to f_3e69): @user_script:1: @user_script: 1: The \
                 user executing the script can't run this command or subcommand",
                Fault::Denied,
            ),
            (
                "-ERR The user executing the script can't access at least one of the keys \
                 mentioned in the command arguments script: 4b7a, on @user_script:1.",
                Fault::Denied,
            ),
            (
                "-ERR ACL failure in script: No permissions to access a key script: 4b7a, on \
                 @user_script:1.",
                Fault::Denied,
            ),
            ("-Secret-of-a-hostile-server\x1b[2J told", Fault::Other("unknown")),
        ] {
            let value = redis::parse_redis_value(format!("{answer}\r\n").as_bytes());
            let error = value.and_then(redis::Value::extract_error).expect_err("an error");
            assert_eq!(Fault::of_error(&error), expected, "{answer}");
        }
    }
}
