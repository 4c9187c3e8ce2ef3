//! Explains what would become of a request, step by step, and what decides it.
//!
//! The order of the steps, and the rules on the app's answers, are written a second time here: `Walk` follows
//! `Sidecar::respond` by hand, so a change of one has to be made in the other. All other decisions call the
//! functions that requests go through. `tests/it/explain/agreement.rs` sends a table of requests and compares
//! each answer with its explanation.
//!
//! An explanation leaves out the effects of a request: it counts, mints, fetches and sends nothing
//! (`explain_counts_nothing_mints_nothing_and_asks_no_server` in `tests/it/explain.rs`).

mod advice;
mod answer;
mod check;
mod delivery;
mod forwarding;
mod grants;
mod words;

use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Response};
use tokio::time::Instant;

pub use self::answer::{Answer, AnsweredBy, TokenFate};
use self::words::Cache;
use super::Rules;
use super::details::{Key as DetailsKey, NoDetails, Site};
use super::error::{NoToken, RequestError};
use super::logout::{Logouts, unix_now};
use super::route::{Own, Route, check_asking, check_required, known_user, parse_posted};
use super::{mint_request, scheme_of};
use crate::inject::{Eligibility, OnMintFailure, PathPattern, Place, TokenRoute, storable_by};
use ground::peer::Peer;
use hop::proxy::Client;
use hop::proxy::headers::{name_host, validate};
use identity::{Asking, Caller, Conclusion, Decision, SignedIn};
use token::admission::Admission;
use token::cache::{Known, TokenCache};

/// State that only a running sidecar has.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    pub tokens: &'a TokenCache,
    pub logouts: &'a Logouts,
    pub admission: &'a Admission,
}

/// The request to explain.
pub struct Question {
    pub peer: Peer,
    pub request: Request<Bytes>,
    /// Response of the app. 200 without headers if it is not given.
    pub response: Option<Response<()>>,
}

/// Explanation of what would become of a request.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Decisions in the order of the data path, up to the one that settles the answer.
    pub steps: Vec<Step>,
    pub answer: Answer,
}

/// One decision.
#[derive(Clone, Debug)]
pub struct Step {
    pub name: &'static str,
    pub verdict: String,
    pub why: String,
    pub settings: Vec<Key>,
}

/// A setting that took part in a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The setting with this name, such as `identity.user_header`.
    Named(&'static str),
    /// The token route with this path.
    Route(String),
    /// All tables `[[velt.resource]]`.
    Resources,
}

/// Result of a look-up.
enum Found {
    Token,
    Minting,
    Nothing(NoToken),
}

/// Walk through the steps of a request, with the explanation so far.
struct Walk<'a> {
    rules: &'a Rules,
    live: Option<Live<'a>>,
    /// Hosts for which the app's details of the caller are kept.
    site: Option<Result<Site, NoDetails>>,
    /// Times at which the caller has signed in, if an assertion tells them.
    signed_in: SignedIn,
    steps: Vec<Step>,
}

/// Explains a request by `rules`, and by the state of a running sidecar if `live` is given.
pub async fn explain(rules: &Rules, live: Option<Live<'_>>, question: Question) -> Explanation {
    let signed_in = SignedIn::default();
    let mut walk = Walk { rules, live, site: None, signed_in, steps: Vec::new() };
    let answer = match walk.walk(question).await {
        Ok(answer) => answer,
        Err((error, advice)) => answer::of_error(&error, advice),
    };
    Explanation { steps: walk.steps, answer }
}

/// An error that the sidecar would answer with, and advice on what to change.
type Stopped = (RequestError, Option<String>);

fn stopped(absent: NoToken, advice: Option<String>) -> Stopped {
    let advice = advice.or_else(|| advice::on_absence(&absent));
    (absent.into(), advice)
}

