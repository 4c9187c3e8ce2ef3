//! Paths of the app that only known callers may ask (`identity.require_on`).

use crate::inject::PathPattern;

/// Paths of the app for which a user must be known.
#[derive(Clone, Debug, Default)]
pub struct RequiredOn(Vec<PathPattern>);

/// Most rounds of decoding: an app behind another decoder may decode twice.
const ROUNDS: usize = 3;

impl RequiredOn {
    /// Makes a list of paths. A path that is named covers the paths below it with a slash at the end, and a prefix
    /// that ends with a slash covers the path before it.
    pub fn new(patterns: Vec<PathPattern>) -> Self {
        let plainest = |path: &str| Reading(DOTS).of(stages(path).last().map_or("", |last| last));
        let plain = |pattern| match pattern {
            PathPattern::Exact(path) => {
                PathPattern::Exact(without_end(&plainest(&path)).to_owned())
            }
            PathPattern::Prefix(path) => PathPattern::Prefix(plainest(&path)),
        };
        Self(patterns.into_iter().map(plain).collect())
    }

    /// Whether a request for `path` needs a user. Apps differ in how they read a path, so every reading counts: as
    /// it stands and decoded, with dot segments resolved and not, and so on. To ask for a user once too often is
    /// the lesser fault.
    pub fn covers(&self, path: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        // Fast path for nearly every request: sixteen readings take 2.8 us, a tenth of a request's CPU.
        if has_one_reading(path) {
            return self.covers_reading(path);
        }
        readings(path).iter().any(|reading| self.covers_reading(reading))
    }

    fn covers_reading(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            PathPattern::Exact(exact) => without_end(path) == exact,
            PathPattern::Prefix(prefix) => {
                path.starts_with(prefix) || Some(path) == prefix.strip_suffix('/')
            }
        })
    }
}

/// Returns a path without the slash at its end.
fn without_end(path: &str) -> &str {
    path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path)
}

/// A way in which an app may read a path, beside letters of either case and empty segments, which never count: a
/// sum of the constants below.
#[derive(Clone, Copy)]
struct Reading(u8);

/// `\` is `/`, as for servers on Windows.
const BACKSLASH: u8 = 1;
/// A segment ends at `;`, and parameters follow, as in Java.
const PARAMETERS: u8 = 2;
/// Dot segments are resolved (RFC 3986 section 5.2.4).
const DOTS: u8 = 4;
/// Spaces, dots and control characters at the end of a segment are dropped, as on Windows.
const TRIMMED: u8 = 8;

impl Reading {
    /// Returns every combination.
    fn all() -> impl Iterator<Item = Self> {
        (0..=BACKSLASH + PARAMETERS + DOTS + TRIMMED).map(Self)
    }

    fn has(self, way: u8) -> bool {
        self.0 & way > 0
    }

    fn of(self, path: &str) -> String {
        let path = path.to_lowercase();
        let path = if self.has(BACKSLASH) { path.replace('\\', "/") } else { path };
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match self.segment(segment) {
                "" => {}
                "." if self.has(DOTS) => {}
                ".." if self.has(DOTS) => {
                    segments.pop();
                }
                segment => segments.push(segment),
            }
        }
        let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
        format!("/{}{end}", segments.join("/"))
    }

    fn segment(self, segment: &str) -> &str {
        let segment = match segment.split_once(';') {
            Some((before, _)) if self.has(PARAMETERS) => before,
            _ => segment,
        };
        let is_dots = segment == "." || segment == "..";
        if !self.has(TRIMMED) || is_dots {
            return segment;
        }
        // Some servers end a text at a zero byte.
        let segment = segment.split('\0').next().unwrap_or_default();
        segment.trim_matches(|end: char| end.is_whitespace() || end.is_control() || end == '.')
    }
}

/// Whether every reading of a path is the path itself.
fn has_one_reading(path: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-_.".contains(&byte);
    path.starts_with('/')
        && path.bytes().all(plain)
        && !["//", "/.", "./"].iter().any(|odd| path.contains(odd))
        && !path.ends_with('.')
}

/// Returns every reading of a path, at each of its stages.
fn readings(path: &str) -> Vec<String> {
    stages(path).iter().flat_map(|stage| Reading::all().map(|reading| reading.of(stage))).collect()
}

/// Returns a path as it stands, and after each round of decoding that changes it.
fn stages(path: &str) -> Vec<String> {
    let mut stages = vec![path.to_owned()];
    for _ in 0..ROUNDS {
        let last = stages.last().map_or("", String::as_str);
        let decoded = percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
        if decoded == last {
            break;
        }
        stages.push(decoded);
    }
    stages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn required() -> RequiredOn {
        RequiredOn::new(vec![
            PathPattern::Prefix("/API/Velt/".into()),
            PathPattern::Exact("/admin".into()),
            PathPattern::Exact("/exact/".into()),
            PathPattern::Prefix("/\u{c4}mt/".into()),
            PathPattern::Prefix("/%C3%A4rzte/".into()),
            PathPattern::Exact("/x//y".into()),
        ])
    }

    #[test]
    fn every_reading_of_a_path_is_covered() {
        for path in [
            "/api/velt/x",
            "/API/velt/x",
            "/api/velt",
            "//api//velt//x",
            "/api/./velt/x",
            "/x/../api/velt/x",
            "/api%2Fvelt%2fx",
            "/%61pi/velt/x",
            "/%2561pi/velt/x",
            "/api;a=b/velt;a=b/x",
            "/api\\velt\\x",
            "/api/velt/../x",
            "/api/velt/a/..%2f..%2f..%2fpublic",
            "/api/velt/a/..%5c..%5c..%5cpublic",
            "/api/velt/a/..%252f..%252f..%252fpublic",
            "/api/velt/..;/secret",
            "/api/velt%20/x",
            "/api/velt./x",
            "/api%09/velt%00x/y",
            "/admin",
            "/admin/",
            "/ADMIN;x",
            "/exact",
            "/%C3%84mt/x",
            "/%c3%a4mt/x",
            "/\u{c4}rzte/x",
            "/%C3%84rzte/x",
            "/x/y",
            "/x//y",
        ] {
            assert!(required().covers(path), "{path}");
        }
        for path in ["/", "/api/veltx", "/api", "/administrator", "/y/admin", "/x/z"] {
            assert!(!required().covers(path), "{path}");
        }
        assert!(!RequiredOn::default().covers("/admin"));
    }

    proptest! {
        /// The sidecar covers each path below a prefix, because an app may read dots and escapes literally.
        #[test]
        fn path_below_a_prefix_is_covered(rest in "[ -~]{0,40}") {
            let path = format!("/api/velt/{rest}");
            prop_assert!(required().covers(&path), "{}", path);
        }

        /// A path that is said to have one reading is each of its readings.
        #[test]
        fn path_of_one_reading_is_each_of_its_readings(path in "/[a-c./_%;A-]{0,12}") {
            if has_one_reading(&path) {
                prop_assert!(readings(&path).iter().all(|reading| *reading == path), "{}", path);
            }
        }

        /// A path with any letters encoded is covered like the path.
        #[test]
        fn encoded_path_is_covered(encoded in proptest::collection::vec(any::<bool>(), 11)) {
            let letters = "/api/velt/x".bytes().zip(encoded);
            let path: String = letters
                .map(|(byte, encoded)| {
                    let plain = char::from(byte).to_string();
                    if encoded && byte != b'/' { format!("%{byte:02X}") } else { plain }
                })
                .collect();
            prop_assert!(required().covers(&path), "{}", path);
        }
    }
}
