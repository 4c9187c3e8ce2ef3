//! The table `shared`: the store in which replicas share tokens.

use std::path::PathBuf;
use std::time::Duration;

use ground::tls::Roots;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::reader::{Inline, Section};
use super::super::schema::Form;
use super::super::setting::{Limit, Setting};
use super::super::words::{DatabaseNumber, StorePrefix};
use shared::Settings;
use shared::seal::{KeyError, SealKeys};
use shared::store::{self, Address, Place};

/// Environment variables with the secrets.
const PASSWORD_VARIABLE: &str = "VELT_SIDECAR_SHARED__PASSWORD";
const SENTINEL_PASSWORD_VARIABLE: &str = "VELT_SIDECAR_SHARED__SENTINEL_PASSWORD";
const SEAL_KEY_VARIABLE: &str = "VELT_SIDECAR_SHARED__SEAL_KEY";
const OTHER_SEAL_KEY_VARIABLE: &str = "VELT_SIDECAR_SHARED__OTHER_SEAL_KEY";

/// Longest `patience` that a setting may name. If the store hangs, a request that waits for a token waits longer by
/// as much.
const LONGEST_PATIENCE: Duration = Duration::from_millis(500);

/// Shortest `longest_cut_off`: a failover of the store may take as long.
const SHORTEST_CUT_OFF: Duration = Duration::from_secs(30);

/// Form of the store.
enum Mode {
    Server,
    Sentinel,
    Cluster,
}

impl Setting for Mode {
    const EXPECTED: &'static str = "\"server\", \"sentinel\" or \"cluster\"";
    fn form() -> Form {
        Form::Words(vec!["server", "sentinel", "cluster"])
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "server" => Some(Self::Server),
            "sentinel" => Some(Self::Sentinel),
            "cluster" => Some(Self::Cluster),
            _ => None,
        }
    }
}

/// Settings that are read whether or not there is a store.
struct Plain {
    mode: Mode,
    tls: bool,
    database: u32,
    prefix: String,
    patience: Duration,
    longest_cut_off: Option<Duration>,
}

/// Reads the table `shared`. `None` if no address is given, so that this replica keeps its tokens to itself.
pub fn read(section: &Section<'_, '_>, roots: &Roots, max_entries: u64) -> Option<Settings> {
    let plain = Plain {
        mode: section.value("mode", "server"),
        tls: section.value("tls", "false"),
        database: section.value::<DatabaseNumber>("database", "0").0,
        prefix: section.value::<StorePrefix>("prefix", "velt-sidecar").0,
        patience: section.value("patience", "50ms"),
        longest_cut_off: section.value::<Limit>("longest_cut_off", "off").0,
    };
    check_times(section, &plain);
    let addresses: Vec<Address> = section.list("addresses", &[]);
    let primary: Option<String> = section.optional("primary");
    let ca_file: Option<PathBuf> = section.content_file("ca_file");
    let user: Option<String> = section.optional("user");
    let sentinel_user: Option<String> = section.optional("sentinel_user");
    let secret = |key, variable| section.optional_secret(key, variable, Inline::Refused);
    let password = secret("password", PASSWORD_VARIABLE);
    let sentinel_password = secret("sentinel_password", SENTINEL_PASSWORD_VARIABLE);
    let other = secret("other_seal_key", OTHER_SEAL_KEY_VARIABLE);
    if addresses.is_empty() {
        // Read the seal key all the same, so that its variable counts as known.
        secret("seal_key", SEAL_KEY_VARIABLE);
        if !section.is_refused("addresses") {
            refuse_without_addresses(section);
        }
        return None;
    }
    if !section.is_refused("tls") {
        check_tls(section, plain.tls, &addresses);
    }
    check_login(section, "user", "password", PASSWORD_VARIABLE);
    if matches!(plain.mode, Mode::Sentinel) {
        check_login(section, "sentinel_user", "sentinel_password", SENTINEL_PASSWORD_VARIABLE);
    }
    let is_known = !section.is_refused("mode") && !section.is_refused("primary");
    let place = is_known.then(|| place(section, &plain, addresses, primary)).flatten();
    let seal_key = section.secret("seal_key", SEAL_KEY_VARIABLE, Inline::Refused);
    let seal_keys = seal_keys(section, seal_key.as_ref(), other.as_ref());
    Some(Settings {
        store: store::Settings {
            place: place?,
            tls: plain.tls.then(|| ca_file.map_or_else(|| roots.clone(), Roots::File)),
            user,
            password,
            sentinel_user,
            sentinel_password,
            database: plain.database,
            patience: plain.patience,
        },
        prefix: plain.prefix,
        seal_keys: seal_keys?,
        longest_cut_off: plain.longest_cut_off,
        max_entries,
    })
}

