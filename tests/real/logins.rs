//! Logins of `docs/logins`: a sidecar with the whole configuration of a login's page, and sessions made by the
//! login's own library. A test replaces only the values that a reader replaces too: where the keys are, secrets.

mod library;
mod own_session;
mod site;

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::{Value, json};

use self::library::{Library, Login};
use self::site::Site;
use crate::front_pages::page::Page;

/// User and organization of the sessions.
const USER: &str = "user_ada";
const ORGANIZATION: &str = "org_acme";

/// Organization of the pages, for users whom the login puts into none.
const DEFAULT_ORGANIZATION: &str = "your-organization-id";

/// Length of a claim that does not fit into one cookie.
const LONG: usize = 8_000;

/// Variables in which a test says where the keys are, or what the secrets are.
const JWKS_URL: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__JWKS_URL";
const X509_URL: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__X509_URL";
const SECRET: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__SECRET";
const COOKIE_NAME: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__COOKIE";
const NEXT_SECRET: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__NEXT_SECRET";

const REQUIRED: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__REQUIRED_CLAIMS";

/// Secrets of the apps that the libraries of `apps/logins` stand for.
const AUTH_SECRET: &str = "the-secret-of-the-app-with-44-characters-QQ==";
const NEXT_AUTH_SECRET: &str = "the-next-secret-of-the-app-44-characters-Qg==";
const SUPABASE_SECRET: &str = "the-older-shared-secret-of-the-project-40ch";

/// Changes that make a session invalid, for its library too.
const FORGERIES: [fn() -> Value; 4] = [
    || json!({ "expired": true }),
    || json!({ "tampered": true }),
    || json!({ "keys": "foreign" }),
    || json!({ "algorithm": "HS256" }),
];

/// A sidecar with a login's page, and the login's library.
struct Stage {
    library: Library,
    site: Site,
    page: Page,
    /// Session of the user, but for the changes of a test.
    usual: Value,
}

