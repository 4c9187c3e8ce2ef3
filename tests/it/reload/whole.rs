//! A configuration takes effect as a whole or not at all, and secrets in either case.

use std::time::Duration;

use server::config::{LoadError, Origin};

use super::{FakeApp, Folder, Issuer, Pen, Pod, claims};
use crate::support::certificates::{Authority, VALID, connect, terminate};
use crate::support::client::Client;
use crate::support::issuer::{ISSUER, base64};
use crate::support::raw::unused_address;

const WAITING: &str = "config_restart_needed";

/// Whether the login proxy's word for a user still brings a token, in the header.
async fn serves(pod: &Pod) -> bool {
    pod.get_as("ada", "/").await.token().is_some()
}

#[tokio::test]
async fn tls_and_trusted_names_wait_together_for_a_restart() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], VALID));
    folder.write("ca.crt", authority.pem());
    let tls = format!("{}client_ca_file = {:?}\n", folder.toml(), folder.path("ca.crt"));
    let mut pod = Pod::with(folder, "[identity]\nforward_headers = \"keep\"\n").await;
    let named = format!("{tls}[identity]\ntrusted_names = [\"front\"]\n");
    pod.change("[identity]\n", &named).await;
    assert!(serves(&pod).await, "no client could show a name over plain HTTP");
    assert_eq!(pod.reloads("config").await, [0.0, 0.0, 0.0]);
    assert!(pod.sidecar.metric(WAITING).await >= 4.0, "the names wait as well");
    // A setting that comes later might have come with the waiting settings, and waits too.
    pod.change("forward_headers = \"keep\"", "forward_headers = \"strip\"").await;
    assert!(serves(&pod).await);
    assert!(pod.app.journal().pop().expect("a request").header("x-forwarded-user").is_some());
    assert_eq!(pod.reloads("config").await, [0.0, 0.0, 0.0]);
    pod.change(&named, "[identity]\n").await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0], "the rest alone may take effect");
    assert_eq!(pod.sidecar.metric(WAITING).await, 0.0);
}

#[tokio::test]
async fn app_as_the_source_waits_with_its_new_address() {
    let mut pod = Pod::start("[identity]\nforward_headers = \"keep\"\n").await;
    let other = FakeApp::start().await;
    let (old, new) = (pod.app.address.to_string(), other.address.to_string());
    let toml = pod.toml.replace(&old, &new);
    pod.toml = toml.replace("forward_headers = \"keep\"", "source = \"app\"\napp_path = \"/me\"");
    pod.folder.write("sidecar.toml", &pod.toml);
    pod.trigger.reload().await;
    assert!(serves(&pod).await, "the old app names no user");
    assert_eq!(pod.sidecar.metric("reload_failing{part=\"config\"}").await, 0.0);
    assert_eq!(other.journal().len(), 0);
}

#[tokio::test]
async fn address_that_needs_a_restart_holds_up_all_but_secrets() {
    for (from, to) in [
        ("[listen]\naddress = \"127.0.0.1:0\"", "[listen]\naddress = \"127.0.0.2:0\""),
        ("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"127.0.0.2:0\""),
        ("protocol = \"http1\"", "protocol = \"h2c\""),
    ] {
        let toml = "[app]\nprotocol = \"http1\"\n[delivery.header]\npaths = [\"/*\"]\n";
        let mut pod = Pod::start(toml).await;
        pod.toml = pod.toml.replace("[\"/*\"]", "[\"/b\"]");
        pod.folder.write("token", "second-token");
        pod.change(from, to).await;
        assert!(serves(&pod).await, "{to}: {}", pod.toml);
        assert_eq!(pod.sidecar.metric(WAITING).await, 2.0, "{to}");
        assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0], "{to}: the token alone");
        let last = pod.velt.calls().pop().expect("a call");
        assert_eq!(last.body["data"]["authToken"], "second-token", "{to}");
    }
}

