//! A stranger does not decide which spans the collector has to take.

use super::{SAMPLED, seen, send_all};
use crate::support::Stage;
use crate::support::collector::FakeCollector;

const STRANGER: &str = "[identity]\ntrusted_peers = [\"192.0.2.1\"]\n";

async fn ask(stage: &mut Stage, headers: &[(&str, &str)]) {
    let headers = [&[("traceparent", SAMPLED)], headers].concat();
    send_all(stage.client().get("/api/me"), &headers).send().await;
}

/// Ends the sidecar, and returns the number of spans that the collector has got.
async fn told(stage: Stage, collector: &FakeCollector) -> usize {
    let Stage { app, velt, mut sidecar } = stage;
    sidecar.terminate();
    sidecar.ended().await;
    drop((app, velt));
    if collector.bodies().is_empty() { 0 } else { collector.spans().len() }
}

#[tokio::test]
async fn a_strangers_sampled_trace_passes_and_is_not_exported() {
    let collector = FakeCollector::start().await;
    let mut stage = Stage::set(&format!("{}{STRANGER}", collector.toml())).await;
    ask(&mut stage, &[]).await;
    let passed = vec![("traceparent".to_owned(), SAMPLED.to_owned())];
    assert_eq!(seen(&stage.app), passed, "as it came");
    assert_eq!(told(stage, &collector).await, 0);
}

#[tokio::test]
async fn requests_with_the_secret_have_spans() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).expect("written");
    let identity = format!("[identity]\nsecret_header = \"X-Secret\"\nsecret_file = {file:?}\n");
    for (shown, spans) in
        [(&[("x-secret", SECRET)][..], 2), (&[("x-secret", "wrong")], 0), (&[], 0)]
    {
        let collector = FakeCollector::start().await;
        let mut stage = Stage::set(&format!("{}{identity}", collector.toml())).await;
        ask(&mut stage, shown).await;
        let arrived = stage.app.journal().pop().expect("a request");
        assert_eq!(arrived.header("x-secret"), None, "the app never sees it");
        assert_eq!(told(stage, &collector).await, spans, "{shown:?}");
    }
}

#[tokio::test]
async fn strangers_have_spans_where_the_settings_say_so() {
    let collector = FakeCollector::start().await;
    let toml = collector.toml();
    let mut stage = Stage::set(&format!("{toml}sampled_by = \"anyone\"\n{STRANGER}")).await;
    ask(&mut stage, &[]).await;
    assert_eq!(told(stage, &collector).await, 2);
}

#[tokio::test]
async fn traces_that_are_started_here_are_exported_for_strangers_too() {
    let collector = FakeCollector::start().await;
    let toml = format!("{}create = true\n{STRANGER}", collector.toml());
    let stage = Stage::set(&toml).await;
    stage.client().get("/api/me").send().await;
    assert_eq!(told(stage, &collector).await, 2);
}