impl Stage {
    /// Starts the page's configuration number `number`, with settings that may depend on where the issuer
    /// publishes its keys.
    async fn set(
        login: &'static str,
        number: usize,
        settings: impl FnOnce(SocketAddr) -> Vec<(&'static str, String)>,
    ) -> Self {
        let library = Library::start(login).await;
        let settings = settings(library.issuer);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
        let page = Page::in_folder("logins", login);
        let site = Site::open(&page, number, &settings).await;
        let usual = json!({ "user": USER, "organization": ORGANIZATION });
        Self { library, site, page, usual }
    }

    /// Starts the page's configuration number `number` for an issuer with keys by RFC 7517.
    async fn with_jwks(login: &'static str, number: usize) -> Self {
        let keys = |issuer| vec![(JWKS_URL, format!("http://{issuer}/{login}/jwks"))];
        Self::set(login, number, keys).await
    }

    /// Has the library make the usual session with `changes`.
    async fn session(&mut self, changes: Value) -> Login {
        let mut how = self.usual.clone();
        let changes = changes.as_object().expect("an object").clone();
        how.as_object_mut().expect("an object").extend(changes);
        self.library.sign_in(&how).await
    }

    /// Asserts that a page's line of `required_claims` keeps the session of `changes` out, and the usual session
    /// in; without the line, the session of `changes` is a user's.
    async fn is_kept_out_by_the_line(
        login: &'static str,
        number: usize,
        keys: (&'static str, &'static str),
        line: &str,
        changes: Value,
    ) {
        let page = Page::in_folder("logins", login);
        assert!(page.says(&format!("`required_claims = [\"{line}\"]`")), "{login}: {line}");
        for required in [None, Some(line)] {
            let settings = |issuer| {
                let (variable, path) = keys;
                let keys = (variable, format!("http://{issuer}/{login}/{path}"));
                let line = required.map(|line| (REQUIRED, line.to_owned()));
                [keys].into_iter().chain(line).collect()
            };
            let mut stage = Self::set(login, number, settings).await;
            let usual = stage.session(json!({})).await;
            assert!(stage.site.page(&usual).await.minted.is_some());
            let other = stage.session(changes.clone()).await;
            let seen = stage.site.page(&other).await;
            assert_eq!(seen.minted.is_none(), required.is_some(), "{login}: {seen:?}");
            assert_eq!(seen.is_anonymous(), required.is_some(), "{login}: {seen:?}");
        }
    }

    /// Asserts that the sidecar and the library find this user and organization.
    async fn mints(&mut self, session: &Login, user: &str, organization: &str) {
        let seen = self.site.page(session).await;
        let minted = Some((user.to_owned(), organization.to_owned()));
        assert_eq!((seen.status, &seen.minted), (StatusCode::OK, &minted), "{seen:?} {session:?}");
        let found = self.library.find(session).await;
        let found = found.unwrap_or_else(|| panic!("the library refuses {session:?}"));
        let in_library = found.1.as_deref().unwrap_or(DEFAULT_ORGANIZATION);
        assert_eq!((&*found.0, in_library), (user, organization), "{session:?}");
    }

    /// Asserts that the app gets the request of a session that names no user, and answers it without a token.
    async fn is_anonymous(&self, session: &Login) {
        let seen = self.site.page(session).await;
        assert!(seen.is_anonymous(), "{seen:?} {session:?}");
        let route = self.site.token(session).await;
        assert_eq!(
            (route.status, &route.body["code"], &route.minted),
            (StatusCode::UNAUTHORIZED, &json!("no_identity"), &None),
            "{route:?}"
        );
    }

    /// Asserts that neither the library nor the sidecar finds a user.
    async fn is_refused_by_both(&mut self, session: &Login) {
        assert_eq!(self.library.find(session).await, None, "{session:?}");
        self.is_anonymous(session).await;
    }

    /// Asserts the requirements of every login: the user of a session gets the token, and an expired or forged
    /// session is anonymous.
    async fn holds(&mut self) {
        let session = self.session(json!({})).await;
        self.mints(&session, USER, ORGANIZATION).await;
        let minted = Some((USER.to_owned(), ORGANIZATION.to_owned()));
        let route = self.site.token(&session).await;
        assert_eq!((route.status, &route.minted), (StatusCode::OK, &minted), "{route:?}");
        self.site.is_shown_by_curl(&self.page, &session, USER);
        let seen = self.site.page(&session).await;
        if session.cookies.is_empty() {
            let token = session.token.as_deref().expect("a token");
            assert_eq!(seen.body["authorization"], format!("Bearer {token}"), "the app's own");
        } else {
            assert_eq!(seen.body["cookie"], session.cookie_line(), "the app's own cookies");
        }
        for forgery in FORGERIES {
            let forged = self.session(forgery()).await;
            self.is_refused_by_both(&forged).await;
        }
        let none = Login::default();
        self.is_anonymous(&none).await;
    }

    /// Asserts that the request of two sessions under one name is refused.
    async fn refuses_a_second_session(&mut self, name: &str) {
        let mut session = self.session(json!({})).await;
        let other = self.session(json!({ "user": "user_grace" })).await;
        let second = other.cookies.into_iter().find(|(own, _)| own == name);
        session.cookies.push(second.unwrap_or_else(|| panic!("no cookie {name}")));
        let seen = self.site.page(&session).await;
        assert_eq!(
            (seen.status, &seen.body["code"], &seen.minted),
            (StatusCode::BAD_REQUEST, &json!("ambiguous_identity"), &None),
            "{seen:?}"
        );
    }

    /// Asserts that a session in several cookies names the user, and names no user without one of the cookies.
    async fn joins_chunks(&mut self) {
        let whole = self.session(json!({ "length": LONG })).await;
        assert!(whole.cookies.len() > 2, "{whole:?}");
        self.mints(&whole, USER, ORGANIZATION).await;
        let mut in_another_order = whole.clone();
        in_another_order.cookies.reverse();
        self.mints(&in_another_order, USER, ORGANIZATION).await;
        for (missing, (name, _)) in whole.cookies.iter().enumerate() {
            if name.ends_with(|sign: char| sign.is_ascii_digit()) {
                let mut part = whole.clone();
                part.cookies.remove(missing);
                self.is_refused_by_both(&part).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_is_as_its_page_says() {
    let mut stage = Stage::with_jwks("clerk", 0).await;
    for version in [1, 2] {
        stage.usual["version"] = version.into();
        stage.holds().await;
        let without = stage.session(json!({ "organization": null })).await;
        stage.mints(&without, USER, DEFAULT_ORGANIZATION).await;
        // A token that another site's page has asked for.
        let elsewhere = stage.session(json!({ "origin": "https://evil.example.com" })).await;
        stage.is_refused_by_both(&elsewhere).await;
        // A user who has yet to choose an organization is not signed in.
        let pending = stage.session(json!({ "pending": true })).await;
        stage.is_refused_by_both(&pending).await;
    }
    stage.refuses_a_second_session("__session").await;
    // Another instance on a parent domain has cookies of the same names, and is in the middle of a handshake.
    let mut beside = stage.session(json!({})).await;
    for name in ["__client_uat", "__clerk_handshake", "__clerk_db_jwt", "__clerk_db_jwt"] {
        beside.cookies.push((name.to_owned(), "of-another-instance".to_owned()));
    }
    let seen = stage.site.page(&beside).await;
    assert_eq!(seen.minted, Some((USER.to_owned(), ORGANIZATION.to_owned())), "{seen:?}");
    assert_eq!(seen.body["cookie"], beside.cookie_line(), "the app has to see the handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_is_found_by_the_name_of_its_instance() {
    let settings = |issuer| {
        let keys = (JWKS_URL, format!("http://{issuer}/clerk/jwks"));
        vec![keys, (COOKIE_NAME, "__session_naoXFJnI".to_owned())]
    };
    let mut stage = Stage::set("clerk", 0, settings).await;
    let mut session = stage.session(json!({})).await;
    // Another instance on this host was the last to write the cookie without an instance's name.
    let plain = session.cookies.iter_mut().find(|(name, _)| name == "__session");
    plain.expect("both names").1 = "of.another.instance".to_owned();
    let seen = stage.site.page(&session).await;
    assert_eq!(seen.minted, Some((USER.to_owned(), ORGANIZATION.to_owned())), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_required_claims_keep_other_callers_out() {
    let session_keys = (X509_URL, "x509/session");
    let jwks = (JWKS_URL, "jwks");
    let anonymous = || json!({ "anonymous": true });
    let line = "firebase.sign_in_provider!=anonymous";
    Stage::is_kept_out_by_the_line("firebase", 0, session_keys, line, anonymous()).await;
    Stage::is_kept_out_by_the_line("supabase", 0, jwks, "is_anonymous!=true", anonymous()).await;
    let program = json!({ "program": true });
    Stage::is_kept_out_by_the_line("auth0", 0, jwks, "gty!=client-credentials", program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_of_another_product_names_no_user() {
    // Auth0's library for Next.js and Firebase Hosting call their cookies `__session` too.
    let stage = Stage::with_jwks("clerk", 0).await;
    let sealed = {
        let mut other = Stage::set("nextauth", 0, |_| vec![(SECRET, AUTH_SECRET.to_owned())]).await;
        other.session(json!({})).await.cookies.remove(0).1
    };
    for value in [&*sealed, "s%3Aof-express.signature", "1", "{}", "a.b.c", "..", "\"\"", ""] {
        let cookies = vec![("__session".to_owned(), value.to_owned())];
        stage.is_anonymous(&Login { cookies, token: None }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn supabase_is_as_its_page_says() {
    let mut stage = Stage::with_jwks("supabase", 0).await;
    stage.holds().await;
    stage.joins_chunks().await;
    stage.refuses_a_second_session("sb-abcdefghijklmnopqrst-auth-token").await;
    // JSON without base64, as older versions of the library write it.
    stage.usual["encoding"] = "raw".into();
    stage.holds().await;
    stage.joins_chunks().await;
    // A project's own API keys are no users.
    stage.usual["encoding"] = "base64url".into();
    for role in ["anon", "service_role"] {
        let key = stage.session(json!({ "role": role })).await;
        stage.is_refused_by_both(&key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_cookie_of_supabase_names_no_user() {
    let mut stage = Stage::with_jwks("supabase", 0).await;
    let name = "sb-abcdefghijklmnopqrst-auth-token";
    // No base64url, no UTF-8, no JSON, no object, no token, a token that is no text, and no end.
    let broken = [
        "base64-",
        "base64-.",
        "base64-_w",
        "base64-Zm9v",
        "base64-ImEi",
        "base64-e30",
        "base64-eyJhY2Nlc3NfdG9rZW4iOjF9",
        "base64-eyJhIjo",
        "{",
        "%7B%7D",
        "%",
        "[]",
        "null",
    ];
    for value in broken {
        let cookies = vec![(name.to_owned(), value.to_owned())];
        stage.is_refused_by_both(&Login { cookies, token: None }).await;
    }
    // The first piece of one write, and the others of another write.
    let one = stage.session(json!({ "length": LONG })).await;
    let mut mixed = stage.session(json!({ "length": LONG - 1, "user": "user_grace" })).await;
    mixed.cookies[0] = one.cookies[0].clone();
    let seen = stage.site.page(&mixed).await;
    assert_ne!(seen.minted.map(|(user, _)| user).as_deref(), Some("user_grace"));
    assert_eq!(seen.status, StatusCode::OK, "the app answers in any case");
}

#[tokio::test(flavor = "multi_thread")]
async fn supabase_is_found_beside_its_own_other_cookies() {
    let settings = |issuer| {
        let keys = (JWKS_URL, format!("http://{issuer}/supabase/jwks"));
        // The preset's own pattern, in place of the page's name.
        vec![keys, (COOKIE_NAME, "sb-*-auth-token".to_owned())]
    };
    let mut stage = Stage::set("supabase", 0, settings).await;
    stage.usual["neighbours"] = true.into();
    stage.holds().await;
    stage.joins_chunks().await;
    let mut two_projects = stage.session(json!({})).await;
    let (name, session) = two_projects.cookies.last().expect("a session").clone();
    assert_eq!(name, "sb-abcdefghijklmnopqrst-auth-token");
    two_projects.cookies.push(("sb-zyxwvutsrqponmlkjihg-auth-token".to_owned(), session));
    stage.is_anonymous(&two_projects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn supabase_with_a_shared_secret_is_as_its_page_says() {
    let secret = |_| vec![(SECRET, SUPABASE_SECRET.to_owned())];
    let mut stage = Stage::set("supabase", 1, secret).await;
    stage.usual["shared"] = true.into();
    let session = stage.session(json!({})).await;
    stage.mints(&session, USER, ORGANIZATION).await;
    for change in [json!({ "expired": true }), json!({ "keys": "foreign" })] {
        let forged = stage.session(change).await;
        stage.is_refused_by_both(&forged).await;
    }
    let other_algorithm = stage.session(json!({ "shared": false })).await;
    stage.is_anonymous(&other_algorithm).await;
    for role in ["anon", "service_role"] {
        let key = stage.session(json!({ "role": role })).await;
        stage.is_refused_by_both(&key).await;
    }
    stage.joins_chunks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authjs_is_as_its_page_says() {
    let secrets =
        |_| vec![(SECRET, AUTH_SECRET.to_owned()), (NEXT_SECRET, NEXT_AUTH_SECRET.to_owned())];
    let mut stage = Stage::set("authjs", 0, secrets).await;
    for (secure, name) in [(false, "authjs.session-token"), (true, "__Secure-authjs.session-token")]
    {
        stage.usual["secure"] = secure.into();
        stage.holds().await;
        stage.joins_chunks().await;
        stage.refuses_a_second_session(name).await;
        let next = stage.session(json!({ "keys": "next" })).await;
        stage.mints(&next, USER, ORGANIZATION).await;
        // A row of the app's database has no claims.
        let row = stage.session(json!({ "database": true })).await;
        stage.is_refused_by_both(&row).await;
    }
    // The key of a cookie depends on the cookie's name.
    let mut renamed = stage.session(json!({})).await;
    renamed.cookies[0].0 = "authjs.session-token".to_owned();
    stage.is_refused_by_both(&renamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_page_keep_the_users_id_at_authjs() {
    let mut stage = Stage::set("authjs", 0, |_| vec![(SECRET, AUTH_SECRET.to_owned())]).await;
    let signed_in = async |stage: &mut Stage, lines: Option<&str>| {
        let session = stage.session(json!({ "account": "1234", "lines": lines })).await;
        let found = stage.library.find(&session).await;
        let (user, _) = found.unwrap_or_else(|| panic!("the library refuses {session:?}"));
        stage.mints(&session, &user, DEFAULT_ORGANIZATION).await;
        user
    };
    // "The trap": without an adapter, Auth.js makes up an id at each sign-in.
    let without = [signed_in(&mut stage, None).await, signed_in(&mut stage, None).await];
    assert_ne!(without[0], without[1], "the page warns of nothing");
    let lines = stage.page.block("js", 0).to_owned();
    for _ in 0..2 {
        assert_eq!(signed_in(&mut stage, Some(&lines)).await, "google|1234");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authjs_reads_both_names_of_its_cookie() {
    let mut stage = Stage::set("authjs", 0, |_| vec![(SECRET, AUTH_SECRET.to_owned())]).await;
    let secure = stage.session(json!({ "secure": true })).await;
    // A cookie without the prefix stays behind when the site moves to HTTPS.
    let with_plain = async |stage: &mut Stage, changes: Value| {
        let plain = stage.session(changes).await;
        let cookies = [plain.cookies, secure.cookies.clone()].concat();
        stage.site.page(&Login { cookies, token: None }).await
    };
    let minted = Some((USER.to_owned(), ORGANIZATION.to_owned()));
    let same = with_plain(&mut stage, json!({})).await;
    assert_eq!((same.status, &same.minted), (StatusCode::OK, &minted), "{same:?}");
    let expired = with_plain(&mut stage, json!({ "expired": true, "user": "user_grace" })).await;
    assert_eq!((expired.status, &expired.minted), (StatusCode::OK, &minted), "{expired:?}");
    // A page of another subdomain can set the cookie without the prefix, and lock no user out by it.
    let other = with_plain(&mut stage, json!({ "user": "user_grace" })).await;
    assert_eq!((other.status, &other.minted), (StatusCode::OK, &minted), "{other:?}");
    // The session as a bearer token, which Auth.js takes too, is the app's alone.
    let token = Some(secure.cookies[0].1.clone());
    stage.is_anonymous(&Login { cookies: Vec::new(), token }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nextauth_is_as_its_page_says() {
    let secret = |_| vec![(SECRET, AUTH_SECRET.to_owned())];
    let mut stage = Stage::set("nextauth", 0, secret).await;
    for (secure, name) in
        [(false, "next-auth.session-token"), (true, "__Secure-next-auth.session-token")]
    {
        stage.usual["secure"] = secure.into();
        stage.holds().await;
        stage.joins_chunks().await;
        stage.refuses_a_second_session(name).await;
        let row = stage.session(json!({ "database": true })).await;
        stage.is_refused_by_both(&row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nextauth_takes_the_id_at_the_provider() {
    let mut stage = Stage::set("nextauth", 0, |_| vec![(SECRET, AUTH_SECRET.to_owned())]).await;
    for _ in 0..2 {
        let session = stage.session(json!({ "account": "1234" })).await;
        stage.mints(&session, "1234", DEFAULT_ORGANIZATION).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn firebase_with_session_cookies_is_as_its_page_says() {
    let keys = |issuer| vec![(X509_URL, format!("http://{issuer}/firebase/x509/session"))];
    let mut stage = Stage::set("firebase", 0, keys).await;
    stage.usual["kind"] = "session".into();
    stage.holds().await;
    stage.refuses_a_second_session("session").await;
    // An ID token of the same user, in the place of a session cookie.
    let mut id_token = stage.session(json!({ "kind": "id" })).await;
    let token = id_token.token.clone().expect("a token");
    id_token.cookies.push(("session".to_owned(), token));
    stage.is_refused_by_both(&id_token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn firebase_with_id_tokens_is_as_its_page_says() {
    let keys = |issuer| vec![(X509_URL, format!("http://{issuer}/firebase/x509/id"))];
    let mut stage = Stage::set("firebase", 1, keys).await;
    stage.usual["kind"] = "id".into();
    stage.holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cognito_with_amplify_is_as_its_page_says() {
    let mut stage = Stage::with_jwks("cognito", 0).await;
    stage.holds().await;
    // Amplify encodes the name of the cookie, not the user's id.
    stage.usual["username"] = "ada@example.com".into();
    stage.holds().await;
    let name = "CognitoIdentityServiceProvider.1example23456789.ada%40example.com.idToken";
    stage.refuses_a_second_session(name).await;
    // A cookie of an app client that the app had before.
    let session = stage.session(json!({})).await;
    let mut older = session.clone();
    let (name, _) = &session.cookies[0];
    let name = name.replace("1example23456789.LastAuthUser", "0older23456789.grace.idToken");
    older.cookies.push((name, "of.the.past".to_owned()));
    stage.mints(&session, USER, ORGANIZATION).await;
    let seen = stage.site.page(&older).await;
    assert_eq!(seen.minted, Some((USER.to_owned(), ORGANIZATION.to_owned())), "{seen:?}");
    // Another user has signed in without a sign-out of the first.
    let mut both = stage.session(json!({})).await;
    let other = stage.session(json!({ "user": "user_grace", "username": "grace" })).await;
    both.cookies.retain(|(name, _)| !name.ends_with("LastAuthUser"));
    both.cookies.extend(other.cookies);
    stage.is_anonymous(&both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cognito_with_access_tokens_is_as_its_page_says() {
    let mut stage = Stage::with_jwks("cognito", 1).await;
    let access = |session: Login| Login { cookies: Vec::new(), ..session };
    let session = access(stage.session(json!({ "kind": "access" })).await);
    stage.mints(&session, USER, DEFAULT_ORGANIZATION).await;
    for forgery in FORGERIES {
        let mut change = forgery();
        change["kind"] = "access".into();
        let forged = access(stage.session(change).await);
        stage.is_refused_by_both(&forged).await;
    }
    // An ID token is for the app's pages, not for its API.
    let id_token = access(stage.session(json!({ "kind": "id" })).await);
    stage.is_anonymous(&id_token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auth0_is_as_its_page_says() {
    let mut stage = Stage::with_jwks("auth0", 0).await;
    stage.holds().await;
    // The token profile "RFC 9068".
    let profile = stage.session(json!({ "type": "at+jwt" })).await;
    stage.mints(&profile, USER, ORGANIZATION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn okta_is_as_its_page_says() {
    Stage::with_jwks("okta", 0).await.holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workos_is_as_its_page_says() {
    let mut stage = Stage::with_jwks("workos", 0).await;
    stage.holds().await;
    let without = stage.session(json!({ "organization": null })).await;
    stage.mints(&without, USER, DEFAULT_ORGANIZATION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_is_as_its_page_says() {
    Stage::with_jwks("keycloak", 0).await.holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entra_is_as_its_page_says() {
    Stage::with_jwks("entra", 0).await.holds().await;
}
