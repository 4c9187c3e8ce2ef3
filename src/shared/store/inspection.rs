//! Facts about a server, for an operator who wants to know whether it is suitable.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Value, cmd};

use super::fault::Fault;

/// Facts about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// `redis`, `valkey`, or the name that the server gives itself.
    pub software: String,
    /// Version of the software; `redis_version` if the software gives no version of its own.
    pub version: String,
    /// `master` or `slave`, as the server calls it.
    pub role: String,
    /// `maxmemory-policy`, such as `noeviction`.
    pub memory_policy: String,
    pub used_memory: u64,
    /// Most memory that the server uses for data; `None` without a limit.
    pub most_memory: Option<u64>,
    /// Whether the server is a node of a cluster.
    pub is_cluster: bool,
    /// Time by which the clocks of server and sidecar differ. May be wrong by the time that a call takes.
    pub clock_difference: Duration,
}

/// Commands whose answers [`Inspection::read`] reads. The memory policy is read from `INFO`, because managed servers
/// refuse `CONFIG GET`.
pub(super) fn commands() -> Vec<redis::Cmd> {
    vec![cmd("INFO"), cmd("TIME")]
}

impl Inspection {
    pub(super) fn read(answers: &[Value], now: SystemTime) -> Result<Self, Fault> {
        let [info, time] = answers else { return Err(Fault::Garbage) };
        let info = text(info).ok_or(Fault::Garbage)?;
        let field = |name: &str| {
            let mut fields = info.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(known, _)| *known == name).map(|(_, value)| value.trim())
        };
        let number = |name| field(name).and_then(|value| value.parse::<u64>().ok());
        let software = field("server_name").unwrap_or("redis");
        let version = field("valkey_version").or_else(|| field("redis_version"));
        Ok(Self {
            software: plain(software),
            version: plain(version.ok_or(Fault::Garbage)?),
            role: plain(field("role").unwrap_or_default()),
            memory_policy: plain(field("maxmemory_policy").unwrap_or_default()),
            used_memory: number("used_memory").unwrap_or_default(),
            most_memory: number("maxmemory").filter(|most| *most > 0),
            is_cluster: field("cluster_enabled") == Some("1"),
            clock_difference: clock_difference(time, now).ok_or(Fault::Garbage)?,
        })
    }
}

fn text(answer: &Value) -> Option<&str> {
    match answer {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Keeps at most 40 printable characters: a server that is not trusted must not control the operator's terminal.
fn plain(value: &str) -> String {
    value.chars().filter(char::is_ascii_graphic).take(40).collect()
}

/// Compares the seconds and microseconds that the server's clock shows with `now`.
fn clock_difference(answer: &Value, now: SystemTime) -> Option<Duration> {
    let Value::Array(parts) = answer else { return None };
    let mut numbers = parts.iter().map(|part| text(part)?.parse::<u64>().ok());
    let (seconds, micros) = (numbers.next()??, numbers.next()??);
    let since = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    let server = UNIX_EPOCH.checked_add(since)?;
    Some(now.duration_since(server).unwrap_or_else(|error| error.duration()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: &str, time: [&str; 2]) -> Result<Inspection, Fault> {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let answers = [bulk(info), Value::Array(time.map(bulk).to_vec())];
        Inspection::read(&answers, UNIX_EPOCH + Duration::from_secs(1_000))
    }

    #[test]
    fn inspection_names_software_and_limits() {
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n\
                      role:master\r\nused_memory:5\r\nmaxmemory:7\r\nmaxmemory_policy:noeviction\r\n";
        let seen = read(valkey, ["1003", "250000"]).expect("facts");
        assert_eq!((&*seen.software, &*seen.version), ("valkey", "8.1.0"));
        assert_eq!((seen.used_memory, seen.most_memory), (5, Some(7)));
        assert_eq!(seen.clock_difference, Duration::from_millis(3_250));
        let redis =
            read("redis_version:7.0.15\r\nmaxmemory:0\r\ncluster_enabled:1\r\n", ["990", "0"]);
        let redis = redis.expect("facts");
        assert_eq!((&*redis.software, redis.most_memory, redis.is_cluster), ("redis", None, true));
        assert_eq!(redis.clock_difference, Duration::from_secs(10));
    }

    #[test]
    fn garbage_is_no_inspection() {
        assert_eq!(read("hello", ["1", "2"]), Err(Fault::Garbage));
        let most = u64::MAX.to_string();
        assert_eq!(read("redis_version:7", [&most, &most]), Err(Fault::Garbage));
        let escaped = read("redis_version:7\x1b[2J", ["1", "2"]).expect("facts");
        assert_eq!(escaped.version, "7[2J");
    }
}
