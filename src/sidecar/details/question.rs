//! Question to the app about one user: what goes out, how the answer is read, and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::{Instant, timeout_at};

use super::site::Site;
use super::{AppDetails, Asked, Detailed, Found, InFlight, Joined, Key, NoDetails};
use crate::ask_app::{is_of_type, question, unread};
use crate::error::NoToken;
use crate::record::Record;
use crate::token_state::TokenState;
use crate::{Rules, Sidecar, user_request};
use ground::metrics::AppAnswerResult;
use ground::trace::Recording;
use hop::proxy::headers::copy_said;
use hop::proxy::{Client, UpstreamError};
use identity::{AppAnswer, Caller, DetailsSource, Identity, MAX_ANSWER_BYTES, Reads, User};
use token::{Freshness, Moment, Token};

/// Header in which the app is told whom it is asked about. Where the app is asked, only the sidecar may set it:
/// the configuration adds it to [`identity::Settings::token_headers`].
pub const ASKED_USER: HeaderName = HeaderName::from_static("x-velt-user");

/// Rules with the details that they ask for.
pub(crate) type Detailing<'a> = (&'a Arc<Rules>, &'a Arc<AppDetails>);

/// Parts of a client's request that a question to the app about its user has. Kept where the question comes
/// after the request has gone to the app.
pub(crate) struct Question {
    /// The question, without the user.
    head: Request<()>,
    /// Headers in which a trusted front speaks of the client, the scheme and the host.
    said: HeaderMap,
    client: Client,
    site: Result<Site, NoDetails>,
}

impl Question {
    /// Takes the parts of `request`.
    fn of<B>(
        identity: &Identity,
        source: &DetailsSource,
        request: &Request<B>,
        client: &Client,
    ) -> Self {
        let mut head = question(&source.path, request);
        head.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Any other credentials in `Authorization` are not for this question.
        if matches!(identity.reads(), Reads::Assertion(places) if places.header() == Some(&AUTHORIZATION))
            && let Some(assertion) = request.headers().get(AUTHORIZATION)
        {
            head.headers_mut().insert(AUTHORIZATION, assertion.clone());
        }
        let mut said = HeaderMap::new();
        if client.trusted {
            copy_said(request.headers(), &mut said);
        }
        Self { head, said, client: *client, site: Site::of(request, client) }
    }
}

impl Sidecar {
    /// Looks up the token of a caller with the app's details: at once if they are kept. Else the app is asked,
    /// in a task, and this function does not wait.
    pub(crate) fn seek_detailed<B>(
        self: &Arc<Self>,
        detailing: Detailing<'_>,
        caller: &Caller,
        request: &Request<B>,
        client: &Client,
        record: &Record,
    ) -> TokenState {
        let (rules, details) = detailing;
        let question = || Question::of(&rules.identity, &details.source, request, client);
        match caller {
            // The app names the caller in its answer to the request, and the request is gone by then.
            Caller::Unnamed => TokenState::AfterApp(Some(Box::new(question()))),
            Caller::Known(user) => {
                self.find(detailing, user, Site::of(request, client), question, record)
            }
            Caller::Anonymous | Caller::Unverified => {
                self.look_up(rules, caller, record, Moment::now()).into()
            }
        }
    }

    /// Looks up the token of a caller whom the app has named in its answer to the request.
    fn seek_named(
        self: &Arc<Self>,
        detailing: Detailing<'_>,
        caller: &Caller,
        question: Question,
        record: &Record,
    ) -> TokenState {
        let Caller::Known(user) = caller else {
            return self.look_up(detailing.0, caller, record, Moment::now()).into();
        };
        let site = question.site.clone();
        self.find(detailing, user, site, || question, record)
    }

    /// Finds the details of `user` at `site`, or asks for them.
    fn find(
        self: &Arc<Self>,
        (rules, details): Detailing<'_>,
        user: &User,
        site: Result<Site, NoDetails>,
        question: impl FnOnce() -> Question,
        record: &Record,
    ) -> TokenState {
        let key = match site {
            Ok(site) => Key::new(user, site),
            Err(reason) => {
                tell(&rules.identity, Err(reason));
                return TokenState::Absent(NoToken::NoDetails(reason));
            }
        };
        let now = Moment::now();
        if let Some(detailed) = details.kept(&key, now.steady) {
            return self.with_details(rules, detailed, record, now);
        }
        let asked = match details.join(key, now.steady) {
            Joined::Other(Found::Kept(detailed)) => {
                if let Err(reason @ NoDetails::Crowded) = detailed {
                    tell(&rules.identity, Err(reason));
                }
                return self.with_details(rules, detailed, record, now);
            }
            Joined::Other(Found::Asking(in_flight)) => return TokenState::Asking(in_flight),
            Joined::Own(asked) => asked,
        };
        let in_flight = InFlight(asked.sender.subscribe());
        let (sidecar, rules) = (Arc::clone(self), Arc::clone(rules));
        let (question, cause) = (question(), record.recording().cloned());
        tokio::spawn(async move { sidecar.ask(&rules, question, asked, cause.as_ref()).await });
        TokenState::Asking(in_flight)
    }

    /// Looks up the token of a user with these details.
    fn with_details(
        &self,
        rules: &Rules,
        detailed: Detailed,
        record: &Record,
        now: Moment,
    ) -> TokenState {
        match detailed {
            Ok(user) => {
                let found = self.look_up_user(rules, &user, record, now);
                TokenState::Detailed(Box::new((user, found)))
            }
            Err(reason) => TokenState::Absent(NoToken::NoDetails(reason)),
        }
    }

