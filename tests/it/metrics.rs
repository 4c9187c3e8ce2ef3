//! Exported metrics: what docs/metrics.md documents is exported, and nothing of a request gets in.

use std::collections::BTreeSet;

use ground::metrics::{Label, Outcome};
use http::Method;

use crate::support::Stage;
use crate::support::raw::Wire;
use crate::support::velt::{answer, minted, refused, token};

/// Name, type and labels with their values, as a row of docs/metrics.md has them.
type Row = (String, String, String, String);

fn documented() -> BTreeSet<Row> {
    let text = std::fs::read_to_string("docs/metrics.md").expect("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        let plain = |text: &str| text.replace('`', "");
        (plain(cells[0]), plain(cells[1]), plain(cells[2]), plain(cells[3]))
    })
    .collect()
}

fn exported(scrape: &str) -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    for line in scrape.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').expect("a help text");
        let prefix = format!("# TYPE {name} ");
        let kind = scrape.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a type");
        let mut label = "–".to_owned();
        let mut values = Vec::new();
        for series in scrape.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{"))) {
            let (key, value) = series.split_once("=\"").expect("a label");
            key.clone_into(&mut label);
            values.push(value.split('"').next().expect("a value").to_owned());
        }
        if !values.is_empty() {
            label = format!("{label}: {}", values.join(", "));
        }
        rows.insert((name.to_owned(), kind.to_owned(), label, help.to_owned()));
    }
    rows
}

fn without_version(rows: BTreeSet<Row>) -> BTreeSet<Row> {
    rows.into_iter()
        .map(|mut row| {
            if row.0.ends_with("build_info") {
                "version".clone_into(&mut row.2);
            }
            // The order of values means nothing.
            if let Some((label, values)) = row.2.split_once(": ") {
                let values: BTreeSet<_> = values.split(", ").collect();
                row.2 = format!("{label}: {values:?}");
            }
            row
        })
        .collect()
}

#[tokio::test]
async fn docs_metrics_md_lists_exactly_what_is_exported() {
    let stage = Stage::set("").await;
    let exported = without_version(exported(&stage.sidecar.scrape().await));
    let documented = without_version(documented());
    let missing: Vec<_> = exported.difference(&documented).collect();
    let wrong: Vec<_> = documented.difference(&exported).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:#?}\nwrong: {wrong:#?}");
}

/// The series of a scrape, without their values.
fn series(scrape: &str) -> BTreeSet<String> {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').next().expect("a name").to_owned()).collect()
}

/// Returns the number of requests to send; the variable is for a run that takes its time.
fn many() -> usize {
    let asked = std::env::var("VELT_SIDECAR_TEST_REQUESTS").ok();
    asked.map_or(3000, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn t46_no_request_can_add_a_series() {
    let stage = Stage::set("").await;
    stage.velt.script(|call, n| match n % 3 {
        0 => minted(&token(call.user(), n)),
        1 => refused(400, &format!("STATUS-{n}")),
        _ => answer(400 + u16::try_from(n % 150).expect("small"), &format!("error {n}")),
    });
    let before = series(&stage.sidecar.scrape().await);
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    for n in 0..many() {
        let path =
            if n % 7 == 0 { "/api/velt/token".into() } else { format!("/p{n}/%{:02x}", n % 256) };
        let user = if n % 50 == 0 { format!("x-forwarded-user: u{n}\r\n") } else { String::new() };
        // HEAD is none of these methods, because its answer has no body to read.
        wire.send(format!(
            "METHOD{n} {path}?{n} HTTP/1.1\r\nhost: host-{n}.example\r\nx-name-{n}: {n}\r\n\
             user-agent: agent-{n}\r\nsec-fetch-site: site-{n}\r\n{user}\r\n"
        ))
        .await;
        let head = wire.head().await.to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        wire.read_exactly(length.expect("a length").parse().expect("a number")).await;
    }
    assert_eq!(series(&stage.sidecar.scrape().await), before);
}

#[tokio::test]
async fn t47_an_unknown_method_has_no_label_to_be_counted_by() {
    let stage = Stage::set("").await;
    for method in ["BREW", "x!", "GETGETGET"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        assert_eq!(stage.client().request(method.clone(), "/").send().await.status(), 200);
        let route = stage.client().request(method, "/api/velt/token").send().await;
        assert_eq!(route.status(), 405);
    }
    let scrape = stage.sidecar.scrape().await;
    assert_eq!(stage.metric("requests_total{outcome=\"forwarded\"}").await, 3.0);
    assert_eq!(stage.metric("requests_total{outcome=\"method_not_allowed\"}").await, 3.0);
    for label in ["method", "path", "user", "host", "status"] {
        let labelled = series(&scrape).iter().any(|series| series.contains(&format!("{label}=")));
        assert!(!labelled, "there is a label {label}");
    }
}

#[test]
fn each_outcome_has_its_own_label() {
    let words: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    assert_eq!(words.len(), Outcome::ALL.len());
    for (position, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(outcome.index(), position);
    }
}

#[tokio::test]
async fn sidecar_time_metric_leaves_out_the_apps_time() {
    let app = crate::support::app::FakeApp::serving(|_| async {
        // The app's time is the subject: one sum has it, the other sum does not.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        crate::support::app::plain("slow")
    })
    .await;
    let stage = Stage::with(app, "").await;
    stage.client().get("/").send().await;
    assert!(stage.metric("request_duration_seconds_sum").await >= 0.3);
    assert!(stage.metric("added_seconds_sum").await < 0.15);
}
