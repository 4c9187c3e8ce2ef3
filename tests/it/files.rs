//! Files, variables and flags as people write them: the sidecar understands each, or refuses it with a
//! reason.

use std::io;
use std::net::SocketAddr;

use server::StartError;

use crate::config::{fine, parse};
use crate::support::app::FakeApp;
use crate::support::binary::{CREDENTIALS, Finished, PORTS, Running, finished, finished_in};
use crate::support::certificates::{Authority, Folder, VALID, connect};
use crate::support::velt::FakeVelt;
use crate::support::{API_KEY, AUTH_TOKEN, Stage};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

#[tokio::test]
async fn each_client_authority_in_a_bundle_is_believed() {
    let (one, two, folder) = (Authority::new(), Authority::new(), Folder::new());
    folder.write_pair(&one.issue(&["localhost"], VALID));
    let indented = two.pem().replace('\n', "\n    ");
    folder.write("ca.crt", format!("\u{feff}{}\u{feff}    {indented}", one.pem()));
    let toml = format!("{}client_ca_file = {:?}\n", folder.toml(), folder.path("ca.crt"));
    let stage = Stage::set(&toml).await;
    for authority in [&one, &two] {
        let client = one.client(Some(&authority.issue(&["front"], VALID)), &["http/1.1"]);
        let stream = connect(stage.sidecar.addresses.traffic, &client).await.expect("a handshake");
        let sending = stage.client().get("/");
        assert!(sending.try_send_over(stream).await.is_ok(), "each of them vouches");
    }
}

async fn check(environment: &[(&str, &str)]) -> Finished {
    finished(&["check"], &[&CREDENTIALS[..], environment].concat()).await
}

#[tokio::test]
async fn check_fails_if_a_certificate_would_be_lost() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], VALID));
    let (pem, ca) = (authority.pem(), folder.path("ca.crt"));
    let (crt, key) = (folder.path("tls.crt"), folder.path("tls.key"));
    for (lost, says) in [
        (pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "a section BEGIN TRUSTED CERTIFICATE"),
        (pem.replace("CERTIFICATE", "PKCS7"), "a section BEGIN PKCS7"),
        (pem.replace("-----BEGIN", "---BEGIN"), "begins a certificate on line"),
        (pem.replace('\n', " "), "has to stand alone on its line"),
    ] {
        folder.write("ca.crt", format!("{pem}{lost}"));
        let finished = check(&[
            ("VELT_SIDECAR_LISTEN__TLS__CERTIFICATE_FILE", &crt),
            ("VELT_SIDECAR_LISTEN__TLS__KEY_FILE", &key),
            ("VELT_SIDECAR_LISTEN__TLS__CLIENT_CA_FILE", &ca),
        ])
        .await;
        assert_eq!(finished.code, Some(CONFIG), "{says}");
        let stderr = finished.stderr;
        assert!(stderr.contains(says) && stderr.contains(&ca), "{says}: {stderr}");
    }
}

#[tokio::test]
async fn roots_that_the_environment_names_are_read_or_refused() {
    let folder = Folder::new();
    let good = Authority::new().pem();
    let other_form = good.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    for (content, code) in [
        (None, CONFIG),
        (Some(String::new()), CONFIG),
        (Some("not a certificate".into()), CONFIG),
        (Some(other_form), CONFIG),
        (Some(good.clone()), 0),
        (Some(format!("\u{feff}{good}")), 0),
    ] {
        let path = match &content {
            Some(content) => folder.write("roots.crt", content),
            None => folder.path("nowhere.crt"),
        };
        for roots in ["auto", "system"] {
            let finished =
                check(&[("SSL_CERT_FILE", &path), ("VELT_SIDECAR_OUTGOING__ROOTS", roots)]).await;
            assert_eq!(finished.code, Some(code), "{content:?}: {}", finished.stderr);
            if code == CONFIG {
                let stderr = finished.stderr;
                assert!(stderr.contains("SSL_CERT_FILE") && stderr.contains(&path), "{stderr}");
            }
        }
        // With the bundled roots, the variable has no effect.
        let bundled = [("SSL_CERT_FILE", &*path), ("VELT_SIDECAR_OUTGOING__ROOTS", "bundled")];
        assert_eq!(check(&bundled).await.code, Some(0));
    }
    let empty = folder.path("");
    std::fs::remove_file(folder.path("roots.crt")).expect("removed");
    let finished = check(&[("SSL_CERT_DIR", &empty)]).await;
    assert_eq!(finished.code, Some(CONFIG), "{}", finished.stderr);
    assert!(finished.stderr.contains("SSL_CERT_DIR"), "{}", finished.stderr);
}

