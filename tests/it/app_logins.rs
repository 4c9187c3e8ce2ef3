//! An app whose login holds for the connection, as Windows logins do: the app takes each request on a
//! connection for a request of the user who has logged in there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::Client;
use crate::support::raw::{RawApp, Wire};
use crate::support::velt::{FakeVelt, user_of};
use crate::support::{ONE_WORKER, TestSidecar};

/// Names the user of the connection, in the page and to the sidecar.
async fn serve(mut wire: Wire, number: usize, last_legs: Arc<AtomicUsize>) {
    let (mut user, mut greeted) = (None, false);
    loop {
        let Some(head) = wire.try_head().await else { return };
        let login = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let login = login.as_deref().and_then(|login| login.split_once(' '));
        let challenge = match login {
            Some((_, "one")) => {
                greeted = true;
                Some("WWW-Authenticate: NTLM two\r\n")
            }
            Some((_, leg)) if leg.starts_with("three-") => {
                last_legs.fetch_add(1, Ordering::SeqCst);
                if leg.ends_with("-dies") {
                    return;
                }
                user = leg.strip_prefix("three-").filter(|_| greeted).map(str::to_owned);
                None
            }
            // Kerberos: one leg of the login is enough.
            Some((_, token)) if token.starts_with("ticket-") => {
                user = token.strip_prefix("ticket-").map(str::to_owned);
                None
            }
            _ if user.is_none() && head.starts_with("GET /closed") => {
                Some("WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n")
            }
            _ => None,
        };
        let page = format!("{} on {number}", user.as_deref().unwrap_or("nobody"));
        let status = if challenge.is_some() { "401 Unauthorized" } else { "200 OK" };
        let named = user.as_ref().map(|user| format!("x-velt-user: {user}\r\n"));
        let (challenge, named) = (challenge.unwrap_or_default(), named.unwrap_or_default());
        let length = page.len();
        wire.send(format!(
            "HTTP/1.1 {status}\r\n{challenge}{named}content-length: {length}\r\n\r\n{page}"
        ))
        .await;
    }
}

struct Stage {
    sidecar: TestSidecar,
    /// Number of times that the last part of a login has reached the app.
    last_legs: Arc<AtomicUsize>,
}

impl Stage {
    async fn set(toml: &str) -> Self {
        let last_legs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&last_legs);
        let app = RawApp::serving(move |wire, number| serve(wire, number, Arc::clone(&counted)));
        let (app, velt) = (app.await, FakeVelt::start().await);
        let toml = format!(
            "{ONE_WORKER}[identity]\nsource = \"app\"\napp_path = \"/open\"\n\
             [delivery.header]\nmax_wait = \"10s\"\n{toml}"
        );
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, &toml);
        Self { sidecar, last_legs }
    }

    fn address(&self) -> SocketAddr {
        self.sidecar.addresses.traffic
    }

    async fn browser(&self) -> Browser {
        Browser(Wire::to(self.address()).await)
    }

    /// User that the app sees for a client without a login, on a connection of the client's own.
    async fn stranger(&self) -> String {
        let page = Client::to(self.address()).get("/open").send().await.text();
        page.split(' ').next().expect("a word").to_owned()
    }
}

/// A client with one connection.
struct Browser(Wire);

impl Browser {
    /// Status and page.
    async fn ask(&mut self, path: &str, headers: &str) -> (String, String) {
        self.0.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
        let head = self.0.head().await;
        let status = head.split(' ').nth(1).expect("a status").to_owned();
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length = length.split('\r').next().expect("a line").parse().expect("a number");
        let page = self.0.read_exactly(length).await;
        (status, String::from_utf8_lossy(&page).into_owned())
    }

    /// User that the app sees for the client, and the number of the connection.
    async fn who(&mut self) -> String {
        self.ask("/open", "").await.1
    }

    async fn log_in(&mut self, scheme: &str, user: &str) -> String {
        assert_eq!(self.ask("/closed", "").await.0, "401");
        let (status, _) = self.ask("/closed", &format!("Authorization: {scheme} one\r\n")).await;
        assert_eq!(status, "401");
        let last = format!("Authorization: {scheme} three-{user}\r\n");
        let (status, page) = self.ask("/closed", &last).await;
        assert_eq!(status, "200", "{page}");
        assert!(page.starts_with(user), "{page}");
        page
    }
}

