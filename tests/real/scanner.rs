//! TLS as a scanner sees it: sslyze, by Mozilla's guidelines.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::json;

use crate::certificates::{Authority, Folder};
use crate::neighbour::tool;
use crate::record::record;
use crate::sidecar_process::SidecarProcess;

/// Check of Mozilla's guidelines that browsers trust the certificate. The test's certificate is its own.
const OWN_AUTHORITY: &str = "certificate_path_validation";

/// Returns years that are valid for no longer than Mozilla's guidelines allow, from a moment that has passed.
fn current_years() -> (i32, i32) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let year = 1970 + now.expect("after 1970").as_secs() / 31_556_952;
    let year = i32::try_from(year).expect("a year");
    (year, year + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_has_nothing_to_complain_of_in_the_defaults() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], current_years()));
    let app = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let (certificate, key) = (folder.path("tls.crt"), folder.path("tls.key"));
    let environment = [
        ("VELT_SIDECAR_LISTEN__TLS__CERTIFICATE_FILE", certificate.as_str()),
        ("VELT_SIDECAR_LISTEN__TLS__KEY_FILE", key.as_str()),
    ];
    let sidecar = SidecarProcess::start(app, &environment).await;
    let target = format!("localhost:{}", sidecar.traffic.port());
    let scan = |guidelines: &str| {
        let mut scanner = Command::new(tool("sslyze"));
        let finished = scanner.args(["--mozilla_config", guidelines, &target]).output();
        let finished = finished.expect("sslyze runs");
        let report = String::from_utf8_lossy(&finished.stdout).into_owned();
        let (_, verdict) = report.split_once("COMPLIANCE AGAINST").expect("a verdict");
        let complaints = verdict.lines().filter_map(|line| line.trim().strip_prefix("* "));
        let complaints = complaints.filter_map(|line| line.split(':').next().map(str::to_owned));
        (complaints.collect::<Vec<_>>(), report)
    };
    let (complaints, report) = scan("intermediate");
    let figures = json!({ "complaints": complaints, "vulnerable": report.contains("VULNERABLE") });
    record("tls", "sslyze --mozilla_config intermediate", &figures);
    assert_eq!(complaints, [OWN_AUTHORITY], "{report}");
    // The scanner's other checks find nothing, and the scan reached the sidecar at all.
    assert!(!report.contains("VULNERABLE"), "{report}");
    assert!(report.contains("TLS_AES_256_GCM_SHA384"), "{report}");
    // Proves that the scanner does complain: the modern guidelines require TLS 1.3 alone.
    let (complaints, report) = scan("modern");
    assert!(complaints.iter().any(|complaint| complaint == "tls_versions"), "{report}");
}
