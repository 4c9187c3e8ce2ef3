//! curl commands as browsers copy them and people write them.

use proptest::prelude::*;
use server::explain::Asked;
use tools::explain::Flags;
use tools::explain::curl::{parse, words};

fn read(line: &str) -> (Asked, Vec<String>) {
    let words = words(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn headers(asked: &Asked) -> Vec<String> {
    asked.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

/// Command that Chrome 140 copies for a GET ("Copy as cURL (bash)").
const CHROME: &str = r#"curl 'https://app.example/api/me?tab=1' \
  -H 'accept: */*' \
  -H 'accept-language: de-DE,de;q=0.9' \
  -b 'session=a1; theme="dark"' \
  -H 'priority: u=1, i' \
  -H 'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"' \
  -H 'sec-fetch-dest: empty' \
  -H 'sec-fetch-site: same-origin' \
  -H 'user-agent: Mozilla/5.0 (X11; Linux x86_64)'"#;

/// Command that Chrome 140 copies for a POST whose body has a quote and an umlaut in it.
const CHROME_POST: &str = r#"curl 'https://app.example/api/velt/token' \
  -X 'POST' \
  -H 'content-type: application/json' \
  --data-raw $'{"name":"O\'Hara \u00fc\u0021"}'"#;

/// Command that Firefox 143 copies for a POST.
const FIREFOX: &str = r#"curl 'https://app.example/api/velt/token' --compressed -X POST -H 'User-Agent: Mozilla/5.0' -H 'Accept: */*' -H 'Content-Type: application/json' -H 'Origin: https://app.example' -H 'Sec-Fetch-Dest: empty' -H 'Sec-Fetch-Site: same-origin' -H 'Cookie: session=a1' -H 'TE: trailers' --data-raw '{"userId":"ada"}'"#;

#[test]
fn curl_command_copied_from_a_browser_is_read_whole() {
    let (asked, notes) = read(CHROME);
    assert_eq!((&*asked.method, &*asked.target), ("", "https://app.example/api/me?tab=1"));
    assert_eq!(notes, [""; 0]);
    let said = headers(&asked);
    assert_eq!(said.len(), 8);
    for header in ["Cookie: session=a1; theme=\"dark\"", "sec-fetch-dest: empty"] {
        assert!(said.iter().any(|said| said == header), "{header}: {said:?}");
    }
    let (asked, notes) = read(CHROME_POST);
    assert_eq!((&*asked.method, notes.len()), ("POST", 0));
    assert_eq!(asked.body, "{\"name\":\"O'Hara ü!\"}");
    let (asked, notes) = read(FIREFOX);
    assert_eq!((&*asked.method, notes.len()), ("POST", 0));
    assert_eq!(asked.body, r#"{"userId":"ada"}"#);
    assert!(headers(&asked).contains(&"Accept-Encoding: gzip, deflate, br, zstd".to_owned()));
    // Line ends as in a clipboard of Windows, and the binary by its path.
    assert_eq!(read(&CHROME.replace('\n', "\r\n")), read(CHROME));
    assert_eq!(read(&CHROME.replacen("curl", "/usr/bin/curl", 1)), read(CHROME));
}

#[test]
fn flags_mean_what_they_mean_to_curl() {
    for (line, method, target, header, body) in [
        ("curl http://a/", "", "http://a/", "", ""),
        ("curl a/b", "", "http://a/b", "", ""),
        ("curl --url http://a/ -X PUT", "PUT", "http://a/", "", ""),
        ("curl -XDELETE http://a/", "DELETE", "http://a/", "", ""),
        ("curl -sSLkiv http://a/", "", "http://a/", "", ""),
        ("curl -skXPATCH http://a/ -o out", "PATCH", "http://a/", "", ""),
        ("curl -I http://a/", "HEAD", "http://a/", "", ""),
        (
            "curl http://a/ -d x=1 -d y=2",
            "POST",
            "http://a/",
            "Content-Type: application/x-www-form-urlencoded",
            "x=1&y=2",
        ),
        ("curl -G http://a/?z=0 -d x=1", "", "http://a/?z=0&x=1", "", ""),
        (
            "curl http://a/ -d '' -X PUT",
            "PUT",
            "http://a/",
            "Content-Type: application/x-www-form-urlencoded",
            "",
        ),
        ("curl http://a/ --json '{}'", "POST", "http://a/", "Content-Type: application/json", "{}"),
        ("curl -u ada:pw http://a/", "", "http://a/", "Authorization: Basic YWRhOnB3", ""),
        ("curl --oauth2-bearer t http://a/", "", "http://a/", "Authorization: Bearer t", ""),
        ("curl -b s=1 http://a/", "", "http://a/", "Cookie: s=1", ""),
        ("curl -A me http://a/", "", "http://a/", "User-Agent: me", ""),
        ("curl -H 'X-Empty;' http://a/", "", "http://a/", "X-Empty: ", ""),
        ("curl -HX-A:b http://a/", "", "http://a/", "X-A: b", ""),
        ("curl -H 'Accept:' http://a/", "", "http://a/", "", ""),
        ("curl http://a/?x=1&y=2", "", "http://a/?x=1", "", ""),
        ("curl http://a/ | jq .", "", "http://a/", "", ""),
        ("curl \"http://a/\\\"\" -H \"a: \\$x \\y\"", "", "http://a/\"", "a: $x \\y", ""),
        ("curl http://a\\ b", "", "http://a b", "", ""),
        ("curl $'http://a/\\x41\\101\\n'", "", "http://a/AA\n", "", ""),
    ] {
        let (asked, notes) = read(line);
        assert_eq!((&*asked.method, &*asked.target), (method, target), "{line}");
        assert_eq!((headers(&asked).join("|"), &*asked.body), (header.to_owned(), body), "{line}");
        assert_eq!(notes.len(), 0, "{line}: {notes:?}");
    }
    assert!(read("curl --http2 http://a/").0.http2);
}

#[test]
fn unknown_curl_flags_are_noted_and_left_out() {
    for (line, notes) in [
        ("curl --no-such http://a/", &["curl's --no-such is not known here and left out"][..]),
        ("curl -Zk http://a/", &["curl's -Z is not known here and left out"]),
        (
            "curl http://a/ http://b/",
            &["\"http://b/\" is left out: one request is explained at a time"],
        ),
        ("curl -b jar http://a/", &["curl's -b names a file, which is not read"]),
        ("curl -d @f http://a/", &["curl's -d names a file, which is not read"]),
        ("curl -H @f http://a/", &["curl's -H names a file, which is not read"]),
        ("curl -F a=b http://a/", &["curl's -F is not supported; the body is left empty"]),
        (
            "curl -H ':path: /x' http://a/",
            &["curl's -H has one of HTTP/2's own fields, which the URL stands for"],
        ),
    ] {
        let (asked, said) = read(line);
        assert_eq!(said, notes, "{line}");
        assert_eq!(asked.target, "http://a/", "{line}");
    }
}

#[test]
fn text_that_is_no_curl_command_is_refused_with_a_remedy() {
    for (line, problem) in [
        ("curl 'http://a/", "not closed"),
        ("curl \"http://a/", "not closed"),
        ("curl $'http://a/", "not closed"),
        ("curl $'\\xff'", "no text"),
        ("curl $'\\uD800'", "no text"),
        ("curl ^\"http://a/^\"", "Windows"),
        ("curl", "no URL"),
        ("", "no URL"),
        ("curl http://a/ -H", "no value"),
        ("curl http://a/ -H nothing", "no colon"),
    ] {
        let flags = Flags { curl_line: Some(line.into()), ..Flags::default() };
        let error = flags.into_asked().expect_err(line);
        assert!(error.problem.contains(problem), "{line}: {error}");
        assert!(!error.remedy.is_empty());
    }
}

proptest! {
    #[test]
    fn pasted_text_never_causes_a_panic(line in "\\PC*", curl in "curl [ -~\\n]{0,80}") {
        for line in [line, curl] {
            if let Ok(words) = words(&line) {
                let _ = parse(&words);
            }
        }
    }

    #[test]
    fn words_quoted_for_bash_come_out_unchanged(said in prop::collection::vec(".*", 0..5)) {
        let quote = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
        let line: Vec<_> = said.iter().map(quote).collect();
        prop_assert_eq!(words(&line.join(" \\\n")), Ok(said));
    }
}
