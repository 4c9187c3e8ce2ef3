//! Messages about mistakes in `[identity]`, word for word.

use velt_sidecar::identity::Source;

use crate::config::{fine, parse, says, says_of};

/// An assertion's table in which nothing is missing.
const ASSERTION: &str = "[identity.assertion]\nheader = \"X-A\"\njwks_url = \"https://i.example/k\"\n\
    issuer = \"https://i.example\"\naudience = [\"app\"]\n";

const SECRET: (&str, &str) = ("VELT_SIDECAR_IDENTITY__SECRET", "0123456789abcdef0123456789abcdef");

fn with_secret(toml: &str) -> String {
    format!("[identity]\nsecret_header = \"X-S\"\n{toml}")
}

#[test]
fn t08_neither_shared_keys_nor_no_signature_can_be_configured() {
    for name in ["HS256", "HS384", "HS512", "none", "None", "rs256", "RSA1_5", ""] {
        let toml = format!(
            "{ASSERTION}algorithms = [\"ES256\", \"{name}\"]\n[identity]\nsource = \"assertion\""
        );
        says(
            &toml,
            &format!(
                "  sidecar.toml:6: identity.assertion.algorithms: {name:?} won't do\n    \
                 -> write one of \"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \
                 \"ES256\", \"ES384\" and \"EdDSA\"; none is symmetric, since whoever could check \
                 an assertion then could forge one"
            ),
        );
    }
    says(
        &format!("{ASSERTION}algorithms = []\n[identity]\nsource = \"assertion\""),
        "  sidecar.toml:6: identity.assertion.algorithms: no assertion could be valid\n    \
         -> write those that the issuer signs with, such as [\"RS256\"]",
    );
}

#[test]
fn what_an_assertion_needs_is_told_all_at_once() {
    says(
        "[identity]\nsource = \"assertion\"",
        "  identity.assertion.header is missing\n    \
         -> write header = the name of a header, such as \"X-Forwarded-User\"\n  \
         identity.assertion.audience: it is missing, so that whatever the issuer signs for anybody would be believed\n    \
         -> write audience = [\"...\"] in [identity.assertion]: what the assertion's aud claim names this app by\n  \
         identity.assertion.issuer is missing\n    \
         -> write issuer = a string that is not empty\n  \
         identity.assertion.jwks_url: it is missing, so that no signature could be checked\n    \
         -> write jwks_url = an https:// URL without user, query or fragment: the issuer's key set",
    );
}

#[test]
fn what_a_preset_cannot_know_is_asked_for_and_nothing_else() {
    let audience = "  identity.assertion.audience: it is missing, so that whatever the issuer signs for anybody would be believed\n    \
         -> write audience = [\"...\"] in [identity.assertion]: what the assertion's aud claim names this app by";
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
            "  identity.preset: behind istio every caller comes from an address of this pod's own \
             (127.0.0.6, 127.0.0.1), so an address says nothing of who it is\n    \
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
            complaint.place = velt_sidecar::config::Place::Missing;
        }
        says_of(Err(error), &expected);
    }
    for preset in ["oauth2-proxy", "authentik", "authelia", "azure-easy-auth"] {
        fine(&format!("[identity]\npreset = \"{preset}\""), &[]);
    }
}

#[test]
fn an_unknown_preset_is_answered_with_the_known_ones() {
    says(
        "[identity]\npreset = \"okta\"",
        "  sidecar.toml:2: identity.preset: \"okta\" won't do\n    \
         -> write \"oauth2-proxy\", \"oauth2-proxy-auth-request\", \"pomerium\", \"authentik\", \
         \"authelia\", \"cloudflare-access\", \"google-iap\", \"aws-alb\", \"azure-easy-auth\" or \"istio\"",
    );
    says(
        "[identity]\npreset = \"authelia\"\nsource = \"assertion\"",
        "  sidecar.toml:3: identity.source: the preset \"authelia\" is about another one\n    \
         -> remove it, or write source = \"header\", or remove the preset",
    );
}

#[test]
fn t53_behind_a_mesh_another_anchor_than_an_address_is_needed() {
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
    assert_eq!(source.header, "authorization");
    assert!(!config.identity.guarded.is_empty(), "plain headers name no user");
}

#[test]
fn names_of_hosts_are_names_and_have_an_effect() {
    for host in ["http://a.example", "a.example:80", "a b", "", "user@a.example"] {
        says(
            &format!("[identity]\ntrusted_hosts = [\"{host}\"]"),
            &format!(
                "  sidecar.toml:2: identity.trusted_hosts: {host:?} won't do\n    \
                 -> write the name of a host without a port, such as \"app.example\""
            ),
        );
    }
    says_of(
        parse(&with_secret("trusted_hosts = [\"app.example\"]"), &[SECRET]),
        "  sidecar.toml:3: identity.trusted_hosts: it has no effect while a secret or a certificate says whom to trust\n    \
         -> remove it: no page in a browser has either",
    );
}

