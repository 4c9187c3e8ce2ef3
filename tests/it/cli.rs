//! The binary as a person or a kubelet runs it: arguments, signals, exit codes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use crate::support::app::FakeApp;
use crate::support::binary::{CREDENTIALS, PORTS, Running, finished, finished_in};
use crate::support::client::Client;
use crate::support::raw::unused_address;
use crate::support::velt::{FakeVelt, user_of};
use crate::support::{API_KEY, AUTH_TOKEN};

/// Exit codes of sysexits.h.
const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

#[tokio::test]
async fn start_without_credentials_fails_and_says_how_to_give_them() {
    for arguments in [&[][..], &["run"], &["check"]] {
        let finished = finished(arguments, &[]).await;
        assert_eq!(finished.code, Some(CONFIG), "{arguments:?}");
        for name in ["VELT_API_KEY", "api_key_file", "VELT_AUTH_TOKEN", "auth_token_file"] {
            assert!(finished.stderr.contains(name), "{name}: {}", finished.stderr);
        }
        assert!(finished.stderr.contains("velt.auth_token is missing"), "{}", finished.stderr);
        assert_eq!(finished.stdout, "");
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        &["--no-such-flag"][..],
        &["no-such-command"],
        &["run", "--config"],
        &["run", "extra"],
        &["demo", "--listen", "not-an-address"],
        &["emulator", "--failure", "no-such-failure"],
        &["emulator", "--api-key", "alone"],
    ] {
        let finished = finished(arguments, &CREDENTIALS).await;
        assert_eq!(finished.code, Some(USAGE), "{arguments:?}");
        assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
        assert_eq!(finished.stdout, "");
    }
}

#[tokio::test]
async fn wrong_arguments_are_answered_with_what_to_write() {
    for (arguments, told) in [
        (
            &["emulator", "--listen", "4190"][..],
            "write an IP address and a port, such as 127.0.0.1:4190",
        ),
        (
            &["demo", "--listen", "localhost"],
            "write an IP address and a port, such as 127.0.0.1:4180",
        ),
        (&["demo", "--listen", "localhost:4200"], "such as 127.0.0.1:4200"),
        (&["emulator", "--latency", "1s"], "write a whole number without a unit, such as 250"),
        (&["emulator", "--token-life", "2h"], "write a whole number without a unit"),
        (&["explain", "GET", "/", "--peer", "10.0.0.1:80"], "write an IP address without a port"),
        (&["admin", "log-level", "loud"], "[possible values: error, warn, info, debug]"),
        (&["check", "--json"], "-> check has --format json"),
        (&["check", "my.toml"], "-> name the file by --config my.toml"),
        (&["run", "--listen", "127.0.0.1:1"], "VELT_SIDECAR_LISTEN__ADDRESS"),
        (&["drain", "--wait", "10"], "write a time such as"),
    ] {
        let finished = finished(arguments, &CREDENTIALS).await;
        assert_eq!(finished.code, Some(USAGE), "{arguments:?}");
        assert!(finished.stderr.contains(told), "{arguments:?}: {}", finished.stderr);
    }
    let finished = finished(&["health", "--config", "nowhere.toml"], &[]).await;
    assert!(
        finished.stderr.contains("give the path of a file that is there"),
        "{}",
        finished.stderr
    );
}

#[tokio::test]
async fn system_roots_are_read_only_if_a_server_is_called_over_tls() {
    for (endpoint, code) in [("http://127.0.0.1:1/", 0), ("https://127.0.0.1:1/", CONFIG)] {
        let settings = [
            ("VELT_SIDECAR_VELT__ENDPOINT", endpoint),
            ("VELT_SIDECAR_OUTGOING__ROOTS", "system"),
            ("SSL_CERT_FILE", "/nowhere"),
        ];
        let finished = finished(&["check"], &[&CREDENTIALS[..], &settings].concat()).await;
        assert_eq!(finished.code, Some(code), "{endpoint}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn version_is_printed_in_both_ways() {
    let expected = concat!("velt-sidecar ", env!("CARGO_PKG_VERSION"), "\n");
    for arguments in [["version"], ["--version"]] {
        let finished = finished(&arguments, &[]).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(0), expected));
        assert_eq!(finished.stderr, "");
    }
}

