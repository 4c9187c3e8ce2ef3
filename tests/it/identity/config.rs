//! Messages about mistakes in `[identity]`, word for word.

use identity::Source;

use crate::config::{fine, parse, says, says_of, tells};

/// An assertion's table in which nothing is missing.
const ASSERTION: &str = "[identity.assertion]\nheader = \"X-A\"\njwks_url = \"https://i.example/k\"\n\
    issuer = \"https://i.example\"\naudience = [\"app\"]\n";

const SECRET: (&str, &str) = ("VELT_SIDECAR_IDENTITY__SECRET", "0123456789abcdef0123456789abcdef");

fn with_secret(toml: &str) -> String {
    format!("[identity]\nsecret_header = \"X-S\"\n{toml}")
}

#[test]
fn t08_no_missing_signature_is_configurable() {
    for name in ["HS384", "HS512", "none", "None", "rs256", "RSA1_5", ""] {
        let toml = format!(
            "{ASSERTION}algorithms = [\"ES256\", \"{name}\"]\n[identity]\nsource = \"assertion\""
        );
        tells(
            parse(&toml, &[]),
            &format!(
                "  sidecar.toml:6: identity.assertion.algorithms: {name:?} won't do\n    \
                 -> write one of \"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \
                 \"ES256\", \"ES384\" and \"EdDSA\", or \"HS256\" with identity.assertion.secret"
            ),
        );
    }
    says(
        "shared_key_without_its_secret",
        &[format!("{ASSERTION}algorithms = [\"HS256\"]\n[identity]\nsource = \"assertion\"")],
    );
    says(
        "assertion_without_algorithms",
        &[format!("{ASSERTION}algorithms = []\n[identity]\nsource = \"assertion\"")],
    );
}

#[test]
fn missing_assertion_settings_are_told_all_at_once() {
    says(
        "incomplete_assertion",
        // The table of the assertion is missing.
        &["[identity]\nsource = \"assertion\""],
    );
}

#[test]
fn preset_asks_only_for_settings_that_it_cannot_know() {
    let audience = "  identity.assertion.audience: it is missing, so that every token of the issuer, for any app, would be believed\n    \
         -> write audience = [\"...\"] in [identity.assertion]: the name of this app in the assertion's aud claim; for an issuer without aud, authorized_parties or required_claims = [\"client_id=...\"]";
    let issuer =
        "  identity.assertion.issuer is missing\n    -> write issuer = a string that is not empty";
    let signer = "  identity.assertion.signer: it is missing, and without it any load balancer of any AWS account could sign\n    \
         -> write the ARN of your load balancer: signer = \"arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/my-app/50dc6c495c0c9188\"";
    for (preset, expected) in [
        ("pomerium", audience.to_owned()),
        ("google-iap", audience.to_owned()),
        ("cloudflare-access", format!("{audience}\n{issuer}")),
        ("aws-alb", format!("{issuer}\n{signer}")),
        (
            "istio",
            "  identity.preset: behind istio every caller connects from an address of this pod \
             (127.0.0.6, 127.0.0.1), so an address does not identify the login proxy\n    \
             -> let the login proxy show a secret (secret_header); or believe its signature: \
             source = \"assertion\"; or, if the traffic port is excluded from the mesh, let it \
             show a certificate (trusted_names) or write its addresses as trusted_peers\n  \
             identity.user_header is missing\n    \
             -> write user_header = the name of a header, such as \"X-Forwarded-User\""
                .to_owned(),
        ),
    ] {
        let toml = format!("[identity]\npreset = \"{preset}\"");
        // The complaints are compared in the order of their texts and without their places.
        let parsed = parse(&toml, &[]);
        let Err(mut error) = parsed else { panic!("{preset} is complete") };
        error.complaints.sort_by(|one, other| one.problem.cmp(&other.problem));
        for complaint in &mut error.complaints {
            complaint.place = server::config::Place::Missing;
        }
        tells(Err(error), &expected);
    }
    for preset in ["oauth2-proxy", "authentik", "authelia", "azure-easy-auth"] {
        fine(&format!("[identity]\npreset = \"{preset}\""), &[]);
    }
}

#[test]
fn an_unknown_preset_is_answered_with_the_known_ones() {
    says(
        "unknown_preset",
        &[
            "[identity]\npreset = \"octa\"",
            "[identity]\npreset = \"authelia\"\nsource = \"assertion\"",
        ],
    );
}

