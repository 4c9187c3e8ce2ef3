//! A sidecar with the `sidecar.toml` of a login's page, an app behind it, and an emulator in Velt's place.

use std::net::SocketAddr;
use std::process::Command;

use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};

use super::library::Login;
use crate::front_pages::page::Page;
use crate::neighbour::{
    RunningEmulator, RunningServer, Task, claims_of, http_client, serve_app, start_emulator,
};

/// Header in which an app names its user.
const USER_HEADER: &str = "x-velt-user";

/// All programs of a site but the browser and the login.
pub struct Site {
    sidecar: SocketAddr,
    http: reqwest::Client,
    _server: RunningServer,
    /// The app, if it is a task of the test.
    _app: Option<Task>,
    _emulator: RunningEmulator,
}

/// Answer, as far as a browser sees it.
#[derive(Debug)]
pub struct Seen {
    pub status: StatusCode,
    /// User and organization of the token, if there is one.
    pub minted: Option<(String, String)>,
    /// `X-Velt-Token-Status`.
    pub reason: Option<String>,
    /// Whether the header is there in which an app names its user.
    pub has_user_header: bool,
    pub body: Value,
}

impl Seen {
    /// Whether the app has answered, without a token and without a refusal.
    pub fn is_anonymous(&self) -> bool {
        self.status == StatusCode::OK
            && self.minted.is_none()
            && self.reason.as_deref() == Some("anonymous")
    }
}

impl Site {
    /// Starts the page's `sidecar.toml` number `number`, with `settings` of this machine alone: where the keys
    /// are, and secrets.
    pub async fn open(page: &Page, number: usize, settings: &[(&str, &str)]) -> Self {
        let (task, app) = serve_app(show).await;
        let site = Self::in_front_of(app, page, number, settings).await;
        Self { _app: Some(task), ..site }
    }

    /// Starts the page's `sidecar.toml` number `number` in front of an app that is another program.
    pub async fn in_front_of(
        app: SocketAddr,
        page: &Page,
        number: usize,
        settings: &[(&str, &str)],
    ) -> Self {
        let emulator = start_emulator().await;
        let velt = format!("http://{}/v2/auth/generate_token", emulator.address);
        let app = app.to_string();
        let environment = [
            ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_ADMIN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_APP__ADDRESS", &app),
            ("VELT_SIDECAR_VELT__ENDPOINT", &velt),
            // Long enough that a busy machine does not cause an answer without a token.
            ("VELT_SIDECAR_DELIVERY__HEADER__MAX_WAIT", "20s"),
            ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
            ("VELT_SIDECAR_SHUTDOWN__DEADLINE", "1s"),
        ];
        let environment = [&environment[..], settings].concat();
        let server = RunningServer::start(page.block("toml", number), &environment);
        let (sidecar, http) = (server.addresses.traffic, http_client());
        Self { sidecar, http, _server: server, _app: None, _emulator: emulator }
    }

    /// Asks for a page, as the browser that has this login.
    pub async fn page(&self, login: &Login) -> Seen {
        self.ask(Method::GET, "/page", login, None).await
    }

    /// Asks for a page with a header of the client's own that names another user.
    pub async fn page_naming(&self, login: &Login, user: &str) -> Seen {
        self.ask(Method::GET, "/page", login, Some((USER_HEADER, user))).await
    }

    /// Asks the token route, as a script of the site's own pages does.
    pub async fn token(&self, login: &Login) -> Seen {
        self.ask(Method::POST, "/api/velt/token", login, None).await
    }

    /// Signs in at the app, and returns the session's cookies.
    pub async fn signed_in(&self, path: &str) -> Login {
        let answer = self.http.post(format!("http://{}{path}", self.sidecar)).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let pair = |line: &HeaderValue| {
            let line = line.to_str().expect("visible ASCII");
            let pair = line.split(';').next().expect("split has a first part");
            let (name, value) = pair.split_once('=').expect("a cookie");
            (name.to_owned(), value.to_owned())
        };
        let cookies: Vec<_> = answer.headers().get_all(SET_COOKIE).iter().map(pair).collect();
        assert!(!cookies.is_empty(), "no session");
        Login { cookies, token: None }
    }

    /// Signs out at the app.
    pub async fn signed_out(&self, login: &Login) {
        let seen = self.ask(Method::POST, "/logout", login, None).await;
        assert_eq!((seen.status, &seen.body["signed"]), (StatusCode::OK, &json!("out")));
    }

    /// Asserts that the page's own command prints the token of `user`.
    pub fn is_shown_by_curl(&self, page: &Page, login: &Login, user: &str) {
        let site = format!("http://{}", self.sidecar);
        let (from, to) = match &login.token {
            // A page with two configurations shows the command for cookies, and says how it differs for tokens.
            Some(token) if login.cookies.is_empty() && page.block("sh", 0).contains("COOKIE") => {
                ("Cookie: COOKIE", format!("Authorization: Bearer {token}"))
            }
            Some(token) if login.cookies.is_empty() => ("TOKEN", token.clone()),
            _ => ("COOKIE", login.cookie_line()),
        };
        let own = [("https://app.example.com", &*site), (from, &*to)];
        let command = page.filled("sh", 0, &own);
        let printed = Command::new("sh").args(["-c", &command]).env("NO_PROXY", "*").output();
        let printed = printed.expect("a shell");
        let body: Value = serde_json::from_slice(&printed.stdout)
            .unwrap_or_else(|error| panic!("{command}: {error}: {printed:?}"));
        let token = body["token"].as_str().unwrap_or_else(|| panic!("{command}: {body}"));
        assert_eq!(named_in(token).0, user);
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        login: &Login,
        own: Option<(&str, &str)>,
    ) -> Seen {
        let asking = self.http.request(method, format!("http://{}{path}", self.sidecar));
        let mut asking = asking.header("sec-fetch-site", "same-origin");
        if let Some((name, value)) = own {
            asking = asking.header(name, value);
        }
        if !login.cookies.is_empty() {
            asking = asking.header(COOKIE, login.cookie_line());
        } else if let Some(token) = &login.token {
            asking = asking.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        seen_in(asking.send().await.expect("an answer")).await
    }
}

/// Reads an answer to its end.
async fn seen_in(answer: reqwest::Response) -> Seen {
    let status = answer.status();
    let text = |name: &str| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().expect("visible ASCII").to_owned())
    };
    let (token, reason) = (text("x-velt-token"), text("x-velt-token-status"));
    let has_user_header = answer.headers().contains_key(USER_HEADER);
    let body = answer.text().await.expect("a whole body");
    let body: Value = body.parse().unwrap_or_else(|error| panic!("{error}: {body}"));
    let token = token.or_else(|| body["token"].as_str().map(str::to_owned));
    Seen { status, minted: token.as_deref().map(named_in), reason, has_user_header, body }
}

/// Returns user and organization of a token of the emulator.
fn named_in(token: &str) -> (String, String) {
    let claims = claims_of(token);
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{claims}")).to_owned();
    (text(&claims["userId"]), text(&claims["resources"][0]["id"]))
}

/// Answers as the app: with the login that it has got.
fn show(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let line = |name| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let seen = json!({ "cookie": line(COOKIE), "authorization": line(AUTHORIZATION) });
    Response::new(Full::from(seen.to_string()))
}
