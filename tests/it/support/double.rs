//! A mint in memory and requests for it, for tests in virtual time and without a socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use velt_sidecar::metrics::Metrics;
use velt_sidecar::token::resilience::{self, Resilient};
use velt_sidecar::token::velt::Api;
use velt_sidecar::token::{
    Details, Issuer, Mint, MintError, MintFuture, MintPlan, MintRequest, Minted, Token, TokenValue,
};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const LIFE: Duration = Duration::from_secs(48 * 3600);

/// Mints in memory: answers from a script, else with a new token; keeps count.
#[derive(Clone, Default)]
pub struct Double {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Instant>>,
    script: Mutex<VecDeque<Result<Duration, MintError>>>,
    otherwise: Mutex<Option<MintError>>,
    latency: Mutex<Duration>,
    active: Mutex<(usize, usize)>,
}

impl Double {
    pub fn calls(&self) -> usize {
        self.shared.calls.lock().expect("no panic").len()
    }

    /// The next answer: a token of this life, or an error.
    pub fn then(&self, answer: Result<Duration, MintError>) {
        self.shared.script.lock().expect("no panic").push_back(answer);
    }

    /// What is answered when the script has ended; `None` is a token.
    pub fn otherwise(&self, error: Option<MintError>) {
        *self.shared.otherwise.lock().expect("no panic") = error;
    }

    pub fn latency(&self, latency: Duration) {
        *self.shared.latency.lock().expect("no panic") = latency;
    }

    /// The most calls that were under way at once.
    pub fn peak(&self) -> usize {
        self.shared.active.lock().expect("no panic").1
    }
}

impl Mint for Double {
    fn mint<'a>(&'a self, request: &'a MintRequest) -> MintFuture<'a> {
        let n = {
            let mut calls = self.shared.calls.lock().expect("no panic");
            calls.push(Instant::now());
            calls.len()
        };
        let scripted = self.shared.script.lock().expect("no panic").pop_front();
        let otherwise = self.shared.otherwise.lock().expect("no panic").clone();
        let answer = scripted.unwrap_or(otherwise.map_or(Ok(LIFE), Err));
        let latency = *self.shared.latency.lock().expect("no panic");
        Box::pin(async move {
            {
                let mut active = self.shared.active.lock().expect("no panic");
                active.0 += 1;
                active.1 = active.1.max(active.0);
            }
            sleep(latency).await;
            self.shared.active.lock().expect("no panic").0 -= 1;
            // A token is visible ASCII, whatever the user's id holds.
            let user = request.user.chars().filter(char::is_ascii_alphanumeric);
            let text = format!("{}.{n}.x", user.collect::<String>());
            let value = TokenValue::parse(&text).expect("a token");
            answer.map(|life| Minted { value, life })
        })
    }
}

/// Needs no organization.
pub fn plan() -> MintPlan {
    let issuer = Issuer {
        api: Api::V2,
        endpoint: "https://velt".into(),
        credentials_generation: 0,
        organization: None,
        resources: [].into(),
    };
    MintPlan::new(issuer, false)
}

/// For `user` and nothing else.
pub fn request(user: &str) -> MintRequest {
    plan().request(user.into(), Details::default()).expect("no organization is needed")
}

/// A token as text.
pub fn text(token: &Token) -> String {
    token.value().expose().to_owned()
}

/// With the default patience.
pub fn resilient(double: &Double, max_concurrent: usize) -> Resilient<Double> {
    let settings = resilience::Settings {
        attempt_timeout: Duration::from_secs(3),
        deadline: Duration::from_secs(8),
        max_concurrent,
    };
    Resilient::new(double.clone(), settings, Metrics::new().tokens)
}
