//! A real login: a browser, an Apache with `mod_auth_openidc` as the login proxy, a real `OpenID` provider,
//! and a sidecar that believes only that Apache. The tests try what a signed-in user could try in order to
//! become another user.

use std::net::SocketAddr;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::apache::apache;
use crate::neighbour::{Process, Sidecar, Task, claims_of, eventually, http_client, serve_app};
use crate::program::{APPS, Program};
use crate::webdriver::{Page, in_browser};

/// Address from which Apache connects to the sidecar. All other processes on this machine connect from
/// 127.0.0.1, and so have another address than the login proxy, as in a cluster.
const APACHE: &str = "127.0.0.2";

/// Path at which the provider tells of logouts. The app's, unless the settings of the sidecar name it.
pub const LOGOUT_PATH: &str = "/velt/logout";

/// All parts of the site, without the browser.
pub struct Site {
    pub front: SocketAddr,
    pub sidecar: Sidecar,
    _apache: Process,
    _folder: TempDir,
    _provider: Program,
    _app: Task,
}

impl Site {
    async fn open() -> Self {
        Self::open_with(|_| []).await
    }

    /// Opens a site with more settings, which may depend on the provider's address.
    pub async fn open_with<const N: usize>(
        settings: impl FnOnce(SocketAddr) -> [(&'static str, String); N],
    ) -> Self {
        let (app, app_address) = serve_app(show).await;
        let (mut provider, provider_address) = provider().await;
        let settings = settings(provider_address);
        let settings = settings.iter().map(|(key, value)| (*key, value.as_str()));
        let settings: Vec<_> = settings
            .chain([("IDENTITY__TRUSTED_PEERS", APACHE)])
            .map(|(key, value)| (format!("VELT_SIDECAR_{key}"), value.to_owned()))
            .collect();
        let settings: Vec<_> = settings.iter().map(|(key, value)| (&**key, &**value)).collect();
        let sidecar = Sidecar::start_with(app_address, &settings).await;
        let folder = TempDir::new().expect("a folder for Apache");
        let behind = sidecar.addresses.traffic;
        let command = |port: u16| apache_of(&folder, port, provider_address, behind);
        let http = http_client();
        let ready = async |address: SocketAddr| {
            let answer = http.get(format!("http://{address}/")).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            // Another program may have got that port.
            let server = answer.headers().get("server").map(HeaderValue::as_bytes);
            let is_apache = server.is_some_and(|server| server.starts_with(b"Apache"));
            if is_apache { Ok(()) } else { Err(format!("{server:?}")) }
        };
        let (apache, front) = Process::start_on_free_port(command, ready).await;
        provider.say(format!("http://{front}/callback http://{behind}{LOGOUT_PATH}"));
        provider.value_of("issuer").await;
        Self { front, sidecar, _apache: apache, _folder: folder, _provider: provider, _app: app }
    }

    /// Signs `user` in with a new browser, and runs `test` on the page that the user gets.
    pub async fn signed_in(&self, user: &str, test: impl AsyncFnOnce(&Page)) {
        in_browser(&format!("login-{user}"), self.front, async |page| {
            sign_in(page, user).await;
            test(page).await;
        })
        .await;
    }
}

/// Answers as the app: with a page, and at `/api/me` with all that the app knows about the user.
fn show(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/api/me" {
        let page = "<!doctype html><title>app</title><link rel=icon href=data:,><p>the app</p>";
        let response = Response::builder().header("content-type", "text/html");
        return response.body(Full::from(page)).expect("a response");
    }
    let names = request.headers().iter().filter(|(name, _)| name.as_str().ends_with("user"));
    let seen: Vec<_> =
        names.map(|(name, value)| json!([name.as_str(), value.to_str().ok()])).collect();
    let assertion = request.headers().get("x-id-token").and_then(|value| value.to_str().ok());
    let seen = json!({ "users": seen, "assertion": assertion });
    Response::new(Full::from(seen.to_string()))
}

async fn provider() -> (Program, SocketAddr) {
    let folder = format!("{APPS}/oidc/node_modules");
    let installed = std::path::Path::new(&folder).is_dir();
    assert!(installed, "{folder} is missing: run tests/run, which installs it");
    Program::node("oidc/provider.mjs", &[]).listening().await
}

/// Returns a team's usual configuration. Apache sets the identity headers itself, and overwrites the values
/// that the client has sent under these names.
fn apache_of(folder: &TempDir, port: u16, provider: SocketAddr, sidecar: SocketAddr) -> Command {
    let lines = format!(
        r#"
        Listen 127.0.0.1:{port}
        OIDCProviderMetadataURL http://{provider}/.well-known/openid-configuration
        OIDCClientID front
        OIDCClientSecret secret-of-the-front
        OIDCRedirectURI http://127.0.0.1:{port}/callback
        OIDCCryptoPassphrase passphrase-of-the-test
        OIDCPKCEMethod S256
        OIDCRemoteUserClaim sub
        OIDCPassIDTokenAs serialized
        OIDCCookieSameSite On
        <Location "/">
            AuthType openid-connect
            Require valid-user
            RequestHeader set X-Forwarded-User "expr=%{{REMOTE_USER}}"
            RequestHeader set X-Id-Token "expr=%{{req:OIDC_id_token}}"
        </Location>
        ProxySourceAddress {APACHE}
        ProxyPass "/callback" "!"
        ProxyPass "/" "http://{sidecar}/"
        "#
    );
    apache(folder.path(), &["auth_openidc"], &lines)
}

/// Fills in the provider's form, and waits for the app's page.
async fn sign_in(page: &Page, user: &str) {
    let form = "const form = document.forms[0]; if (!form) return false;";
    let script = format!("{form} form.user.value = '{user}'; form.submit(); return true");
    eventually("the provider's form", async || {
        let filled = page.script(&script).await;
        if filled == true { Ok(()) } else { Err("no form".to_owned()) }
    })
    .await;
    eventually("the app's page", async || {
        let text = page.script("return document.body.innerText").await;
        if text == "the app" { Ok(()) } else { Err(text.to_string()) }
    })
    .await;
}

/// Returns the answer that the page gets for `path` with these options.
pub async fn fetch(page: &Page, path: &str, options: &Value) -> Value {
    page.script(&format!(
        "return fetch('{path}', {options}).then(async answer => ({{
            status: answer.status,
            token: answer.headers.get('x-velt-token'),
            body: await answer.json(),
        }}))"
    ))
    .await
}

