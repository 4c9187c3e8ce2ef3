//! An app with its own login: only a response header of the app names the user.

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;

use super::{dropped_count, refusal_count, spoof_count};
use ground::metrics::{Flaw, RefusalKind};

use crate::support::app::{AppBody, Arrived, FakeApp, plain};
use crate::support::velt::user_of;
use crate::support::{ONE_WORKER, Stage};

const APP: &str = "[identity]\nsource = \"app\"\napp_path = \"/session?of=me\"\n\
    [delivery.header]\nmax_wait = \"10s\"\n";

/// Returns the user of a session cookie.
fn session(cookie: &str) -> Option<&str> {
    cookie.split("; ").find_map(|pair| pair.strip_prefix("session=of-"))
}

/// Names the session's user in a header of every response. A few paths have another status or a second
/// user.
fn with_a_login(request: &Arrived) -> Response<AppBody> {
    let mut response = plain("hello from the app");
    let cookie = request.headers.get("cookie").and_then(|cookie| cookie.to_str().ok());
    if let Some(user) = cookie.and_then(session) {
        let user = HeaderValue::from_str(user).expect("a user");
        response.headers_mut().insert("x-velt-user", user);
    }
    let (status, twice) = match &*request.target {
        "/error" => (500, false),
        "/gone" => (304, false),
        "/twice" => (200, true),
        _ => (200, false),
    };
    if twice {
        response.headers_mut().append("x-velt-user", HeaderValue::from_static("grace"));
    }
    *response.status_mut() = status.try_into().expect("a status");
    response
}

async fn stage() -> Stage {
    Stage::with(FakeApp::answering(with_a_login).await, APP).await
}

#[tokio::test]
async fn user_named_by_the_app_gets_a_token_in_the_same_response() {
    let stage = stage().await;
    for user in ["ada", "grace"] {
        let sending =
            || stage.client().get("/").header("cookie", format!("a=b; session=of-{user}"));
        for answer in [sending().send().await, sending().send_http2().await] {
            assert_eq!(user_of(answer.token().expect("a token")), user);
            assert_eq!(answer.header("x-velt-user"), None, "it is nobody else's business");
        }
    }
    let nobody = stage.client().get("/").send().await;
    assert_eq!((nobody.token(), nobody.token_status()), (None, Some("anonymous")));
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn user_header_of_the_app_is_removed_from_any_response() {
    let stage = stage().await;
    for (path, status) in [("/error", 500), ("/gone", 304)] {
        let answer = stage.client().get(path).header("cookie", "session=of-ada").send().await;
        assert_eq!(answer.status(), status);
        assert_eq!((answer.header("x-velt-user"), answer.token()), (None, None), "{path}");
    }
    assert_eq!(stage.velt.call_count(), 0, "nothing was minted for what could not carry it");
}

#[tokio::test]
async fn token_route_asks_the_app_with_cookies_and_nothing_else() {
    let app = FakeApp::answering(with_a_login).await;
    let stage = Stage::with(app, &format!("{APP}{ONE_WORKER}")).await;
    let ask = || {
        let sending = stage.client().post("/api/velt/token", "{\"userId\":\"ada\"}");
        let sending = sending.header("cookie", "session=of-ada").header("cookie", "x=y");
        let sending = sending.header("x-velt-user", "grace").header("authorization", "Bearer eve");
        let sending = sending.header("sec-fetch-site", "same-origin").header("origin", "http://a");
        sending.header("x-other", "1").header("accept", "text/html")
    };
    for answer in [ask().send().await, ask().send_http2().await] {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "ada");
    }
    for question in stage.app.journal() {
        assert_eq!((question.method.as_str(), &*question.target), ("GET", "/session?of=me"));
        let mut names: Vec<_> = question.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        let forwarding = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        assert_eq!(names, [&["cookie", "host"][..], &forwarding].concat());
        assert_eq!(question.header("cookie"), Some("session=of-ada; x=y"));
        assert_eq!(question.header("host"), Some("app.example"));
    }
    assert_eq!(stage.app.connection_count(), 1, "the connection is used again");
}

#[tokio::test]
async fn token_route_tells_signed_out_users_from_faults_of_the_app() {
    let stage = stage().await;
    let nobody = stage.client().get("/api/velt/token").header("cookie", "x=y").send().await;
    assert_eq!((nobody.status(), &*nobody.code()), (401, "no_identity"));
    assert!(nobody.text().contains("identity.app_path"), "{}", nobody.text());

    for (path, status, code) in [
        ("/error", 502, "app_failed"),
        ("/gone", 401, "no_identity"),
        ("/twice", 502, "ambiguous_identity"),
    ] {
        let toml = APP.replace("/session?of=me", path);
        let stage = Stage::with(FakeApp::answering(with_a_login).await, &toml).await;
        let answer = stage.client().get("/api/velt/token").header("cookie", "session=of-ada");
        let answer = answer.send().await;
        assert_eq!((answer.status(), &*answer.code()), (status, code), "{path}");
        assert_eq!(stage.velt.call_count(), 0, "{path}");
    }
}