#[tokio::test]
async fn secrets_rotate_while_the_configuration_is_wrong() {
    let pod = Pod::start("").await;
    for (number, wrong) in ["", " \n", "[listen", "[listen]\nadress = 1\n"].into_iter().enumerate()
    {
        pod.folder.write("sidecar.toml", wrong);
        pod.trigger.reload().await;
        assert_eq!(pod.sidecar.metric("reload_failing{part=\"config\"}").await, 1.0, "{wrong:?}");
        let token = format!("token-{number}");
        pod.folder.write("token", &token);
        pod.trigger.reload().await;
        assert_eq!(pod.get_as(&token, "/api/velt/token").await.status(), 200);
        let last = pod.velt.calls().pop().expect("a call");
        assert_eq!(last.body["data"]["authToken"], token, "{wrong:?}");
        let failing = pod.sidecar.metric("reload_failing{part=\"config\"}").await;
        assert_eq!(failing, 1.0, "{wrong:?} still lies there");
    }
    std::fs::remove_file(pod.folder.path("sidecar.toml")).expect("removed");
    pod.folder.write("token", "last-token");
    pod.trigger.reload().await;
    assert_eq!(pod.get_as("last", "/api/velt/token").await.status(), 200);
    let last = pod.velt.calls().pop().expect("a call");
    assert_eq!(last.body["data"]["authToken"], "last-token");
}

#[test]
fn an_empty_file_is_refused_at_the_start_too() {
    let folder = Folder::new();
    for empty in ["", "\n", " \t\r\n", "\u{feff}", "\u{feff}\n"] {
        let file = folder.write("sidecar.toml", empty);
        let origin = Origin::new(Some(file.as_ref()), crate::support::environment());
        let error = origin.load().expect_err("an empty file");
        assert!(matches!(error, LoadError::Empty { .. }), "{error}");
        assert!(error.to_string().contains("sidecar.toml is empty"), "{error}");
    }
    for full in ["# all of it is in the environment\n", "\u{feff}[log]\nlevel = \"warn\"\n"] {
        let file = folder.write("sidecar.toml", full);
        let origin = Origin::new(Some(file.as_ref()), crate::support::environment());
        origin.load().unwrap_or_else(|error| panic!("{full:?}: {error}"));
    }
    // `/dev/null` is empty on purpose.
    let device = Origin::new(Some("/dev/null".as_ref()), crate::support::environment());
    device.load().unwrap_or_else(|error| panic!("{error}"));
}

/// Returns the URL at which an issuer publishes its keys.
fn published(issuer: &Issuer) -> String {
    format!("http://{}/keys", issuer.server.address)
}

/// Whether an assertion of `pen` brings a token.
async fn believes(pod: &Pod, pen: &Pen) -> bool {
    let client = Client::to(pod.sidecar.addresses.traffic);
    let answer = client.get("/").header("x-assertion", pen.sign(&claims("ada"))).send().await;
    answer.token().is_some()
}

#[tokio::test]
async fn old_keys_stay_until_the_new_url_has_keys() {
    let (old, new) = (Pen::es256("old"), Pen::es256("new"));
    let (first, second) = (Issuer::publishing(&[&old]).await, Issuer::publishing(&[&new]).await);
    let mut pod = Pod::start(&first.toml()).await;
    assert!(believes(&pod, &old).await);
    let (known, dead) = (published(&first), format!("http://{}/keys", unused_address().await));
    pod.change(&known, &dead).await;
    assert_eq!(pod.reloads("config").await, [0.0, 1.0, 1.0], "no issuer publishes there");
    assert!(believes(&pod, &old).await, "the keys at hand stay");
    // The sidecar reports the failure once, and tries again at each look.
    pod.folder.write("token", "second-token");
    pod.trigger.reload().await;
    assert!(believes(&pod, &old).await);
    pod.change(&dead, &published(&second)).await;
    assert_eq!(pod.sidecar.metric("reload_failing{part=\"config\"}").await, 0.0);
    assert!(believes(&pod, &new).await && !believes(&pod, &old).await);
}

#[tokio::test]
async fn roots_that_reach_no_issuer_leave_the_old_keys() {
    let pen = Pen::es256("one");
    let issuer = Issuer::publishing(&[&pen]).await;
    let authority = Authority::new();
    let server = authority.issue(&["localhost"], VALID).server(&["http/1.1"]);
    let address = terminate(issuer.server.address, server).await;
    let folder = Folder::new();
    folder.write("roots.crt", authority.pem());
    let url = format!("https://localhost:{}/keys", address.port());
    let assertion = issuer.toml().replace(&published(&issuer), &url);
    let toml = format!("[outgoing]\nca_file = \"FOLDERroots.crt\"\n{assertion}");
    let pod = Pod::with(folder, &toml).await;
    assert!(believes(&pod, &pen).await);
    pod.folder.write("roots.crt", Authority::new().pem());
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [0.0, 1.0, 1.0]);
    assert!(believes(&pod, &pen).await);
}

