//! Servers that are no servers, and servers in the hands of an attacker.

use std::time::Duration;

use futures_util::future::join_all;
use shared::store::{Address, Fault, Place, State};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::{AT_ONCE, IN_TIME, Subject, get};
use crate::neighbour::{LOOPBACK, Task};

/// Most that the memory of the test's process may grow: other tests run in it at the same time.
const GROWTH: u64 = 96 << 20;

/// Behaviour of a server that logs its clients in.
#[derive(Clone, Copy)]
enum After {
    /// Sends these bytes again and again, from the first command on.
    Repeat(&'static [u8]),
    /// Sends these bytes once, for each command.
    Once(&'static [u8]),
    /// Sends these bytes when the client has logged in, before a command.
    Unasked(&'static [u8]),
}

/// Answers the commands of a login, and then as told.
async fn serve(after: After) -> (Task, Place) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let task = Task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The client may leave at any time.
                let _ = converse(&mut stream, after).await;
            });
        }
    });
    (task, Place::Server(Address::Tcp { host: "127.0.0.1".to_owned(), port }))
}

async fn converse(stream: &mut TcpStream, after: After) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    if stream.read(&mut buffer).await? == 0 {
        return Ok(());
    }
    stream.write_all(b"+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n").await?;
    if let After::Unasked(bytes) = after {
        sleep(Duration::from_millis(30)).await;
        stream.write_all(bytes).await?;
    }
    while stream.read(&mut buffer).await? > 0 {
        match after {
            After::Repeat(bytes) => {
                stream.write_all(bytes).await?;
                loop {
                    stream.write_all(&bytes[bytes.len() / 2..]).await?;
                }
            }
            After::Once(bytes) => stream.write_all(bytes).await?,
            After::Unasked(_) => stream.write_all(b"$-1\r\n").await?,
        }
    }
    Ok(())
}

/// Bytes of the process's memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
    let kilobytes: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("one");
    kilobytes * 1024
}

#[tokio::test]
async fn hostile_answers_end_the_connection_and_take_no_memory() {
    const HEADER: &[u8] = b"*1000000000\r\n";
    const NESTED: &[u8] = b"*9000\r\n*9000\r\n*9000\r\n";
    const LARGE: &[u8] =
        b"$500000000\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    const LINE: &[u8] = b"+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    const MANY: &[u8] =
        b"*16000\r\n$60\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";
    const ANSWERS: &[u8] = b"$-1\r\n$-1\r\n";
    let before = resident();
    let servers = [
        After::Once(HEADER),
        After::Once(NESTED),
        After::Once(b"%18446744073709551615\r\n"),
        After::Repeat(LARGE),
        After::Repeat(LINE),
        After::Repeat(MANY),
        After::Repeat(ANSWERS),
        After::Once(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        After::Once(b"\x15\x03\x01\x00\x02\x02\x46"),
    ];
    join_all(servers.map(is_left_at_once)).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB", grown >> 20);
}

/// Calls a server for a while. The first bytes of its answers are enough: no call waits for the rest.
async fn is_left_at_once(after: After) {
    let (_server, place) = serve(after).await;
    let subject = Subject::connected(place).await;
    let mut faults = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        let asked = Instant::now();
        faults.extend(subject.call(get("key")).await.err());
        assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
        sleep(Duration::from_millis(3)).await;
    }
    let expected = [Fault::Garbage, Fault::NotConnected, Fault::Suspended];
    let as_expected = faults.iter().all(|fault| expected.contains(fault));
    assert!(!faults.is_empty() && as_expected, "{faults:?}");
}

#[tokio::test]
async fn answer_without_a_question_is_no_answer_to_the_next() {
    let (_server, place) = serve(After::Unasked(b"$6\r\nforged\r\n")).await;
    let subject = Subject::connected(place).await;
    // Without a call: the forged answer would be the first call's.
    subject.state_is("an end of the connection", |state| state != State::Connected).await;
    let called = subject.call(get("key")).await;
    assert_eq!(called, Err(Fault::NotConnected));
}

#[tokio::test]
async fn silent_server_is_no_server() {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let subject = Subject::at(Place::Server(Address::Tcp { host: "127.0.0.1".to_owned(), port }));
    subject.is_refused(Fault::Timeout).await;
    let asked = Instant::now();
    assert_eq!(subject.call(get("key")).await, Err(Fault::NotConnected));
    assert!(asked.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn server_that_is_not_ready_is_named() {
    for (greeting, expected) in [
        (
            &b"-LOADING Redis is loading the dataset in memory\r\n-LOADING Redis\r\n"[..],
            Fault::Loading,
        ),
        (b"-NOAUTH Authentication required.\r\n-NOAUTH Authentication\r\n", Fault::Denied),
        (b"-ERR max number of clients reached\r\n+x\r\n", Fault::Other("ERR")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Fault::Garbage),
        (b"+PONG\r\n*3\r\n$8\r\nsentinel\r\n:0\r\n*0\r\n", Fault::NoPrimary),
    ] {
        let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let _server = Task::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                if stream.read(&mut buffer).await.is_ok() {
                    // The client may have left.
                    let _ = stream.write_all(greeting).await;
                }
            }
        });
        let place = Place::Server(Address::Tcp { host: "127.0.0.1".to_owned(), port });
        let subject = Subject::at(place);
        subject.is_refused(expected).await;
        assert_ne!(subject.store.state(), State::Connected);
    }
}
