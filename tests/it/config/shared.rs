//! Settings of `[shared]` and `[logout]` that have no effect, or that protect nothing.

use secrecy::ExposeSecret as _;

use super::{Variable, fine, says_of};

const SEAL_KEY: Variable<'_> =
    ("VELT_SIDECAR_SHARED__SEAL_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
const PASSWORD: Variable<'_> = ("VELT_SIDECAR_SHARED__PASSWORD", "hush");
const OF_SENTINEL: Variable<'_> = ("VELT_SIDECAR_SHARED__SENTINEL_PASSWORD", "hush");

const SERVER: &str = "[shared]\naddresses = [\"valkey:6379\"]";

#[test]
fn login_to_the_store_without_effect_is_refused() {
    let sentinel =
        "[shared]\nmode = \"sentinel\"\nprimary = \"mymaster\"\naddresses = [\"a:26379\"]";
    says_of(
        "store_login_without_effect",
        &[
            (format!("{SERVER}\nuser = \"velt\""), &[SEAL_KEY]),
            (format!("{sentinel}\nsentinel_user = \"velt\""), &[SEAL_KEY]),
            (SERVER.to_owned(), &[SEAL_KEY, OF_SENTINEL]),
        ],
    );
    fine(&format!("{SERVER}\nuser = \"velt\""), &[SEAL_KEY, PASSWORD]);
    fine(&format!("{sentinel}\nsentinel_user = \"velt\""), &[SEAL_KEY, OF_SENTINEL]);
}

#[test]
fn tls_to_unix_sockets_alone_is_refused() {
    let toml = |address: &str| format!("[shared]\ntls = true\naddresses = [\"{address}\"]");
    says_of("store_tls_without_effect", &[(toml("unix:/run/redis.sock"), &[SEAL_KEY])]);
    fine(&toml("valkey:6379"), &[SEAL_KEY]);
}

#[test]
fn secrets_of_a_store_without_a_store_are_refused() {
    let other = ("VELT_SIDECAR_SHARED__OTHER_SEAL_KEY", SEAL_KEY.1);
    says_of("store_secrets_without_a_store", &[("", &[SEAL_KEY, other, PASSWORD, OF_SENTINEL])]);
}

#[test]
fn seal_key_that_each_attacker_knows_is_refused() {
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let (only, other) = ((SEAL_KEY.0, zero), ("VELT_SIDECAR_SHARED__OTHER_SEAL_KEY", zero));
    says_of("seal_key_of_zeros", &[(SERVER, &[only]), (SERVER, &[SEAL_KEY, other])]);
}

#[test]
fn password_is_read_without_the_line_end_of_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "hush \r\n").expect("written");
    let config = fine(&format!("{SERVER}\npassword_file = {file:?}"), &[SEAL_KEY]);
    let password = config.shared.expect("a store").store.password.expect("a password");
    assert_eq!(password.expose_secret(), "hush ");
}

#[test]
fn logout_settings_without_a_path_are_refused() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let variable = ("VELT_SIDECAR_LOGOUT__WEBHOOK__SECRET", secret);
    let next = ("VELT_SIDECAR_LOGOUT__WEBHOOK__NEXT_SECRET", secret);
    let ends = "[logout]\nend_websockets = true";
    says_of("logout_without_a_path", &[("", &[variable, next]), (ends, &[])]);
    fine("[logout]\nend_websockets = false", &[]);
    fine(&format!("{ends}\n[logout.webhook]\npath = \"/velt/out\""), &[variable]);
}

#[test]
fn one_mistake_about_the_store_is_one_complaint() {
    let sentinel = "primary = \"mymaster\"\nsentinel_user = \"velt\"";
    let (login, of_sentinel) = (&[SEAL_KEY, PASSWORD][..], &[SEAL_KEY, OF_SENTINEL][..]);
    for (toml, secrets) in [
        ("[shared]\naddresses = [\"valkey\"]\nuser = \"velt\"".to_owned(), login),
        ("[shared]\naddresses = \"valkey:6379\"\nuser = \"velt\"".to_owned(), login),
        (format!("{SERVER}\nmode = \"sentinal\"\n{sentinel}"), of_sentinel),
        (format!("{SERVER}\ntls = \"yes\"\nca_file = \"/ca.crt\""), login),
        ("[shared]\nmode = \"replicas\"\naddresses = [\"a:6379\", \"b:6379\"]".to_owned(), login),
    ] {
        let Err(error) = super::parse(&toml, secrets) else { panic!("no complaint: {toml}") };
        assert_eq!(error.complaints.len(), 1, "{toml}\n{error}");
    }
}

#[test]
fn password_of_the_store_may_hold_any_letters() {
    let password = (PASSWORD.0, "Pässwört-密碼");
    let config = fine(&format!("{SERVER}\nuser = \"velt\""), &[SEAL_KEY, password]);
    let held = config.shared.expect("a store").store.password.expect("a password");
    assert_eq!(held.expose_secret(), password.1);
}
