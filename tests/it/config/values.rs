//! Values that the parser refuses, and the values that it asks for instead.

use super::{fine, parse, tells};
use crate::support::config;

const ADDRESS: &str = "an IP address and port, such as \"0.0.0.0:8080\"";
const APP: &str = "the app's address, such as \"127.0.0.1:3000\", \"https://127.0.0.1:3443\" or \
    \"unix:/run/app.sock\"; or \"none\", if a gateway has the app";
const HEADER: &str = "the name of a header, such as \"X-Forwarded-User\"";
const TIME: &str = "a time of at most a day, such as \"250ms\", \"5s\" or \"2m\"";
const SPAN: &str = "a time from \"1ms\" to \"24h\", such as \"5s\" or \"2m\"";
const SIZE: &str = "a size, such as \"512KiB\" or \"64MiB\"";
const HEAD_SIZE: &str = "a size from \"8KiB\" to \"1MiB\"";
const URL: &str = "an https:// URL without user, query or fragment";
const WORKERS: &str = "\"auto\" or a number of threads in quotes, such as \"4\"";
const MEMORY: &str = "\"auto\", \"off\" or a size from \"32MiB\" on, such as \"200MiB\"";
const RANGE: &str = "an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\"";
const PATTERN: &str = "a path such as \"/api/me\", or a prefix such as \"/api/*\"";

/// Section, key, strings that are refused there, and what to write.
const STRINGS: [(&str, &str, &[&str], &str); 21] = [
    ("listen", "address", &["", "8080", "localhost:8080", ":8080", "1.2.3.4"], ADDRESS),
    ("listen", "idle_timeout", &["", "5", "5 s", "-5s", "0s", "1d", "25h", "5S"], SPAN),
    ("listen", "max_header_bytes", &["", "7KiB", "2MiB", "5GiB"], HEAD_SIZE),
    ("app", "address", &["", "localhost", "a:0", "a:65536", "u@a:1"], APP),
    ("app", "address", &["unix:app.sock", "unix:"], APP),
    ("app", "protocol", &["", "http2", "HTTP1", "h3"], "\"http1\", \"h2c\" or \"h2\""),
    ("identity", "user_header", &["", "X User", "X:User", "Benutzer-ü"], HEADER),
    ("identity", "on_ambiguous", &["", "Refuse", "allow"], "\"refuse\" or \"drop\""),
    ("identity", "forward_headers", &["", "remove"], "\"keep\" or \"strip\""),
    ("velt", "api", &["", "v3", "V2"], "\"legacy\", \"v1\" or \"v2\""),
    ("velt", "endpoint", &["", "velt", "ftp://a/", "https://", "https://a/?key=1"], URL),
    ("velt", "endpoint", &["https://a/#x"], URL),
    ("velt", "verify_user", &["", "on", "always"], "\"auto\", \"require\" or \"off\""),
    ("velt", "organization", &[" "], "a string that is not empty"),
    ("cache", "max_bytes", &["", "64", "64MB", "0MiB", "1.5GiB", "99999999999GiB"], SIZE),
    ("shutdown", "grace", &["", "5", "1441m", "99999999999999999999s"], TIME),
    ("runtime", "workers", &["", "0", "65", "two", "-1"], WORKERS),
    ("runtime", "memory_limit", &["", "256", "31MiB", "256MB", "none"], MEMORY),
    ("log", "level", &["", "trace", "INFO"], "\"error\", \"warn\", \"info\" or \"debug\""),
    ("log", "format", &["", "logfmt"], "\"text\" or \"json\""),
    ("delivery.header", "on_failure", &["", "fail"], "\"omit\" or \"refuse\""),
];

/// Asserts the complaint about one key whose value is written like this.
#[track_caller]
fn refused(section: &str, key: &str, written: &str, shown: &str, expected: &str) {
    tells(
        parse(&format!("[{section}]\n{key} = {written}"), &[]),
        &format!("  sidecar.toml:2: {section}.{key}: {shown:?} won't do\n    -> write {expected}"),
    );
}

#[test]
fn invalid_string_is_answered_with_valid_ones() {
    for (section, key, values, expected) in STRINGS {
        for value in values {
            refused(section, key, &format!("\"{value}\""), value, expected);
        }
    }
}

#[test]
fn invalid_count_is_answered_with_its_range() {
    for value in ["0", "-1", "1099511627777", "0x10", "0b11", "+7"] {
        refused("cache", "max_entries", value, value, "a whole number from 1 on");
    }
    let counts =
        ["max_headers", "http2_max_streams", "http2_max_pending_resets", "http2_max_error_resets"];
    for (key, value) in counts.into_iter().flat_map(|key| [(key, "0"), (key, "10001")]) {
        refused("listen", key, value, value, "a whole number from 1 to 10000");
    }
}

#[test]
fn invalid_item_of_a_list_is_named() {
    for value in ["localhost", "10.0.0.0/33", "10.0.0", "*", ""] {
        let list = format!("[\"127.0.0.1\", \"{value}\"]");
        refused("identity", "trusted_peers", &list, value, RANGE);
    }
    for value in ["api", "/a*b", "/a?b", "*", ""] {
        refused("delivery.header", "paths", &format!("[\"{value}\"]"), value, PATTERN);
    }
}

#[test]
fn share_is_a_number_from_zero_to_one() {
    for (written, share) in [("0", 0.0), ("0.0", 0.0), ("0.05", 0.05), ("1", 1.0), ("1.00", 1.0)] {
        assert_eq!(
            fine(&format!("[access_log]\nsample = {written}"), &[]).access_log.sample,
            share
        );
        let variable = ("VELT_SIDECAR_ACCESS_LOG__SAMPLE", written);
        assert_eq!(fine("", &[variable]).access_log.sample, share);
    }
    for written in ["1.01", "-0.1", "5", "1e-1", "nan", "inf", "true"] {
        refused("access_log", "sample", written, written, "a number from 0.0 to 1.0, such as 0.05");
    }
}

#[test]
fn header_with_a_meaning_of_its_own_names_no_user() {
    for name in ["Host", "cookie", "Connection", "X-Forwarded-For"] {
        let toml = format!("[identity]\nuser_header = \"{name}\"");
        let error = config(&toml).expect_err("refused").to_string();
        let expected = format!("{} has a meaning of its own in HTTP", name.to_lowercase());
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn refused_url_is_not_repeated() {
    // The URL may hold a password.
    let toml = "[velt]\nendpoint = \"https://user:hunter2@velt.example/\"";
    let error = config(toml).expect_err("refused").to_string();
    assert!(error.contains("velt.endpoint: its value won't do"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