#[tokio::test]
async fn certificate_is_taken_when_it_becomes_valid() {
    for interval in ["50ms", "off"] {
        let (authority, folder) = (Authority::new(), Folder::new());
        folder.write_pair(&authority.issue(&["localhost"], VALID));
        let toml = format!("{}[reload]\ninterval = {interval:?}\n", folder.toml());
        let pod = Pod::with(folder, &toml).await;
        let next = authority.issue_after(&["localhost"], Duration::from_secs(4));
        pod.folder.write_pair(&next);
        pod.trigger.reload().await;
        assert_eq!(pod.reloads("listen_tls").await, [0.0, 1.0, 1.0], "{interval}: too early");
        if interval == "off" {
            while pod.reloads("listen_tls").await[0] < 1.0 {
                pod.trigger.reload().await;
            }
        } else {
            pod.sidecar.metric_reaches("reloads_total{part=\"listen_tls\"}", 1.0).await;
            assert_eq!(pod.reloads("listen_tls").await, [1.0, 1.0, 0.0], "told once");
        }
        assert_eq!(pod.reloads("listen_tls").await[2], 0.0, "{interval}");
        let client = authority.client(None, &["http/1.1"]);
        connect(pod.sidecar.addresses.traffic, &client).await.expect("a handshake");
    }
}

#[tokio::test]
async fn other_groups_of_resources_are_looked_for_after_a_reload() {
    let toml = "[identity]\ngroups_header = \"X-Groups\"\n[velt]\napi = \"v2\"\n\
        organization = \"o\"\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"\n\
        groups = [\"staff\"]\n";
    let mut pod = Pod::start(toml).await;
    let resources = async |pod: &Pod, groups: &str| {
        let asking = Client::to(pod.sidecar.addresses.traffic).get("/api/velt/token");
        let asking = asking.header("x-forwarded-user", "ada").header("x-groups", groups);
        assert_eq!(asking.send().await.status(), 200);
        let call = pod.velt.calls().pop().expect("a call");
        call.body["data"]["permissions"]["resources"].as_array().expect("a list").len()
    };
    assert_eq!(resources(&pod, "staff").await, 2);
    assert_eq!(resources(&pod, "editors").await, 1);
    pod.change("groups = [\"staff\"]", "groups = [\"editors\", \"zoo\"]").await;
    assert_eq!(resources(&pod, "editors,staff").await, 2);
    assert_eq!(resources(&pod, "zoo").await, 2);
    assert_eq!(resources(&pod, "staff").await, 1);
    assert_eq!(pod.velt.call_count(), 5);
}

/// Signs a session with a secret (HS256), as older projects of Supabase do.
fn session(user: &str, secret: &str) -> String {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    let message = format!("{}.{}", base64(r#"{"alg":"HS256"}"#), base64(claims(user).to_string()));
    let signature = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("session={message}.{}", base64(signature.as_ref()))
}

#[tokio::test]
async fn t66_session_of_a_secret_that_is_gone_ends_with_the_reload() {
    const OLD: &str = "the old secret, of more than 32 bytes";
    const NEW: &str = "the new secret, of 32 bytes or more";
    let folder = Folder::new();
    folder.write("secret", OLD);
    folder.write("next", NEW);
    let toml = format!(
        "[identity]\nsource = \"assertion\"\n[identity.assertion]\ncookie = [\"session\"]\n\
         issuer = \"{ISSUER}\"\naudience = [\"app\"]\nalgorithms = [\"HS256\"]\n\
         secret_file = \"FOLDERsecret\"\nnext_secret_file = \"FOLDERnext\"\n"
    );
    let pod = Pod::with(folder, &toml).await;
    let client = Client::to(pod.sidecar.addresses.traffic);
    let (ada, eve) = (session("ada", OLD), session("eve", NEW));
    let ask = |cookie: &str| client.get("/").header("cookie", cookie).send();
    // Both sessions are remembered as checked.
    assert!(ask(&ada).await.token().is_some() && ask(&eve).await.token().is_some());
    pod.folder.write("secret", NEW);
    pod.trigger.reload().await;
    let answer = ask(&ada).await;
    assert_eq!((answer.token(), answer.token_status()), (None, Some("anonymous")));
    assert!(ask(&eve).await.token().is_some(), "the secret that stays goes on to count");
}
