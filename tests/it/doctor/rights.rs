//! Settings that may give users other rights than the operator means.

use tools::doctor::{Check, Finding, Severity};

use super::Patient;
use crate::support::binary::{CREDENTIALS, finished_in};
use crate::support::certificates::Folder;
use crate::support::issuer::{Issuer, Pen};

const V2: &str = "[velt]\napi = \"v2\"\norganization = \"o\"\n";

async fn findings(patient: &Patient, toml: &str) -> Vec<Finding> {
    let report = patient.examine(toml).await;
    let findings = report.findings().iter();
    findings.filter(|finding| finding.check == Check::Rights).cloned().collect()
}

fn only(findings: &[Finding]) -> (Severity, &str, &str) {
    let [finding] = findings else { panic!("not one: {findings:?}") };
    (finding.severity, &finding.r#where, &finding.what)
}

#[tokio::test]
async fn doctor_warns_of_an_organization_as_viewer_alone() {
    let patient = Patient::new().await;
    let viewer = "[[velt.resource]]\ntype = \"organization\"\nid = \"o\"\nrole = \"viewer\"\n";
    let found = findings(&patient, &format!("{V2}{viewer}")).await;
    let (severity, place, what) = only(&found);
    assert_eq!((severity, place), (Severity::Warning, "velt.resource"));
    assert!(what.contains("Invalid user token"), "{what}");
    let folder = "[[velt.resource]]\ntype = \"folder\"\nid = \"f\"";
    let other = viewer.replace("id = \"o\"", "id = \"p\"");
    for fine in [V2.to_owned(), format!("{V2}{viewer}{folder}"), format!("{V2}{other}")] {
        assert_eq!(findings(&patient, &fine).await, [], "{fine}");
    }
}

#[tokio::test]
async fn t67_doctor_warns_of_an_organization_that_no_front_sets() {
    let patient = Patient::new().await;
    let with = |line: &str| format!("[identity]\n{line}\n{V2}");
    let plain = with("organization_header = \"X-Org\"");
    let found = findings(&patient, &plain).await;
    let (severity, place, what) = only(&found);
    assert_eq!((severity, place), (Severity::Note, "identity.organization_header"));
    assert!(what.contains("x-org"), "{what}");
    for (line, reason) in [
        ("preset = \"oauth2-proxy\"\ngrants_header = \"X-G\"", "preset \"oauth2-proxy\""),
        (
            "dangerously_trust_every_peer = true\ntrusted_peers = [\"0.0.0.0/0\"]\n\
             organization_header = \"X-Org\"",
            "any client",
        ),
    ] {
        let found = findings(&patient, &with(line)).await;
        let (severity, _, what) = only(&found);
        assert!(severity == Severity::Warning && what.contains(reason), "{what}");
    }
    assert_eq!(findings(&patient, &with("email_header = \"X-E\"")).await, []);
}

#[tokio::test]
async fn t67_doctor_warns_of_claims_that_users_write() {
    let patient = Patient::new().await;
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    for (claim, warned) in [
        ("user_metadata.org", true),
        ("unsafe_metadata.org", true),
        ("app_metadata.org", false),
        ("org_id", false),
    ] {
        let toml = format!("{}organization_claim = \"{claim}\"\n{V2}", issuer.toml());
        let found = findings(&patient, &toml).await;
        assert_eq!(found.len(), usize::from(warned), "{claim}: {found:?}");
        assert!(found.iter().all(|it| it.severity == Severity::Warning), "{found:?}");
    }
}

#[tokio::test]
async fn check_tells_what_doctor_warns_of() {
    let folder = Folder::new();
    let viewer = "[[velt.resource]]\ntype = \"organization\"\nid = \"o\"\nrole = \"viewer\"\n";
    folder.write("sidecar.toml", format!("{V2}{viewer}"));
    let check = finished_in(folder.path("").as_ref(), &["check"], &CREDENTIALS).await;
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert!(check.stderr.starts_with("warning: velt.resource: "), "{}", check.stderr);
    assert!(check.stdout.contains("role = \"viewer\""), "{}", check.stdout);
}
