//! Checks of gateways, and a sidecar without an app: settings that go together and settings without effect.

use super::{fine, parse, says};

const NONE: &str = "[app]\naddress = \"none\"\n";

#[test]
fn settings_that_need_an_app_are_refused_without_one() {
    says(
        "without_app",
        &[
            format!(
                "{NONE}protocol = \"h2c\"\nresponse_timeout = \"5s\"\nmax_idle = 1\nca_file = \"/ca\""
            ),
            format!(
                "{NONE}[delivery.header]\nenabled = false\npaths = [\"/api/*\"]\nmax_wait = \"5s\"\n\
                 on_failure = \"refuse\""
            ),
            format!(
                "{NONE}[delivery.app_header]\npaths = [\"/\"]\nname = \"X-T\"\n\
                 [delivery.document]\npaths = [\"/\"]"
            ),
            format!("{NONE}[identity]\nsource = \"app\"\napp_path = \"/me\""),
            format!(
                "{NONE}[identity]\ndetails_path = \"/d\"\nrequire_on = [\"/x\"]\n\
                 forward_headers = \"strip\"\ntrusted_proxies = [\"10.0.0.0/8\"]"
            ),
            format!(
                "{NONE}[logout]\nend_websockets = true\n[logout.oidc]\npath = \"/o\"\nissuer = \"i\"\n\
                 audience = [\"a\"]\njwks_url = \"https://id.example/keys\""
            ),
            format!("{NONE}[delivery]\nroute = []"),
        ],
    );
}

#[test]
fn check_has_its_path_to_itself() {
    let check = "[delivery.check]\npath = \"/velt\"\n";
    says(
        "check_path",
        &[
            format!("{check}[[delivery.route]]\npath = \"/velt\""),
            format!("{check}[[delivery.route]]\npath = \"/velt/token\""),
            format!(
                "{check}[logout.oidc]\npath = \"/velt/o\"\nissuer = \"i\"\naudience = [\"a\"]\n\
                 jwks_url = \"https://id.example/keys\""
            ),
            "[delivery.check]\nrequire_user = true".to_owned(),
            "[delivery.check]\npath = \"/velt/\"".to_owned(),
            "[delivery.check]\npath = \"/velt\"\nmax_wait = \"never\"".to_owned(),
        ],
    );
}

#[test]
fn sample_file_without_an_app_is_no_mistake() {
    let sample = std::fs::read_to_string("sidecar.toml").expect("the sample");
    let text = sample.replace("address = \"127.0.0.1:3000\"", "address = \"none\"");
    assert_ne!(text, sample);
    let config = fine(&text, &[]);
    assert!(config.app.is_none());
    assert!(!config.delivery.header.enabled, "no response of an app's goes out");
    let by_variable = fine("", &[("VELT_SIDECAR_APP__ADDRESS", "none")]);
    assert!(by_variable.app.is_none());
}

#[test]
fn check_alone_is_a_delivery() {
    let check = "[delivery]\nroute = []\n[delivery.check]\npath = \"/velt/check\"\n";
    for toml in [format!("{NONE}{check}"), format!("{check}[delivery.header]\nenabled = false\n")] {
        assert!(parse(&toml, &[]).is_ok(), "{toml}");
    }
}