    /// Asks the question to its end, and begins the mint that its client wants.
    async fn ask(
        &self,
        rules: &Rules,
        question: Question,
        asked: Asked,
        cause: Option<&Recording>,
    ) {
        let found = &asked.key.user;
        let answer = self.answer_about(found, &asked.details.source, rules, question).await;
        let (detailed, told) = match answer {
            Ok(None) => (Ok(found.clone()), Ok(AppAnswerResult::Empty)),
            Ok(Some(answer)) => match answer.complete(found) {
                Ok(user) => (Ok(user), Ok(AppAnswerResult::Used)),
                Err(fault) => (Err(NoDetails::Unusable(fault)), Err(NoDetails::Unusable(fault))),
            },
            Err(reason) => (Err(reason), Err(reason)),
        };
        tell(&rules.identity, told);
        if let Ok(user) = &detailed
            && let Ok(request) = user_request(&rules.plan, user)
        {
            // Begins the mint now, and not when the waiting request is next polled. The mint runs on alone.
            drop(self.tokens.get_for(request, cause, Moment::now()));
        }
        asked.answer(detailed.map(Arc::new));
    }

    /// Asks the app about `user`. `None` if the app has nothing to add.
    async fn answer_about(
        &self,
        user: &User,
        source: &DetailsSource,
        rules: &Rules,
        question: Question,
    ) -> Result<Option<AppAnswer>, NoDetails> {
        let upstream = self.upstream.as_ref().ok_or(NoDetails::Broken)?;
        let deadline = Instant::now() + source.timeout;
        let Question { mut head, said, client, .. } = question;
        // A user's id has no control characters, so it can be a header's value.
        let id = HeaderValue::from_bytes(user.id.as_str().as_bytes());
        head.headers_mut().insert(ASKED_USER, id.map_err(|_| NoDetails::Broken)?);
        // Not on the client's own connection to the app, where its request may be at the same time.
        let asking = upstream.ask(head, &said, &client, None);
        let response = timeout_at(deadline, asking).await.map_err(|_| NoDetails::Timeout)??;
        let status = response.status();
        let is_html = is_of_type("text/html", response.headers());
        let reading = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
        // Read in every case, so that the connection can be used again.
        let read = timeout_at(deadline, reading).await;
        match status.as_u16() {
            200 => {
                let body = read.map_err(|_| NoDetails::Timeout)?;
                let answer = match body {
                    Ok(body) => rules.identity.read_answer(&body.to_bytes()).map(Some),
                    Err(error) => match unread(&*error) {
                        NoDetails::Unusable(fault) => Err(fault),
                        reason => return Err(reason),
                    },
                };
                answer.map_err(|fault| {
                    NoDetails::Unusable(if is_html { fault.in_html() } else { fault })
                })
            }
            204 => Ok(None),
            401 | 403 | 404 => Err(NoDetails::Refused(status)),
            _ => Err(NoDetails::Failed(status)),
        }
    }

    /// Waits at most `patience` for the answer to a question under way, and looks up the token of its user.
    /// Returns what is left of `patience`.
    pub(crate) async fn settle(
        &self,
        rules: &Rules,
        token: &mut TokenState,
        record: &Record,
        patience: Duration,
    ) -> Duration {
        let TokenState::Asking(in_flight) = token else { return patience };
        let deadline = Instant::now() + patience;
        *token = match timeout_at(deadline, in_flight.detailed()).await {
            Ok(detailed) => self.with_details(rules, detailed, record, Moment::now()),
            Err(_) => TokenState::Absent(NoToken::DetailsPending),
        };
        deadline.saturating_duration_since(Instant::now())
    }

    /// Returns the token of a caller with the app's details. Waits at most `patience` for the details and the
    /// mint.
    pub(crate) async fn await_detailed(
        self: &Arc<Self>,
        detailing: Detailing<'_>,
        caller: &Caller,
        token: TokenState,
        patience: Duration,
        record: &Record,
        now: Moment,
    ) -> Result<Token, NoToken> {
        let rules = detailing.0;
        let mut token = match token {
            TokenState::AfterApp(Some(question)) => {
                self.seek_named(detailing, caller, *question, record)
            }
            token => token,
        };
        let patience = self.settle(rules, &mut token, record, patience).await;
        let user = token.user();
        let token = token.within(patience).await?;
        if token.freshness(now) != Freshness::Expired {
            return Ok(token);
        }
        // The app took longer than the token had left to live.
        let user = user.ok_or(NoToken::DetailsPending)?;
        TokenState::from(self.look_up_user(rules, &user, record, now)).within(patience).await
    }
}

impl From<UpstreamError> for NoDetails {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unreachable(_) => Self::Unreachable,
            UpstreamError::Timeout => Self::Timeout,
            _ => Self::Broken,
        }
    }
}

/// Counts the end of a question, and logs it now and then if there are no details.
fn tell(identity: &Identity, end: Result<AppAnswerResult, NoDetails>) {
    match end {
        Ok(result) => identity.tell_answer(result, None),
        // A user to whom the app gives no token is no fault, and what a client asks for is not the operator's.
        Err(reason @ (NoDetails::Refused(_) | NoDetails::LongHost)) => {
            identity.tell_answer(reason.result(), None);
        }
        Err(reason) => identity.tell_answer(reason.result(), Some(&reason)),
    }
}
