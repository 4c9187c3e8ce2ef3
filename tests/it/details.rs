//! Details of users that the app tells: asked once, kept for one identity, and no token without them.

mod asking;
mod at_app_path;
mod explaining;
mod keeping;
mod refusing;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::app::{AppBody, Arrived, FakeApp, full, plain};
use crate::support::client::{Answer, Client};

const PATH: &str = "/api/velt/details";

/// Settings with details, in which a response waits for them for as long as a test may take.
const DETAILS: &str = "[identity]\ndetails_path = \"/api/velt/details\"\ndetails_timeout = \"10s\"\n\
    [velt]\napi = \"v2\"\norganization = \"configured\"\n[delivery.header]\nmax_wait = \"10s\"\n";

/// Answers of the app about its users, which a test may change.
#[derive(Clone, Default)]
struct Directory {
    by_user: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
}

impl Directory {
    /// Answers about `user` with this status and body from now on.
    fn answer(&self, user: &str, status: u16, body: impl Into<String>) -> &Self {
        let answer = (status, body.into());
        self.by_user.lock().expect("no panic").insert(user.to_owned(), answer);
        self
    }

    fn tell(&self, user: &str, details: &Value) -> &Self {
        self.answer(user, 200, details.to_string())
    }

    /// Starts an app with this directory. About the user `still` it never answers.
    async fn app(&self) -> FakeApp {
        let directory = self.clone();
        FakeApp::serving(move |request| {
            let answer = directory.clone().find(&request);
            async move {
                match answer {
                    Some(answer) => answer,
                    None => pending().await,
                }
            }
        })
        .await
    }

    fn find(&self, request: &Request<Incoming>) -> Option<Response<AppBody>> {
        if !request.uri().path().starts_with(PATH) {
            return Some(plain("hello from the app"));
        }
        let user = request.headers().get("x-velt-user").map_or(&b""[..], |user| user.as_bytes());
        let user = String::from_utf8(user.to_vec()).expect("text");
        if user == "still" {
            return None;
        }
        let answers = self.by_user.lock().expect("no panic");
        let (status, body) = answers.get(&user).cloned().unwrap_or((404, String::new()));
        let is_html = body.starts_with("<html>");
        let mut response = Response::new(full(body));
        if is_html {
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert("content-type", kind);
        }
        *response.status_mut() = status.try_into().expect("a status");
        Some(response)
    }

    async fn stage(&self, toml: &str) -> Stage {
        Stage::with(self.app().await, &format!("{toml}\n{DETAILS}")).await
    }
}

/// Returns the questions that have arrived at the app.
fn questions(app: &FakeApp) -> Vec<Arrived> {
    app.journal().into_iter().filter(|arrived| arrived.target.starts_with(PATH)).collect()
}

/// Asks the token route as `user`.
async fn token_of(stage: &Stage, user: &str) -> Answer {
    stage.get_as(user, "/api/velt/token").await
}

async fn answers(stage: &Stage, result: &str) -> f64 {
    stage.metric(&format!("app_answers_total{{result=\"{result}\"}}")).await
}

/// Makes the sidecar forget, as `velt-sidecar admin invalidate` does.
async fn invalidate(stage: &Stage, whose: &Value) {
    let call = Client::to(stage.sidecar.addresses.admin)
        .post("/cache/invalidate", whose.to_string())
        .header("content-type", "application/json");
    // Admin calls are for addresses.
    let answer = call.without("host").header("host", "127.0.0.1").send().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}