impl Walk<'_> {
    async fn walk(&mut self, question: Question) -> Result<Answer, Stopped> {
        let Question { peer, mut request, response } = question;
        let Rules { identity, injection, .. } = self.rules;
        name_host(&mut request);
        if let Some(teller) = Route::logout(&request, self.rules) {
            validate(&request).map_err(|bad| (bad.into(), None))?;
            self.steps.push(delivery::of_logout_route(teller, &request));
            return Ok(answer::of_logout(request.method()));
        }
        let is_check = Route::is_check(&request, self.rules);
        if is_check {
            validate(&request).map_err(|bad| (bad.into(), None))?;
        }
        let before = request.headers().clone();
        let decision = identity.decide(Asking::ToExplain, &peer, request.headers_mut()).await;
        self.steps.push(words::of_trust(identity, &peer, &decision.trust));
        self.steps.push(words::of_identity(identity, &before, &decision, self.live.is_some()));
        let advice = advice::on_identity(identity, &before, &peer, &decision);
        let believed = identity.believes(&peer, decision.trust);
        let lacks_secret = identity.lacks_secret(decision.trust);
        let unbelieved = decision.conclusion.unbelieved();
        let by_cookie = decision.by_cookie;
        self.signed_in = decision.signed_in;
        let caller = match decision {
            Decision { conclusion: Conclusion::Caller(caller), .. } => caller,
            Decision { conclusion: Conclusion::Ignored(_), .. } => Caller::Anonymous,
            Decision { conclusion: Conclusion::Refused(refusal), .. } if is_check => {
                return Ok(self.check_without_user(&refusal.into(), advice));
            }
            Decision { conclusion: Conclusion::Refused(refusal), .. } => {
                return Err((refusal.into(), advice));
            }
        };
        if let Err(bad) = validate(&request) {
            self.steps.push(words::of_bad_request(&bad));
            return Err((bad.into(), None));
        }
        self.steps.extend(forwarding::of_forwarding(&peer, believed, request.headers()));
        let (address, trusted) = (peer.address(), believed.is_kept());
        let client = Client { address, trusted, scheme: scheme_of(&peer) };
        self.site = Some(Site::of(&request, &client).map(Site::without_localhost));
        if is_check {
            let why = (lacks_secret, unbelieved);
            return Ok(self.check(caller, response, why, advice));
        }
        let route = Route::of(&request, self.rules);
        self.steps.push(delivery::of_route(&route, &request, injection, self.rules.has_app));
        match route {
            Route::Keys(_) => Ok(answer::of_resolver("the keys of tokens for resolvers")),
            Route::Own(own) => check_asking(injection, &request, &caller, by_cookie)
                .map_err(|error| (error, None))
                .and_then(|()| match own {
                    Own::Token(route) => {
                        self.token_route(route, caller, &request, response, advice)
                    }
                    Own::Resolver(_) => self.resolver_route(&caller, response, advice),
                })
                .map_err(|(error, advice)| (error.for_want_of(lacks_secret, unbelieved), advice)),
            Route::Forward { .. } if !self.rules.has_app => Err((RequestError::NoApp, None)),
            Route::Forward { coverage, to_app } => {
                if let Err(error) = check_required(self.rules, &caller, &request) {
                    self.steps.push(words::of_required(&request));
                    return Err((error.for_want_of(lacks_secret, unbelieved), advice));
                }
                let wanted = (coverage.place(), to_app);
                let answer = self.forward(wanted, &caller, response, advice)?;
                let unwanted = advice::on_route(coverage, &request, injection);
                Ok(Answer { advice: unwanted.or(answer.advice), ..answer })
            }
        }
    }

    /// Explains a token route, as `Sidecar::serve_token` serves it.
    fn token_route(
        &mut self,
        route: &TokenRoute,
        caller: Caller,
        request: &Request<Bytes>,
        response: Option<Response<()>>,
        advice: Option<String>,
    ) -> Result<Answer, Stopped> {
        let caller = match caller {
            Caller::Unnamed => self.asked_app(response)?,
            named => named,
        };
        let found = self.look_up(&caller);
        if let Caller::Known(user) = &caller
            && request.method() == Method::POST
            && !matches!(
                found,
                Found::Nothing(NoToken::SignedOut | NoToken::NoOrganization | NoToken::NoGrants(_))
            )
        {
            let limit = self.rules.injection.max_body();
            if request.body().len() > limit {
                return Err((RequestError::BodyTooLarge(limit), None));
            }
            parse_posted(request.body(), user).map_err(|error| (error, None))?;
        }
        match found {
            Found::Token => Ok(answer::of_route_answer(route, TokenFate::Delivered)),
            Found::Minting => Ok(answer::of_route_answer(route, TokenFate::IfMinted)),
            Found::Nothing(absent) => Err(stopped(absent, advice)),
        }
    }

    /// Explains the route of tokens for resolvers, as `serve_resolver` serves it.
    fn resolver_route(
        &mut self,
        caller: &Caller,
        response: Option<Response<()>>,
        advice: Option<String>,
    ) -> Result<Answer, Stopped> {
        let asked = match caller {
            Caller::Unnamed => Some(self.asked_app(response)?),
            _ => None,
        };
        let caller = asked.as_ref().unwrap_or(caller);
        if let Some(absent) = self.signed_out(caller) {
            return Err(stopped(absent, advice));
        }
        match known_user(caller) {
            Ok(_) => Ok(answer::of_resolver("{\"token\":\"<token for resolvers>\"}")),
            Err(absent) => Err(stopped(absent, advice)),
        }
    }

    /// Explains the question to the app, as `Sidecar::ask_app` asks it. The app's answer is `response`.
    fn asked_app(&mut self, response: Option<Response<()>>) -> Result<Caller, Stopped> {
        let said_so = response.is_some();
        let mut response = response.unwrap_or_default();
        let said = self.rules.identity.app_said(response.headers_mut());
        self.steps.push(words::of_app_asked(&self.rules.identity, said.as_ref(), said_so));
        let status = response.status();
        if status.is_server_error() {
            return Err((RequestError::AppFailed(status), None));
        }
        match said {
            Some(Err(refusal)) if status.is_success() => {
                Err((NoToken::AppWord(refusal).into(), None))
            }
            Some(Ok(caller @ Caller::Known(_))) if status.is_success() => Ok(caller),
            _ if said_so => {
                let absent = NoToken::UnnamedBy(status);
                self.steps.push(words::of_no_request(&self.rules.plan, &absent));
                Err(stopped(absent, None))
            }
            _ => Ok(Caller::Unnamed),
        }
    }

    /// Explains a forwarded request, as the rest of `Sidecar::respond` handles it.
    fn forward(
        &mut self,
        (place, to_app): (Option<Place>, Option<&PathPattern>),
        caller: &Caller,
        response: Option<Response<()>>,
        advice: Option<String>,
    ) -> Result<Answer, Stopped> {
        let Rules { identity, injection, .. } = self.rules;
        let wants_token = place.is_some() || to_app.is_some();
        let early = (wants_token && *caller != Caller::Unnamed).then(|| self.look_up(caller));
        if place == Some(Place::Header)
            && injection.header().on_failure == OnMintFailure::Refuse
            && let Some(Found::Nothing(absent)) = early
        {
            if !matches!(absent, NoToken::Anonymous | NoToken::SignedOut) {
                self.steps.push(words::of_insisting());
                return Err(stopped(absent, advice));
            }
            return Ok(self.deliver(Place::Header, Found::Nothing(absent), response, advice));
        }
        if let Some(pattern) = to_app {
            // The user of an app that alone knows its users is asked for first, and is not known here.
            let found = early.as_ref().unwrap_or(&Found::Minting);
            self.steps.push(delivery::of_hand_over(injection, pattern, found));
        }
        let assumed = response.is_none();
        let mut response = response.unwrap_or_default();
        injection.strip(response.headers_mut());
        let said = identity.app_said(response.headers_mut());
        if let Some(said) = &said {
            self.steps.push(words::of_app_said(identity, said, assumed));
        }
        let Some(place) = place else {
            return Ok(answer::of_app_answer(
                injection,
                Place::Header,
                response.status(),
                TokenFate::None,
                None,
            ));
        };
        let found = match (said, early) {
            (Some(Err(refusal)), _) => Found::Nothing(NoToken::AppWord(refusal)),
            (Some(Ok(named)), _) => self.look_up(&named),
            (None, Some(found)) => found,
            (None, None) => self.look_up(caller),
        };
        let response = (!assumed).then_some(response);
        Ok(self.deliver(place, found, response, advice))
    }

    /// Explains the delivery on the app's response, as `Sidecar::deliver` decides it.
    fn deliver(
        &mut self,
        place: Place,
        found: Found,
        response: Option<Response<()>>,
        advice: Option<String>,
    ) -> Answer {
        let injection = &*self.rules.injection;
        let assumed = response.is_none();
        let response = response.unwrap_or_default();
        let (status, headers, now) = (response.status(), response.headers(), SystemTime::now());
        let eligibility = injection.eligibility(place, status, headers, now);
        let storable_by = storable_by(headers, now);
        self.steps.push(delivery::of_delivery(
            injection,
            place,
            eligibility,
            &found,
            status,
            storable_by,
            assumed,
        ));
        match (eligibility, found) {
            (Eligibility::Eligible, Found::Token) => {
                answer::of_app_answer(injection, place, status, TokenFate::Delivered, None)
            }
            (Eligibility::Eligible, Found::Minting) => {
                answer::of_app_answer(injection, place, status, TokenFate::IfMinted, None)
            }
            (Eligibility::Eligible, Found::Nothing(absent)) => {
                let advice = advice.or_else(|| advice::on_absence(&absent));
                let answer = answer::of_app_answer(
                    injection,
                    place,
                    status,
                    TokenFate::None,
                    Some(absent.status()),
                );
                Answer { advice, ..answer }
            }
            (not_eligible, _) => {
                let advice = advice::on_response(not_eligible, storable_by);
                let answer = answer::of_app_answer(injection, place, status, TokenFate::None, None);
                Answer { advice, ..answer }
            }
        }
    }

    /// Explains a look-up, as `Sidecar::seek` makes it, in the caches as they are.
    fn look_up(&mut self, caller: &Caller) -> Found {
        if let Some(absent) = self.signed_out(caller) {
            return Found::Nothing(absent);
        }
        let (Some(details), Caller::Known(user), Some(site)) =
            (&self.rules.details, caller, &self.site)
        else {
            return self.look_up_token(caller);
        };
        let kept = match site {
            Ok(site) => details.peek(&DetailsKey::new(user, site.clone()), Instant::now()),
            Err(reason) => Some(Err(*reason)),
        };
        self.steps.push(words::of_details(details.path(), kept.as_ref(), self.live.is_some()));
        match kept {
            Some(Ok(user)) => self.look_up_token(&Caller::Known((*user).clone())),
            Some(Err(reason)) => Found::Nothing(NoToken::NoDetails(reason)),
            // Only the app's answer says which token is looked up.
            None => Found::Minting,
        }
    }

    /// Explains the refusal of a user who was signed out, as `Sidecar::admit` refuses them.
    fn signed_out(&mut self, caller: &Caller) -> Option<NoToken> {
        let (Some(Live { logouts, .. }), Some(logout), Caller::Known(user)) =
            (self.live, &self.rules.logout, caller)
        else {
            return None;
        };
        if !logouts.refuse(logout, &user.id, self.signed_in, unix_now()) {
            return None;
        }
        self.steps.push(words::of_signed_out(self.signed_in));
        Some(NoToken::SignedOut)
    }

    /// Explains the look-up of the token, as `Sidecar::look_up` makes it.
    fn look_up_token(&mut self, caller: &Caller) -> Found {
        let Rules { identity, plan, .. } = self.rules;
        let request = match mint_request(plan, caller) {
            Ok(request) => request,
            Err(absent) => {
                self.steps.push(match absent {
                    NoToken::NoGrants(reason) => grants::of_no_grants(identity, reason),
                    _ => words::of_no_request(plan, &absent),
                });
                return Found::Nothing(absent);
            }
        };
        self.steps.extend(grants::of_rights(identity, plan, &request));
        let Some(Live { tokens, admission, .. }) = self.live else {
            self.steps.push(words::of_cache(plan, &request, Cache::Unasked));
            return Found::Minting;
        };
        let known = tokens.peek(&request);
        let suspended = admission.suspended_for(&request, Instant::now());
        self.steps.push(words::of_cache(plan, &request, Cache::Known(&known, suspended.as_ref())));
        match known {
            Known::Fresh { .. } | Known::Due { .. } => Found::Token,
            Known::FailedRecently { error, .. } => Found::Nothing(NoToken::Failed(error)),
            Known::InFlight => Found::Minting,
            Known::Expired | Known::Absent => match suspended {
                Some(error) => Found::Nothing(NoToken::Failed(error)),
                // The next call goes through, if only to probe.
                None => Found::Minting,
            },
        }
    }
}
