//! Replicas of one sidecar, each a process of its own, in front of one app, with one stand-in for Velt.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::neighbour::{Task, eventually, http_client_builder, serve_app_at};
use crate::pages::velt::FakeVelt;
use crate::sidecar_process::SidecarProcess;
use shared::store::{Address, Place};

/// Time within which the requests of a crowd begin.
const RAMP: Duration = Duration::from_secs(2);

/// Requests of a crowd that wait for answers at the same time, or one of each user at each replica.
const MOST_WAITING: usize = 2_000;

/// Seal key of the replicas, in base64.
pub const SEAL_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Token of admin calls. A replica in a namespace of its own is not called from its loopback.
const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Replicas, with their app, their stand-in for Velt and a client.
pub struct Fleet {
    pub velt: FakeVelt,
    pub replicas: Vec<SidecarProcess>,
    settings: Vec<(String, String)>,
    http: reqwest::Client,
    app: SocketAddr,
    _app: Task,
}

/// Network namespace of a replica, and the replica's address in it.
pub type Home<'a> = (&'a str, Ipv4Addr);

/// Answer of a token route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Token(String),
    /// Status and code of an answer without a token.
    Without(u16, String),
}

impl Asked {
    pub fn token(self) -> String {
        match self {
            Self::Token(token) => token,
            Self::Without(status, code) => panic!("{status} {code} in place of a token"),
        }
    }
}

impl Fleet {
    /// Starts `count` replicas that share the store at `place`. Names of `settings` lack their prefix
    /// `VELT_SIDECAR_`.
    pub async fn start(count: usize, place: &Place, settings: &[(&str, &str)]) -> Self {
        let mut fleet = Self::of_none(place, Ipv4Addr::LOCALHOST, settings).await;
        for _ in 0..count {
            let replica = fleet.one(&[]).await;
            fleet.replicas.push(replica);
        }
        fleet.all_hear().await;
        fleet
    }

    /// Starts a replica in each of the namespaces. The app and the stand-in for Velt are `here`.
    pub async fn start_apart(
        place: &Place,
        here: Ipv4Addr,
        homes: &[Home<'_>],
        settings: &[(&str, &str)],
    ) -> Self {
        let mut fleet = Self::of_none(place, here, settings).await;
        for (namespace, address) in homes {
            let all: Vec<_> =
                fleet.settings.iter().map(|(key, value)| (&**key, &**value)).collect();
            let address = format!("{address}:0");
            let own = [
                ("VELT_SIDECAR_LISTEN__ADDRESS", &*address),
                ("VELT_SIDECAR_ADMIN__ADDRESS", &*address),
                ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", "198.18.0.0/15"),
                ("VELT_SIDECAR_VELT__ALLOW_PLAINTEXT", "true"),
            ];
            let all: Vec<_> = all.into_iter().chain(own).collect();
            let replica = SidecarProcess::start_in_namespace(namespace, fleet.app, &all).await;
            fleet.replicas.push(replica);
        }
        fleet.all_hear().await;
        fleet
    }

    async fn of_none(place: &Place, here: Ipv4Addr, settings: &[(&str, &str)]) -> Self {
        let velt = FakeVelt::start_at(here).await;
        let answer = |_: &_| Response::new(Full::new(Bytes::from_static(b"app")));
        let (task, app) = serve_app_at((here, 0).into(), answer).await;
        let mut all = settings_of(place);
        all.extend(settings.iter().map(|(key, value)| named(key, value)));
        all.push(named("ADMIN_TOKEN", ADMIN_TOKEN));
        all.push(named("VELT__ENDPOINT", &format!("http://{}/", velt.address)));
        // A mint may have to wait for its turn on a busy machine.
        all.push(named("VELT__DEADLINE", "20s"));
        let http = http_client_builder().pool_max_idle_per_host(64).build().expect("a client");
        let replicas = Vec::new();
        Self { velt, replicas, settings: all, http, app, _app: task }
    }

    /// Starts one more replica, with further settings.
    pub async fn one(&self, settings: &[(&str, &str)]) -> SidecarProcess {
        let more = settings.iter().map(|(key, value)| named(key, value));
        let all: HashMap<String, String> = self.settings.iter().cloned().chain(more).collect();
        let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (&**key, &**value)).collect();
        SidecarProcess::start(self.app, &all).await
    }

    /// Waits until each replica hears of forgets.
    pub async fn all_hear(&self) {
        for replica in &self.replicas {
            hears(replica).await;
        }
    }

    /// Waits until each replica mints, or waits for another one's mint, for `users` users.
    pub async fn all_wait(&self, users: usize) {
        for replica in &self.replicas {
            let what = format!("mints for {users} users, and two reads of the store for each");
            eventually(&what, async || {
                let count = async |series: &str| replica.metric(series).await.unwrap_or_default();
                let mints = count("mints_in_flight").await;
                // A mint whose read fails asks for no lease.
                let reads = count("shared_reads_total{result=\"absent\"}").await
                    + 2.0 * count("shared_reads_total{result=\"fault\"}").await;
                let users = f64::from(u32::try_from(users).expect("few users"));
                if mints >= users && reads >= 2.0 * users {
                    return Ok(());
                }
                Err(format!("{mints} mints, {reads} reads"))
            })
            .await;
        }
    }

    /// Asks a replica for the token of `user`.
    pub async fn ask(&self, replica: usize, user: &str) -> Asked {
        ask(&self.http, self.replicas[replica].traffic, user).await
    }

