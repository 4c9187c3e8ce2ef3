//! A table of requests: what `explain` says of each, and what the running sidecar does.

use std::sync::{Arc, Mutex};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use server::explain::{AppResponse, Asked};
use sidecar::explain::{Answer as Explained, AnsweredBy, TokenFate};
use tools::explain::by_config;

use super::by_sidecar;
use crate::support::app::{FakeApp, plain};
use crate::support::client::Answer;
use crate::support::velt::refused;
use crate::support::{Stage, config, document};

type Headers = &'static [(&'static str, &'static str)];

struct Case {
    toml: &'static str,
    line: &'static str,
    headers: Headers,
    body: &'static str,
    http2: bool,
    app: (u16, Headers),
    velt_refuses: bool,
}

const fn case(toml: &'static str, line: &'static str, headers: Headers) -> Case {
    Case { toml, line, headers, body: "", http2: false, app: (200, &[]), velt_refuses: false }
}

const ADA: Headers = &[("x-forwarded-user", "ada")];
const TOKEN: &str = "GET /api/velt/token";
const APP: &str = "[identity]\nsource = \"app\"\napp_path = \"/session\"";
const V2: &str = "[velt]\napi = \"v2\"\n[identity]\norganization_header = \"X-Org\"";
const GRANTS: &str = "[velt]\napi = \"v2\"\norganization = \"o\"\n[identity]\n\
    grants_header = \"X-Grants\"\ngroups_header = \"X-Groups\"\n\
    [[velt.resource]]\ntype = \"folder\"\nid = \"f\"\ngroups = [\"editors\"]";
const VIEWER: &str = r#"[{"type":"folder","id":"g","accessRole":"viewer"}]"#;
const GUARDED: &str = "[identity]\nguarded_headers = [\"X-Forwarded-Access-Token\"]";
const FIRST: &str = "[delivery.document]\npaths = [\"/\"]\nmax_wait = \"20s\"\n\
    [delivery.app_header]\npaths = [\"/\", \"/api/me\"]\nmax_wait = \"20s\"";
const LOAD: Headers = &[("x-forwarded-user", "ada"), ("sec-fetch-dest", "document")];
const LOGOUT: &str = "[logout.oidc]\npath = \"/velt/logout\"\nissuer = \"i\"\n\
    audience = [\"a\"]\njwks_url = \"http://127.0.0.1:9/keys\"";
const CHECK: &str = "[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"20s\"";
const STRICT: &str =
    "[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"20s\"\nrequire_user = true";
const ALONE: &str = "[app]\naddress = \"none\"";
const REFUSE: &str = "[delivery.header]\non_failure = \"refuse\"";

fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("", "GET /api/me", ADA),
        case("", "GET /api/me", &[]),
        case("", "HEAD /api/me", ADA),
        case("", "OPTIONS /api/me", ADA),
        case("", "GET /api/me", &[("x-forwarded-user", "ada"), ("sec-fetch-dest", "document")]),
        case("", "GET /api/me", &[("x-forwarded-user", "ada"), ("sec-fetch-dest", "empty")]),
        case("", "GET /api/me", &[("x-forwarded-user", "ada"), ("sec-purpose", "prefetch")]),
        case("[delivery.header]\npaths = [\"/api/*\"]", "GET /other", ADA),
        case("[delivery.header]\npaths = [\"/api/*\"]", "GET /api/", ADA),
        case("[delivery.header]\nenabled = false", "GET /api/me", ADA),
        case("", TOKEN, ADA),
        case("", TOKEN, &[]),
        case("", "PUT /api/velt/token", ADA),
        case("", "GET /api/velt/token/", ADA),
        case("", "GET /api//velt/token", ADA),
        case("", "GET /api/velt/token?x=1", ADA),
        case("", "POST /generate-velt-jwt-token", ADA),
        case("", TOKEN, &[("x-forwarded-user", "ada"), ("sec-fetch-site", "cross-site")]),
        case("", "GET /", &[("x-forwarded-user", "ada"), ("x-forwarded-user", "eve")]),
        case("", "GET /", &[("x-forwarded-user", "ada"), ("x_forwarded_user", "eve")]),
        case("", "GET /", &[("x-forwarded-user", "ada, eve")]),
        case("", "GET /", &[("x-forwarded-user", "")]),
        case("", "GET /", &[("x-forwarded-user", " ada ")]),
        case("", "GET /", &[("x-forwarded-user", "(null)")]),
        case("", TOKEN, &[("x-forwarded-user", "{http.auth.user.id}")]),
        case(GUARDED, "GET /", &[("x-forwarded-access-token", "t")]),
        case("", "HEAD /api/velt/token", ADA),
        case(V2, "GET /", &[("x-forwarded-user", "ada"), ("x-org", "a\tb")]),
        case("", "GET /", &[("x-forwarded-user", "ada"), ("connection", "x-forwarded-user")]),
        case("", "GET /", &[("connection", "x-forwarded-for")]),
        case("", "GET /", &[("x-velt-token", "forged")]),
        case("[identity]\non_ambiguous = \"drop\"", "GET /", &[("x-forwarded-user", "a,b")]),
        case("[identity]\ntrusted_peers = [\"10.0.0.0/8\"]", "GET /", ADA),
        case("[identity]\ntrusted_peers = [\"10.0.0.0/8\"]", TOKEN, ADA),
        case(V2, "GET /", ADA),
        case(V2, TOKEN, ADA),
        case(V2, TOKEN, &[("x-forwarded-user", "ada"), ("x-org", "acme")]),
        case(GRANTS, "GET /", ADA),
        case(GRANTS, TOKEN, ADA),
        case(GRANTS, TOKEN, &[("x-forwarded-user", "ada"), ("x-grants", "[]")]),
        case(GRANTS, "GET /", &[("x-forwarded-user", "ada"), ("x-grants", VIEWER)]),
        case(GRANTS, TOKEN, &[("x-forwarded-user", "ada"), ("x-grants", "[]"), ("x-groups", "\t")]),
        case(FIRST, "GET /", LOAD),
        case(FIRST, "GET /", ADA),
        case(FIRST, "GET /other", LOAD),
        case(FIRST, "GET /api/me", ADA),
        case(FIRST, "GET /", &[("sec-fetch-dest", "document")]),
        case(REFUSE, "GET /", ADA),
        case(REFUSE, "GET /", &[]),
        case(APP, "GET /", &[]),
        case(APP, TOKEN, &[]),
        case(APP, TOKEN, ADA),
        case(LOGOUT, "GET /velt/logout", ADA),
        case(LOGOUT, "PUT /velt/logout", &[("x-forwarded-user", "a,b")]),
        case(LOGOUT, "GET /velt/logout/", ADA),
        case(LOGOUT, "GET /velt/logout", &[("connection", "x-forwarded-for")]),
        case(LOGOUT, TOKEN, ADA),
        case(CHECK, "GET /velt/check", ADA),
        case(CHECK, "POST /velt/check/api/me", ADA),
        case(CHECK, "GET /velt/check", &[]),
        case(CHECK, "GET /velt/check", &[("x-forwarded-user", "a,b")]),
        case(CHECK, "GET /velt/check", &[("connection", "x-forwarded-for")]),
        case(CHECK, "GET /velt/checks", ADA),
        case(STRICT, "GET /velt/check", ADA),
        case(STRICT, "GET /velt/check", &[]),
        case(STRICT, "GET /velt/check", &[("x-forwarded-user", "a,b")]),
        case(ALONE, "GET /", ADA),
        case(ALONE, "GET /", &[("x-forwarded-user", "a,b")]),
        case(ALONE, TOKEN, ADA),
    ];
    for (status, headers) in [
        (200, &[("cache-control", "public, max-age=60")][..]),
        (200, &[("cache-control", "private")]),
        (200, &[("cdn-cache-control", "max-age=9")]),
        (200, &[("cache-control", "no-store, public")]),
        (404, &[]),
        (206, &[]),
    ] {
        cases.push(Case { app: (status, headers), ..case("", "GET /api/me", ADA) });
    }
    for headers in [&[("timing-allow-origin", "*")][..], &[("cache-control", "public")]] {
        cases.push(Case { app: (200, headers), ..case(FIRST, "GET /", LOAD) });
    }
    for (toml, line, app) in [
        (APP, "GET /", (200, &[("x-velt-user", "ada")][..])),
        (APP, "GET /", (200, &[("x-velt-user", "ada, eve")])),
        (APP, TOKEN, (200, &[("x-velt-user", "ada")])),
        (APP, TOKEN, (200, &[("x-velt-user", "a"), ("x-velt-user", "b")])),
        (APP, TOKEN, (403, &[("x-velt-user", "ada")])),
        (APP, TOKEN, (500, &[])),
    ] {
        cases.push(Case { app, ..case(toml, line, &[]) });
    }
    cases.push(Case { body: "{\"userId\":\"eve\"}", ..case(GRANTS, "POST /api/velt/token", ADA) });
    for body in ["{}", "{\"userId\":\"ada\"}", "{\"userId\":\"eve\"}", "{\"userId\":7}", "no"] {
        cases.push(Case { body, ..case("", "POST /api/velt/token", ADA) });
    }
    for (toml, line) in [("", "GET /"), ("", TOKEN), (REFUSE, "GET /"), (CHECK, "GET /velt/check")]
    {
        cases.push(Case { velt_refuses: true, ..case(toml, line, ADA) });
    }
    for line in ["GET /api/me", TOKEN] {
        cases.push(Case { http2: true, ..case("", line, ADA) });
    }
    let spaced: Headers = &[("x-forwarded-user", "ada ")];
    cases.push(Case { http2: true, ..case("", TOKEN, spaced) });
    cases
}

