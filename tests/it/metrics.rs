//! The exported contract: what is documented is exported, and nothing of a request gets in.

use std::collections::BTreeSet;

use http::Method;
use velt_sidecar::metrics::{Label, Outcome};

use crate::support::Stage;

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

#[tokio::test]
async fn t46_no_request_can_add_a_series() {
    let stage = Stage::set("").await;
    let series = |scrape: String| {
        let lines = scrape.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        lines.map(|line| line.split(' ').next().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let before = series(stage.sidecar.scrape().await);
    for n in 0..200 {
        let method = Method::from_bytes(format!("METHOD{n}").as_bytes()).expect("a method");
        let sending = stage.client().request(method, &format!("/path/{n}?{n}"));
        sending.header("x-forwarded-user", format!("user-{n}")).send().await;
    }
    assert_eq!(series(stage.sidecar.scrape().await), before);
}

#[test]
fn every_way_to_end_has_a_word_of_its_own() {
    let words: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    assert_eq!(words.len(), Outcome::ALL.len());
    for (position, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(outcome.index(), position);
    }
}

#[tokio::test]
async fn the_sidecars_own_share_leaves_out_the_apps_time() {
    let app = crate::support::app::FakeApp::serving(|_| async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        crate::support::app::plain("slow")
    })
    .await;
    let stage = Stage::with(app, "").await;
    stage.client().get("/").send().await;
    assert!(stage.metric("request_duration_seconds_sum").await >= 0.3);
    assert!(stage.metric("added_seconds_sum").await < 0.15);
}
