//! A mint that is looked at instead of used: for `doctor`.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::VeltClient;
use super::claims::TokenFacts;
use super::wire::error_word;
use crate::token::{Demand, MintError, MintRequest, Minted};

/// All that one call to Velt reveals, without the token.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `None` if there was no answer.
    pub http_status: Option<StatusCode>,
    /// `error.status`, if it is a word in capitals.
    pub error_word: Option<String>,
    pub retry_after: Option<Duration>,
    /// Of the token, if one came.
    pub token: Option<TokenFacts>,
    /// What the sidecar would have made of it: for how long it would have been served, from now on.
    pub life: Result<Duration, MintError>,
    pub spent: Duration,
}

impl VeltClient {
    /// Mints once, as [`crate::token::Mint::mint`] does, and tells what came.
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
        let facts =
            |value: &crate::token::TokenValue| TokenFacts::of(value.expose(), &request.user);
        let token = value.as_ref().ok().map(facts);
        let judged = value.and_then(|value| self.judge(value, request, answered.velt_now, spent));
        Inspection {
            http_status: Some(answered.status),
            error_word: error_word(&answered.body),
            retry_after: answered.retry_after,
            token,
            life: judged.map(|Minted { life, .. }| life),
            spent,
        }
    }
}
