//! A thousand requests at once of a hundred users whom no cache knows: a page of a few requests, opened
//! by a team at the start of a meeting. Counts the app's answers that go out without a token.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::peer::{Peer, Running, Setting};
use crate::report::Report;
use crate::{Bench, Result, app, tokens};

pub const WITHOUT_TOKEN: &str = "burst of cold users: answers without a token, %";
pub const MINTS: &str = "burst of cold users: mints for 100";

const REQUESTS: usize = 1_000;
const USERS: usize = 100;

/// Time that a mint takes: a call across a country.
const MINT_TIME: Duration = Duration::from_millis(50);

/// Number of the first user of the first burst. No other measurement asks for users from here on.
const COLD: usize = 6_000_000;

/// The sidecar's own default for `delivery.header.max_wait`. The peers wait 5 s.
const MAX_WAIT: &str = "250ms";

/// Peers that take part. Express does not: it answers some of so many requests at once with an error of its
/// own.
const PEERS: [Peer; 4] = [Peer::Sidecar, Peer::NginxLua, Peer::NginxNjs, Peer::HaproxyMap];

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let bursts = if bench.plan.short { 3 } else { 9 };
    let setting = Setting { max_wait: MAX_WAIT, ..bench.setting.clone() };
    for peer in PEERS {
        eprintln!("{}: bursts of cold users", peer.name());
        let one = Running::start(peer, &setting)?;
        for round in 0..bursts {
            let burst = Burst { first: COLD + USERS * round };
            bench.backend.set_mint_time(MINT_TIME);
            let before = bench.backend.mints();
            let without = burst.answers_without_token(&one)?;
            let mints = mints_once_settled(bench) - before;
            bench.backend.set_mint_time(Duration::ZERO);
            report.put(WITHOUT_TOKEN, peer, round, 100.0 * without as f64 / REQUESTS as f64);
            report.put(MINTS, peer, round, mints as f64);
        }
    }
    Ok(())
}

/// Waits until no mint has come for a while, and returns the number of mints so far: an answer without a
/// token has not waited for its mint.
fn mints_once_settled(bench: &Bench) -> usize {
    let mut mints = bench.backend.mints();
    loop {
        sleep(6 * MINT_TIME);
        match bench.backend.mints() {
            same if same == mints => return mints,
            more => mints = more,
        }
    }
}

struct Burst {
    first: usize,
}

impl Burst {
    fn user(&self, number: usize) -> String {
        tokens::user(self.first + number % USERS)
    }

    /// Sends all requests before it reads any answer, and counts the answers without a token. Fails if
    /// an answer has another user's token, or is not the app's.
    fn answers_without_token(&self, one: &Running) -> Result<usize> {
        let mut connections = Vec::new();
        for _ in 0..REQUESTS {
            let stream = TcpStream::connect(one.http1)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            connections.push(stream);
        }
        for (number, stream) in connections.iter_mut().enumerate() {
            let user = self.user(number);
            let request = format!(
                "GET /api/small HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\
                 X-Forwarded-User: {user}\r\n\r\n"
            );
            stream.write_all(request.as_bytes())?;
        }
        let mut without = 0;
        for (number, mut stream) in connections.into_iter().enumerate() {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            let head = &answer[..app::head_end(&answer).unwrap_or(0)];
            let token = tokens::token_of(&self.user(number));
            let found = app::header(head, "x-velt-token");
            let is_right = found.is_none_or(|found| found == token.as_bytes());
            if !is_right || answer.len() - head.len() != app::SMALL {
                let text = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
                let peer = one.peer.name();
                return Err(format!("{peer}: a wrong answer in a burst: {text:?}").into());
            }
            without += usize::from(found.is_none());
        }
        Ok(without)
    }
}