#[test]
fn keys_of_the_other_source_have_no_effect() {
    says(
        &format!("{ASSERTION}[identity]\nsource = \"assertion\"\nuser_header = \"X-U\""),
        "  sidecar.toml:8: identity.user_header: it has no effect while identity.source is \"assertion\"\n    \
         -> remove it, or write user_claim in [identity.assertion]",
    );
    says(
        "[identity.assertion]\nissuer = \"https://i.example\"",
        "  sidecar.toml:2: identity.assertion.issuer: it has no effect while identity.source is \"header\"\n    \
         -> write source = \"assertion\" in [identity], or remove it",
    );
    says_of(
        parse("", &[("VELT_SIDECAR_IDENTITY__ASSERTION__LEEWAY", "1s")]),
        "  VELT_SIDECAR_IDENTITY__ASSERTION__LEEWAY: identity.assertion.leeway: it has no effect while identity.source is \"header\"\n    \
         -> write source = \"assertion\" in [identity], or remove it",
    );
}

#[test]
fn keys_that_cross_the_network_in_plain_text_are_refused() {
    let plain = ASSERTION.replace("https://i.example/k", "http://i.example/k");
    let source = "[identity]\nsource = \"assertion\"";
    says(
        &format!("{plain}{source}"),
        "  sidecar.toml:3: identity.assertion.jwks_url: keys that come over the network in plain text are anybody's keys\n    \
         -> write an https:// URL; for a stand-in of the issuer in a test cluster, allow_plaintext = true",
    );
    fine(&format!("{plain}allow_plaintext = true\n{source}"), &[]);
    for near in ["http://127.0.0.1:1/k", "http://[::1]:1/k", "http://localhost/k"] {
        fine(&format!("{}{source}", ASSERTION.replace("https://i.example/k", near)), &[]);
    }
    says(
        &format!("{ASSERTION}key_url = \"https://k.example/\"\n{source}"),
        "  sidecar.toml:6: identity.assertion.key_url: the keys can only be in one place\n    \
         -> keep jwks_url or key_url",
    );
}

#[test]
fn wrong_user_claim_leaves_the_other_claims_known() {
    says(
        &format!(
            "{ASSERTION}user_claim = \"\"\nemail_claim = \"email\"\n[identity]\nsource = \"assertion\""
        ),
        "  sidecar.toml:6: identity.assertion.user_claim: \"\" won't do\n    \
         -> write a claim, such as \"sub\" or \"custom.user.id\", or a JSON pointer where a name has \
         a dot or slash in it: \"/https:~1~1example.com~1roles\"",
    );
}

#[test]
fn odd_values_of_an_assertion_are_answered_with_better_ones() {
    let source = "[identity]\nsource = \"assertion\"";
    for claim in ["", ".", "a.", "https://example.com/roles", "/", "/a//b", "/a~2b", "a b"] {
        says(
            &format!("{ASSERTION}user_claim = \"{claim}\"\n{source}"),
            &format!(
                "  sidecar.toml:6: identity.assertion.user_claim: {claim:?} won't do\n    \
                 -> write a claim, such as \"sub\" or \"custom.user.id\", or a JSON pointer where a \
                 name has a dot or slash in it: \"/https:~1~1example.com~1roles\""
            ),
        );
    }
    says(
        &format!("{ASSERTION}leeway = \"6m\"\n{source}"),
        "  sidecar.toml:6: identity.assertion.leeway: assertions would be believed long after their end\n    \
         -> write at most \"5m\", and set the clocks",
    );
    for arn in [
        "my-app",
        "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/net/x/1",
        "arn:aws:elasticloadbalancing:evil.example/:1:loadbalancer/app/x/1",
        "arn:aws:s3:us-east-1:1:loadbalancer/app/x/1",
    ] {
        says(
            &format!("{ASSERTION}signer = \"{arn}\"\n{source}"),
            "  sidecar.toml:6: identity.assertion.signer: this is no load balancer's ARN\n    \
             -> write the ARN of your load balancer: signer = \"arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/my-app/50dc6c495c0c9188\"",
        );
    }
    for separator in ["", "||", "a", "é"] {
        says(
            &format!("[identity]\ngroups_separator = \"{separator}\""),
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
        &format!("{ASSERTION}email_claim = \"email\"\n[identity]\nsource = \"assertion\""),
        "  sidecar.toml:6: identity.assertion.email_claim: the chosen velt.api does not send it, so it has no effect\n    \
         -> remove it, or set velt.api to one that does (docs/configuration.md)",
    );
    says(
        &format!("{ASSERTION}[identity]\nsource = \"assertion\"\n[velt]\napi = \"v2\""),
        "  sidecar.toml:8: velt.organization: it is missing, and this API needs one\n    \
         -> write organization = \"your-organization-id\" in [velt], or name the claim that \
         carries it: organization_claim in [identity.assertion]",
    );
    says(
        &format!(
            "{ASSERTION}groups_claim = \"groups\"\n[identity]\nsource = \"assertion\"\n\
             [velt]\napi = \"v2\"\norganization = \"o\""
        ),
        "  sidecar.toml:6: identity.assertion.groups_claim: it has no effect alone\n    \
         -> set identity.admin_groups as well, or remove groups_claim",
    );
}

#[test]
fn t10_everybody_is_trusted_only_with_a_secret_or_the_dangerous_word() {
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
        parse(&with_secret("dangerously_trust_every_peer = true"), &[SECRET]),
        "  sidecar.toml:3: identity.dangerously_trust_every_peer: it has no effect while a secret or a certificate says whom to trust\n    \
         -> remove it",
    );
    says(
        &format!("{ASSERTION}[identity]\nsource = \"assertion\"\ntrusted_peers = [\"0.0.0.0/0\"]"),
        "  sidecar.toml:8: identity.trusted_peers: any client that reaches this port could say from where and for whom it asks (X-Forwarded-*)\n    \
         -> name the login proxy's addresses, such as [\"10.42.0.0/16\"]; if a network policy really lets nobody else in, write dangerously_trust_every_peer = true",
    );
    fine(&format!("{ASSERTION}[identity]\nsource = \"assertion\"\ntrusted_peers = []"), &[]);
}