impl Case {
    fn asked(&self) -> Asked {
        let (method, target) = self.line.split_once(' ').expect("two words");
        let owned = |headers: Headers| {
            headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        Asked {
            method: method.into(),
            target: target.into(),
            headers: owned(self.headers),
            body: self.body.into(),
            peer_names: Vec::new(),
            peer: None,
            http2: self.http2,
            response: Some(AppResponse { status: self.app.0, headers: owned(self.app.1) }),
        }
    }

    async fn send(&self, stage: &Stage) -> Answer {
        let (method, target) = self.line.split_once(' ').expect("two words");
        let method: Method = method.parse().expect("a method");
        let client = stage.client();
        let sending = match self.body {
            "" => client.request(method, target),
            body => client.post(target, body),
        };
        let sending =
            self.headers.iter().fold(sending, |sending, (name, value)| sending.header(name, value));
        if self.http2 { sending.send_http2().await } else { sending.send().await }
    }

    fn name(&self) -> String {
        format!("{} {:?} {:?} {} {:?}", self.line, self.headers, self.toml, self.body, self.app)
    }

    /// Asserts that the explanation matches the answer. A token that depends on Velt has to come if Velt
    /// mints.
    fn agrees(&self, said: &Explained, came: &Answer) {
        let name = self.name();
        assert_eq!(said.status, came.status(), "{name}: {said:?}");
        let ours = came.headers().get("vary").is_some_and(|vary| vary == "*");
        assert_eq!(said.by == AnsweredBy::Sidecar, ours, "{name}: {said:?}");
        // The answer to a check has its token in a header, and no content.
        let in_body = came.status() == 200 && ours && came.header("content-type").is_some();
        let timing = |name: &str| {
            let lines = came.headers().get_all("server-timing").iter();
            let lines = lines.filter_map(|line| line.to_str().ok()?.strip_prefix(name));
            lines.map(|rest| rest.trim_matches([';', '"']).replace("desc=\"", "")).next()
        };
        let token = came.token().is_some() || in_body || timing("velt-token;").is_some();
        assert_eq!(said.token != TokenFate::None, token, "{name}: {said:?} {came:?}");
        let code = (ours && !in_body && came.status() != 200).then(|| came.code());
        assert_eq!(said.code, code, "{name}");
        let status = came.token_status().map(str::to_owned).or(timing("velt-token-status;"));
        assert_eq!(said.token_status, status, "{name}: {said:?}");
    }
}

#[tokio::test]
async fn explanation_agrees_with_the_real_request() {
    let cases = cases();
    assert!(cases.len() >= 50, "{}", cases.len());
    for case in cases {
        // The wait is long enough for a token that Velt has to mint.
        let (table, key) = ("[delivery.header]", "max_wait = \"20s\"");
        let toml = match case.toml.split_once(table) {
            // No response of an app waits.
            None if case.toml == ALONE => case.toml.to_owned(),
            Some((before, rest)) => format!("{before}{table}\n{key}{rest}"),
            None => format!("{}\n{table}\n{key}", case.toml),
        };
        let said = Arc::new(Mutex::new(case.app));
        let app = FakeApp::answering(move |_| {
            let (status, headers) = *said.lock().expect("no panic");
            let mut response = plain("x");
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                let name = HeaderName::from_static(name);
                response.headers_mut().append(name, HeaderValue::from_static(value));
            }
            response
        })
        .await;
        let document = document("127.0.0.1:1", app.address, &toml);
        let stage = Stage::with(app, &toml).await;
        if case.velt_refuses {
            stage.velt.script(|_, _| refused(403, "PERMISSION_DENIED"));
        }
        let admin = stage.sidecar.addresses.admin;
        let alone = config(&document).unwrap_or_else(|error| panic!("{error}"));
        let alone = by_config(&alone, case.asked()).await.expect("explained").answer;
        let before = by_sidecar(admin, &case.asked()).await.answer;
        assert_eq!(alone, before, "with an empty cache nothing is known: {}", case.name());

        let outcome = format!("requests_total{{outcome=\"{}\"}}", before.outcome);
        let counted = stage.metric(&outcome).await;
        let first = case.send(&stage).await;
        if !case.velt_refuses {
            case.agrees(&before, &first);
            stage.sidecar.metric_reaches(&outcome, counted + 1.0).await;
        }
        let after = by_sidecar(admin, &case.asked()).await.answer;
        let second = case.send(&stage).await;
        case.agrees(&after, &second);
        assert_ne!(after.token, TokenFate::IfMinted, "it is known by now: {}", case.name());
    }
}