/// Starts `schema`, whose text is longer than what a pipe holds.
fn schema_into(stdout: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
    command.arg("schema").stdout(stdout).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn reader_that_leaves_is_no_fault_of_a_command() {
    let mut child = schema_into(Stdio::piped());
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[cfg(target_os = "linux")]
#[test]
fn result_that_can_not_be_written_is_a_fault() {
    let full = std::fs::File::create("/dev/full").expect("a device that is always full");
    let output = schema_into(full.into()).wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.contains("can't write the result to standard output"), "{said}");
}

#[tokio::test]
async fn help_lists_every_command_and_the_exit_codes() {
    let finished = finished(&["--help"], &[]).await;
    assert_eq!(finished.code, Some(0));
    insta::assert_snapshot!("help", finished.stdout);
}

#[tokio::test]
async fn check_prints_what_is_in_force_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("sidecar.toml"), "[app]\naddress = \"127.0.0.1:5000\"\n")
        .expect("written");
    let environment = [&CREDENTIALS[..], &[("VELT_SIDECAR_LOG__LEVEL", "debug")]].concat();
    let finished = finished_in(folder.path(), &["check"], &environment).await;
    let verdict = "velt-sidecar: all is well with sidecar.toml\n";
    assert_eq!((finished.code, &*finished.stderr), (Some(0), verdict));
    insta::assert_snapshot!("check", finished.stdout);
    assert!(!finished.stdout.contains(API_KEY) && !finished.stdout.contains(AUTH_TOKEN));
}

#[tokio::test]
async fn check_names_the_file_and_line_of_a_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("my.toml"), "\n[app]\nadress = \"x\"\n").expect("written");
    for arguments in [["check", "--config", "my.toml"], ["--config", "my.toml", "run"]] {
        let finished = finished_in(folder.path(), &arguments, &CREDENTIALS).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(CONFIG), ""));
        assert_eq!(
            finished.stderr,
            "velt-sidecar: the configuration has 1 problem:\n  \
             my.toml:3: there is no setting app.adress\n    -> did you mean address?\n"
        );
    }
}