#[test]
fn a_secret_is_long_has_a_header_and_stands_in_no_file_of_settings() {
    says_of(
        parse(&with_secret(""), &[(SECRET.0, "0123456789abcdef0123456789abcde")]),
        "  VELT_SIDECAR_IDENTITY__SECRET: identity.secret: it has fewer than 32 bytes, so it could be guessed\n    \
         -> make one with: openssl rand -hex 32",
    );
    says(
        &with_secret(""),
        "  sidecar.toml:2: identity.secret_header: the secret that it should hold is missing\n    \
         -> set the environment variable VELT_SIDECAR_IDENTITY__SECRET, or secret_file = \"/path/to/file\" in [identity]",
    );
    says_of(
        parse("", &[SECRET]),
        "  VELT_SIDECAR_IDENTITY__SECRET: identity.secret: it has no effect without the header that holds it\n    \
         -> write secret_header = \"X-Sidecar-Secret\" in [identity], or remove it",
    );
    says_of(
        parse(&with_secret(""), &[SECRET, ("VELT_SIDECAR_IDENTITY__NEXT_SECRET", "short")]),
        "  VELT_SIDECAR_IDENTITY__NEXT_SECRET: identity.next_secret: it has fewer than 32 bytes, so it could be guessed\n    \
         -> make one with: openssl rand -hex 32",
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
fn what_a_preset_brings_is_shown_and_the_description_means_the_same() {
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
fn what_an_app_that_names_the_user_needs_and_what_it_does_not_is_told() {
    says(
        "[identity]\nsource = \"app\"",
        "  sidecar.toml:1: identity.app_path is missing\n    \
         -> write app_path = a path of the app's, such as \"/api/me\"",
    );
    says(
        "[identity]\nsource = \"app\"\napp_path = \"me\"\nforward_headers = \"strip\"\n\
         [delivery.header]\non_failure = \"refuse\"\nmax_wait = \"5s\"",
        "  sidecar.toml:2: identity.source: with delivery.header.on_failure = \"refuse\" a token would be needed before the app has said for whom\n    \
         -> write on_failure = \"omit\"\n  \
         sidecar.toml:3: identity.app_path: \"me\" won't do\n    \
         -> write a path of the app's, such as \"/api/me\"\n  \
         sidecar.toml:4: identity.forward_headers: it is about requests, and identity.source = \"app\" about responses\n    \
         -> remove it",
    );
    says(
        "[identity]\napp_path = \"/me\"",
        "  sidecar.toml:2: identity.app_path: it has no effect unless identity.source is \"app\"\n    \
         -> write source = \"app\" beside it, or remove it",
    );
    let config = fine("[identity]\nsource = \"app\"\napp_path = \"/me?x=1\"", &[]);
    let Source::App(app) = config.identity.source else { panic!("another source") };
    assert_eq!((app.path.as_str(), app.headers.user.as_str()), ("/me?x=1", "x-velt-user"));
}
