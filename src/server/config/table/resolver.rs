//! The table `resolver`: tokens of the sidecar's own for the endpoints of teams that keep Velt's data themselves.

use std::path::PathBuf;
use std::time::Duration;

use super::super::reader::Section;
use super::super::words::RoutePath;
use sidecar::inject;
use sidecar::resolver::ResolverSettings;

/// Shortest and longest life of a token. A token can't be taken back, and each page asks for new ones.
const LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(30)..=Duration::from_secs(3600);

/// Reads the table `resolver`. `None` if there is no key, so that the paths are the app's.
pub fn read(section: &Section<'_, '_>, delivery: &inject::Settings) -> Option<ResolverSettings> {
    let key_file: Option<PathBuf> = section.content_file("key_file");
    let other_key_file = section.content_file("other_key_file");
    let path = section.value::<RoutePath>("path", "/api/velt/resolver-token").0;
    let keys_path = section.value::<RoutePath>("keys_path", "/api/velt/resolver-keys").0;
    let issuer: Option<String> = section.optional("issuer");
    let audience: Option<String> = section.optional("audience");
    let life: Duration = section.value("life", "5m");
    let Some(key_file) = key_file else {
        for key in ["other_key_file", "issuer", "audience"] {
            if section.has(key) {
                let problem = "it has no effect without the key that signs";
                section.complain_of_no_effect(
                    key,
                    problem,
                    "write key_file in [resolver], or remove it",
                );
            }
        }
        return None;
    };
    if !LIFE.contains(&life) {
        let remedy = "write \"30s\" to \"1h\"";
        section.complain_about("life", "a token can't be taken back before its end", remedy);
    }
    let routes = delivery.routes.iter().map(|route| &route.path);
    let by_check = delivery.check.covers(&path) || delivery.check.covers(&keys_path);
    let by_route = routes.clone().any(|taken| *taken == path || *taken == keys_path);
    if path == keys_path || by_route || by_check {
        let problem = "path or keys_path is a path that the sidecar answers already";
        section.complain_about(
            "path",
            problem,
            "give path, keys_path, each route and delivery.check a path of its own",
        );
    }
    let Some(issuer) = issuer else {
        section.complain_of_missing(
            "issuer",
            "it is missing, and resolvers compare it",
            "write issuer = \"https://app.example.com\" in [resolver]: the name by which resolvers know this app",
        );
        return None;
    };
    Some(ResolverSettings { path, keys_path, issuer, audience, life, key_file, other_key_file })
}
