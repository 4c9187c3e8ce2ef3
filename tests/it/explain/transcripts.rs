//! The transcripts of docs/operations.md are what the commands print.

use std::fs;

use tools::explain::curl::words;

use crate::support::app::FakeApp;
use crate::support::binary::{CREDENTIALS, Running, finished_in};
use crate::support::client::Client;
use crate::support::velt::{FakeVelt, refused};

/// Addresses of Velt and of the sidecar's admin port in the transcripts.
const VELT: &str = "http://127.0.0.1:4191/";
const ADMIN: &str = "http://127.0.0.1:9901";

/// Returns the contents of all fences of this kind.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("```{kind}\n");
    text.split(&*fence).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Masks the seconds until the next try, which pass while the test runs.
fn timeless(text: &str) -> String {
    let Some((before, rest)) = text.split_once("tries again in ") else { return text.to_owned() };
    let (_, after) = rest.split_once(" s").expect("seconds");
    format!("{before}tries again in N s{after}")
}

#[tokio::test]
async fn every_transcript_is_what_the_command_prints() {
    let page = fs::read_to_string("docs/operations.md").expect("docs/operations.md");
    let toml = *blocks(&page, "toml").first().expect("the configuration of the transcripts");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("sidecar.toml"), toml).expect("written");

    // A running sidecar that Velt refuses, for the transcripts that only a running sidecar can answer.
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    velt.script(|_, _| refused(403, "PERMISSION_DENIED"));
    let (_running, traffic, admin) = Running::sidecar(&[
        ("VELT_SIDECAR_VELT__ENDPOINT", &format!("http://{}/", velt.address)),
        ("VELT_SIDECAR_APP__ADDRESS", &app.address.to_string()),
    ])
    .await;
    let asking = Client::to(traffic).get("/api/velt/token").header("x-forwarded-user", "ada");
    assert_eq!(asking.send().await.code(), "token_refused");

    let mut commands = 0;
    for block in blocks(&page, "console") {
        let Some(command) = block.strip_prefix("$ velt-sidecar explain ") else { continue };
        // The command goes on while its lines end in a backslash.
        let end = command.match_indices('\n').find(|(at, _)| !command[..*at].ends_with('\\'));
        let (command, expected) = command.split_at(end.expect("an answer").0);
        let arguments = words(command).expect("words");
        let admin = format!("http://{admin}");
        let arguments: Vec<_> = arguments.iter().map(|word| word.replace(ADMIN, &admin)).collect();
        let arguments: Vec<_> =
            std::iter::once("explain").chain(arguments.iter().map(String::as_str)).collect();
        let finished = finished_in(folder.path(), &arguments, &CREDENTIALS).await;
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{arguments:?}");
        let printed = finished.stdout.replace(&format!("http://{}/", velt.address), VELT);
        assert_eq!(
            timeless(printed.trim_end()),
            timeless(expected.trim_start_matches('\n').trim_end()),
            "{arguments:?} prints\n{printed}"
        );
        commands += 1;
    }
    assert!(commands >= 7, "only {commands} transcripts");
}
