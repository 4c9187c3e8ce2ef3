//! Provokes every way in which a request can end, for what must hold of all of the sidecar's answers.
//!
//! All text of a client, an app or Velt here, and each credential, has the word "canary" in it, so that a
//! search for one word finds all text that got where it should not be.

use std::future::pending;
use std::net::SocketAddr;

use ground::metrics::{Label as _, Outcome};
use http::HeaderValue;
use http::header::RETRY_AFTER;

use super::binary::Running;
use super::client::Client;
use super::raw::{RawApp, SWITCHED, Wire};
use super::velt::{FakeVelt, answer, minted, refused, token};
use super::{TestSidecar, document};

/// Settings beyond the usual, so that every outcome can be had, and soon.
const SETTINGS: &str = r#"
    [app]
    response_timeout = "1s"
    stream_idle_timeout = "300ms"
    [identity]
    email_header = "X-Email"
    name_header = "X-Name"
    organization_header = "X-Org"
    groups_header = "X-Groups"
    [velt]
    api = "v2"
    attempt_timeout = "20s"
    deadline = "20s"
    [[velt.resource]]
    type = "folder"
    id = "drafts"
    groups = ["editors"]
    [delivery]
    max_body = "1KiB"
    [delivery.header]
    max_wait = "20s"
    [[delivery.route]]
    path = "/api/velt/token"
    max_wait = "20s"
"#;

/// The headers of a handshake that [`SWITCHED`] answers.
pub const HANDSHAKE: &str = "connection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Outcomes that can't be provoked here: an app that is down, no app, and a gateway take another sidecar, assertions take
/// another source of identity, details, resolvers, logouts and a queue take other settings, a renewal takes the token that
/// was served before, and a panic takes a bug.
pub const NOT_PROVOKED: [Outcome; 13] = [
    Outcome::AppUnreachable,
    Outcome::CheckAnswered,
    Outcome::NoApp,
    Outcome::InvalidAssertion,
    Outcome::IdentityUnverified,
    Outcome::NoDetails,
    Outcome::RenewedRecently,
    Outcome::ResolverServed,
    Outcome::LogoutDone,
    Outcome::LogoutRefused,
    Outcome::SignedOut,
    Outcome::TokenQueued,
    Outcome::Panicked,
];

/// One answer, as it came over the wire.
pub struct Said {
    pub outcome: Outcome,
    pub text: String,
}

/// An app and a Velt that fail in every way.
pub struct Surroundings {
    app: RawApp,
    pub velt: FakeVelt,
}

impl Surroundings {
    pub async fn start() -> Self {
        let app = RawApp::serving(|mut wire, _| async move {
            let head = wire.head().await;
            match head.split(' ').nth(1).expect("a target") {
                "/slow" | "/upload" => pending().await,
                "/broken" => wire.send("SSH-2.0-canary\r\nanother canary\r\n\r\n").await,
                "/ws" => {
                    wire.send(SWITCHED).await;
                    pending::<()>().await;
                }
                _ => wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await,
            }
        })
        .await;
        let velt = FakeVelt::start().await;
        velt.script(|call, n| match call.user().trim_start_matches("canary-user-") {
            "refused" => refused(403, "PERMISSION_DENIED"),
            "limited" => {
                let mut limited = answer(429, "canary");
                // The wait is longer than a mint may take.
                limited.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
                limited
            }
            "down" => answer(503, "<p>canary</p>"),
            "late" => answer(504, "canary\r\ncanary"),
            "malformed" => answer(200, "<html>canary</html>"),
            "mixed-up" => minted(&token("canary-user-somebody-else", n)),
            _ => minted(&token(call.user(), n)),
        });
        Self { app, velt }
    }

    /// Returns the whole configuration of a sidecar between `app` and `velt`; `toml` adds to the
    /// settings here and wins.
    pub fn document(&self, toml: &str) -> String {
        let app = self.app.address.to_string();
        document(&app, self.velt.address, &format!("{toml}\n{SETTINGS}"))
    }

    /// Starts a sidecar within this process.
    pub fn sidecar(&self) -> TestSidecar {
        TestSidecar::start(&self.app.address.to_string(), self.velt.address, SETTINGS)
    }

    /// Starts a sidecar in a process of its own, which logs all that it can. `toml` adds to the settings
    /// here.
    pub async fn binary(&self, format: &str, toml: &str) -> (Running, SocketAddr, SocketAddr) {
        let document = self.document(&format!(
            "[log]\nlevel = \"debug\"\nformat = \"{format}\"\n\
             [access_log]\nformat = \"{format}\"\n{toml}"
        ));
        // Many programs heed `RUST_LOG`.
        let environment = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")];
        Running::configured(&document, &environment).await
    }

