//! Slots of a cluster, by which the cluster says which node has which keys.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use redis::{Arg, Cmd, Value};

use super::fault::Fault;
use super::settings::Address;

/// Number of slots of a cluster.
const SLOTS: u16 = 16_384;

/// Most nodes with slots. The Redis documentation advises at most 1,000; each costs a connection.
const MOST_NODES: usize = 1_000;

/// Slots and the node that has them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) node: Address,
}

/// Reads an answer to `CLUSTER SLOTS` that came from `asked`. Leaves out nodes whose address the cluster does not
/// know.
pub(super) fn parse(answer: &Value, asked: &Address) -> Result<Vec<Owned>, Fault> {
    let Value::Array(ranges) = answer else {
        let Value::ServerError(error) = answer else { return Err(Fault::Garbage) };
        return Err(Fault::of_answer(error));
    };
    let mut owned: Vec<Owned> = ranges
        .iter()
        .filter_map(|range| parse_range(range, asked).transpose())
        .collect::<Result<_, _>>()?;
    owned.sort_by_key(|owned| *owned.slots.start());
    let nodes: HashSet<_> = owned.iter().map(|owned| &owned.node).collect();
    if nodes.len() > MOST_NODES || owned.is_empty() {
        return Err(Fault::Garbage);
    }
    Ok(owned)
}

fn parse_range(range: &Value, asked: &Address) -> Result<Option<Owned>, Fault> {
    let Value::Array(parts) = range else { return Err(Fault::Garbage) };
    let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &parts[..] else {
        return Err(Fault::Garbage);
    };
    let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
    let (first, last) = slot(*first).zip(slot(*last)).ok_or(Fault::Garbage)?;
    let [host, Value::Int(port), ..] = &primary[..] else { return Err(Fault::Garbage) };
    let port = u16::try_from(*port).map_err(|_| Fault::Garbage)?;
    let host = match (host, asked) {
        // No host stands for the address at which the question was sent: see `cluster-preferred-endpoint-type`.
        (Value::Nil, Address::Tcp { host, .. }) => host.clone(),
        (Value::BulkString(host), Address::Tcp { host: own, .. }) if host.is_empty() => own.clone(),
        (Value::BulkString(host), _) if host != b"?" => {
            String::from_utf8(host.clone()).map_err(|_| Fault::Garbage)?
        }
        _ => return Ok(None),
    };
    Ok(Some(Owned { slots: first..=last, node: Address::Tcp { host, port } }))
}

/// Returns the slot of the first key of a command, if the command has a key.
pub(super) fn slot_of(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(bytes) => bytes,
        // The cursor of an iteration, which no call of the sidecar has.
        _ => b"",
    });
    let name = words.next()?.to_ascii_uppercase();
    let key = match &name[..] {
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" => {
            (words.nth(1)? != b"0").then(|| words.next()).flatten()
        }
        b"XREAD" | b"XREADGROUP" => {
            words.find(|word| word.eq_ignore_ascii_case(b"STREAMS"))?;
            words.next()
        }
        b"PING" | b"INFO" | b"TIME" | b"ROLE" | b"CLUSTER" | b"SCRIPT" | b"CONFIG" => None,
        b"XINFO" => words.nth(1),
        _ => words.next(),
    };
    key.map(slot_of_key)
}

/// Returns the slot of a key: CRC16 of the key, or of its hash tag
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>).
fn slot_of_key(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC16-XMODEM: polynomial 0x1021, initial value 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// Reads the node in an answer such as `-MOVED 3999 127.0.0.1:6381` that came from `asked`.
pub(super) fn redirected_to(details: &str, asked: &Address) -> Option<Address> {
    let (_, node) = details.split_once(' ')?;
    let (host, port) = node.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match (host, asked) {
        ("", Address::Tcp { host, .. }) => host.clone(),
        (host, _) => host.trim_matches(['[', ']']).to_owned(),
    };
    Some(Address::Tcp { host, port })
}

#[cfg(test)]
mod tests {
    use redis::cmd;

    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of the specification's appendix A.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, same) in [
            ("{user1000}.following", "user1000"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
        ] {
            assert_eq!(slot_of_key(key.as_bytes()), crc16(same.as_bytes()) % SLOTS, "{key}");
        }
        for whole in ["foo{}{bar}", "{open", "close}"] {
            assert_eq!(slot_of_key(whole.as_bytes()), crc16(whole.as_bytes()) % SLOTS, "{whole}");
        }
    }

    #[test]
    fn commands_are_sent_where_their_key_is() {
        let key = Some(slot_of_key(b"velt:t:1"));
        let eval = |keys: u8| {
            let mut command = cmd("eval");
            command.arg("return 1").arg(keys).arg("velt:t:1");
            command
        };
        let mut get = cmd("GET");
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(1000).arg("STREAMS").arg("velt:t:1").arg("$");
        assert_eq!(slot_of(get.arg("velt:t:1")), key);
        assert_eq!(slot_of(&read), key);
        assert_eq!(slot_of(&eval(1)), key);
        assert_eq!(slot_of(&eval(0)), None);
        assert_eq!(slot_of(&cmd("PING")), None);
    }

    #[test]
    fn answers_about_slots_are_read_or_refused() {
        let node = |host: &str| format!("*3\r\n{host}\r\n:6381\r\n$2\r\nid\r\n");
        let range = |node: String| format!("*3\r\n:0\r\n:5460\r\n{node}");
        let read = |text: String| {
            let answer = redis::parse_redis_value(text.as_bytes()).expect("an answer");
            parse(&answer, &at("seed", 1))
        };
        for (host, expected) in
            [("$8\r\n10.0.0.7", "10.0.0.7"), ("$-1", "seed"), ("$0\r\n", "seed")]
        {
            let owned = Owned { slots: 0..=5460, node: at(expected, 6381) };
            assert_eq!(read("*1\r\n".to_owned() + &range(node(host))), Ok(vec![owned]));
        }
        assert_eq!(read("*1\r\n".to_owned() + &range(node("$1\r\n?"))), Err(Fault::Garbage));
        for garbage in ["*0\r\n", "+OK\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:99999\r\n*0\r\n"] {
            assert_eq!(read(garbage.to_owned()), Err(Fault::Garbage), "{garbage:?}");
        }
        assert_eq!(
            read("-ERR This instance has cluster support disabled\r\n".to_owned()),
            Err(Fault::Other("ERR"))
        );
    }

    #[test]
    fn redirections_name_a_node() {
        let asked = at("seed", 1);
        for (details, expected) in [
            ("3999 127.0.0.1:6381", Some(at("127.0.0.1", 6381))),
            ("3999 fd00::7:6381", Some(at("fd00::7", 6381))),
            ("3999 :6381", Some(at("seed", 6381))),
            ("3999", None),
            ("3999 host:port", None),
        ] {
            assert_eq!(redirected_to(details, &asked), expected, "{details}");
        }
    }
}
