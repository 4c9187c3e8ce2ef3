//! Token routes: their paths, keys and number.

use super::{fine, parse, says};

#[test]
fn two_routes_of_one_path_are_refused() {
    says(
        "two_routes_of_one_path",
        &["[[delivery.route]]\npath = \"/token\"\n\
           [[delivery.route]]\npath = \"/token\"\nshape = \"string\""],
    );
}

#[test]
fn route_path_has_one_spelling_only() {
    for path in [
        "", "token", "/", "//token", "/token/", "/a//b", "/./a", "/a/..", "/a?b", "/a#b", "/a%2fb",
        "/a b", "/a\\\\b", "/ü", "/a;b", "/*",
    ] {
        let Err(error) = parse(&format!("[[delivery.route]]\npath = \"{path}\""), &[]) else {
            // A star is a plain character of a path.
            assert_eq!(path, "/*");
            continue;
        };
        let text = error.to_string();
        let end = "won't do\n    -> write a plain path, such as \"/api/velt/token\": \
                   no query, escapes, empty or dot segments";
        assert!(text.contains("\n  sidecar.toml:2: delivery.route.path: "), "{text}");
        assert!(text.ends_with(end), "{text}");
    }
    says("route_without_a_path", &["\n[[delivery.route]]\nshape = \"string\""]);
}

#[test]
fn key_of_a_bare_string_route_is_refused() {
    says(
        "key_of_a_bare_string",
        &["[[delivery.route]]\npath = \"/token\"\nshape = \"string\"\nkey = \"jwt\""],
    );
}

#[test]
fn delivery_without_route_and_header_is_refused() {
    says("no_delivery", &["[delivery]\nroute = []\n[delivery.header]\nenabled = false"]);
}

#[test]
fn key_of_the_tokens_end_is_refused_as_the_tokens_key() {
    says("key_of_the_tokens_end", &["[[delivery.route]]\npath = \"/token\"\nkey = \"expiresAt\""]);
}

#[test]
fn names_that_mean_something_else_are_refused_for_tokens() {
    says(
        "name_with_another_meaning",
        &[
            "[delivery.header]\nname = \"Sec-Fetch-Site\"",
            "[delivery.header]\nstatus_name = \"Server-Timing\"",
            "[delivery.app_header]\nname = \"If-None-Match\"",
            "[delivery.app_header]\nname = \"X-Token\"\nstatus_name = \"x-token\"",
        ],
    );
    for taken in [
        "Accept",
        "Cross-Origin-Resource-Policy",
        "Forwarded",
        "Origin",
        "Referer",
        "Remote-User",
        "Traceparent",
        "WWW-Authenticate",
        "X-Accel-Redirect",
        "X-Auth-Request-User",
        "X-Content-Type-Options",
        "X-Forwarded-Proto",
    ] {
        assert!(
            parse(&format!("[delivery.app_header]\nname = \"{taken}\""), &[]).is_err(),
            "{taken}"
        );
    }
}

#[test]
fn pages_may_have_their_token_with_the_first_render_alone() {
    let off = "[delivery]\nroute = []\n[delivery.header]\nenabled = false\n";
    for table in ["app_header", "document"] {
        let toml = format!("{off}[delivery.{table}]\npaths = [\"/\"]");
        assert!(parse(&toml, &[]).is_ok(), "{table}");
    }
}

#[test]
fn wait_that_no_client_has_the_patience_for_is_refused() {
    let tables = ["header", "app_header", "document", "check"];
    let waiting = |table: &str, wait: &str| {
        let paths = if table == "check" { "path = \"/c\"" } else { "paths = [\"/*\"]" };
        format!("[delivery.{table}]\n{paths}\nmax_wait = \"{wait}\"")
    };
    let mut tomls: Vec<_> = tables.map(|table| waiting(table, "1h")).to_vec();
    tomls.push("[[delivery.route]]\npath = \"/token\"\nmax_wait = \"61s\"".to_owned());
    says("too_long_waits", &tomls);
    for table in tables {
        fine(&waiting(table, "60s"), &[]);
    }
}