#[test]
fn t53_mesh_preset_needs_another_anchor_than_an_address() {
    let istio = "[identity]\npreset = \"istio\"\nuser_header = \"X-Jwt-Sub\"\n";
    assert!(parse(istio, &[]).is_err(), "every caller has a default address");
    let secret = format!("{istio}secret_header = \"X-S\"\n");
    fine(&secret, &[SECRET]);
    let names = "trusted_names = [\"spiffe://cluster.local/ns/auth/sa/proxy\"]\n[listen.tls]\n\
        certificate_file = \"/tls.crt\"\nkey_file = \"/tls.key\"\nclient_ca_file = \"/ca.crt\"\n";
    fine(&format!("{istio}{names}"), &[]);
    fine(&format!("{istio}trusted_peers = [\"10.42.3.0/24\"]\n"), &[]);
    let assertion = ASSERTION.replace("header = \"X-A\"\n", "");
    let signed = format!("[identity]\npreset = \"istio\"\nsource = \"assertion\"\n{assertion}");
    let config = parse(&signed, &[]).unwrap_or_else(|error| panic!("{error}"));
    let Source::Assertion(source) = &config.identity.source else { panic!("an assertion") };
    assert_eq!(source.places.to_string(), "authorization");
    assert!(!config.identity.guarded.is_empty(), "plain headers name no user");
}

#[test]
fn trusted_hosts_are_host_names_that_have_an_effect() {
    for host in ["http://a.example", "a.example:80", "a b", "", "user@a.example"] {
        tells(
            parse(&format!("[identity]\ntrusted_hosts = [\"{host}\"]"), &[]),
            &format!(
                "  sidecar.toml:2: identity.trusted_hosts: {host:?} won't do\n    \
                 -> write the name of a host without a port, such as \"app.example\""
            ),
        );
    }
    says_of(
        "trusted_hosts_without_effect",
        &[(with_secret("trusted_hosts = [\"app.example\"]"), &[SECRET])],
    );
}

#[test]
fn settings_of_the_other_source_have_no_effect() {
    says(
        "keys_of_the_other_source",
        &[
            &*format!("{ASSERTION}[identity]\nsource = \"assertion\"\nuser_header = \"X-U\""),
            "[identity.assertion]\nissuer = \"https://i.example\"",
        ],
    );
    says_of(
        "variable_of_the_other_source",
        &[("", &[("VELT_SIDECAR_IDENTITY__ASSERTION__LEEWAY", "1s")])],
    );
}

#[test]
fn keys_that_cross_the_network_in_plain_text_are_refused() {
    let plain = ASSERTION.replace("https://i.example/k", "http://i.example/k");
    let source = "[identity]\nsource = \"assertion\"";
    says("plain_text_keys", &[format!("{plain}{source}")]);
    fine(&format!("{plain}allow_plaintext = true\n{source}"), &[]);
    for near in ["http://127.0.0.1:1/k", "http://[::1]:1/k", "http://localhost/k"] {
        fine(&format!("{}{source}", ASSERTION.replace("https://i.example/k", near)), &[]);
    }
    let two_places = format!("{ASSERTION}key_url = \"https://k.example/\"\n{source}");
    says("keys_in_two_places", &[two_places]);
}

#[test]
fn wrong_user_claim_leaves_the_other_claims_known() {
    let claims = "user_claim = \"\"\nemail_claim = \"email\"\n[identity]\nsource = \"assertion\"";
    says("wrong_user_claim", &[format!("{ASSERTION}{claims}")]);
}

#[test]
fn odd_values_of_an_assertion_are_answered_with_better_ones() {
    let source = "[identity]\nsource = \"assertion\"";
    for claim in ["", ".", "a.", "https://example.com/roles", "/", "/a//b", "/a~2b", "a b"] {
        tells(
            parse(&format!("{ASSERTION}user_claim = \"{claim}\"\n{source}"), &[]),
            &format!(
                "  sidecar.toml:6: identity.assertion.user_claim: {claim:?} won't do\n    \
                 -> write a claim, such as \"sub\" or \"custom.user.id\", or a JSON pointer where a \
                 name has a dot or slash in it: \"/https:~1~1example.com~1roles\""
            ),
        );
    }
    says("long_leeway", &[format!("{ASSERTION}leeway = \"6m\"\n{source}")]);
    let arns = [
        "my-app",
        "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/net/x/1",
        "arn:aws:elasticloadbalancing:evil.example/:1:loadbalancer/app/x/1",
        "arn:aws:s3:us-east-1:1:loadbalancer/app/x/1",
    ];
    says("wrong_signer", &arns.map(|arn| format!("{ASSERTION}signer = \"{arn}\"\n{source}")));
    for separator in ["", "||", "a", "é"] {
        tells(
            parse(&format!("[identity]\ngroups_separator = \"{separator}\""), &[]),
            &format!(
                "  sidecar.toml:2: identity.groups_separator: {separator:?} won't do\n    \
                 -> write one character, such as \",\" or \"|\""
            ),
        );
    }
}

#[test]
fn authorization_may_hold_an_assertion_and_no_plain_identity() {
    let source = "[identity]\nsource = \"assertion\"";
    fine(&format!("{}{source}", ASSERTION.replace("X-A", "Authorization")), &[]);
    for name in ["Cookie", "Host", "Connection"] {
        let toml = format!("{}{source}", ASSERTION.replace("X-A", name));
        let error = parse(&toml, &[]).expect_err("refused").to_string();
        assert!(error.contains("has a meaning of its own in HTTP"), "{error}");
    }
}

