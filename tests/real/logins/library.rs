//! A login library from npm, in a program of its own: it makes a user's cookies and tokens, and says whom it finds
//! in cookies and tokens.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{APPS, Program};

/// Session of a user's login, as a browser sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Names and values of cookies, in the order in which the library has set them.
    pub cookies: Vec<(String, String)>,
    /// Token for a header.
    pub token: Option<String>,
}

impl Login {
    fn from_answer(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let cookies = answer["cookies"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let pair = |cookie: &Value| {
            let pair = text(&cookie["name"]).zip(text(&cookie["value"]));
            pair.unwrap_or_else(|| panic!("{cookie} is no cookie"))
        };
        let cookies = cookies.iter().map(pair).collect();
        Self { cookies, token: text(&answer["token"]) }
    }

    /// Returns the value of the header `Cookie`.
    pub fn cookie_line(&self) -> String {
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }
}

/// The program with the library, and the issuer's keys that it publishes.
pub struct Library {
    program: Program,
    pub issuer: SocketAddr,
}

impl Library {
    /// Starts the library of `login`.
    pub async fn start(login: &str) -> Self {
        let installed = Path::new(APPS).join("logins/node_modules").is_dir();
        assert!(installed, "the login libraries are missing: run tests/run, which installs them");
        let (program, issuer) = Program::node("logins/main.mjs", &[login]).listening().await;
        Self { program, issuer }
    }

    /// Has the library sign a user in.
    ///
    /// # Panics
    ///
    /// Panics if the library fails.
    pub async fn sign_in(&mut self, how: &Value) -> Login {
        let answer = self.ask(&json!({ "make": how })).await;
        Login::from_answer(&answer)
    }

    /// Returns the user and the organization that the library itself finds, or `None` if it refuses the login.
    pub async fn find(&mut self, made: &Login) -> Option<(String, Option<String>)> {
        let pair = |(name, value): &(String, String)| json!({ "name": name, "value": value });
        let cookies: Vec<_> = made.cookies.iter().map(pair).collect();
        let token = if cookies.is_empty() { json!(made.token) } else { Value::Null };
        let read = json!({ "cookies": cookies, "token": token });
        let answer = self.ask(&json!({ "read": read })).await;
        let found = answer.get("library").unwrap_or_else(|| panic!("{answer}"));
        let user = found["user"].as_str()?.to_owned();
        Some((user, found["organization"].as_str().map(str::to_owned)))
    }

    async fn ask(&mut self, question: &Value) -> Value {
        self.program.say(question);
        self.program.line().await
    }
}
