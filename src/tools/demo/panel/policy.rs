//! The app's Content-Security-Policy, and the panel's script beside the scripts that the policy allows.
//!
//! The policy is left alone where it allows the script, or has a nonce that the script's tag can repeat (CSP
//! Level 3, section 6.7.2). Otherwise the script alone is added.

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Way in which the script came to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// The page has no policy, or a policy that allows scripts of the page's own origin.
    Untouched,
    /// The script's tag repeats the nonce of the page's own scripts.
    Nonce,
    /// The demo added the script to the policy.
    Widened,
}

impl Admission {
    /// Returns the word that the panel reads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Nonce => "nonce",
            Self::Widened => "widened",
        }
    }
}

/// Lets the policies of a response allow a script of the page's own origin. Returns the nonce that the
/// script's tag needs. `fresh` makes a nonce.
pub fn admit(
    headers: &mut HeaderMap,
    fresh: impl FnOnce() -> String,
) -> (Admission, Option<String>) {
    if headers.get_all(CONTENT_SECURITY_POLICY).iter().any(|line| line.to_str().is_err()) {
        // Browsers may read such a line in several ways, so it stays.
        return (Admission::Untouched, None);
    }
    let enforced = policies(headers, &CONTENT_SECURITY_POLICY);
    let reported = policies(headers, &CONTENT_SECURITY_POLICY_REPORT_ONLY);
    let own = enforced.iter().chain(&reported).find_map(|policy| scripts(policy)?.nonce());
    let nonce = own.clone().unwrap_or_else(fresh);
    let mut widened = false;
    let admitting = enforced.iter().map(|policy| match scripts(policy) {
        Some(sources) if !sources.allow(&nonce) => {
            widened = true;
            sources.widened(policy, &nonce)
        }
        _ => policy.clone(),
    });
    let admitting: Vec<String> = admitting.collect();
    if widened {
        let joined = HeaderValue::from_str(&admitting.join(", ")).expect("made of header values");
        headers.insert(CONTENT_SECURITY_POLICY, joined);
    }
    match own {
        _ if widened => (Admission::Widened, Some(nonce)),
        Some(own) => (Admission::Nonce, Some(own)),
        None => (Admission::Untouched, None),
    }
}

/// Returns the policies of all lines of a header.
fn policies(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    let policies = lines.flat_map(|line| line.split(',')).map(str::trim);
    policies.filter(|policy| !policy.is_empty()).map(str::to_owned).collect()
}

/// Returns the sources that decide about scripts in elements, `None` if the policy decides nothing there.
fn scripts(policy: &str) -> Option<Sources<'_>> {
    let directives: Vec<_> = policy.split(';').filter_map(Directive::parse).collect();
    let named = ["script-src-elem", "script-src", "default-src"];
    let deciding = named.into_iter().find_map(|name| {
        directives.iter().find(|directive| directive.name.eq_ignore_ascii_case(name))
    })?;
    Some(Sources(deciding.values.clone()))
}

struct Directive<'a> {
    name: &'a str,
    values: Vec<&'a str>,
}

impl<'a> Directive<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        Some(Self { name: words.next()?, values: words.collect() })
    }
}

/// List of sources, such as `'self' https://cdn.example 'nonce-x'`.
struct Sources<'a>(Vec<&'a str>);