#[tokio::test]
async fn named_configuration_file_must_exist() {
    for command in ["run", "check"] {
        let finished = finished(&[command, "--config", "nowhere.toml"], &CREDENTIALS).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(CONFIG), ""));
        assert_eq!(
            finished.stderr,
            "velt-sidecar: nowhere.toml can't be read: No such file or directory (os error 2)\n    \
             -> give the path of a file that is there: --config /path/to/sidecar.toml; or leave \
             --config out if the environment has all settings\n"
        );
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_setting() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for (variable, setting) in [
        ("VELT_SIDECAR_LISTEN__ADDRESS", "listen.address"),
        ("VELT_SIDECAR_ADMIN__ADDRESS", "admin.address"),
    ] {
        // With so few connections, no system's limit on open files causes a warning.
        let few = ("VELT_SIDECAR_LISTEN__MAX_CONNECTIONS", "10");
        let environment = [&CREDENTIALS[..], &PORTS, &[(variable, &*address), few]].concat();
        let finished = finished(&["run"], &environment).await;
        assert_eq!(finished.code, Some(UNAVAILABLE));
        assert_eq!(
            finished.stderr,
            format!(
                "velt-sidecar: can't listen on {address}: choose another {setting}, \
                 or stop the process that uses it: Address already in use (os error 98)\n"
            )
        );
    }
    for command in ["demo", "emulator"] {
        let finished = finished(&[command, "--listen", &address], &[]).await;
        assert_eq!(finished.code, Some(UNAVAILABLE), "{command}");
        assert!(finished.stderr.contains(&address), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn sidecar_is_ready_when_it_says_so_and_exits_0_when_told() {
    for signal in ["TERM", "INT"] {
        let grace = [("VELT_SIDECAR_SHUTDOWN__GRACE", "0s")];
        let (running, traffic, admin) = Running::sidecar(&grace).await;
        for path in ["/healthz/ready", "/healthz/live", "/healthz/startup", "/metrics"] {
            assert_eq!(Client::to(admin).get(path).send().await.status(), 200, "{path}");
        }
        // No app is behind the sidecar, which answers 502 by itself.
        let answer = Client::to(traffic).get("/").send().await;
        assert_eq!(answer.status(), 502);
        running.signal(signal);
        let (status, printed) = running.ended().await;
        assert_eq!(status.code(), Some(0), "{printed}");
    }
}

#[tokio::test]
async fn run_is_the_default_command() {
    let mut running = Running::start(&[], &[&CREDENTIALS[..], &PORTS].concat());
    running.line_with("velt-sidecar is listening").await;
}

#[tokio::test]
async fn a_second_signal_ends_a_long_grace_time_at_once() {
    let grace = [("VELT_SIDECAR_SHUTDOWN__GRACE", "1h")];
    let (mut running, traffic, admin) = Running::sidecar(&grace).await;
    running.signal("TERM");
    let line = running.line_with("shutdown begins").await;
    assert!(line.contains("a second signal ends at once"), "{line}");
    let ready = Client::to(admin).get("/healthz/ready").send().await;
    assert_eq!((ready.status(), &*ready.text()), (503, "draining\n"));
    assert_eq!(Client::to(traffic).get("/").send().await.status(), 502, "it still serves");
    running.signal("TERM");
    let (status, printed) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{printed}");
}

#[tokio::test]
async fn t40_no_log_line_holds_a_secret_a_token_or_a_user() {
    let velt = FakeVelt::start().await;
    let endpoint = format!("http://{}/", velt.address);
    for format in ["text", "json"] {
        let (running, traffic, _) = Running::sidecar(&[
            ("VELT_SIDECAR_VELT__ENDPOINT", &endpoint),
            ("VELT_SIDECAR_LOG__LEVEL", "debug"),
            ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
            ("VELT_SIDECAR_LOG__FORMAT", format),
        ])
        .await;
        velt.recover();
        let ask = |user: &'static str| {
            let sending = Client::to(traffic).get("/api/velt/token");
            sending.header("x-forwarded-user", user).header("cookie", "canary-cookie").send()
        };
        let token = ask("canary-user").await.json()["token"].as_str().expect("a token").to_owned();
        assert_eq!(user_of(&token), "canary-user");
        velt.answer_with(
            403,
            r#"{"error":{"status":"PERMISSION_DENIED","message":"canary-message"}}"#,
        );
        assert_eq!(ask("canary-other").await.status(), 502);
        running.signal("TERM");
        let (_, printed) = running.ended().await;
        assert!(printed.contains("a mint failed"), "{printed}");
        assert!(!printed.contains("canary") && !printed.contains(&token), "{printed}");
    }
}

#[tokio::test]
async fn the_emulator_says_where_it_is_and_mints() {
    let mut running = Running::start(&["emulator", "--listen", "127.0.0.1:0"], &[]);
    let line = running.line_with("Velt emulator").await;
    let (_, address) = line.split_once("http://").expect("an address");
    let address: SocketAddr =
        address.split('/').next().expect("an end").parse().expect("an address");
    let body = r#"{"data":{"userId":"ada","apiKey":"k","authToken":"t"}}"#;
    let answer = Client::to(address).post("/", body).send().await;
    let token = answer.json()["result"]["data"]["token"].clone();
    assert_eq!(user_of(token.as_str().expect("a token")), "ada");
    let admin = format!("http://{address}");
    for probe in ["--live", "--ready", "--startup"] {
        let health = finished(&["health", probe, "--admin", &admin], &[]).await;
        assert_eq!(health.code, Some(0), "{probe}: {}", health.stderr);
    }
    running.signal("TERM");
    assert_eq!(running.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn the_demo_shows_its_page_and_ends_when_told() {
    let mut running = Running::start(&["demo", "--listen", "127.0.0.1:0"], &[]);
    let line = running.line_with("open http://").await;
    let (_, address) = line.split_once("http://").expect("an address");
    let address = address.trim_end_matches('/').parse().expect("an address");
    assert_eq!(Client::to(address).get("/").begin().await.status(), 200);
    running.signal("INT");
    running.line_with("A second Ctrl-C ends it at once").await;
    let ended =
        timeout(Duration::from_secs(10), running.ended()).await.expect("without a grace time");
    assert_eq!(ended.0.code(), Some(0));
}

#[tokio::test]
async fn the_demo_waits_for_the_readers_app() {
    let app = unused_address().await;
    let url = format!("http://{app}");
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--app", &url];
    let mut running = Running::start(&arguments, &[]);
    running.line_with(&format!("Nothing answers at {url} yet")).await;
    let _app = FakeApp::restart(app, false).await;
    running.line_with(&format!("Your app at {url} answers")).await;
}

#[tokio::test]
async fn the_demo_refuses_an_app_that_it_can_not_show() {
    for (arguments, told) in [
        (&["--app", "https://localhost:3000"][..], "start the app without TLS"),
        (&["--app", "http://localhost:3000/admin"], "leave out the path"),
        (&["--app", "localhost:4180"], "is the demo itself"),
        (&["--app", "localhost:3000", "--listen", "0.0.0.0:4180"], "ssh -L"),
    ] {
        let arguments = [&["demo"], arguments].concat();
        let finished = finished(&arguments, &[]).await;
        assert_eq!(finished.code, Some(USAGE), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(told), "{}", finished.stderr);
    }
}
