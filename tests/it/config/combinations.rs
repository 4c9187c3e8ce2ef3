//! Settings that are valid alone and wrong together, or have no effect together.

use super::{fine, says};

#[test]
fn app_at_the_sidecars_own_address_is_refused() {
    let toml = |(listen, app): (&str, &str)| {
        format!("[app]\naddress = \"{app}\"\n[listen]\naddress = \"{listen}\"")
    };
    let same = [
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "localhost:8080"),
        ("127.0.0.1:8080", "localhost:8080"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("10.0.0.5:8080", "10.0.0.5:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[::]:8080", "127.0.0.1:8080"),
    ];
    says("app_is_the_sidecar", &same.map(toml));
    for other in [
        ("0.0.0.0:8080", "127.0.0.1:8081"),
        ("0.0.0.0:8080", "app.test:8080"),
        ("10.0.0.5:8080", "127.0.0.1:8080"),
        ("10.0.0.5:8080", "localhost:8080"),
        ("0.0.0.0:8080", "unix:/run/8080"),
    ] {
        fine(&toml(other), &[]);
    }
}

#[test]
fn refusal_without_a_wait_is_refused() {
    let toml = "[delivery.header]\non_failure = \"refuse\"";
    says("refusal_without_a_wait", &[toml]);
    fine(&format!("{toml}\nmax_wait = \"1s\""), &[]);
}

#[test]
fn setting_that_the_api_does_not_send_is_refused() {
    says(
        "not_sent_by_the_api",
        &[
            "[identity]\nemail_header = \"X-E\"\nname_header = \"X-N\"\n\
             organization_header = \"X-O\"\ngroups_header = \"X-G\"\nadmin_groups = [\"a\"]",
            "[identity]\nname_header = \"X-N\"\n[velt]\napi = \"v1\"\norganization = \"org\"",
            "[velt]\norganization = \"org\"",
            "[velt]\napi = \"v1\"\norganization = \"o\"\n\
             [[velt.resource]]\ntype = \"folder\"\nid = \"f\"",
        ],
    );
}

#[test]
fn groups_and_admin_groups_need_each_other() {
    says(
        "groups_alone",
        &[
            "[identity]\ngroups_header = \"X-G\"\n[velt]\napi = \"v2\"\norganization = \"o\"",
            "[identity]\nadmin_groups = [\"admins\"]",
        ],
    );
}

#[test]
fn api_that_needs_an_organization_asks_for_one() {
    let tomls = ["v1", "v2"].map(|api| format!("\n[velt]\napi = \"{api}\""));
    says("missing_organization", &tomls);
    for toml in tomls {
        fine(&format!("{toml}\norganization = \"o\""), &[]);
        fine(&format!("{toml}\n[identity]\norganization_header = \"X-O\""), &[]);
        fine(&format!("{toml}\n[identity]\ndetails_path = \"/details\""), &[]);
    }
}

#[test]
fn bounds_of_details_need_the_path() {
    let bounds = "details_timeout = \"3s\"\ndetails_max_age = \"1m\"";
    says("details_without_a_path", &[format!("[identity]\n{bounds}")]);
    says(
        "invalid_details",
        &["[identity]\ndetails_path = \"details\"\ndetails_timeout = \"0s\"\n\
           details_max_age = \"2d\""],
    );
    let config = fine(&format!("[identity]\ndetails_path = \"/d?v=1\"\n{bounds}"), &[]);
    let details = config.identity.details.expect("details");
    assert_eq!((details.path.as_str(), details.timeout.as_secs()), ("/d?v=1", 3));
    assert_eq!(details.max_age.as_secs(), 60);
    let default = fine("[identity]\ndetails_path = \"/d\"", &[]).identity.details;
    let default = default.expect("details");
    assert_eq!((default.timeout.as_secs(), default.max_age.as_secs()), (2, 300));
}

#[test]
fn header_of_the_question_belongs_to_the_sidecar_alone() {
    let details = "[identity]\ndetails_path = \"/d\"";
    let owned = |toml: &str| {
        let settings = fine(toml, &[]).identity;
        settings.token_headers.iter().any(|name| name == "x-velt-user")
    };
    assert!(!owned("") && owned(details));
    assert!(owned(&format!("{details}\nguarded_headers = [\"X-Velt-User\"]")));
    // The front or the app names the user in this header, so that it is guarded as theirs.
    assert!(!owned(&format!("{details}\nuser_header = \"X-Velt-User\"")));
    assert!(!owned(&format!("{details}\nsource = \"app\"\napp_path = \"/me\"")));
}

#[test]
fn incomplete_and_idle_settings_of_logouts_are_refused() {
    let url = "jwks_url = \"https://id.example/keys\"";
    says(
        "logouts",
        &[
            format!(
                "[logout.oidc]\nissuer = \"https://id.example\"\n{url}\nuser_claim = \"email\""
            ),
            "[logout.oidc]\npath = \"/velt/logout\"".to_owned(),
            format!(
                "[logout.oidc]\npath = \"/api/velt/token\"\nissuer = \"i\"\naudience = []\n{url}\n\
                 algorithms = [\"HS256\"]"
            ),
            "[logout.oidc]\npath = \"/l\"\nissuer = \"i\"\naudience = [\"a\"]\n\
             jwks_url = \"http://id.example/keys\""
                .to_owned(),
            "[logout.webhook]\npath = \"/l\"".to_owned(),
            "[logout.webhook]\npath = \"/l\"\nsecret = \"whsec_AAAA\"".to_owned(),
        ],
    );
    let secret = ("VELT_SIDECAR_LOGOUT__WEBHOOK__SECRET", "whsec_AAAA");
    let short = super::parse("[logout.webhook]\npath = \"/l\"", &[secret]);
    super::tells(
        short,
        "  VELT_SIDECAR_LOGOUT__WEBHOOK__SECRET: logout.webhook.secret: it is not whsec_ and the base64 of 24 to \
         64 bytes\n    -> make one with: echo \"whsec_$(openssl rand -base64 32)\"",
    );
}

#[test]
fn attempt_longer_than_the_deadline_is_refused() {
    says("long_attempt", &["[velt]\ndeadline = \"1s\"\nattempt_timeout = \"1001ms\""]);
    fine("[velt]\ndeadline = \"1s\"\nattempt_timeout = \"1000ms\"", &[]);
}

#[test]
fn same_header_for_two_settings_is_refused_in_any_spelling() {
    let spellings = ["X-Forwarded-User", "x-forwarded-user", "X_Forwarded-User", "x-velt-token"];
    says(
        "same_header_twice",
        &spellings.map(|email| {
            format!(
                "[identity]\nemail_header = \"{email}\"\n[velt]\napi = \"v2\"\norganization = \"o\""
            )
        }),
    );
    says(
        "user_header_like_delivery_header",
        &["[identity]\nuser_header = \"X-User\"\n[delivery.header]\nname = \"x-user\""],
    );
}

#[test]
fn resource_needs_a_type_and_an_id() {
    says(
        "incomplete_resource",
        &["[velt]\napi = \"v2\"\norganization = \"o\"\n\
           [[velt.resource]]\ntype = \"page\"\nrole = \"owner\""],
    );
}
