//! Users, passwords, roots: what is refused, what is forgiven, and what can change without a restart.

use redis::Value;
use secrecy::SecretString;
use shared::store::{Address, Fault, Place, Settings, StartError, State};

use ground::tls::Roots;

use super::servers::{Options, RedisServer, Tls, Version};
use super::{Subject, bulk, get, set, settings};
use crate::certificates::{Authority, Folder};

/// Rights that the second level needs; no `PING`, no `ROLE`, no `INFO`.
const RULES: &str = "sidecar on >secret ~velt:* -@all +get +set +select";

with_each_version!(
    user_with_few_rights_is_enough,
    right_that_a_script_lacks_is_denied,
    password_rotates_without_a_call_that_fails,
);

fn as_user(place: Place, user: &str, password: &str) -> Settings {
    let (user, password) = (Some(user.to_owned()), Some(SecretString::from(password)));
    Settings { user, password, ..settings(place) }
}

async fn user_with_few_rights_is_enough(version: Version) {
    let options = Options { version, user: Some(RULES), ..Options::default() };
    let server = RedisServer::start_with(&options).await;
    let subject =
        Subject::with(Settings { database: 3, ..as_user(server.place(), "sidecar", "secret") });
    subject.is_connected().await;
    assert_eq!(subject.call(set("velt:key", "value")).await, Ok(Value::Okay));
    assert_eq!(subject.call(get("velt:key")).await, Ok(bulk("value")));
    for denied in [get("other"), redis::cmd("FLUSHALL")] {
        assert_eq!(subject.call(denied).await, Err(Fault::Denied));
    }
    assert_eq!(subject.store.state(), State::Connected);
    let elsewhere = server.ask(&["GET", "velt:key"]).await;
    assert_eq!(elsewhere, Value::Nil, "the entry is in another database");
}

#[tokio::test]
async fn wrong_login_is_denied_until_another_is_given() {
    let server =
        RedisServer::start_with(&Options { user: Some(RULES), ..Options::default() }).await;
    let subject = Subject::with(as_user(server.place(), "sidecar", "wrong"));
    subject.is_refused(Fault::Denied).await;
    subject.store.replace(settings(server.place())).expect("settings that fit");
    // Without a password the server asks for one.
    subject.is_refused(Fault::Denied).await;
    subject.store.replace(as_user(server.place(), "sidecar", "secret")).expect("settings that fit");
    subject.is_connected().await;
    assert_eq!(subject.call(get("velt:key")).await, Ok(Value::Nil));
}

/// A server refuses commands of a script in other words than commands by themselves.
async fn right_that_a_script_lacks_is_denied(version: Version) {
    let user = Some("sidecar on >secret ~velt:* -@all +eval");
    let server = RedisServer::start_with(&Options { version, user, ..Options::default() }).await;
    let subject = Subject::with(as_user(server.place(), "sidecar", "secret"));
    subject.is_connected().await;
    for key in ["velt:key", "other"] {
        let mut script = redis::cmd("EVAL");
        script.arg("return redis.call('GET', ARGV[1])").arg(0).arg(key);
        assert_eq!(subject.call(script).await, Err(Fault::Denied));
    }
}

