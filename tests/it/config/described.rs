//! The description of a configuration in force, which `check` prints.

use server::config::Config;

use super::fine;
use crate::support::{API_KEY, AUTH_TOKEN, environment};

const EVERYTHING: &str = r#"
[listen]
address = "127.0.0.1:1"
[delivery.header]
paths = ["/", "/api/*"]
[[delivery.route]]
path = "/a"
[[delivery.route]]
path = "/b"
shape = "string"
[identity]
email_header = "X-Email"
organization_header = "X-\u004frg"
[velt]
api = "v2"
organization = "say \"hello\""
[[velt.resource]]
type = "folder"
id = "f"
[[velt.resource]]
type = "document"
id = "d"
expires_in = "2h"
"#;

/// Lines of the shape `key = value # source`, with single spaces.
fn described(config: &Config) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    config.describe().lines().map(words).collect()
}

#[test]
fn value_in_force_is_described_with_its_source() {
    let config = fine(EVERYTHING, &[("VELT_SIDECAR_LOG__LEVEL", "warn")]);
    let lines = described(&config);
    for expected in [
        r#"address = "127.0.0.1:1" # line 3"#,
        "max_connections = 10000 # default",
        r#"paths = ["/", "/api/*"] # line 5"#,
        r#"path = "/a" # line 7"#,
        r#"path = "/b" # line 9"#,
        r#"shape = "string" # line 10"#,
        r#"organization_header = "X-Org" # line 13"#,
        r#"endpoint = "https://api.velt.dev/v2/auth/generate_token" # default"#,
        r#"api_key = "<redacted>" # environment variable VELT_API_KEY, keyed:b8f4d22d"#,
        r#"auth_token = "<redacted>" # environment variable VELT_AUTH_TOKEN, keyed:363f4f5a"#,
        r#"organization = "say \"hello\"" # line 16"#,
        r#"expires_in = "2h" # line 23"#,
        r#"level = "warn" # environment variable VELT_SIDECAR_LOG__LEVEL"#,
        "dangerously_trust_every_peer = false # default",
    ] {
        let count = lines.iter().filter(|line| *line == expected).count();
        assert!(count == 1, "{expected} is there {count} times in\n{}", lines.join("\n"));
    }
    for secret in [API_KEY, AUTH_TOKEN] {
        assert!(!config.describe().contains(secret));
    }
    let debug = format!("{config:?}");
    assert!(!debug.contains(API_KEY) && !debug.contains(AUTH_TOKEN), "{debug}");
}

#[test]
fn secret_of_the_file_is_described_without_its_value() {
    let mut environment = environment();
    environment.remove("VELT_API_KEY");
    let config = Config::parse("f", "[velt]\n\napi_key = \"hush-hush\"", &environment);
    let config = config.expect("valid");
    let line =
        format!("api_key = \"<redacted>\" # line 3, {}", by_openssl("hush-hush", AUTH_TOKEN));
    assert!(described(&config).contains(&line));
    assert!(!config.describe().contains("hush-hush"));
}

/// Returns the fingerprint of a secret as the command in `docs/configuration.md` makes it.
fn by_openssl(secret: &str, auth_token: &str) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    let tag = sign(&Key::new(HMAC_SHA256, hash(auth_token).as_ref()), hash(secret).as_ref());
    let digits = tag.as_ref()[..4].iter().map(|byte| format!("{byte:02x}"));
    format!("keyed:{}", digits.collect::<String>())
}

#[test]
fn t40_fingerprint_can_not_be_guessed_without_the_auth_token() {
    const PASSWORD: &str = "letmein";
    let seal_key =
        ("VELT_SIDECAR_SHARED__SEAL_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let shown = |auth_token: &str| {
        let config = fine(
            "[shared]\naddresses = [\"valkey:6379\"]",
            &[
                seal_key,
                ("VELT_SIDECAR_SHARED__PASSWORD", PASSWORD),
                ("VELT_AUTH_TOKEN", auth_token),
            ],
        );
        let setting = config.effective.iter().find(|setting| setting.path() == "shared.password");
        (setting.expect("a password").shown(), format!("{:?}", config.effective))
    };
    let ((one, debug), (other, _)) = (shown("one-auth-token"), shown("another-auth-token"));
    assert_eq!(one, by_openssl(PASSWORD, "one-auth-token"), "the same on each replica");
    assert_ne!(one, other);
    // printf %s letmein | sha256sum | cut -c1-8
    assert!(!one.contains("1c8bfe8f") && !debug.contains("1c8bfe8f"), "{one}");
}

#[test]
fn description_is_toml_and_means_the_same() {
    let config = fine(EVERYTHING, &[]);
    let is_secret = |line: &&str| line.contains("<redacted>");
    let described = config.describe();
    let toml: Vec<_> = described.lines().filter(|line| !is_secret(line)).collect();
    let again = fine(&toml.join("\n"), &[]);
    let values = |config: &Config| {
        let values = config.effective.iter();
        values
            .map(|value| {
                format!("{}.{} = {}", value.header.trim_matches(['[', ']']), value.key, value.value)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config));
    assert_eq!(again.plan.issuer().resources.len(), 2);
}

#[test]
fn description_of_odd_characters_is_toml() {
    let text = "[velt]\napi = \"v2\"\norganization = \"a\\u007f\\u0000\\u0085\\\"\\\\\"";
    let config = fine(text, &[]);
    let described = config.describe();
    let toml: Vec<_> = described.lines().filter(|line| !line.contains("<redacted>")).collect();
    assert_eq!(
        fine(&toml.join("\n"), &[]).plan.issuer().organization,
        config.plan.issuer().organization
    );
}