impl Sources<'_> {
    fn has(&self, keyword: &str) -> bool {
        self.0.iter().any(|source| source.eq_ignore_ascii_case(keyword))
    }

    fn has_beginning(&self, beginning: &str) -> bool {
        let starts = self.0.iter().filter_map(|source| source.get(..beginning.len()));
        starts.into_iter().any(|start| start.eq_ignore_ascii_case(beginning))
    }

    /// Returns the first nonce that can stand in the attribute of a tag.
    fn nonce(&self) -> Option<String> {
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
        let nonce = |source: &&str| {
            let (start, rest) = source.split_at_checked("'nonce-".len())?;
            let nonce = rest.strip_suffix('\'').filter(|nonce| !nonce.is_empty())?;
            let fits = start.eq_ignore_ascii_case("'nonce-") && nonce.bytes().all(is_base64);
            fits.then(|| nonce.to_owned())
        };
        self.0.iter().find_map(nonce)
    }

    /// Whether the list allows a script of the page's own origin, with this nonce in its tag.
    fn allow(&self, nonce: &str) -> bool {
        let has_nonce = self.nonce().is_some_and(|own| own == nonce);
        has_nonce || !self.has("'strict-dynamic'") && (self.has("'self'") || self.has("*"))
    }

    /// Returns `policy` with a directive for scripts in elements that allows the script too.
    fn widened(&self, policy: &str, nonce: &str) -> String {
        let others = policy.split(';').map(str::trim).filter(|directive| {
            let name = directive.split_ascii_whitespace().next();
            name.is_some_and(|name| !name.eq_ignore_ascii_case("script-src-elem"))
        });
        // A nonce would switch `'unsafe-inline'` off (CSP Level 3, section 6.7.3.2), and with it the page's
        // inline scripts.
        let ignores_inline = ["'nonce-", "'sha256-", "'sha384-", "'sha512-", "'strict-dynamic'"]
            .iter()
            .any(|beginning| self.has_beginning(beginning));
        let added = if self.has("'unsafe-inline'") && !ignores_inline {
            "'self'".to_owned()
        } else {
            format!("'nonce-{nonce}'")
        };
        // `'none'` means nothing beside another source.
        let kept = self.0.iter().copied().filter(|source| !source.eq_ignore_ascii_case("'none'"));
        let sources = kept.chain([&*added]).collect::<Vec<_>>().join(" ");
        let mut directives: Vec<_> = others.map(str::to_owned).collect();
        directives.push(format!("script-src-elem {sources}"));
        directives.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what became of these lines of the header, with the nonce of the tag.
    fn admitted(lines: &[&str]) -> (Vec<String>, Admission, Option<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_str(line).expect("a header value"),
            );
        }
        let (admission, nonce) = admit(&mut headers, || "ours".to_owned());
        let lines = headers.get_all(CONTENT_SECURITY_POLICY).iter();
        let lines = lines.map(|line| line.to_str().expect("ASCII").to_owned()).collect();
        (lines, admission, nonce)
    }

    #[test]
    fn policy_that_allows_the_script_stays_as_it_is() {
        for lines in [
            &[][..],
            &["default-src 'self'"],
            &["DEFAULT-SRC 'none'; Script-Src 'SELF'"],
            &["script-src *; object-src 'none'", "default-src 'self'"],
            &["img-src 'none'"],
            &["script-src 'none'; script-src-elem 'self'"],
        ] {
            let expected = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(admitted(lines), (expected, Admission::Untouched, None), "{lines:?}");
        }
    }

    #[test]
    fn tag_repeats_the_nonce_of_the_page() {
        for line in [
            "script-src 'nonce-AbC+/9==' 'strict-dynamic'",
            "default-src 'self'; script-src https://cdn.example 'Nonce-AbC+/9=='",
        ] {
            let expected = (vec![line.to_owned()], Admission::Nonce, Some("AbC+/9==".to_owned()));
            assert_eq!(admitted(&[line]), expected);
        }
    }

    #[test]
    fn policy_is_widened_by_the_script_alone() {
        for (line, expected) in [
            ("default-src 'none'", "default-src 'none'; script-src-elem 'nonce-ours'"),
            (
                "script-src 'sha256-x' 'strict-dynamic'; img-src *",
                "script-src 'sha256-x' 'strict-dynamic'; img-src *; \
                 script-src-elem 'sha256-x' 'strict-dynamic' 'nonce-ours'",
            ),
            (
                "script-src-elem https://cdn.example;",
                "script-src-elem https://cdn.example 'nonce-ours'",
            ),
            // The page's inline scripts go on working.
            (
                "script-src 'unsafe-inline' https://cdn.example",
                "script-src 'unsafe-inline' https://cdn.example; \
                 script-src-elem 'unsafe-inline' https://cdn.example 'self'",
            ),
            // This nonce would end the attribute.
            (
                "script-src 'nonce-\"'",
                "script-src 'nonce-\"'; script-src-elem 'nonce-\"' 'nonce-ours'",
            ),
        ] {
            let nonce = Some("ours".to_owned());
            assert_eq!(admitted(&[line]), (vec![expected.to_owned()], Admission::Widened, nonce));
        }
    }

    #[test]
    fn each_of_several_policies_allows_the_script() {
        let lines = ["script-src 'nonce-a'; img-src *, default-src 'self'", "script-src 'nonce-b'"];
        let expected = "script-src 'nonce-a'; img-src *, default-src 'self', \
                        script-src 'nonce-b'; script-src-elem 'nonce-b' 'nonce-a'";
        let nonce = Some("a".to_owned());
        assert_eq!(admitted(&lines), (vec![expected.to_owned()], Admission::Widened, nonce));
    }

    #[test]
    fn nonce_of_a_policy_that_only_reports_is_repeated_too() {
        let mut headers = HeaderMap::new();
        let line = HeaderValue::from_static("script-src 'nonce-r'");
        headers.insert(CONTENT_SECURITY_POLICY_REPORT_ONLY, line.clone());
        let admitted = admit(&mut headers, || "ours".to_owned());
        assert_eq!(admitted, (Admission::Nonce, Some("r".to_owned())));
        assert_eq!(headers[CONTENT_SECURITY_POLICY_REPORT_ONLY], line);
    }
}
