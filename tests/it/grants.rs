//! Rights of each user in the token: by group, from a header, from a claim, and from the app.

mod unusable;

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use hop::listener::Phase;
use http::header::DATE;
use http::{HeaderValue, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tools::emulator::{Behaviour, Emulator, Settings};

use crate::support::Stage;
use crate::support::app::{FakeApp, plain};
use crate::support::client::{Client, Sending};
use crate::support::issuer::{Issuer, Pen, claims};
use crate::support::velt::{self, Call, unix_seconds};

/// Settings for a login proxy that sends groups and grants.
const BOTH: &str = r#"
    [identity]
    groups_header = "X-Groups"
    grants_header = "X-Grants"
    organization_header = "X-Org"
    [delivery.header]
    max_wait = "20s"
    [velt]
    api = "v2"
    organization = "acme"
    [[velt.resource]]
    type = "folder"
    id = "drafts"
    role = "editor"
    groups = ["editors"]
    [[velt.resource]]
    type = "document"
    id = "handbook"
    role = "viewer"
"#;

const HANDBOOK: &str =
    r#"{"type":"document","id":"handbook","organizationId":"acme","accessRole":"viewer"}"#;

fn handbook() -> Value {
    serde_json::from_str(HANDBOOK).expect("JSON")
}

/// Begins a request as ada, with these grants.
fn as_ada(stage: &Stage, grants: impl AsRef<[u8]>) -> Sending {
    stage.client().get("/").header("x-forwarded-user", "ada").header("x-grants", grants)
}

/// Returns the resources of the last call to Velt.
fn resources(stage: &Stage) -> Value {
    let call = stage.velt.calls().pop().expect("a call");
    call.body["data"]["permissions"]["resources"].clone()
}

/// Sends a request that must get a token, and returns the resources of the mint.
async fn minted(stage: &Stage, sending: Sending) -> Value {
    let (calls, answer) = (stage.velt.call_count(), sending.send().await);
    assert!(answer.token().is_some(), "{answer:?}");
    assert_eq!(stage.velt.call_count(), calls + 1, "a mint of its own");
    resources(stage)
}

#[tokio::test]
async fn group_decides_about_a_resource() {
    let stage = Stage::set(BOTH).await;
    let organization = json!({ "type": "organization", "id": "acme" });
    let drafts = json!({
        "type": "folder", "id": "drafts", "organizationId": "acme", "accessRole": "editor",
    });
    for (groups, is_editor) in [
        ("editors", true),
        ("staff, editors", true),
        ("Editors", false),
        ("editors2,xeditors", false),
        ("", false),
    ] {
        let user = format!("member of {groups:?}");
        let sending = stage.client().get("/").header("x-forwarded-user", user.replace(',', ";"));
        let sending = sending.header("x-groups", groups).header("x-grants", "[]");
        let resources = minted(&stage, sending).await;
        let expected = if is_editor {
            json!([organization, drafts, handbook()])
        } else {
            json!([organization, handbook()])
        };
        assert_eq!(resources, expected, "{groups}");
        let properties = &stage.velt.calls().pop().expect("a call").body["data"]["userProperties"];
        assert_eq!(*properties, json!({}), "groups of resources make no admin");
    }
    // A change of groups makes another token, and the same groups the same token.
    let of = |groups| as_ada(&stage, "[]").header("x-groups", groups);
    let first = of("editors").send().await.token().expect("a token").to_owned();
    assert_ne!(of("staff").send().await.token(), Some(&*first));
    assert_eq!(of("staff,editors").send().await.token(), Some(&*first));
}

#[tokio::test]
async fn grants_of_a_header_are_sent_after_the_configured() {
    let stage = Stage::set(BOTH).await;
    let grants = format!(
        r#"{{"resources":[{HANDBOOK},{{"type":"folder","id":"f"}},{{"type":"folder","id":"f"}},
            {{"type":"folder","id":"g","organizationId":"guests","accessRole":"viewer"}},
            {{"type":"organization","id":"acme","accessRole":"editor"}}]}}"#,
    );
    let grants = grants.replace('\n', " ");
    let expected = json!([
        { "type": "organization", "id": "acme", "accessRole": "editor" },
        handbook(),
        { "type": "folder", "id": "f", "organizationId": "acme" },
        {
            "type": "folder", "id": "g", "organizationId": "guests", "accessRole": "viewer",
        },
    ]);
    assert_eq!(minted(&stage, as_ada(&stage, &grants)).await, expected);
    let arrived = stage.app.journal().pop().expect("it arrived");
    assert_eq!(arrived.header("x-grants"), Some(&*grants), "as it came from the login proxy");

    // A folder without an organization belongs to the organization of the user, not to the configured one.
    let folder = r#"[{"type":"folder","id":"f"}]"#;
    let other = as_ada(&stage, folder).header("x-org", "other");
    let mut resources = minted(&stage, other).await;
    assert_eq!(resources[0], json!({ "type": "organization", "id": "other" }));
    assert_eq!(resources[2].take(), json!({"type":"folder","id":"f","organizationId":"other"}));
}

