//! Findings about the sidecar's own files, certificates, ports, trust and limits.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use tools::doctor::{Check, Severity, Tolerated};

use super::{Patient, only};
use crate::support::certificates::{Authority, EXPIRED, Leaf, VALID};
use crate::support::{Stage, config};

const DAY: Duration = Duration::from_secs(24 * 3600);

const POD: &str = "KUBERNETES_SERVICE_HOST";

#[tokio::test]
async fn trust_ports_and_shutdown_are_judged_by_consequences() {
    use Check::{Ports, Shutdown, Trust};
    use Severity::{Note, Ok, Problem, Warning};
    for (toml, in_a_pod, check, severity, part) in [
        ("[identity]\ntrusted_peers = [\"10.0.0.0/8\"]", false, Trust, Warning, "10.0.0.0/8 is a"),
        ("[identity]\ntrusted_peers = [\"fc00::/7\"]", false, Trust, Warning, "fc00::/7 is a"),
        (
            "[identity]\ntrusted_peers = [\"0.0.0.0/0\"]\ndangerously_trust_every_peer = true",
            false,
            Trust,
            Warning,
            "0.0.0.0/0 is a",
        ),
        (
            "[identity]\ntrusted_peers = [\"10.42.0.0/16\"]",
            true,
            Trust,
            Ok,
            "10.42.0.0/16 believed",
        ),
        ("[admin]\naddress = \"0.0.0.0:0\"", true, Trust, Note, "only this pod is believed"),
        ("[identity]\ntrusted_peers = [\"127.0.0.0/30\"]", false, Trust, Warning, "service meshes"),
        (
            "[identity]\ntrusted_peers = [\"127.0.0.6\"]\ndangerously_trust_every_peer = true",
            true,
            Trust,
            Warning,
            "127.0.0.6",
        ),
        (
            "[identity]\npreset = \"istio\"\nuser_header = \"x-sub\"\ntrusted_peers = [\"10.42.3.0/24\"]",
            false,
            Trust,
            Warning,
            "a service mesh, Istio",
        ),
        (
            "[identity]\ntrusted_proxies = [\"10.42.0.0/16\"]",
            false,
            Trust,
            Ok,
            "10.42.0.0/16 believed in X-Forwarded-*",
        ),
        (
            "[identity]\ntrusted_proxies = []",
            false,
            Trust,
            Note,
            "no peer is believed in X-Forwarded",
        ),
        ("[identity]\nsecret_header = \"x-secret\"", true, Trust, Ok, "a secret"),
        ("[listen]\naddress = \"0.0.0.0:0\"", false, Trust, Note, "open to every address"),
        (
            "[admin]\naddress = \"0.0.0.0:0\"",
            false,
            Ports,
            Note,
            "any client that reaches this port",
        ),
        ("", true, Ports, Note, "the kubelet's probes"),
        ("[listen]\naddress = \"192.0.2.1:0\"", false, Ports, Problem, "can't be listened on"),
        (
            "[shutdown]\ngrace = \"20s\"\ndeadline = \"21s\"",
            false,
            Shutdown,
            Note,
            "takes up to 41s to end",
        ),
    ] {
        let mut patient = Patient::new().await;
        if in_a_pod {
            patient.set(POD, "10.0.0.1");
        }
        if toml.contains("secret_header") {
            patient.set("VELT_SIDECAR_IDENTITY__SECRET", &"canary-".repeat(8));
        }
        only(&patient.examine(toml).await, check, severity, part);
    }
}

#[tokio::test]
async fn t53_a_mesh_in_the_pod_is_found_by_its_proxys_port() {
    for (port, found) in [("3A9E", true), ("102F", true), ("1F90", false)] {
        for file in ["tcp", "tcp6"] {
            let address =
                if file == "tcp" { "00000000" } else { "00000000000000000000000000000000" };
            let table = format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n   \
                 0: {address}:{port} {address}:0000 0A 00000000:00000000 00:00000000 00000000\n   \
                 1: {address}:3A9E {address}:1234 01 00000000:00000000 00:00000000 00000000\n"
            );
            let patient = Patient::new().await;
            std::fs::create_dir_all(patient.folder.path("root/proc/net")).expect("a folder");
            patient.folder.write(&format!("root/proc/net/{file}"), table);
            let report = patient.examine("").await;
            if found {
                let part = "hands every caller on from an address of this pod";
                only(&report, Check::Trust, Severity::Warning, part);
            }
            assert_eq!(report.text().contains("service mesh"), found, "{port} in {file}");
        }
    }
}

