//! Identity by the app's word: an app with a login of its own names the user in a header of its responses, or
//! in a JSON object at the path where it is asked.

use http::HeaderMap;
use http::uri::PathAndQuery;

use super::guard::Guard;
use super::user::Said;
use super::{
    AnswerFault, AppAnswer, Caller, DetailsSource, HeaderSource, Identity, Placeholders, Reader,
    Refusal,
};
use ground::metrics::AppAnswerResult;

/// An app that says who is asking.
#[derive(Clone, Debug)]
pub struct AppSource {
    /// Headers of the app's responses that describe the user.
    pub headers: HeaderSource,
    /// Path at which the app names the user to whom a browser's cookies belong.
    pub path: PathAndQuery,
}

impl AppSource {
    /// Reads what the app says of the user, and removes these headers: only the sidecar may see them.
    pub(super) fn take(&self, guard: &Guard, headers: &mut HeaderMap) -> Result<Said, Refusal> {
        let said = self.headers.read(headers);
        let seen = guard.scan(headers);
        guard.strip(headers, &seen);
        said
    }
}

impl Identity {
    /// Takes the headers that name the user out of the app's response, or of its trailers. `None` unless
    /// `source = "app"`.
    pub fn word_of_app(&self, headers: &mut HeaderMap) -> Option<Result<Caller, Refusal>> {
        let Reader::App(source) = &self.reader else { return None };
        let said = source.take(&self.guard, headers);
        match &said {
            Ok(said) => self.tell_flaws(said.flaws, None),
            Err(refusal) => self.tell_refusal(refusal, None),
        }
        Some(said.map(named_by_app))
    }

    /// [`Self::word_of_app`] without counts and log lines, for `explain` and the like.
    pub fn app_said(&self, headers: &mut HeaderMap) -> Option<Result<Caller, Refusal>> {
        match &self.reader {
            Reader::App(source) => Some(source.take(&self.guard, headers).map(named_by_app)),
            Reader::Header(_) | Reader::Assertion(_) => None,
        }
    }

    /// Path at which the app says who is signed in; `None` unless `source = "app"`.
    pub fn app_path(&self) -> Option<&PathAndQuery> {
        match &self.reader {
            Reader::App(source) => Some(&source.path),
            Reader::Header(_) | Reader::Assertion(_) => None,
        }
    }
}

impl Identity {
    /// Place at which the app tells details of a user; `None` if it is not asked for any.
    pub fn details_source(&self) -> Option<&DetailsSource> {
        self.details.as_ref()
    }

    /// Reads an answer of the app about a user. Neither counts nor logs: see [`Self::tell_answer`].
    ///
    /// # Errors
    ///
    /// See [`AnswerFault`].
    pub fn read_answer(&self, bytes: &[u8]) -> Result<AppAnswer, AnswerFault> {
        AppAnswer::parse(bytes, self.placeholders())
    }

    /// Reads the caller from a JSON answer to the question who is signed in. `named` is the caller by the
    /// answer's headers. An answer without a `userId` is no such answer, and leaves `named` as it is: many
    /// apps describe a session in JSON of their own.
    ///
    /// The answer says who the user is, and no more: what it says beside would count at token routes alone, and a
    /// response's token would be for another organization or with more rights. If the app is asked for details at
    /// the same path, they are read from the answer to that question, for every token.
    ///
    /// # Errors
    ///
    /// See [`AnswerFault`]: among others, if header and JSON name different users.
    pub fn user_in_answer(&self, named: Caller, body: &[u8]) -> Result<Caller, AnswerFault> {
        if !AppAnswer::has_user(body) {
            return Ok(named);
        }
        let answer = self.read_answer(body).and_then(|answer| {
            if answer.has_details() && !self.tells_details_at_app_path() {
                return Err(AnswerFault::DetailsAtAppPath);
            }
            let who = AppAnswer { user_id: answer.user_id, ..AppAnswer::default() };
            match named {
                Caller::Known(user) => who.complete(&user).map(Caller::Known),
                _ => Ok(who.into_user().map_or(Caller::Unnamed, Caller::Known)),
            }
        });
        match &answer {
            Ok(_) => self.tell_answer(AppAnswerResult::Used, None),
            Err(fault) => self.tell_answer(fault.result(), Some(fault)),
        }
        answer
    }

    /// Whether the path at which the app names the user is the one at which it tells details.
    fn tells_details_at_app_path(&self) -> bool {
        let details_path = self.details_source().map(|source| &source.path);
        details_path.is_some() && details_path == self.app_path()
    }

    fn placeholders(&self) -> &Placeholders {
        match &self.reader {
            Reader::Header(source) => &source.placeholders,
            Reader::Assertion(assertions) => assertions.placeholders(),
            Reader::App(source) => &source.headers.placeholders,
        }
    }
}

/// Makes a caller of the app's word. Without a user, the caller stays unnamed.
fn named_by_app(said: Said) -> Caller {
    said.user.map_or(Caller::Unnamed, Caller::Known)
}
