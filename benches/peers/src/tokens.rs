//! Users and their tokens. A token follows from its user, so that the load and each proxy's checks can
//! compute the right token without having seen it before.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Length of a token of Velt's, in bytes.
const TOKEN_BYTES: usize = 900;

/// Expiry of all tokens: the year 2100, which the sidecar cuts to 48 hours. Fixed, so that all processes of a
/// run agree.
const EXPIRES: u64 = 4_102_444_800;

/// Number of tokens that the load keeps at most. With more users, each token is computed when it is compared.
const KEPT: usize = 10_000;

/// Returns the name of user `number`.
pub fn user(number: usize) -> String {
    format!("user-{number:07}@example.com")
}

/// Returns the only right token of a user: a JWT in form, of [`TOKEN_BYTES`] bytes.
pub fn token_of(user: &str) -> String {
    let payload = format!(r#"{{"userId":"{user}","exp":{EXPIRES}}}"#);
    let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    token.push('.');
    // The third part differs from user to user too, as a signature does.
    let seed = user.bytes().fold(7_u64, |seed, byte| seed * 31 % 1_000_003 + u64::from(byte));
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = seed;
    while token.len() < TOKEN_BYTES {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        token.push(char::from(alphabet[usize::try_from(state >> 58).unwrap_or(0)]));
    }
    token
}

/// Users from `first` on, who are asked for in turn.
#[derive(Clone)]
pub struct Users {
    first: usize,
    count: usize,
    kept: Rc<Vec<(String, String)>>,
}

impl Users {
    pub fn new(first: usize, count: usize) -> Self {
        let kept = if count <= KEPT { count } else { 0 };
        let pair = |number| {
            let user = user(number);
            let token = token_of(&user);
            (user, token)
        };
        Self { first, count, kept: Rc::new((first..first + kept).map(pair).collect()) }
    }

    /// Calls `call` with the name and the token of the user of `turn`.
    pub fn with<Out>(&self, turn: usize, call: impl FnOnce(&str, &str) -> Out) -> Out {
        let index = turn % self.count;
        if let Some((user, token)) = self.kept.get(index) {
            return call(user, token);
        }
        let user = user(self.first + index);
        let token = token_of(&user);
        call(&user, &token)
    }
}