#[tokio::test]
async fn own_address_in_a_trusted_range_is_told_outside_of_pods() {
    let tree = "Local:\n  +-- 0.0.0.0/0 3 0 5\n           |-- 10.1.2.0\n              /24 link UNICAST\n           \
                |-- 10.1.2.3\n              /32 host LOCAL\n           |-- 127.0.0.1\n              \
                /32 host LOCAL\n           |-- 10.1.2.255\n              /32 link BROADCAST\n";
    let list = "fd000000000000000000000000000002 02 40 00 80     eth0\n\
                00000000000000000000000000000001 01 80 10 80       lo\n";
    for (peers, in_a_pod, told) in [
        ("\"10.1.2.0/24\"", false, &["10.1.2.0/24 holds 10.1.2.3, "][..]),
        ("\"10.1.2.128/25\"", false, &[]),
        ("\"10.1.2.0/24\", \"10.1.2.3\"", false, &[]),
        ("\"10.1.2.0/24\"", true, &[]),
        (
            "\"fd00::/64\", \"10.0.0.0/13\"",
            false,
            &["10.0.0.0/13 holds", "fd00::/64 holds fd00::2"],
        ),
        ("\"127.0.0.1\", \"::1\"", false, &[]),
    ] {
        let mut patient = Patient::new().await;
        if in_a_pod {
            patient.set(POD, "10.96.0.1");
        }
        std::fs::create_dir_all(patient.folder.path("root/proc/net")).expect("a folder");
        patient.folder.write("root/proc/net/fib_trie", tree);
        patient.folder.write("root/proc/net/if_inet6", list);
        let report = patient.examine(&format!("[identity]\ntrusted_peers = [{peers}]")).await;
        let notes = report.findings().iter().filter(|it| it.what.contains("of this machine: "));
        let notes: Vec<_> = notes.map(|note| (note.severity, &*note.what)).collect();
        assert_eq!(notes.len(), told.len(), "{peers}: {notes:?}");
        for ((severity, what), part) in notes.into_iter().zip(told) {
            assert!(severity == Severity::Note && what.starts_with(part), "{peers}: {what}");
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_problem_unless_a_sidecar_runs_there() {
    let patient = Patient::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let toml = format!("[listen]\naddress = \"{}\"", taken.local_addr().expect("an address"));
    only(&patient.examine(&toml).await, Check::Ports, Severity::Problem, "in use, and not by");

    let stage = Stage::set("").await;
    let at = stage.sidecar.addresses;
    let toml =
        format!("[listen]\naddress = \"{}\"\n[admin]\naddress = \"{}\"", at.traffic, at.admin);
    let report = patient.examine(&toml).await;
    let notes = report.findings().iter().filter(|finding| finding.severity == Severity::Note);
    let notes: Vec<&str> = notes.map(|finding| &*finding.what).collect();
    assert_eq!(notes, ["in use, by a velt-sidecar that answers at admin.address"; 2]);
    assert_eq!(report.exit_code(true), 0);
}

#[tokio::test]
async fn system_limits_are_compared_with_the_settings() {
    use Severity::{Ok, Warning};
    let group = "root/sys/fs/cgroup/pod/container";
    for (files, toml, severity, part) in [
        (&[][..], "", Ok, "memory is not limited"),
        (&[][..], "", Ok, "CPU time is not limited"),
        (&[("memory.max", "max"), ("cpu.max", "max 100000")], "", Ok, "memory is not limited"),
        (&[("memory.max", "268435456")], "", Ok, "less than half of the 256MiB"),
        (
            &[("memory.max", "268435456")],
            "[cache]\nmax_bytes = \"200MiB\"",
            Warning,
            "more than half of the 256MiB",
        ),
        // The narrowest of all groups counts.
        (&[("../memory.max", "1048576"), ("memory.max", "max")], "", Warning, "half of the 1MiB"),
        (&[("cpu.max", "50000 100000")], "", Ok, "may use 0.5 CPUs"),
        (
            &[("cpu.max", "150000 100000")],
            "[runtime]\nworkers = \"3\"",
            Warning,
            "more threads than the 1.5 CPUs",
        ),
        (&[("cpu.max", "150000 100000")], "[runtime]\nworkers = \"2\"", Ok, "may use 1.5 CPUs"),
        (&[], "[listen]\nmax_connections = 1099511627776", Warning, "open files, which serve"),
    ] {
        let patient = Patient::new().await;
        patient.folder.write("root/proc/self/cgroup", "0::/pod/container\n");
        for (name, content) in files {
            patient.folder.write(&format!("{group}/{name}"), format!("{content}\n"));
        }
        only(&patient.examine(toml).await, Check::Limits, severity, part);
    }
}

/// Writes a secret into a file, and returns the settings that name the file.
fn secret_file(patient: &mut Patient, content: &str, mode: u32) -> String {
    patient.environment.remove("VELT_AUTH_TOKEN");
    let path = patient.folder.write("auth-token", content);
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own");
    format!("[velt]\nauth_token_file = {path:?}")
}

#[tokio::test]
async fn secret_files_are_judged_by_mode_and_content() {
    use Severity::{Ok, Warning};
    for (content, mode, severity, part) in [
        ("canary-token\n", 0o400, Ok, "only by users that need it"),
        ("canary-token\n", 0o440, Ok, "only by users that need it"),
        ("canary-token\n", 0o644, Warning, "its mode is 0644: any process here may read it"),
        ("canary-token\n", 0o602, Warning, "its mode is 0602: any process here may replace it"),
        ("canary-token \n", 0o400, Warning, "white space"),
        (" canary-token", 0o400, Warning, "white space"),
    ] {
        let mut patient = Patient::new().await;
        let toml = secret_file(&mut patient, content, mode);
        let finding = only(&patient.examine(&toml).await, Check::Files, severity, part);
        assert!(finding.r#where.starts_with("velt.auth_token_file /"), "{finding:?}");
    }
}

#[tokio::test]
async fn missing_secret_file_is_a_configuration_error() {
    let mut patient = Patient::new().await;
    patient.environment.remove("VELT_AUTH_TOKEN");
    let report = patient.examine("[velt]\nauth_token_file = \"/nowhere/auth-token\"").await;
    assert_eq!((report.findings().len(), report.exit_code(false)), (1, 78), "{}", report.text());
    assert!(report.findings()[0].what.contains("/nowhere/auth-token"), "{}", report.text());
}

#[tokio::test]
async fn a_mounted_secret_is_told_from_a_file_that_never_changes() {
    // The files are laid out as the kubelet does for a mounted Secret.
    let mut patient = Patient::new().await;
    patient.environment.remove("VELT_AUTH_TOKEN");
    patient.set(POD, "10.0.0.1");
    let in_pod = "[admin]\naddress = \"0.0.0.0:0\"\n[velt]\n";
    fs::create_dir(patient.folder.path("..2026")).expect("a folder");
    let written = patient.folder.write("..2026/auth-token", "canary-token");
    symlink("..2026", patient.folder.path("..data")).expect("a link");
    symlink("..data/auth-token", patient.folder.path("mounted")).expect("a link");
    let toml = format!("{in_pod}auth_token_file = {:?}", patient.folder.path("mounted"));
    fs::set_permissions(&written, Permissions::from_mode(0o644)).expect("our own");
    only(&patient.examine(&toml).await, Check::Files, Severity::Note, "may read it");
    fs::set_permissions(&written, Permissions::from_mode(0o440)).expect("our own");
    only(&patient.examine(&toml).await, Check::Files, Severity::Ok, "readable");

    let path = patient.folder.write("a file", "canary-token");
    fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("our own");
    let toml = format!("{in_pod}auth_token_file = {path:?}");
    only(&patient.examine(&toml).await, Check::Files, Severity::Note, "no ..data beside it");
    // Line in the format of proc(5).
    let mounts = format!("29 1 0:26 / {} ro - tmpfs tmpfs ro\n", path.replace(' ', "\\040"));
    patient.folder.write("root/proc/self/mountinfo", mounts);
    only(&patient.examine(&toml).await, Check::Files, Severity::Note, "mounted alone (subPath)");
}

/// Writes a certificate chain, and a key that only the file's owner may read.
fn install(patient: &Patient, chain: &str, key: &str) -> String {
    patient.folder.write("tls.crt", chain);
    let key = patient.folder.write("tls.key", key);
    fs::set_permissions(key, Permissions::from_mode(0o400)).expect("our own");
    patient.folder.toml()
}

#[tokio::test]
async fn a_certificates_chain_is_followed_as_a_client_would() {
    use Severity::{Note, Ok, Problem, Warning};
    let root = Authority::new();
    let intermediate = root.intermediate();
    let leaf = intermediate.issue(&["app.example", "*.app.example"], VALID);
    let (own, middle, top) = (&leaf.certificate, &intermediate.pem(), &root.pem());
    let alone = Leaf::self_signed(&["app.example"], VALID);
    let nameless = Leaf::self_signed(&[], VALID);
    for (chain, key, severity, part) in [
        (format!("{own}{middle}{top}"), &leaf.key, Ok, "leads to the root at its end"),
        (format!("{own}{middle}"), &leaf.key, Note, "ends at \"CN=root"),
        (own.clone(), &leaf.key, Note, "ends at \"CN=intermediate"),
        (format!("{own}{top}{middle}"), &leaf.key, Warning, "the 3 certificates in it are not in"),
        (
            format!("{own}{middle}{top}{}", alone.certificate),
            &leaf.key,
            Warning,
            "of the 4 certificates in it, one signs none",
        ),
        (alone.certificate.clone(), &alone.key, Note, "it has signed itself"),
        (nameless.certificate.clone(), &nameless.key, Problem, "has no names"),
        (own.clone(), &alone.key, Problem, "is not that of the certificate"),
        ("nothing".to_owned(), &leaf.key, Problem, "no whole certificate"),
    ] {
        let patient = Patient::new().await;
        let toml = install(&patient, &chain, key);
        only(&patient.examine(&toml).await, Check::Certificate, severity, part);
    }
}

#[tokio::test]
async fn certificates_are_told_to_be_renewed_in_time() {
    use Severity::{Ok, Problem, Warning};
    let root = Authority::new();
    for (leaf, severity, part) in [
        (root.issue_for(&["a.example"], DAY * 60 + DAY / 2), Ok, "valid for 60 days more"),
        (root.issue_for(&["a.example"], DAY * 29 + DAY / 2), Warning, "expires in 29 days"),
        (root.issue_for(&["a.example"], DAY * 6 + DAY / 2), Problem, "expires in 6 days"),
        (root.issue_for(&["a.example"], DAY / 2), Problem, "expires in less than a day"),
        (root.issue(&["a.example"], EXPIRED), Problem, "has expired"),
        (root.issue(&["a.example"], (2090, 2100)), Problem, "not valid before"),
    ] {
        let patient = Patient::new().await;
        let toml = install(&patient, &leaf.certificate, &leaf.key);
        only(&patient.examine(&toml).await, Check::Certificate, severity, part);
    }
    let (leaf, other) = (root.issue(&["a.example"], EXPIRED), root.issue(&["b.example"], VALID));
    for (key, severity, part) in [
        (&leaf.key, Warning, "has expired"),
        (&other.key, Problem, "is not that of the certificate"),
    ] {
        let mut patient = Patient::new().await;
        patient.tolerated = Tolerated::Everything;
        let toml = install(&patient, &leaf.certificate, key);
        let finding = only(&patient.examine(&toml).await, Check::Certificate, severity, part);
        assert_eq!(finding.prevents_start, severity == Problem);
    }
    let leaf = root.issue(&["a.example"], VALID);
    for (authority, severity, part) in [
        (Authority::new(), Ok, "more, until Fri, 01 Jan 2100"),
        (Authority::valid_to(2022), Warning, "one of them has expired"),
    ] {
        let patient = Patient::new().await;
        let toml = install(&patient, &leaf.certificate, &leaf.key);
        let clients = patient.folder.write("clients.crt", authority.pem());
        let report = patient.examine(&format!("{toml}client_ca_file = {clients:?}")).await;
        let about = |finding: &&tools::doctor::Finding| {
            finding.r#where.starts_with("listen.tls.client_ca_file /")
                && finding.check == Check::Certificate
        };
        let finding = report.findings().iter().find(about).expect("a finding");
        assert_eq!(finding.severity, severity, "{}", report.text());
        assert!(finding.what.contains(part), "{}", report.text());
    }
}

#[tokio::test]
async fn missing_certificate_is_named_by_file_and_setting() {
    let patient = Patient::new().await;
    let report = patient.examine(&patient.folder.toml()).await;
    assert_eq!(report.exit_code(false), 69);
    for name in ["listen.tls.certificate_file", "listen.tls.key_file"] {
        let named = |finding: &&tools::doctor::Finding| {
            finding.r#where.starts_with(name) && finding.what.contains("can't be read")
        };
        assert!(report.findings().iter().any(|finding| named(&finding)), "{}", report.text());
    }
    // `doctor` has examined the rest too.
    assert_eq!(patient.velt.call_count(), 1);
    assert!(config("").is_ok());
}
