//! A mint in memory and requests for it, for tests in virtual time and without a socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ground::metrics::Metrics;
use token::resilience::{self, Bounds, Resilient};
use token::velt::Api;
use token::{
    Demand, Details, Issuer, Mint, MintError, MintFuture, MintPlan, MintRequest, Minted, Token,
    TokenValue,
};
use tokio::time::{Instant, sleep};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const LIFE: Duration = Duration::from_secs(48 * 3600);

/// Mint in memory: answers from a script, else with a new token. Counts calls, even calls that are
/// cut off.
#[derive(Clone, Default)]
pub struct Double {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Instant>>,
    /// Whether each call that has ended was urgent at its end.
    urgent: Mutex<Vec<bool>>,
    script: Mutex<VecDeque<Result<Duration, MintError>>>,
    otherwise: Mutex<Option<MintError>>,
    /// Organization whose users get a token although `otherwise` is an error.
    served: Mutex<Option<String>>,
    latency: Mutex<Duration>,
    active: Mutex<(usize, usize)>,
    cut_off: Mutex<usize>,
    rate: Mutex<Option<Rate>>,
}

/// Rate limit: the number of calls in each window, and the answer to a call above it.
struct Rate {
    calls: usize,
    window: Duration,
    retry_after: Option<Duration>,
    admitted: Vec<Instant>,
}

impl Rate {
    fn admit(&mut self) -> Option<MintError> {
        let now = Instant::now();
        self.admitted.retain(|at| now - *at < self.window);
        if self.admitted.len() >= self.calls {
            return Some(MintError::RateLimited { retry_after: self.retry_after });
        }
        self.admitted.push(now);
        None
    }
}

/// A call under way.
struct Active {
    shared: Arc<Shared>,
    answered: bool,
}

impl Active {
    fn begin(shared: &Arc<Shared>) -> Self {
        let mut active = shared.active.lock().expect("no panic");
        active.0 += 1;
        active.1 = active.1.max(active.0);
        Self { shared: Arc::clone(shared), answered: false }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.shared.active.lock().expect("no panic").0 -= 1;
        *self.shared.cut_off.lock().expect("no panic") += usize::from(!self.answered);
    }
}

impl Double {
    pub fn calls(&self) -> usize {
        self.shared.calls.lock().expect("no panic").len()
    }

    /// Answers 429 to calls above `calls` in each window.
    pub fn at_most(&self, calls: usize, window: Duration, retry_after: Option<Duration>) {
        let rate = Rate { calls, window, retry_after, admitted: Vec::new() };
        *self.shared.rate.lock().expect("no panic") = Some(rate);
    }

    /// Number of calls that were dropped before their answer.
    pub fn cut_off(&self) -> usize {
        *self.shared.cut_off.lock().expect("no panic")
    }

    /// Times at which calls came.
    pub fn came(&self) -> Vec<Instant> {
        self.shared.calls.lock().expect("no panic").clone()
    }

    /// Whether the calls that have ended were urgent.
    pub fn urgent(&self) -> Vec<bool> {
        self.shared.urgent.lock().expect("no panic").clone()
    }

    /// Adds the next answer to the script: a token of this life, or an error.
    pub fn then(&self, answer: Result<Duration, MintError>) {
        self.shared.script.lock().expect("no panic").push_back(answer);
    }

    /// Sets the answer after the end of the script; `None` is a token.
    pub fn otherwise(&self, error: Option<MintError>) {
        *self.shared.otherwise.lock().expect("no panic") = error;
    }

    /// Serves users of `organization` although [`Double::otherwise`] refuses all users.
    pub fn serve(&self, organization: &str) {
        *self.shared.served.lock().expect("no panic") = Some(organization.to_owned());
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
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        let n = {
            let mut calls = self.shared.calls.lock().expect("no panic");
            calls.push(Instant::now());
            calls.len()
        };
        let scripted = self.shared.script.lock().expect("no panic").pop_front();
        let mut otherwise = self.shared.otherwise.lock().expect("no panic").clone();
        let served = self.shared.served.lock().expect("no panic");
        otherwise =
            otherwise.filter(|_| served.is_none() || request.organization() != served.as_deref());
        drop(served);
        let answer = scripted.unwrap_or(otherwise.map_or(Ok(LIFE), Err));
        let mut rate = self.shared.rate.lock().expect("no panic");
        let answer = rate.as_mut().and_then(Rate::admit).map_or(answer, Err);
        drop(rate);
        let latency = *self.shared.latency.lock().expect("no panic");
        Box::pin(async move {
            let mut active = Active::begin(&self.shared);
            // Virtual time: each test that sets a latency pauses the clock.
            sleep(latency).await;
            active.answered = true;
            drop(active);
            self.shared.urgent.lock().expect("no panic").push(demand.is_urgent());
            // A token is visible ASCII, but a user's id may hold other characters.
            let user = request.user.chars().filter(char::is_ascii_alphanumeric);
            let text = format!("{}.{n}.x", user.collect::<String>());
            let value = TokenValue::parse(&text).expect("a token");
            answer.map(|life| Minted::now(value, life))
        })
    }
}

/// Plan of a mint that needs no organization.
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

/// Request for `user` and nothing else.
pub fn request(user: &str) -> MintRequest {
    plan().request(user.into(), Details::default()).expect("no organization is needed")
}

/// A token as text.
pub fn text(token: &Token) -> String {
    token.value().expose().to_owned()
}

/// Wraps `double` with the default patience and a fixed number of calls at once.
pub fn resilient(double: &Double, max_concurrent: usize) -> Resilient<Double> {
    let settings = resilience::Settings {
        attempt_timeout: Duration::from_secs(3),
        deadline: Duration::from_secs(8),
        concurrency: Bounds { floor: max_concurrent, ceiling: max_concurrent },
    };
    Resilient::new(double.clone(), settings, Metrics::new().tokens)
}