#[tokio::test]
async fn check_fails_if_a_proxy_would_be_ignored() {
    for (name, value, code) in [
        ("HTTPS_PROXY", "\"http://user:canary@127.0.0.1:1\"", CONFIG),
        ("https_proxy", "'http://user:canary@127.0.0.1:1'", CONFIG),
        ("ALL_PROXY", "http//user:canary@127.0.0.1:1", CONFIG),
        ("HTTPS_PROXY", "http://user:canary@127.0.0.1:1", 0),
        ("HTTPS_PROXY", "", 0),
        // Plain-text calls go through no proxy.
        ("HTTP_PROXY", "\"http://127.0.0.1:1\"", 0),
    ] {
        let roots = ("VELT_SIDECAR_OUTGOING__ROOTS", "bundled");
        let finished = check(&[(name, value), roots]).await;
        assert_eq!(finished.code, Some(code), "{name}={value}: {}", finished.stderr);
        assert!(!finished.stderr.contains("canary"), "{}", finished.stderr);
        assert_eq!(finished.stderr.contains(name), code == CONFIG, "{}", finished.stderr);
        let plain = ("VELT_SIDECAR_VELT__ENDPOINT", "http://127.0.0.1:1/");
        assert_eq!(check(&[(name, value), plain]).await.code, Some(0), "no proxy is asked");
    }
}