    /// Asks each replica for the token of `user`, one after another.
    pub async fn ask_all(&self, user: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        for replica in 0..self.replicas.len() {
            tokens.push(self.ask(replica, user).await.token());
        }
        tokens
    }

    /// Has a page report that Velt refused `token`.
    pub async fn report_refused(&self, replica: usize, user: &str, token: &str) -> Asked {
        use aws_lc_rs::digest::{SHA256, digest};
        let hash = digest(&SHA256, token.as_bytes());
        let hash = hash.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let url = format!("http://{}/api/velt/token", self.replicas[replica].traffic);
        let request = self.http.post(url).header("x-forwarded-user", user);
        answered(request.body(json!({ "refused": hash }).to_string())).await
    }

    /// Has a replica forget tokens. Returns `told` or `later`: when the other replicas are told.
    pub async fn forget(&self, replica: usize, whose: &Value) -> String {
        let url = format!("http://{}/cache/invalidate", self.replicas[replica].admin);
        let answer = self.http.post(url).header("content-type", "application/json");
        let answer = answer
            .bearer_auth(ADMIN_TOKEN)
            .body(whose.to_string())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200);
        let answer: Value = read(answer).await;
        answer["replicas"].as_str().expect("a word").to_owned()
    }

    /// Asks each replica for the token of each of `users` users, `times` times, and then waits for the answers. One
    /// request for each user at each replica begins within [`RAMP`]: two cores that run all replicas and the client take
    /// that long. The others follow.
    pub async fn ask_at_once(&self, users: usize, times: usize) -> Vec<(String, Asked)> {
        let mut asking = JoinSet::new();
        let begun = Instant::now();
        let first = users * self.replicas.len();
        // Each waiting request takes a connection, and a process may open only so many files.
        let at_once = Arc::new(Semaphore::new(MOST_WAITING.max(first)));
        for number in 0..first * times {
            let (user, replica) = (number % users, (number / users) % self.replicas.len());
            let traffic = self.replicas[replica].traffic;
            let http = self.http.clone();
            let part = |count: usize| u32::try_from(count).expect("few requests");
            let due = begun + RAMP * part(number.min(first)) / part(first);
            let at_once = Arc::clone(&at_once);
            asking.spawn(async move {
                sleep_until(due).await;
                let _turn = at_once.acquire().await.expect("it stays open");
                let user = format!("user-{user}");
                let asked = ask(&http, traffic, &user).await;
                (user, asked)
            });
        }
        asking.join_all().await
    }

    /// Returns the sum of a counter over all replicas.
    pub async fn sum(&self, series: &str) -> u64 {
        let mut sum = 0;
        for replica in &self.replicas {
            let counted = replica.metric(series).await.expect("a series");
            sum += format!("{counted:.0}").parse::<u64>().expect("a count");
        }
        sum
    }
}

/// Asks at `traffic` for the token of `user`.
pub async fn ask(http: &reqwest::Client, traffic: SocketAddr, user: &str) -> Asked {
    let url = format!("http://{traffic}/api/velt/token");
    answered(http.get(url).header("x-forwarded-user", user)).await
}

async fn answered(request: reqwest::RequestBuilder) -> Asked {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body = read(answer).await;
    match body["token"].as_str() {
        Some(token) if status == 200 => Asked::Token(token.to_owned()),
        _ => Asked::Without(status, body["code"].as_str().unwrap_or_default().to_owned()),
    }
}

async fn read(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

/// Waits until the replica hears of forgets.
pub async fn hears(replica: &SidecarProcess) {
    counts(replica, "shared_cut_off", 0).await;
}

/// Waits until a series has this value.
pub async fn counts(replica: &SidecarProcess, series: &str, count: u32) {
    replica.metric_is(series, |value| (value - f64::from(count)).abs() < f64::EPSILON).await;
}

/// Waits until each replica answers with `token`, and checks that this took no longer than `within`. Returns the
/// time that it took.
pub async fn all_answer(fleet: &Fleet, user: &str, token: &str, within: Duration) -> Duration {
    let begun = Instant::now();
    eventually("all replicas to have the new token", async || {
        let tokens = fleet.ask_all(user).await;
        if tokens.iter().all(|held| held == token) { Ok(()) } else { Err("an older one".into()) }
    })
    .await;
    let took = begun.elapsed();
    assert!(took < within, "it took {took:?}");
    took
}

fn named(key: &str, value: &str) -> (String, String) {
    (format!("VELT_SIDECAR_{key}"), value.to_owned())
}

fn settings_of(place: &Place) -> Vec<(String, String)> {
    let text = |address: &Address| match address {
        Address::Unix(path) => format!("\"unix:{}\"", path.display()),
        tcp @ Address::Tcp { .. } => format!("\"{tcp}\""),
    };
    let list = |addresses: &[Address]| {
        let addresses: Vec<_> = addresses.iter().map(text).collect();
        format!("[{}]", addresses.join(", "))
    };
    let mut settings = vec![named("SHARED__SEAL_KEY", SEAL_KEY)];
    settings.extend(match place {
        Place::Server(address) => {
            vec![named("SHARED__ADDRESSES", &list(std::slice::from_ref(address)))]
        }
        Place::Cluster(addresses) => {
            vec![named("SHARED__MODE", "cluster"), named("SHARED__ADDRESSES", &list(addresses))]
        }
        Place::Sentinel { sentinels, primary } => vec![
            named("SHARED__MODE", "sentinel"),
            named("SHARED__PRIMARY", primary),
            named("SHARED__ADDRESSES", &list(sentinels)),
        ],
    });
    settings
}
