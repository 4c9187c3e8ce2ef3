//! A mint whose answer is shown instead of used: for `doctor`.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::VeltClient;
use super::claims::TokenFacts;
use super::wire::error_word;
use crate::{Demand, MintError, MintRequest, Minted};

/// Facts that one call to Velt reveals, without the token.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Status of the answer; `None` if there was no answer.
    pub http_status: Option<StatusCode>,
    /// `error.status` of the answer, if it is a word in capitals.
    pub error_word: Option<String>,
    pub retry_after: Option<Duration>,
    /// Facts about the token, if the answer has a token.
    pub token: Option<TokenFacts>,
    /// Life of the token from now on, as a mint would have computed it, or the error of the mint.
    pub life: Result<Duration, MintError>,
    pub spent: Duration,
}

impl VeltClient {
    /// Mints once, as [`crate::Mint::mint`] does, and returns the facts of the answer.
    pub async fn inspect(&self, request: &MintRequest) -> Inspection {
        let started = Instant::now();
        let answered = match self.ask(request, &Demand::urgent()).await {
            Ok(answered) => answered,
            Err(error) => {
                return Inspection {
                    http_status: None,
                    error_word: None,
                    retry_after: None,
                    token: None,
                    life: Err(error),
                    spent: started.elapsed(),
                };
            }
        };
        let (value, spent) = (answered.classify(), started.elapsed());
        let facts = |value: &crate::TokenValue| TokenFacts::of(value.expose(), &request.user);
        let token = value.as_ref().ok().map(facts);
        let validated = value.and_then(|value| self.validate(value, request, &answered, spent));
        Inspection {
            http_status: Some(answered.status),
            error_word: error_word(&answered.body),
            retry_after: answered.retry_after,
            token,
            life: validated.map(|Minted { life, .. }| life),
            spent,
        }
    }
}
