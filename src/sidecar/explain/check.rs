//! Explanation of a check, as `Sidecar::serve_check` answers it.

use http::Response;

use super::super::check::{absence_of, status_of_refusal};
use super::super::error::{NoToken, RequestError};
use super::super::route::known_user;
use super::words::step;
use super::{Answer, AnsweredBy, Found, TokenFate, Walk, advice};
use crate::inject::TokenStatus;
use ground::metrics::{Label as _, Outcome};
use identity::{Caller, InvalidAssertion};

impl Walk<'_> {
    /// Explains the rest of a check, whose caller is known or anonymous by the request.
    pub(super) fn check(
        &mut self,
        caller: Caller,
        response: Option<Response<()>>,
        (lacks_secret, unbelieved): (bool, Option<InvalidAssertion>),
        advice: Option<String>,
    ) -> Answer {
        let caller = match caller {
            Caller::Unnamed => match self.asked_app(response) {
                Ok(caller) => caller,
                Err((error, own)) => return self.check_without_user(&error, own.or(advice)),
            },
            named => named,
        };
        if let Err(absent) = known_user(&caller) {
            let error = RequestError::from(absent).for_want_of(lacks_secret, unbelieved);
            return self.check_without_user(&error, advice);
        }
        match self.look_up(&caller) {
            Found::Token => self.checked(TokenFate::Delivered, None, advice),
            Found::Minting => self.checked(TokenFate::IfMinted, None, advice),
            Found::Nothing(absent @ NoToken::SignedOut) => {
                self.check_without_user(&absent.into(), advice)
            }
            Found::Nothing(absent) => {
                let advice = advice.or_else(|| advice::on_absence(&absent));
                self.checked(TokenFate::None, Some(absent.status()), advice)
            }
        }
    }

    /// Explains the answer to a check for which no user is known.
    pub(super) fn check_without_user(
        &mut self,
        error: &RequestError,
        advice: Option<String>,
    ) -> Answer {
        if !self.rules.injection.check().require_user {
            let status = absence_of(error).status;
            return self.checked(TokenFate::None, Some(status), advice);
        }
        let why = "no user is known, and the gateway refuses such clients";
        self.steps.push(step("check", "refused", why, &["delivery.check.require_user"]));
        let answer = super::answer::of_error(error, advice);
        Answer { status: status_of_refusal(error).as_u16(), ..answer }
    }

    fn checked(
        &mut self,
        token: TokenFate,
        absent: Option<TokenStatus>,
        advice: Option<String>,
    ) -> Answer {
        let injection = &self.rules.injection;
        let (settings, header) = (injection.check(), injection.header());
        let has_token = format!("{} has the token", header.name);
        let says = |status: TokenStatus| format!("{}: {}", header.status_name, status.as_str());
        let summary = match (token, absent) {
            (TokenFate::Delivered, _) => has_token,
            (TokenFate::IfMinted, _) => format!(
                "{has_token} if Velt mints it within {:?}, else {}, or the name of Velt's failure",
                settings.max_wait,
                says(TokenStatus::Pending)
            ),
            (TokenFate::None, status) => says(status.unwrap_or(TokenStatus::Anonymous)),
        };
        let why =
            "a gateway asks about a request of one of its clients, and copies the answer's headers";
        let settings = ["delivery.check.path", "delivery.check.max_wait"];
        self.steps.push(step("check", summary.clone(), why, &settings));
        Answer {
            by: AnsweredBy::Sidecar,
            status: 200,
            outcome: Outcome::CheckAnswered.as_str().into(),
            code: None,
            token,
            token_status: absent.map(|status| status.as_str().into()),
            summary: format!("an empty answer to the gateway; {summary}"),
            advice,
        }
    }
}