    /// Brings every outcome about, and checks that the sidecar has counted each.
    pub async fn provoke(&self, traffic: SocketAddr, admin: SocketAddr) -> Vec<Said> {
        let mut said = Vec::new();
        // This call comes first, since calls pause at the end.
        self.leave(traffic, admin).await;
        for (outcome, line, user, more) in REQUESTS {
            said.push(Said { outcome, text: exchange(traffic, &request(line, user, more)).await });
        }
        let anonymous = "GET /api/velt/token HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let text = exchange(traffic, anonymous).await;
        said.push(Said { outcome: Outcome::NoIdentity, text });
        let scrape = Client::to(admin).get("/metrics").send().await.text();
        for outcome in Outcome::ALL {
            let series =
                format!("velt_sidecar_requests_total{{outcome=\"{}\"}} 0", outcome.as_str());
            let counted = !scrape.lines().any(|line| line == series);
            let expected = !NOT_PROVOKED.contains(outcome);
            assert_eq!(counted, expected, "{outcome:?}: {scrape}");
        }
        said
    }

    /// Lets a client go while its token is being minted.
    async fn leave(&self, traffic: SocketAddr, admin: SocketAddr) {
        self.velt.close_gate();
        let calls = self.velt.call_count();
        let mut wire = Wire::to(traffic).await;
        wire.send(request("GET /api/velt/token", "leaving", "x-org: canary-org\r\n")).await;
        self.velt.calls_reach(calls + 1).await;
        drop(wire);
        let counted = "velt_sidecar_requests_total{outcome=\"client_gone\"} 1";
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        while !Client::to(admin).get("/metrics").send().await.text().contains(counted) {
            assert!(tokio::time::Instant::now() < deadline, "the client's leaving was counted");
            tokio::task::yield_now().await;
        }
        self.velt.open_gate();
    }
}

/// Outcome, request line, user, and more headers. A user whose mint succeeds stands between two users
/// whose mints fail, since otherwise the breaker would answer for Velt.
const REQUESTS: [(Outcome, &str, &str, &str); 27] = {
    use Outcome as O;
    const TOKEN: &str = "GET /api/velt/token";
    const ORG: &str = "x-org: canary-org\r\n";
    [
        (O::Forwarded, "GET /canary-path?canary-query", "ada", ORG),
        (O::TokenServed, TOKEN, "ada", ORG),
        (O::Upgraded, "GET /ws", "ada", HANDSHAKE),
        (O::BadRequest, "GET /", "ada", "host: canary-host\r\n"),
        (O::BadRequest, "CONNECT canary.example:80", "ada", ""),
        (O::BadRequest, "GET /", "ada", "connection: x-forwarded-for, canary\r\n"),
        (O::IdentityRefused, "GET /", "ada", "x-forwarded-user: canary-user-eve\r\n"),
        (O::IdentityRefused, "GET /", "ada", "x_forwarded_user: canary-user-eve\r\n"),
        (O::IdentityRefused, "GET /", "ada,canary-user-eve", ""),
        (O::NoOrganization, TOKEN, "ada", ""),
        (O::NoGrants, TOKEN, "ada", "x-org: canary-org\r\nx-groups: canary\teditors\r\n"),
        (
            O::UserMismatch,
            "POST /api/velt/token",
            "ada",
            "x-org: canary-org\r\ncontent-length: 25\r\n\r\n{\"userId\":\"canary-other\"}",
        ),
        (O::CrossOrigin, TOKEN, "ada", "sec-fetch-site: cross-site\r\norigin: https://canary\r\n"),
        (O::MethodNotAllowed, "PUT /api/velt/token", "ada", ORG),
        (
            O::BodyTooLarge,
            "POST /api/velt/token",
            "ada",
            "x-org: o\r\ncontent-length: 2000\r\n\r\n<2000>",
        ),
        (O::StreamIdle, "POST /upload", "ada", "content-length: 20\r\n\r\ncanary"),
        (O::TokenRefused, TOKEN, "refused", ORG),
        (O::TokenServed, TOKEN, "one", ORG),
        (O::TokenUnavailable, TOKEN, "down", ORG),
        (O::TokenServed, TOKEN, "three", ORG),
        (O::TokenTimeout, TOKEN, "late", ORG),
        (O::TokenServed, TOKEN, "four", ORG),
        (O::TokenMalformed, TOKEN, "malformed", ORG),
        (O::TokenMalformed, TOKEN, "mixed-up", ORG),
        // From here on calls pause.
        (O::TokenRateLimited, TOKEN, "limited", ORG),
        (O::AppTimeout, "GET /slow", "ada", ORG),
        (O::AppBroken, "GET /broken", "ada", ORG),
    ]
};

fn request(line: &str, user: &str, more: &str) -> String {
    // A handshake has a `Connection` of its own.
    let close = if more.contains("connection:") { "" } else { "connection: close\r\n" };
    format!(
        "{line} HTTP/1.1\r\nhost: app.example\r\nx-forwarded-user: canary-user-{user}\r\n\
         x-email: canary@mail.example\r\nx-name: Canary canary-name\r\n\
         cookie: session=canary-cookie\r\nauthorization: Bearer canary-bearer\r\n\
         x-canary-name: canary-value\r\n{close}{more}\r\n"
    )
    .replace("<2000>", &" ".repeat(2000))
}

/// Sends bytes, and reads the whole answer, or the head of an answer that opens a tunnel.
async fn exchange(traffic: SocketAddr, request: &str) -> String {
    let mut wire = Wire::to(traffic).await;
    wire.send(request).await;
    if request.contains("upgrade: websocket") { wire.head().await } else { wire.rest().await }
}