async fn password_rotates_without_a_call_that_fails(version: Version) {
    let options = Options { version, user: Some(RULES), ..Options::default() };
    let server = RedisServer::start_with(&options).await;
    let subject = Subject::with(as_user(server.place(), "sidecar", "secret"));
    subject.is_connected().await;
    server.ask(&["ACL", "SETUSER", "sidecar", ">second"]).await;
    let connections =
        || subject.metrics.connects.get(ground::metrics::StoreConnectResult::Connected);
    let before = connections();
    subject.store.replace(as_user(server.place(), "sidecar", "second")).expect("settings that fit");
    while connections() == before {
        assert_eq!(subject.call(set("velt:key", "value")).await, Ok(Value::Okay));
    }
    // The server closes connections that use a removed password.
    server.ask(&["ACL", "SETUSER", "sidecar", "<secret"]).await;
    assert_eq!(subject.call(get("velt:key")).await, Ok(bulk("value")));
    // A password that the server does not know leaves the connection that stands in use.
    subject.store.replace(as_user(server.place(), "sidecar", "third")).expect("settings that fit");
    crate::neighbour::eventually("a refused login", async || {
        let refused = subject.metrics.connects.get(ground::metrics::StoreConnectResult::Denied);
        if refused > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    assert_eq!(subject.call(get("velt:key")).await, Ok(bulk("value")));
}

#[tokio::test]
async fn password_without_a_user_is_the_default_user_s() {
    let server =
        RedisServer::start_with(&Options { password: Some("pass"), ..Options::default() }).await;
    let password = Some(SecretString::from("pass"));
    let subject = Subject::with(Settings { password, ..settings(server.place()) });
    subject.is_connected().await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
}

#[tokio::test]
async fn servers_are_trusted_by_the_configured_roots_only() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    let right = Roots::File(folder.write("ca.crt", authority.pem()).into());
    let wrong = Roots::File(folder.write("other.crt", other.pem()).into());
    let encrypted =
        RedisServer::start_with(&Options { tls: Some(Tls::of(&authority)), ..Options::default() })
            .await;
    let plain = RedisServer::start().await;
    let at =
        |host: &str| Place::Server(Address::Tcp { host: host.to_owned(), port: encrypted.port });
    let with =
        |place: Place, roots: &Roots| Settings { tls: Some(roots.clone()), ..settings(place) };

    let subject = Subject::with(with(at("localhost"), &wrong));
    subject.is_refused(Fault::Untrusted).await;
    subject.store.replace(with(at("localhost"), &right)).expect("roots");
    subject.is_connected().await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    Subject::with(with(at("127.0.0.1"), &right)).is_connected().await;
    // An address that is not in the certificate.
    Subject::with(with(at("127.0.0.2"), &right)).is_refused(Fault::Broken).await;
    Subject::with(with(at("ip6-localhost.invalid"), &right)).is_refused(Fault::Broken).await;
    // TLS to a server without, and the other way round.
    let subject = Subject::with(with(plain.place(), &right));
    let is_refused = |state| matches!(state, State::Connecting { last: Some(_) });
    subject.state_is("a refusal", is_refused).await;
    Subject::at(at("localhost")).state_is("a refusal", is_refused).await;
}

#[tokio::test]
async fn settings_that_can_t_be_used_are_refused() {
    let subject = Subject::at(Place::Server(Address::Unix("/nowhere/redis.sock".into())));
    subject.is_refused(Fault::Broken).await;
    let refusal = |settings: Settings| subject.store.replace(settings).expect_err("a refusal");
    let address = || Address::Tcp { host: "localhost".to_owned(), port: 1 };
    let missing = Some(Roots::File("/nowhere/ca.crt".into()));
    let roots = refusal(Settings { tls: missing, ..settings(Place::Server(address())) });
    assert!(matches!(roots, StartError::Roots(_)), "{roots}");
    let none = refusal(settings(Place::Cluster(Vec::new())));
    assert!(matches!(none, StartError::NoAddress), "{none}");
    let cluster = settings(Place::Cluster(vec![address()]));
    let database = refusal(Settings { database: 1, ..cluster });
    assert!(matches!(database, StartError::DatabaseInCluster), "{database}");
}

#[tokio::test]
async fn place_can_change_while_the_store_is_in_use() {
    let (first, second) = tokio::join!(RedisServer::start(), RedisServer::start());
    let subject = Subject::connected(first.place()).await;
    second.ask(&["SET", "key", "second"]).await;
    subject.store.replace(settings(second.place())).expect("settings that fit");
    subject.is_connected().await;
    assert_eq!(subject.call(get("key")).await, Ok(bulk("second")));
    assert_eq!(first.info("connected_clients").await.as_deref(), Some("1"), "the test's own");
}
