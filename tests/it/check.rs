//! The command `check` in a pipeline: complaints as JSON, and a machine without the secrets.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::binary::{CREDENTIALS, Finished, finished_in};
use crate::support::{API_KEY, AUTH_TOKEN};

/// Exit code of sysexits.h.
const CONFIG: i32 = 78;

async fn check(file: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    if !file.is_empty() {
        fs::write(folder.path().join("sidecar.toml"), file).expect("written");
    }
    finished_in(folder.path(), &[&["check"], arguments].concat(), environment).await
}

/// Runs `check --format json`, and returns the exit code and the object.
async fn as_json(file: &str, flags: &[&str], environment: &[(&str, &str)]) -> (i32, Value) {
    let arguments = [&["--format", "json"], flags].concat();
    let finished = check(file, &arguments, environment).await;
    assert_eq!(finished.stderr, "", "all of it is in the object");
    for secret in [API_KEY, AUTH_TOKEN] {
        assert!(!finished.stdout.contains(secret));
    }
    let report = serde_json::from_str(&finished.stdout).expect("one JSON object");
    (finished.code.expect("an exit code"), report)
}

#[tokio::test]
async fn mistakes_are_told_as_json_with_their_places() {
    let file = "[listen]\nadress = \"x\"\n[app]\nresponse_timeout = 60\naddress = \"a\"\n\
                [velt]\nauth_token = \"x\"\norganization = \"acme\"\n[audit_log]\nkey_file = \"/nowhere\"\n";
    let environment = [CREDENTIALS[0], CREDENTIALS[1], ("VELT_SIDECAR_LOG__LEVL", "info")];
    let (code, report) = as_json(file, &[], &environment).await;
    assert_eq!((code, &report["ok"]), (CONFIG, &json!(false)));
    let problems = report["problems"].as_array().expect("a list");
    let told: Vec<_> = problems
        .iter()
        .map(|it| json!([it["code"], it["key"], it["file"], it["line"], it["variable"]]))
        .collect();
    let toml = "sidecar.toml";
    assert_eq!(
        json!(told),
        json!([
            ["unknown_key", "listen.adress", toml, 2, null],
            ["wrong_type", "app.response_timeout", toml, 4, null],
            ["invalid_value", "app.address", toml, 5, null],
            ["secret_in_plain_sight", "velt.auth_token", toml, 7, null],
            ["no_effect", "velt.organization", toml, 8, null],
            ["unusable_secret", "audit_log.key", toml, 10, null],
            ["unknown_variable", null, null, null, "VELT_SIDECAR_LOG__LEVL"],
        ])
    );
    assert_eq!(problems[0]["message"], "there is no setting listen.adress");
    assert_eq!(problems[0]["remedy"], "did you mean address?");
    for problem in problems {
        for words in ["message", "remedy"] {
            assert!(problem[words].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
    }
}

#[tokio::test]
async fn mistakes_of_no_line_are_told_as_json_too() {
    let (code, report) = as_json("", &[], &[]).await;
    let missing = &report["problems"][0];
    assert_eq!(
        (code, &missing["code"], &missing["line"]),
        (CONFIG, &json!("missing"), &json!(null))
    );
    let (code, report) = as_json("a = [", &[], &CREDENTIALS).await;
    assert_eq!((code, &report["problems"][0]["code"]), (CONFIG, &json!("not_toml")));
    let (code, report) = as_json("\n", &[], &CREDENTIALS).await;
    assert_eq!((code, &report["problems"][0]["code"]), (CONFIG, &json!("empty_file")));
    let named = ["--config", "nowhere.toml"];
    let (code, report) = as_json("", &named, &CREDENTIALS).await;
    let problem = &report["problems"][0];
    assert_eq!((code, &problem["code"]), (CONFIG, &json!("unreadable_file")));
    assert_eq!(problem["file"], "nowhere.toml");
    let tls = "[listen.tls]\ncertificate_file = \"/nowhere.crt\"\nkey_file = \"/nowhere.key\"\n";
    let (code, report) = as_json(tls, &[], &CREDENTIALS).await;
    assert_eq!((code, &report["problems"][0]["code"]), (CONFIG, &json!("unusable_part")));
}

#[tokio::test]
async fn good_configuration_is_told_as_json_and_in_words() {
    let file = "[app]\naddress = \"127.0.0.1:5000\"\n";
    let (code, report) = as_json(file, &[], &CREDENTIALS).await;
    let expected = json!({
        "ok": true, "file": "sidecar.toml", "problems": [], "cautions": [], "not_checked": [],
    });
    assert_eq!((code, report), (0, expected));
    let finished = check(file, &[], &CREDENTIALS).await;
    assert_eq!(finished.stderr, "velt-sidecar: all is well with sidecar.toml\n");
    let (code, report) = as_json("", &[], &CREDENTIALS).await;
    assert_eq!((code, &report["ok"], &report["file"]), (0, &json!(true), &json!(null)));
    let finished = check("", &[], &CREDENTIALS).await;
    let told = "velt-sidecar: all is well with the environment (there is no sidecar.toml)\n";
    assert_eq!(finished.stderr, told);
    let cautioned = "[identity]\norganization_header = \"X-Org\"\n[velt]\napi = \"v2\"\n";
    let (code, report) = as_json(cautioned, &[], &CREDENTIALS).await;
    assert_eq!((code, &report["ok"]), (0, &json!(true)));
    assert_eq!(report["cautions"][0]["key"], "identity.organization_header");
    let finished = check(cautioned, &[], &CREDENTIALS).await;
    assert!(finished.stderr.ends_with("no mistake in sidecar.toml; see the lines above\n"));
}

/// Files with settings that need secrets, and the secrets that are not there.
const NEEDING_SECRETS: [(&str, &[&str]); 8] = [
    ("[velt]\nauth_token_file = \"/run/nowhere/auth-token\"\n", &[]),
    ("[admin]\ntoken_file = \"/run/nowhere/token\"\n", &["admin.token"]),
    (
        "[identity]\nsecret_header = \"X-Secret\"\n[audit_log]\nkey_file = \"/run/nowhere/key\"\n",
        &["audit_log.key", "identity.secret"],
    ),
    ("[identity]\npreset = \"authjs\"\n", &["identity.assertion.secret"]),
    (
        "[identity]\nsource = \"assertion\"\n[identity.assertion]\nheader = \"X-A\"\nissuer = \"i\"\n\
         audience = [\"a\"]\nalgorithms = [\"HS256\"]\n",
        &["identity.assertion.secret"],
    ),
    ("[logout.webhook]\npath = \"/out\"\n", &["logout.webhook.secret"]),
    (
        "[shared]\naddresses = [\"store:6379\"]\nuser = \"u\"\nseal_key_file = \"/run/nowhere/seal\"\n",
        &["shared.password", "shared.seal_key"],
    ),
    (
        "[listen.tls]\ncertificate_file = \"/run/nowhere/crt\"\nkey_file = \"/run/nowhere/key\"\n\
         [resolver]\nkey_file = \"/run/nowhere/pem\"\nissuer = \"i\"\n[outgoing]\nca_file = \"/run/nowhere/ca\"\n",
        &[
            "listen.tls.certificate_file",
            "listen.tls.key_file",
            "outgoing.ca_file",
            "resolver.key_file",
        ],
    ),
];

#[tokio::test]
async fn secrets_that_are_not_there_are_named_and_no_error() {
    for (file, absent) in NEEDING_SECRETS {
        // A pipeline without a secret sets the variable to nothing.
        for environment in [&[][..], &[("VELT_API_KEY", ""), ("VELT_SIDECAR_SHARED__PASSWORD", "")]]
        {
            let environment: Vec<_> = environment
                .iter()
                .filter(|(name, _)| file.contains("[shared]") || !name.contains("SHARED"))
                .copied()
                .collect();
            let (code, report) = as_json(file, &["--without-secrets"], &environment).await;
            assert_eq!((code, &report["ok"]), (0, &json!(true)), "{file}{report:#}");
            let unchecked = report["not_checked"].as_array().expect("a list");
            let mut keys: Vec<_> = unchecked.iter().filter_map(|it| it["key"].as_str()).collect();
            keys.sort_unstable();
            let mut expected = [&["velt.api_key", "velt.auth_token"], absent].concat();
            expected.sort_unstable();
            assert_eq!(keys, expected, "{file}");
            let (code, _) = as_json(file, &[], &environment).await;
            assert_eq!(code, CONFIG, "without the flag: {file}");
        }
    }
}

#[tokio::test]
async fn all_else_is_checked_without_secrets() {
    for (file, _) in NEEDING_SECRETS {
        let wrong = format!("{file}[log]\nlevel = \"loud\"\n");
        let (code, report) = as_json(&wrong, &["--without-secrets"], &[]).await;
        assert_eq!((code, &report["problems"][0]["key"]), (CONFIG, &json!("log.level")), "{wrong}");
        assert_eq!(report["problems"].as_array().map(Vec::len), Some(1), "{report:#}");
    }
    // A secret that is there is checked as ever, and so is a file.
    let short = [("VELT_SIDECAR_ADMIN_TOKEN", "short")];
    let (code, report) = as_json("", &["--without-secrets"], &short).await;
    assert_eq!((code, &report["problems"][0]["key"]), (CONFIG, &json!("admin.token")));
    let (code, report) =
        as_json("[outgoing]\nca_file = \"sidecar.toml\"\n", &["--without-secrets"], &[]).await;
    assert_eq!((code, &report["problems"][0]["code"]), (CONFIG, &json!("unusable_part")));
}

#[tokio::test]
async fn absent_secrets_are_told_in_words() {
    let finished = check("[log]\nlevel = \"info\"\n", &["--without-secrets"], &[]).await;
    assert_eq!(
        (finished.code, &*finished.stderr),
        (
            Some(0),
            "not checked: velt.api_key: VELT_API_KEY is not here\n\
             not checked: velt.auth_token: VELT_AUTH_TOKEN is not here\n\
             velt-sidecar: no mistake in sidecar.toml; not checked: 2, see the lines above\n"
        )
    );
    assert!(!finished.stdout.contains("stand-in"), "{}", finished.stdout);
}

#[tokio::test]
async fn schema_is_printed_as_it_is_kept() {
    let finished = finished_in(Path::new("."), &["schema"], &[]).await;
    let kept = fs::read_to_string("sidecar.schema.json").expect("the file");
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    assert!(finished.stdout == kept, "write it anew: cargo run -- schema > sidecar.schema.json");
}
