//! Ages at which a user's token becomes due and ends, asked of the product.

use std::time::Duration;

use shared::protocol::{Facts, Verdict, Wanted, judge};
use token::velt::{Api, DOCUMENTED_LIFE};
use token::{Details, Freshness, Issuer, MintPlan, MintRequest, Minted, Moment, Token, TokenValue};

use super::{Millis, SECOND, User};

/// Ages of each user's token, by `token::Token` and the user's own mint request.
pub struct Lives {
    /// Age at which each user's token is due for a refresh, to the second.
    due: Vec<Millis>,
    /// Age at which a token is not served any more.
    end: Millis,
}

/// Credentials of all mints.
const CREDENTIALS: [u8; 8] = [0; 8];

impl Lives {
    /// Asks the product for the ages of the tokens of `users`.
    pub fn of(users: User) -> Self {
        let plan = plan();
        let value = TokenValue::parse("a.b.c").expect("visible ASCII");
        let born = Moment::now();
        let mint = |user| {
            let minted = Minted::now(value.clone(), DOCUMENTED_LIFE);
            Token::new(minted, &request(&plan, user), born)
        };
        let end = u32::try_from(mint(0).remaining(born).as_millis()).expect("two days");
        let due = (0..users).map(|user| due_age(&mint(user), born, end)).collect();
        Self { due, end }
    }

    /// Whether a mint that wants a token makes use of the one that was stored at `minted_at`, by the
    /// judgement of the product. There are no forgets in a simulation.
    pub fn is_usable(minted_at: Millis, wanted: Wanted, now: Millis) -> bool {
        let facts = Facts {
            minted_at: minted_at.into(),
            life: DOCUMENTED_LIFE,
            known: Vec::new(),
            credentials: CREDENTIALS,
        };
        matches!(judge(&facts, &[], wanted, CREDENTIALS, now.into()), Verdict::Serve { .. })
    }

    /// Whether the token that a user was given at `minted_at` may be served at `now`.
    pub fn lives(&self, minted_at: Millis, now: Millis) -> bool {
        now - minted_at < self.end
    }

    /// Whether the token that `user` was given at `minted_at` is to be refreshed at `now`.
    pub fn is_due(&self, user: User, minted_at: Millis, now: Millis) -> bool {
        now - minted_at >= self.due_age(user)
    }

    /// Returns the age at which the token of `user` is due.
    pub fn due_age(&self, user: User) -> Millis {
        self.due[user as usize]
    }
}

/// Returns the smallest age at which `token`, minted at `born`, is not fresh any more: to the second, rounded
/// up.
fn due_age(token: &Token, born: Moment, end: Millis) -> Millis {
    let (mut fresh, mut due) = (0, end / SECOND);
    while due - fresh > 1 {
        let age = u32::midpoint(fresh, due);
        let by = Duration::from_secs(age.into());
        let then = Moment { steady: born.steady + by, wall: born.wall + by };
        if token.freshness(then) == Freshness::Fresh {
            fresh = age;
        } else {
            due = age;
        }
    }
    due * SECOND
}

/// Plan of mint requests that name a user and nothing else.
pub fn plan() -> MintPlan {
    let issuer = Issuer {
        api: Api::V2,
        endpoint: "https://velt".into(),
        credentials_generation: 0,
        organization: Some("acme".into()),
        resources: [].into(),
    };
    MintPlan::new(issuer, true)
}

/// Mint request of a user, whose id is as long as a UUID.
pub fn request(plan: &MintPlan, user: User) -> MintRequest {
    let id = format!("user-{user:031}");
    plan.request(id.as_str().into(), Details::default()).expect("an organization")
}