#[tokio::test]
async fn t04_no_request_header_passes_for_the_apps_answer() {
    // This app echoes every header whose name contains `velt`.
    let app = FakeApp::answering(|request| {
        let mut response = plain("echo");
        for (name, value) in &request.headers {
            if name.as_str().contains("velt") {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    })
    .await;
    let stage = Stage::with(app, APP).await;
    for forged in ["x-velt-user", "X-VELT-USER", "x_velt_user", "x-velt_user"] {
        for (path, status) in [("/", 200), ("/api/velt/token", 401)] {
            let answer = stage.client().get(path).header(forged, "ada").send().await;
            assert_eq!((answer.status(), answer.token()), (status, None), "{forged} on {path}");
        }
    }
    for arrived in stage.app.journal() {
        assert!(!arrived.headers.keys().any(|name| name.as_str().contains("user")));
    }
    assert!(spoof_count(&stage, "identity_header").await >= 4.0);
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t05_app_that_names_two_users_names_none() {
    let stage = stage().await;
    let answer = stage.client().get("/twice").header("cookie", "session=of-ada").send().await;
    assert_eq!(answer.status(), 200, "it has acted already");
    assert_eq!((answer.token(), answer.token_status()), (None, Some("ambiguous")));
    assert_eq!(answer.headers().get_all("x-velt-user").iter().count(), 0);
    assert_eq!(refusal_count(&stage, RefusalKind::Repeated).await, 1.0);
    assert_eq!(stage.velt.call_count(), 0);
}

/// An app that names its user by the query of the request.
async fn saying() -> Stage {
    let app = FakeApp::answering(|request| {
        let mut response = plain("hello");
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        for line in query.split('&').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').expect("a pair");
            let value = value.replace('+', " ").replace("%FC", "\u{fc}");
            // ISO-8859-1, as Java and PHP write headers.
            let value: Vec<u8> = value.chars().map(|c| u8::try_from(c).expect("Latin 1")).collect();
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            response.headers_mut().append(name, HeaderValue::from_bytes(&value).expect("a value"));
        }
        response
    })
    .await;
    let toml = "[identity]\nsource = \"app\"\napp_path = \"/me?x-velt-user=undefined\"\n\
        name_header = \"X-Velt-Name\"\ngroups_header = \"X-Velt-Groups\"\n\
        admin_groups = [\"admins\"]\n[velt]\napi = \"v2\"\norganization = \"o\"\n\
        [delivery.header]\nmax_wait = \"10s\"\n";
    Stage::with(app, toml).await
}

#[tokio::test]
async fn empty_or_placeholder_user_of_the_app_is_anonymous() {
    let stage = saying().await;
    for nobody in ["", "undefined", "null", "[object+Object]", "None", "${user.id}"] {
        let answer = stage.client().get(&format!("/?x-velt-user={nobody}")).send().await;
        let said = (answer.status(), answer.token_status());
        assert_eq!(said, (200, Some("anonymous")), "{nobody:?}");
        assert_eq!(answer.header("x-velt-user"), None);
    }
    let route = stage.client().get("/api/velt/token").send().await;
    assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
    assert_eq!(refusal_count(&stage, RefusalKind::Placeholder).await, 6.0);
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn flawed_attribute_of_the_app_costs_that_attribute_alone() {
    let stage = saying().await;
    let path = "/?x-velt-user=ada&x-velt-name=M%FCller&x-velt-groups=admins,b%FCro";
    let answer = stage.client().get(path).send().await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
    let properties = &stage.velt.calls()[0].body["data"]["userProperties"];
    assert_eq!(*properties, serde_json::json!({ "isAdmin": true }));
    assert_eq!(dropped_count(&stage, Flaw::BadBytes).await, 2.0);

    let twice = "/?x-velt-user=eve&x-velt-groups=staff&x-velt-groups=admins";
    let answer = stage.client().get(twice).send().await;
    assert_eq!((answer.token(), answer.token_status()), (None, Some("ambiguous")));
}

/// Names a user in a trailer.
async fn late(_: Request<Incoming>) -> Response<AppBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-velt-user", HeaderValue::from_static("ada"));
    trailers.insert("x-late", HeaderValue::from_static("1"));
    let frames = [Ok(Frame::data("body".into())), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-velt-user, x-late"));
    response
}

#[tokio::test]
async fn t11_trailer_of_the_app_names_no_user() {
    let stage = Stage::with(FakeApp::serving(late).await, APP).await;
    let answer = stage.client().get("/").header("te", "trailers").send_http2().await;
    assert_eq!((answer.token(), answer.token_status()), (None, Some("anonymous")));
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((trailers.get("x-velt-user"), trailers.len()), (None, 1), "{trailers:?}");
}

#[tokio::test]
async fn wrong_method_is_refused_before_the_app_is_asked() {
    let stage = stage().await;
    let sending = stage.client().request(http::Method::PUT, "/api/velt/token");
    let answer = sending.header("cookie", "session=of-ada").send().await;
    assert_eq!((answer.status(), stage.app.journal().len()), (405, 0));
}

#[tokio::test]
async fn t66_page_of_another_host_gets_no_token_through_the_app() {
    let stage = stage().await;
    let ask = |name: &str, value: &str| {
        let asking = stage.client().get("/api/velt/token").header("cookie", "session=of-ada");
        let asking = asking.without("host").header("host", "app.example");
        if name.is_empty() { asking.send() } else { asking.header(name, value).send() }
    };
    for (name, value) in [
        ("", ""),
        ("origin", "https://app.example"),
        ("referer", "https://app.example/page"),
        ("sec-fetch-site", "same-origin"),
    ] {
        assert_eq!(ask(name, value).await.status(), 200, "{name}");
    }
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("referer", "https://www.app.example/"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let answer = ask(name, value).await;
        assert_eq!((answer.status(), &*answer.code()), (403, "cross_origin"), "{name}: {value}");
    }
}