#[tokio::test]
async fn login_of_a_connection_stays_with_its_client() {
    for scheme in ["NTLM", "negotiate", "KERBEROS"] {
        let stage = Stage::set("").await;
        let (mut ada, mut grace) = (stage.browser().await, stage.browser().await);
        let page = ada.log_in(scheme, "ada").await;
        for _ in 0..3 {
            assert_eq!(ada.who().await, page, "the same connection");
            assert!(grace.who().await.starts_with("nobody"));
            assert_eq!(stage.stranger().await, "nobody");
        }
        let of_grace = grace.log_in(scheme, "grace").await;
        assert_eq!((ada.who().await, grace.who().await), (page, of_grace));
        assert_eq!(stage.stranger().await, "nobody");
        // The connection to the app ends with the connection of the client that has logged in.
        drop(ada);
        drop(grace);
        stage.sidecar.metric_reaches("connections_open", 0.0).await;
        stage.sidecar.metric_reaches("app_connections", 1.0).await;
        assert_eq!(stage.stranger().await, "nobody");
    }
}

#[tokio::test]
async fn login_of_a_connection_gives_no_other_client_a_token() {
    let stage = Stage::set("").await;
    let mut ada = stage.browser().await;
    ada.log_in("NTLM", "ada").await;
    for _ in 0..3 {
        let (status, token) = ada.ask("/generate-velt-jwt-token", "").await;
        assert_eq!(status, "200", "{token}");
        assert_eq!(user_of(token.trim_matches('"')), "ada");
        let other = Client::to(stage.address()).get("/generate-velt-jwt-token").send().await;
        assert_eq!((other.status(), &*other.code()), (401, "no_identity"));
        let other = Client::to(stage.address()).get("/open").send().await;
        assert_eq!((other.token(), other.token_status()), (None, Some("anonymous")));
    }
}

#[tokio::test]
async fn login_over_http2_holds_for_one_request() {
    let stage = Stage::set("").await;
    let client = Client::to(stage.address());
    for scheme in ["Negotiate", "ntlm"] {
        let sending = client.get("/closed").header("authorization", format!("{scheme} ticket-ada"));
        assert!(sending.send_http2().await.text().starts_with("ada"));
        assert!(client.get("/open").send_http2().await.text().starts_with("nobody"));
        assert_eq!(stage.stranger().await, "nobody");
    }
}

#[tokio::test]
async fn login_that_one_leg_completes_stays_with_its_client() {
    let stage = Stage::set("").await;
    for authorization in ["Negotiate ticket-ada", "nEGOTIATE\tticket-ada"] {
        let mut ada = stage.browser().await;
        let header = format!("Authorization: {}\r\n", authorization.replace('\t', " "));
        let (_, page) = ada.ask("/open", &header).await;
        assert!(page.starts_with("ada"), "{page}");
        assert_eq!(ada.who().await, page);
        assert_eq!(stage.stranger().await, "nobody");
    }
}

#[tokio::test]
async fn part_of_a_login_is_sent_once() {
    let stage = Stage::set("").await;
    let mut ada = stage.browser().await;
    assert_eq!(ada.ask("/closed", "Authorization: NTLM one\r\n").await.0, "401");
    let (status, answer) = ada.ask("/closed", "Authorization: NTLM three-dies\r\n").await;
    assert_eq!(status, "502", "{answer}");
    assert_eq!(stage.last_legs.load(Ordering::SeqCst), 1);
    // The client may begin again.
    ada.log_in("NTLM", "ada").await;
}

#[tokio::test]
async fn front_with_several_clients_on_one_connection_mixes_no_logins() {
    let stage = Stage::set("").await;
    let mut front = stage.browser().await;
    let of = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    let login = format!("{}Authorization: Negotiate ticket-ada\r\n", of("192.0.2.1"));
    assert!(front.ask("/open", &login).await.1.starts_with("ada"));
    assert!(front.ask("/open", &of("192.0.2.1")).await.1.starts_with("ada"));
    let (_, token) = front.ask("/generate-velt-jwt-token", &of("192.0.2.1")).await;
    assert_eq!(user_of(token.trim_matches('"')), "ada");
    assert!(front.ask("/open", &of("192.0.2.2")).await.1.starts_with("nobody"));
    assert!(front.ask("/open", &of("192.0.2.1")).await.1.starts_with("nobody"));
}

#[tokio::test]
async fn login_works_where_no_connection_is_kept() {
    let stage = Stage::set("[app]\nmax_idle = 0\n").await;
    let mut ada = stage.browser().await;
    let page = ada.log_in("NTLM", "ada").await;
    assert_eq!(ada.who().await, page);
    assert_eq!(stage.stranger().await, "nobody");
}