/// Starts an emulator of Velt, and a stage that mints there.
async fn at_emulator(toml: &str) -> (Stage, Client, watch::Sender<Phase>) {
    let settings = Settings {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        credentials: None,
        token_life: Duration::from_secs(3600),
        behaviour: Behaviour::default(),
    };
    let emulator = Emulator::bind(settings).expect("a free port");
    let address = emulator.address();
    let (stop, stopping) = watch::channel(Phase::Serving);
    tokio::spawn(emulator.run(stopping));
    let endpoint = format!("endpoint = \"http://{address}/v2/auth/generate_token\"");
    let toml = toml.replacen("[velt]", &format!("[velt]\n{endpoint}"), 1);
    (Stage::set(&toml).await, Client::to(address), stop)
}

/// Returns the resources in a token of the emulator's.
async fn resources_in(emulator: &Client, token: &str) -> Value {
    let verifying = emulator.post("/emulator/verify", json!({ "token": token }).to_string());
    let verified = verifying.begin().await.into_body().collect().await.expect("a body");
    let verified: Value = serde_json::from_slice(&verified.to_bytes()).expect("JSON");
    assert_eq!(verified["valid"], true, "{verified}");
    verified["claims"]["resources"].clone()
}

#[tokio::test]
async fn viewer_editor_and_guest_get_tokens_of_their_own() {
    let (stage, emulator, _running) = at_emulator(BOTH).await;
    let acme = json!({ "type": "organization", "id": "acme" });
    let folder = |role: &str| json!({ "type": "folder", "id": "plans", "organizationId": "acme", "accessRole": role });
    let guest = json!({ "type": "organization", "id": "globex", "accessRole": "viewer" });
    let shared = json!({
        "type": "document", "id": "contract", "organizationId": "globex", "accessRole": "editor",
    });
    for (user, grants, expected) in [
        ("viewer", json!([folder("viewer")]), json!([acme, handbook(), folder("viewer")])),
        ("editor", json!([folder("editor")]), json!([acme, handbook(), folder("editor")])),
        ("guest", json!([shared, guest]), json!([acme, handbook(), guest, shared])),
    ] {
        let sending = stage.client().get("/").header("x-forwarded-user", user);
        let answer = sending.header("x-grants", grants.to_string()).send().await;
        let token = answer.token().unwrap_or_else(|| panic!("no token: {answer:?}"));
        assert_eq!(resources_in(&emulator, token).await, expected, "{user}");
    }
}

#[tokio::test]
async fn past_grant_is_left_out_and_a_later_end_bounds_the_token() {
    let stage = Stage::set(BOTH).await;
    let now = unix_seconds();
    let grants = json!([
        { "type": "folder", "id": "past", "expiresAt": now - 60 },
        { "type": "folder", "id": "soon", "expiresAt": now + 7200 },
        { "type": "folder", "id": "later", "expiresAt": now + 90_000 },
    ]);
    let resources = minted(&stage, as_ada(&stage, grants.to_string())).await;
    let ids: Vec<_> = resources.as_array().expect("a list").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["acme", "handbook", "later", "soon"]);
    assert_eq!(resources[3]["expiresAt"], now + 7200, "absolute, as it came");
    let headroom = stage.metric("outage_headroom_seconds").await;
    assert!((7000.0..=7200.0).contains(&headroom), "{headroom}");
}