fn check_times(section: &Section<'_, '_>, plain: &Plain) {
    if plain.patience.is_zero() || plain.patience > LONGEST_PATIENCE {
        section.complain_about(
            "patience",
            "a request that waits for a token may wait that much longer",
            "write \"1ms\" to \"500ms\"",
        );
    }
    if plain.longest_cut_off.is_some_and(|longest| longest < SHORTEST_CUT_OFF) {
        section.complain_about(
            "longest_cut_off",
            "each failover of the store would have all tokens minted anew",
            "write \"30s\" or more, or \"off\"",
        );
    }
}

fn check_tls(section: &Section<'_, '_>, tls: bool, addresses: &[Address]) {
    if !tls {
        let remedy = "write tls = true, or remove it";
        section.refuse("ca_file", "it has no effect on connections without TLS", remedy);
    } else if addresses.iter().all(|address| matches!(address, Address::Unix(_))) {
        let problem = "it has no effect on unix sockets, which carry no TLS";
        let remedy = "remove tls and ca_file, or write addresses = [\"host:6379\"]";
        section.complain_of_no_effect("tls", problem, remedy);
    }
}

/// Complains about a user without a password: a login needs both.
fn check_login(section: &Section<'_, '_>, user: &str, password: &str, variable: &str) {
    let file = format!("{password}_file");
    let awaited = section.has(user) && !section.has(password) && !section.has(&file);
    if awaited && section.stand_in(password, variable).is_none() {
        let remedy = format!("write {file} = \"/path/to/file\" beside it, or remove it");
        section.complain_of_no_effect(user, "it has no effect without a password", &remedy);
    }
}

fn refuse_without_addresses(section: &Section<'_, '_>) {
    // A secret may stand in a variable, or in a file.
    const DEPENDENT: [&str; 12] = [
        "primary",
        "ca_file",
        "user",
        "sentinel_user",
        "password",
        "password_file",
        "sentinel_password",
        "sentinel_password_file",
        "seal_key",
        "seal_key_file",
        "other_seal_key",
        "other_seal_key_file",
    ];
    for key in DEPENDENT {
        if section.has(key) {
            let problem = "it has no effect without a store";
            section.complain_of_no_effect(
                key,
                problem,
                "write addresses = [\"host:6379\"] in [shared], or remove it",
            );
        }
    }
}

fn place(
    section: &Section<'_, '_>,
    plain: &Plain,
    mut addresses: Vec<Address>,
    primary: Option<String>,
) -> Option<Place> {
    if !matches!(plain.mode, Mode::Sentinel) {
        for key in ["primary", "sentinel_user", "sentinel_password", "sentinel_password_file"] {
            section.refuse(
                key,
                "it has no effect without Sentinel",
                "write mode = \"sentinel\", or remove it",
            );
        }
    }
    match plain.mode {
        Mode::Server if addresses.len() > 1 => {
            section.complain_about(
                "addresses",
                "one server has one address",
                "keep one of them, or write mode = \"sentinel\" or \"cluster\"",
            );
            None
        }
        Mode::Server => addresses.pop().map(Place::Server),
        Mode::Cluster => {
            if plain.database != 0 {
                section.complain_about("database", "a cluster has database 0 alone", "remove it");
            }
            Some(Place::Cluster(addresses))
        }
        Mode::Sentinel => {
            let Some(primary) = primary else {
                section.complain_about(
                    "mode",
                    "Sentinel knows primaries by name, and none is named",
                    "write primary = \"mymaster\": the name in sentinel.conf",
                );
                return None;
            };
            Some(Place::Sentinel { sentinels: addresses, primary })
        }
    }
}

/// Checks each seal key by itself, so that a complaint names the key with the flaw, and then both keys together.
fn seal_keys(
    section: &Section<'_, '_>,
    seal_key: Option<&SecretString>,
    other: Option<&SecretString>,
) -> Option<SecretString> {
    let seal_key = seal_key?;
    let mut text = String::new();
    for (key, secret) in [("seal_key", Some(seal_key)), ("other_seal_key", other)] {
        let Some(secret) = secret else { continue };
        let problem = match SealKeys::parse(secret.expose_secret()) {
            Ok(_) => None,
            Err(KeyError::Zero) => Some("all its bytes are zero, so each attacker knows it"),
            Err(_) => Some("it is no base64 of 32 bytes"),
        };
        if let Some(problem) = problem {
            section.complain_about(key, problem, "make one with: openssl rand -base64 32");
            return None;
        }
        text.push_str(secret.expose_secret());
        text.push('\n');
    }
    if SealKeys::parse(&text).is_err() {
        let problem = "it is the same as shared.seal_key";
        section.complain_about("other_seal_key", problem, "give the former key, or remove it");
        return None;
    }
    Some(SecretString::from(text))
}
