//! Match between a path of the configuration and a request.
//!
//! First line: the path of a token route. Second line: a pattern of `delivery.header.paths`. Third
//! line: the target of a request.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, Uri};
use server::config::Config;
use sidecar::inject::Injection;

use super::lines;

/// # Panics
///
/// Panics if a route is served under another spelling than its own, or not under its own.
pub fn check(input: &[u8]) {
    let (path, rest) = lines::first_line(input);
    let (pattern, rest) = lines::first_line(rest);
    let (target, _) = lines::first_line(rest);
    let [Ok(path), Ok(pattern), Ok(target)] = [path, pattern, target].map(std::str::from_utf8)
    else {
        return;
    };
    let toml = format!(
        "[delivery.header]\npaths = [{}]\n[[delivery.route]]\npath = {}\n",
        quoted(pattern),
        quoted(path)
    );
    let Ok(config) = Config::parse("sidecar.toml", &toml, &credentials()) else { return };
    let injection = Injection::new(config.delivery);

    // Every path that the configuration accepts can be requested.
    let own: Uri = path.parse().expect("a route's path is a target");
    assert_eq!(own.path(), path);
    assert!(injection.route(own.path()).is_some());
    assert!(!path.contains(['%', '?', '#', '\\', ';', ' ']), "one spelling only: {path}");
    assert!(!path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")), "{path}");

    let Ok(uri) = target.parse::<Uri>() else { return };
    assert_eq!(injection.route(uri.path()).is_some(), uri.path() == path);
    let wanted = injection.coverage(&Method::GET, uri.path(), &HeaderMap::new()).place().is_some();
    let expected = match pattern.strip_suffix('*') {
        Some(prefix) => uri.path().as_bytes().starts_with(prefix.as_bytes()),
        None => uri.path() == pattern,
    };
    assert_eq!(wanted, expected, "{pattern} and {target}");
}

fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| format!("\\U{:08X}", u32::from(c)));
    format!("\"{}\"", escaped.collect::<String>())
}

fn credentials() -> BTreeMap<String, String> {
    let pairs = [("VELT_API_KEY", "key"), ("VELT_AUTH_TOKEN", "token")];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
