//! Settings on which safety rests: the trusted peers, and the way of the auth token.

use super::{fine, parse, says};

#[test]
fn empty_trusted_peers_are_refused() {
    says("empty_trusted_peers", &["[identity]\ntrusted_peers = []"]);
}

#[test]
fn t10_trust_in_every_address_needs_its_dangerous_name() {
    // Half of all addresses is refused like all addresses: two halves would be all of them.
    let tomls = ["0.0.0.0/0", "::/0", "128.0.0.0/1", "10.0.0.0/7", "8000::/1", "fc00::/6"]
        .map(|range| format!("[identity]\ntrusted_peers = [\"10.0.0.0/8\", \"{range}\"]"));
    says("trust_in_every_address", &tomls);
    for toml in tomls {
        fine(&format!("{toml}\ndangerously_trust_every_peer = true"), &[]);
    }
    says("dangerous_name_without_effect", &["[identity]\ndangerously_trust_every_peer = true"]);
}

#[test]
fn t53_addresses_of_a_mesh_need_the_dangerous_name() {
    let ranges = ["127.0.0.6", "127.0.0.0/8", "::6", "::/96"];
    let tomls = ranges.map(|range| format!("[identity]\ntrusted_peers = [\"::1\", \"{range}\"]"));
    says("addresses_of_a_mesh", &tomls);
    let secret = "0123456789abcdef0123456789abcdef";
    let secret = [("VELT_SIDECAR_IDENTITY__SECRET", secret)];
    for toml in tomls {
        // A policy of the mesh lets only the login proxy in.
        fine(&format!("{toml}\ndangerously_trust_every_peer = true"), &[]);
        // The secret decides.
        fine(&format!("{toml}\nsecret_header = \"X-Sidecar-Secret\""), &secret);
    }
    fine("[identity]\ntrusted_peers = [\"127.0.0.1\", \"127.0.0.0/30\", \"::1\"]", &[]);
}

#[test]
fn endpoint_of_another_api_is_refused() {
    let (legacy, v1, v2) = (
        "https://generateveltauthtoken.api.velt.dev/",
        "https://api.velt.dev/v1/auth/token/get",
        "https://api.velt.dev/v2/auth/generate_token",
    );
    let toml = |(api, endpoint): (&str, &str)| {
        let organization = if api == "legacy" { "" } else { "organization = \"acme\"\n" };
        format!("[velt]\napi = \"{api}\"\n{organization}endpoint = \"{endpoint}\"")
    };
    let wrong = [("v2", legacy), ("v2", v1), ("v1", v2), ("legacy", v2)].map(toml);
    says("endpoint_of_another_api", &wrong);
    // A stand-in has the path of one API, or any other.
    let stand_in = "http://127.0.0.1:4191/v1/auth/token/get";
    assert!(parse(&toml(("v2", stand_in)), &[]).is_err());
    for right in [("legacy", legacy), ("v1", v1), ("v2", v2), ("v1", stand_in)] {
        fine(&toml(right), &[]);
    }
    fine(&toml(("v2", "https://velt.example/our/way")), &[]);
}

#[test]
fn private_network_is_accepted_as_trusted() {
    fine("[identity]\ntrusted_peers = [\"10.0.0.0/8\", \"fc00::/7\", \"172.16.0.0/12\"]", &[]);
}

#[test]
fn plain_text_endpoint_beyond_loopback_is_refused() {
    let tomls = ["http://velt.test/", "http://10.0.0.7:4191/", "http://[fd00::1]/"]
        .map(|far| format!("[velt]\nendpoint = \"{far}\""));
    says("plain_text_endpoint", &tomls);
    for toml in tomls {
        fine(&format!("{toml}\nallow_plaintext = true"), &[]);
    }
    for near in ["http://127.0.0.1:4191/", "http://[::1]:4191/", "http://localhost:4191/"] {
        fine(&format!("[velt]\nendpoint = \"{near}\""), &[]);
    }
    for lookalike in ["http://127.0.0.1.evil.test/", "http://localhost.evil.test/"] {
        assert!(parse(&format!("[velt]\nendpoint = \"{lookalike}\""), &[]).is_err());
    }
    says("plain_text_without_effect", &["[velt]\nallow_plaintext = true"]);
}