#[tokio::test]
async fn velts_clock_decides_which_grant_is_past() {
    let hour = Duration::from_secs(3600);
    let now = unix_seconds();
    let grants = json!([
        { "type": "folder", "id": "first", "expiresAt": now + 1800 },
        { "type": "folder", "id": "last", "expiresAt": now + 7200 },
    ]);
    let stage = Stage::set(BOTH).await;
    stage.velt.script(move |call, n| {
        let mut response = velt::minted(&velt::token(call.user(), n));
        let date = httpdate::fmt_http_date(SystemTime::now() + hour);
        response.headers_mut().insert(DATE, HeaderValue::from_str(&date).expect("a date"));
        response
    });
    let answer = as_ada(&stage, grants.to_string()).send().await;
    assert!(answer.token().is_some(), "{answer:?}");
    let sent = |call: &Call| {
        let resources = call.body["data"]["permissions"]["resources"].as_array().cloned();
        let resources = resources.expect("a list");
        resources.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let calls: Vec<_> = stage.velt.calls().iter().map(sent).collect();
    // The first answer shows that Velt's clock is ahead, so the sidecar asks again.
    let expected = [&["acme", "handbook", "first", "last"][..], &["acme", "handbook", "last"]];
    assert_eq!(calls, expected);
    let headroom = stage.metric("outage_headroom_seconds").await;
    assert!((3400.0..=3600.0).contains(&headroom), "an hour by Velt's clock: {headroom}");
}

#[tokio::test]
async fn changed_grants_make_another_token() {
    let stage = Stage::set(BOTH).await;
    let one = r#"[{"type":"folder","id":"f"},{"type":"folder","id":"g"}]"#;
    let same = r#"{"resources":[{"id":"g","type":"folder"},{"type":"folder","id":"f"}]}"#;
    let other = r#"[{"type":"folder","id":"f"},{"type":"folder","id":"g","accessRole":"viewer"}]"#;
    let mut tokens = Vec::new();
    for grants in [one, same, other, one] {
        let answer = as_ada(&stage, grants).send().await;
        tokens.push(answer.token().expect("a token").to_owned());
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(tokens[0], tokens[3]);
    assert_ne!(tokens[0], tokens[2]);
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn claim_holds_grants_in_three_forms() {
    let pen = Pen::rs256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = Stage::set(&format!(
        "{}grants_claim = \"velt.grants\"\ngroups_claim = \"groups\"\n\
         [velt]\napi = \"v2\"\norganization = \"acme\"\n\
         [[velt.resource]]\ntype = \"folder\"\nid = \"drafts\"\ngroups = [\"editors\"]",
        issuer.toml()
    ))
    .await;
    let list = json!([{ "type": "document", "id": "d" }]);
    let object = json!({ "resources": list });
    for (user, grants) in [
        ("a", list.clone()),
        ("b", object.clone()),
        ("c", list.to_string().into()),
        ("d", object.to_string().into()),
    ] {
        let mut claims = claims(user);
        claims["velt"] = json!({ "grants": grants });
        claims["groups"] = json!(["staff", "editors"]);
        let route = stage.client().get("/api/velt/token").header("x-assertion", pen.sign(&claims));
        assert_eq!(route.send().await.status(), 200, "{grants}");
        let expected = json!([
            { "type": "organization", "id": "acme" },
            { "type": "folder", "id": "drafts", "organizationId": "acme" },
            { "type": "document", "id": "d", "organizationId": "acme" },
        ]);
        assert_eq!(resources(&stage), expected, "{grants}");
    }
    let header = "no-grants";
    for grants in [json!(null), json!(""), json!(7), json!({}), json!(["d"]), json!("[")] {
        let mut claims = claims("eve");
        claims["velt"] = json!({ "grants": grants });
        let asking = |path| stage.client().get(path).header("x-assertion", pen.sign(&claims));
        assert_eq!(asking("/").send().await.token_status(), Some(header), "{grants}");
        let route = asking("/api/velt/token").send().await;
        assert_eq!((route.status(), &*route.code()), (403, "no_grants"), "{grants}");
    }
    let mut claims = claims("eve");
    claims["velt"] = json!({ "grants": [] });
    for groups in [json!(7), json!(["editors", 7]), json!({ "editors": true })] {
        claims["groups"].clone_from(&groups);
        let asking = stage.client().get("/").header("x-assertion", pen.sign(&claims));
        assert_eq!(asking.send().await.token_status(), Some(header), "{groups}");
    }
    assert_eq!(stage.velt.call_count(), 4);
}

const BY_APP: &str = r#"
    [identity]
    source = "app"
    app_path = "/me"
    grants_header = "X-Grants"
    groups_header = "X-Groups"
    [delivery.header]
    max_wait = "20s"
    [velt]
    api = "v2"
    organization = "acme"
    [[velt.resource]]
    type = "folder"
    id = "drafts"
    groups = ["editors"]
"#;

#[tokio::test]
async fn t67_only_the_app_grants_where_it_names_the_user() {
    let app = FakeApp::answering(|arrived| {
        let mut response: Response<_> = plain("hello");
        let headers = response.headers_mut();
        headers.insert("x-velt-user", HeaderValue::from_static("ada"));
        if arrived.target != "/without" {
            let grants = HeaderValue::from_static(r#"[{"type":"folder","id":"f"}]"#);
            headers.insert("x-grants", grants);
            headers.insert("x-groups", HeaderValue::from_static("editors"));
        }
        response
    })
    .await;
    let stage = Stage::with(app, BY_APP).await;
    let forged = r#"[{"type":"organization","id":"globex"}]"#;
    let asking = |path| stage.client().get(path).header("x-grants", forged);
    let answer = asking("/").header("x-groups", "admins").send().await;
    assert!(answer.token().is_some(), "{answer:?}");
    assert_eq!((answer.header("x-grants"), answer.header("x-groups")), (None, None));
    let expected = json!([
        { "type": "organization", "id": "acme" },
        { "type": "folder", "id": "drafts", "organizationId": "acme" },
        { "type": "folder", "id": "f", "organizationId": "acme" },
    ]);
    assert_eq!(resources(&stage), expected);
    assert_eq!(asking("/without").send().await.token_status(), Some("no-grants"));
    assert_eq!(asking("/api/velt/token").send().await.status(), 200, "asked at /me");
    for arrived in stage.app.journal() {
        assert_eq!((arrived.header("x-grants"), arrived.header("x-groups")), (None, None));
    }
    assert_eq!(stage.velt.call_count(), 1);
}