/// The complaint about a configuration with these variables.
fn complaint(pairs: &[(&str, &str)]) -> String {
    match parse("", pairs) {
        Ok(_) => panic!("taken: {pairs:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn secret_in_quotes_or_braces_or_with_unseen_signs_is_refused() {
    const LONG: &str = "0123456789abcdef0123456789abcdef";
    let folder = Folder::new();
    for (around, says) in [
        (["\"", "\""], "is in quotes"),
        (["'", "'"], "is in quotes"),
        (["\u{201c}", "\u{201d}"], "is in quotes"),
        (["\u{feff}", ""], "begins with a byte order mark"),
        (["\u{feff}\"", "\"\r\n"], "begins with a byte order mark"),
        (["${", "}"], "is a template that was not filled in"),
        (["{{ ", " }}"], "is a template that was not filled in"),
        (["{env.", "}"], "is a template that was not filled in"),
        (["$(", ")"], "is a template that was not filled in"),
        (["\u{200b}", ""], "holds a character that can't be seen"),
        (["", "\u{a0}"], "holds a character that can't be seen"),
        (["\u{fffd}", ""], "holds a character that can't be seen"),
    ] {
        let [before, after] = around;
        let secret = format!("{before}canary{LONG}{after}");
        for name in ["VELT_API_KEY", "VELT_AUTH_TOKEN", "VELT_SIDECAR_ADMIN_TOKEN"] {
            let said = complaint(&[(name, &secret)]);
            assert!(said.contains(says) && said.contains(name), "{secret:?}: {said}");
            assert!(!said.contains("canary"), "{said}");
        }
        let file = folder.write("token", format!("{secret}\n"));
        let toml = format!("[admin]\ntoken_file = {file:?}");
        let said = parse(&toml, &[]).expect_err(says).to_string();
        assert!(said.contains(says) && said.contains("sidecar.toml:2"), "{said}");
    }
    // A quote inside a value is a part of the value.
    for fine_secret in ["a\"b", "\"ab", "don't"] {
        fine("", &[("VELT_AUTH_TOKEN", fine_secret)]);
    }
}

#[test]
fn secret_given_to_two_settings_is_refused() {
    const LONG: &str = "0123456789abcdef0123456789abcdef";
    let said = complaint(&[("VELT_API_KEY", "canary"), ("VELT_AUTH_TOKEN", "canary")]);
    assert!(said.contains("the same as velt.api_key") && !said.contains("canary"), "{said}");
    let secret = ("VELT_SIDECAR_IDENTITY__SECRET", LONG);
    let header = ("VELT_SIDECAR_IDENTITY__SECRET_HEADER", "X-Secret");
    for name in ["VELT_API_KEY", "VELT_AUTH_TOKEN"] {
        let said = complaint(&[(name, LONG), secret, header]);
        assert!(said.contains("also given as identity.secret"), "{said}");
        let said = complaint(&[(name, LONG), ("VELT_SIDECAR_ADMIN_TOKEN", LONG)]);
        assert!(said.contains("also given as admin.token"), "{said}");
    }
    // An emulator takes any credentials, as the README says.
    let emulator = ("VELT_SIDECAR_VELT__ENDPOINT", "http://127.0.0.1:4191/");
    fine("", &[("VELT_API_KEY", "any"), ("VELT_AUTH_TOKEN", "any"), emulator]);
}

#[test]
fn variable_with_quotes_around_its_value_is_refused() {
    for (name, value) in [
        ("VELT_SIDECAR_VELT__ORGANIZATION", "\"org\""),
        ("VELT_SIDECAR_IDENTITY__ADMIN_GROUPS", "'a', 'b'"),
        ("VELT_SIDECAR_APP__ADDRESS", "\"127.0.0.1:3000\""),
        ("VELT_SIDECAR_DELIVERY__HEADER__PATHS", "\"/a\""),
    ] {
        let said = complaint(&[(name, value)]);
        assert!(said.contains("it is in quotes") && said.contains(name), "{said}");
    }
}

#[test]
fn a_variable_that_looks_like_a_setting_is_told() {
    for (name, says) in [
        ("VELT_SIDECAR_APP_ADDRESS", "did you mean VELT_SIDECAR_APP__ADDRESS?"),
        ("velt_sidecar_app__address", "did you mean VELT_SIDECAR_APP__ADDRESS?"),
        ("VELT_SIDECAR_APP-ADDRESS", "did you mean VELT_SIDECAR_APP__ADDRESS?"),
        ("VELT_SIDECAR_DELIVERY_HEADER_PATHS", "mean VELT_SIDECAR_DELIVERY__HEADER__PATHS?"),
        ("VELT_SIDECAR_VELT_ENDPOINT", "did you mean VELT_SIDECAR_VELT__ENDPOINT?"),
        ("VELT_SIDECAR_LISTEN_PORT", "VELT_SIDECAR_LISTEN_PORT: there is no such setting"),
        ("VELT_SIDECAR_APP_ADRESS", "did you mean VELT_SIDECAR_APP__ADDRESS?"),
        ("VELT_SIDECAR__APP__ADDRESS", "did you mean VELT_SIDECAR_APP__ADDRESS?"),
        ("velt_auth_token", "did you mean VELT_AUTH_TOKEN?"),
    ] {
        let said = complaint(&[(name, "127.0.0.1:8000")]);
        assert!(said.contains(says) && said.contains(name), "{name}: {said}");
    }
    // Kubernetes sets such variables for Services, and people set variables of their own.
    for (name, value) in [
        ("VELT_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("VELT_SIDECAR_SERVICE_PORT_HTTP", "8080"),
        ("VELT_SIDECAR_PORT", "tcp://10.0.0.1:8080"),
        ("VELT_SIDECAR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("VELT_SIDECAR_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("VELT_SIDECAR_ADMIN_SERVICE_PORT", "9901"),
        ("VELT_SIDECAR_ADMIN_PORT", "tcp://10.0.0.1:9901"),
        ("VELT_SIDECAR_ADMIN_PORT_9901_TCP", "tcp://10.0.0.1:9901"),
        ("VELT_SIDECAR_ADMIN_PORT_9901_TCP_PROTO", "tcp"),
        ("VELT_SIDECAR_VERSION", "1.2.3"),
        ("VELT_SIDECAR_IMAGE", "registry.example/velt-sidecar"),
        ("VELT_PROJECT", "x"),
    ] {
        fine("", &[(name, value)]);
    }
}

/// A sidecar whose admin port only a configuration file names.
struct Elsewhere {
    _running: Running,
    folder: Folder,
    admin: SocketAddr,
}

impl Elsewhere {
    async fn start() -> Self {
        let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
        let (running, _, admin) = Running::sidecar(&[
            ("VELT_SIDECAR_VELT__ENDPOINT", &format!("http://{}/", velt.address)),
            ("VELT_SIDECAR_APP__ADDRESS", &app.address.to_string()),
        ])
        .await;
        let folder = Folder::new();
        folder.write("sidecar.toml", format!("[admin]\naddress = \"{admin}\"\n"));
        Self { _running: running, folder, admin }
    }

    async fn runs(&self, arguments: &[&str]) -> Finished {
        finished_in(self.folder.path("").as_ref(), arguments, &[]).await
    }
}

#[tokio::test]
async fn admin_calls_go_to_the_configured_address() {
    let elsewhere = Elsewhere::start().await;
    let file = elsewhere.folder.path("sidecar.toml");
    for arguments in [
        &["admin", "refusals"][..],
        &["admin", "refusals", "--config", &file],
        &["explain", "--admin", "GET", "/api/me"],
        &["explain", "--admin", "/api/me"],
        &["explain", "/api/me", "--admin"],
        &["explain", "--admin", "--json", "/api/me"],
        &["explain", "--admin", &format!("http://{}", elsewhere.admin), "/api/me"],
    ] {
        let finished = elsewhere.runs(arguments).await;
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
        if arguments[0] == "explain" {
            assert!(finished.stdout.contains("/api/me"), "{}", finished.stdout);
        }
    }
    let address = elsewhere.admin.to_string();
    let variable = [("VELT_SIDECAR_ADMIN__ADDRESS", &*address)];
    let by_variable = finished(&["admin", "config"], &variable).await;
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.stderr);
    let named = finished(&["admin", "config", "--config", "nowhere.toml"], &[]).await;
    assert_eq!(named.code, Some(CONFIG), "{}", named.stderr);
}

#[tokio::test]
async fn config_flag_is_refused_where_no_command_reads_the_file() {
    let folder = Folder::new();
    let file = folder.write("sidecar.toml", "# nothing\n");
    for arguments in [
        &["demo", "--listen", "127.0.0.1:0", "--config", &file][..],
        &["--config", &file, "emulator", "--listen", "127.0.0.1:0"],
        &["version", "--config", &file],
    ] {
        let finished = finished(arguments, &CREDENTIALS).await;
        assert_eq!(finished.code, Some(USAGE), "{arguments:?}");
        assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
        assert!(finished.stderr.contains("--config would have no effect"), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn no_command_prints_the_password_of_a_url() {
    for (url, code) in [
        ("http://user:canary@127.0.0.1:1", None),
        ("http://user:canary@127.0.0.1:1/?token=canary", None),
        ("http://127.0.0.1:1/?token=canary", None),
        ("ftp://user:canary@127.0.0.1:1", Some(USAGE)),
        ("user:canary@127.0.0.1:1", Some(USAGE)),
        ("http://user:canary@", Some(USAGE)),
    ] {
        for command in [
            &["admin", "config"][..],
            &["admin", "refusals"],
            &["drain"],
            &["health"],
            &["explain", "/"],
        ] {
            let finished = finished(&[command, &["--admin", url]].concat(), &[]).await;
            let unreachable = if command == ["health"] { 1 } else { UNAVAILABLE };
            assert_eq!(finished.code, Some(code.unwrap_or(unreachable)), "{command:?} {url}");
            let printed = format!("{}{}", finished.stdout, finished.stderr);
            assert!(!printed.contains("canary"), "{command:?}: {printed}");
            assert!(code.is_some() || printed.contains("127.0.0.1:1"), "{command:?}: {printed}");
        }
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_told_why() {
    let told = |kind: io::ErrorKind| {
        let address = SocketAddr::from(([0, 0, 0, 0], 80));
        StartError::Bind { what: "listen.address", address, source: kind.into() }.to_string()
    };
    let privileged = told(io::ErrorKind::PermissionDenied);
    for part in ["0.0.0.0:80", "1024", "8080", "listen.address", "NET_BIND_SERVICE"] {
        assert!(privileged.contains(part), "{part}: {privileged}");
    }
    assert!(!privileged.contains("stop the process"), "{privileged}");
    let used = told(io::ErrorKind::AddrInUse);
    assert!(
        used.ends_with("choose another listen.address, or stop the process that uses it"),
        "{used}"
    );
    let foreign = told(io::ErrorKind::AddrNotAvailable);
    assert!(foreign.contains("an address of this machine"), "{foreign}");
}

#[tokio::test]
async fn an_empty_file_fails_every_command_that_would_start() {
    let folder = Folder::new();
    folder.write("sidecar.toml", "");
    for command in ["run", "check", "doctor"] {
        let environment = [&CREDENTIALS[..], &PORTS].concat();
        let finished = finished_in(folder.path("").as_ref(), &[command], &environment).await;
        assert_eq!(finished.code, Some(CONFIG), "{command}: {}", finished.stderr);
        let printed = format!("{}{}", finished.stdout, finished.stderr);
        assert!(printed.contains("sidecar.toml") && printed.contains("empty"), "{printed}");
        assert!(!printed.contains(API_KEY) && !printed.contains(AUTH_TOKEN));
    }
}