fn user_of(token: &Value) -> Value {
    claims_of(token.as_str().expect("a token"))["userId"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_sign_in_and_neither_gets_to_be_the_other() {
    let site = Site::open().await;
    for (user, other) in [("ada", "grace"), ("grace", "ada")] {
        site.signed_in(user, async |page| {
            // On a busy machine the mint may take longer than `max_wait`.
            let mine = eventually("a token", async || {
                let mine = fetch(page, "/api/me", &json!({})).await;
                if mine["token"].is_string() { Ok(mine) } else { Err(mine.to_string()) }
            });
            let mine = mine.await;
            assert_eq!(user_of(&mine["token"]), user);
            assert_eq!(mine["body"]["users"], json!([["x-forwarded-user", user]]));
            let route = fetch(page, "/api/velt/token", &json!({ "method": "POST" })).await;
            assert_eq!(route["body"]["token"], mine["token"]);

            let forged = json!({ "headers": { "X-Forwarded-User": other } });
            let forged = fetch(page, "/api/me", &forged).await;
            assert_eq!(user_of(&forged["token"]), user, "Apache has set the header anew");
            assert_eq!(forged["body"]["users"], json!([["x-forwarded-user", user]]));

            // Apache passes headers with underscores on.
            page.expect_failures(400);
            let alias = json!({ "headers": { "X_Forwarded_User": other } });
            let alias = fetch(page, "/api/me", &alias).await;
            assert_eq!((&alias["status"], &alias["token"]), (&json!(400), &Value::Null));
            assert_eq!(alias["body"]["code"], "ambiguous_identity");

            page.expect_failures(403);
            let named = json!({ "method": "POST", "body": json!({ "userId": other }).to_string() });
            let named = fetch(page, "/api/velt/token", &named).await;
            assert_eq!(named["body"]["code"], "user_mismatch");
        })
        .await;
    }
    // Without Apache in between, the same header has no effect.
    let direct = format!("http://{}/api/me", site.sidecar.addresses.traffic);
    let answer = http_client().get(direct).header("x-forwarded-user", "ada").send().await;
    let answer = answer.expect("the app answers");
    assert_eq!(answer.headers().get("x-velt-token"), None);
    assert_eq!(answer.headers()["x-velt-token-status"], "anonymous");
    let seen = answer.text().await.expect("to its end");
    assert!(seen.contains(r#""users":[]"#), "nor does the app see it: {seen}");
}

/// Returns `token` with another payload, which its signature does not fit.
fn with_user(token: &str, user: &str) -> String {
    let mut claims = claims_of(token);
    claims["sub"] = user.into();
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
    parts.join(".")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_providers_signature_names_the_user() {
    let issuer = std::sync::Mutex::new(String::new());
    let site = Site::open_with(|provider| {
        *issuer.lock().expect("nobody panics with it") = format!("http://{provider}");
        [
            ("IDENTITY__SOURCE", "assertion".to_owned()),
            ("IDENTITY__ASSERTION__HEADER", "X-Id-Token".to_owned()),
            ("IDENTITY__ASSERTION__JWKS_URL", format!("http://{provider}/jwks")),
            ("IDENTITY__ASSERTION__ISSUER", format!("http://{provider}")),
            ("IDENTITY__ASSERTION__AUDIENCE", "front".to_owned()),
        ]
    })
    .await;
    let issuer = issuer.into_inner().expect("nobody panicked with it");
    site.signed_in("ada", async |page| {
        // On a busy machine the provider's keys, or the mint, may come after `max_wait`.
        let mine = eventually("a token", async || {
            let forged = json!({ "headers": { "X-Id-Token": "forged" } });
            let mine = fetch(page, "/api/me", &forged).await;
            if mine["token"].is_string() { Ok(mine) } else { Err(mine.to_string()) }
        });
        let mine = mine.await;
        assert_eq!(user_of(&mine["token"]), "ada", "Apache has set the header anew");
        let token = mine["body"]["assertion"].as_str().expect("the app sees it").to_owned();
        assert_eq!(claims_of(&token)["iss"], *issuer);

        // Without Apache in between, the sidecar still believes a token that the provider has signed, and
        // nothing else.
        let direct = format!("http://{}/api/me", site.sidecar.addresses.traffic);
        let ask = async |token: &str| {
            let request = http_client().get(&direct).header("x-id-token", token);
            let answer = request.send().await.expect("an answer");
            (answer.status().as_u16(), answer.headers().get("x-velt-token").cloned())
        };
        let (status, signed) = ask(&token).await;
        let signed = signed.expect("a token");
        assert_eq!(status, 200);
        assert_eq!(claims_of(signed.to_str().expect("ASCII"))["userId"], "ada");
        let unsigned = {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
            format!("{header}.{}.", with_user(&token, "grace").split('.').nth(1).expect("claims"))
        };
        for forged in [with_user(&token, "grace"), unsigned] {
            assert_eq!(ask(&forged).await, (401, None), "{forged}");
        }
    })
    .await;
}