#[test]
fn a_claim_that_the_api_does_not_send_has_no_effect() {
    says(
        "claims_not_sent_by_the_api",
        &[
            "email_claim = \"email\"\n[identity]\nsource = \"assertion\"",
            "[identity]\nsource = \"assertion\"\n[velt]\napi = \"v2\"",
            "groups_claim = \"groups\"\n[identity]\nsource = \"assertion\"\n\
             [velt]\napi = \"v2\"\norganization = \"o\"",
        ]
        .map(|rest| format!("{ASSERTION}{rest}")),
    );
}

#[test]
fn t10_all_peers_need_a_secret_or_the_dangerous_setting() {
    for mapped in ["::ffff:0:0/96", "::ffff:128.0.0.0/97"] {
        let error = parse(&format!("[identity]\ntrusted_peers = [\"{mapped}\"]"), &[]);
        let error = error.expect_err("that is all of IPv4").to_string();
        assert!(error.contains("any client that reaches this port could name any user"), "{error}");
    }
    let config = fine(&with_secret(""), &[SECRET]);
    let peers: Vec<_> = config.identity.trusted_peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["0.0.0.0/0", "::/0"], "the secret alone decides");
    let described = config.describe();
    let line = described.lines().find(|line| line.contains("trusted_peers")).expect("it is shown");
    assert!(line.starts_with("# trusted_peers = left out "), "{line}");
    assert!(line.ends_with("# the secret decides"), "{line}");
    fine(&with_secret(line), &[SECRET]);
    fine(&with_secret("trusted_peers = [\"0.0.0.0/0\"]"), &[SECRET]);
    says_of(
        "dangerous_name_beside_a_secret",
        &[(with_secret("dangerously_trust_every_peer = true"), &[SECRET])],
    );
    let everyone = "[identity]\nsource = \"assertion\"\ntrusted_peers = [\"0.0.0.0/0\"]";
    says("assertion_from_every_address", &[format!("{ASSERTION}{everyone}")]);
    fine(&format!("{ASSERTION}[identity]\nsource = \"assertion\"\ntrusted_peers = []"), &[]);
}

#[test]
fn shared_secret_is_long_has_a_header_and_is_no_plain_setting() {
    says_of(
        "secrets_that_do_not_protect",
        &[
            (with_secret(""), &[(SECRET.0, "0123456789abcdef0123456789abcde")][..]),
            (with_secret(""), &[]),
            (String::new(), &[SECRET]),
            (with_secret(""), &[SECRET, ("VELT_SIDECAR_IDENTITY__NEXT_SECRET", "short")]),
        ],
    );
    let error = parse(&with_secret(&format!("secret = \"{}\"", SECRET.1)), &[]);
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("identity.secret is a secret and must not stand here"), "{error}");
    assert!(!error.contains(SECRET.1), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{}\n", SECRET.1)).expect("written");
    let config = fine(&with_secret(&format!("secret_file = \"{}\"", path.display())), &[]);
    assert_eq!(config.identity.secret.as_ref().expect("one").accepted.len(), 1);
    let shown = format!("{}{config:?}", config.describe());
    assert!(shown.contains("secret = \"<redacted>\"") && !shown.contains(SECRET.1));
}

#[test]
fn description_shows_preset_values_and_means_the_same() {
    let toml =
        "[identity]\npreset = \"google-iap\"\n[identity.assertion]\naudience = [\"/projects/1\"]";
    let config = fine(toml, &[]);
    let described = config.describe();
    for line in [
        "# issuer = \"https://cloud.google.com/iap\"",
        "# guarded_headers = [\"X-Goog-Authenticated-User-Email\", \"X-Goog-Authenticated-User-Id\"]",
        "# algorithms = [\"ES256\"]",
        "leeway = \"30s\"",
    ] {
        assert!(described.lines().any(|shown| shown.starts_with(line)), "{line} in\n{described}");
    }
    let toml: Vec<_> = described.lines().filter(|line| !line.contains("<redacted>")).collect();
    let again = fine(&toml.join("\n"), &[]);
    assert_eq!(format!("{:?}", again.identity), format!("{:?}", config.identity));
    assert!(matches!(again.identity.source, Source::Assertion(_)));
}

#[test]
fn app_source_tells_missing_and_useless_settings() {
    says(
        "app_that_names_the_user",
        &[
            "[identity]\nsource = \"app\"",
            "[identity]\nsource = \"app\"\napp_path = \"me\"\nforward_headers = \"strip\"\n\
             [delivery.header]\non_failure = \"refuse\"\nmax_wait = \"5s\"",
            "[identity]\napp_path = \"/me\"",
        ],
    );
    let config = fine("[identity]\nsource = \"app\"\napp_path = \"/me?x=1\"", &[]);
    let Source::App(app) = config.identity.source else { panic!("another source") };
    assert_eq!((app.path.as_str(), app.headers.user.as_str()), ("/me?x=1", "x-velt-user"));
}
