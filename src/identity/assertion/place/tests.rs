use proptest::prelude::*;

use super::*;

fn headers(lines: &[&str]) -> HeaderMap {
    let line = |line: &&str| (COOKIE, HeaderValue::from_str(line).expect("legal"));
    lines.iter().map(line).collect()
}

/// Returns name and value of the cookie `name` in the lines; `None` if it is not there.
fn find(name: &str, lines: &[&str]) -> Result<Option<(String, String)>, ()> {
    let name = CookieName::parse(name).expect("a name");
    let headers = headers(lines);
    let found = name.find(&headers).map_err(drop)?;
    let text = |cookie: Result<Cookie<'_>, InvalidAssertion>| match cookie {
        Ok(cookie) => (cookie.name.to_owned(), String::from_utf8_lossy(&cookie.value).into_owned()),
        Err(invalid) => (format!("{invalid:?}"), String::new()),
    };
    Ok(found.map(text))
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared with the result of find")]
fn one(name: &str, value: &str) -> Result<Option<(String, String)>, ()> {
    Ok(Some((name.to_owned(), value.to_owned())))
}

#[test]
fn cookie_is_found_among_others_and_in_any_line() {
    for lines in [
        &["s=v"][..],
        &["a=b; s=v; c=d"],
        &["a=b;s=v"],
        &["a=b", "s=v"],
        &["S=x; ss=x; s.1=x; s =v"],
        &["s=\"v\""],
    ] {
        assert_eq!(find("s", lines), one("s", "v"), "{lines:?}");
    }
    assert_eq!(find("s", &["s=a=b=="]), one("s", "a=b=="), "the first = ends the name");
    for lines in [&[][..], &[""], &["s"], &["s="], &["s=\"\""], &["t=v"], &["s.1=v"], &["s.00=v"]] {
        assert_eq!(find("s", lines), Ok(None), "{lines:?}");
    }
}

#[test]
fn t66_cookie_that_came_twice_is_ambiguous() {
    for lines in [
        &["s=v; s=v"][..],
        &["s=v; s=w"],
        &["s=v", "s=w"],
        &["s=; s=w"],
        &["s.0=a; s.0=b"],
        &["s.0=a; s.1=b; s.1=c"],
    ] {
        assert_eq!(find("s", lines), Err(()), "{lines:?}");
    }
}

#[test]
fn several_names_that_fit_are_no_valid_assertion() {
    let several = one("SeveralCookies", "");
    assert_eq!(find("a.*.z", &["a.1.z=v; a.2.z=v"]), several);
    assert_eq!(find("a-*-z", &["a-1-z.0=v; a-2-z.1=v"]), several, "pieces of two cookies");
    assert_eq!(find("a.*.z", &["a.1.z=; a.2.z=v"]), one("a.2.z", "v"), "the first is cleared");
}

#[test]
fn thousands_of_names_that_fit_are_given_up_early() {
    let names: Vec<String> = (0..4000).map(|nth| format!("sb-{nth}-t=")).collect();
    assert_eq!(find("sb-*-t", &[&names.join("; ")]), one("SeveralCookies", ""));
}

#[test]
fn t66_guarded_name_supersedes_the_bare_one() {
    let name = |text| Place::Cookie(CookieName::parse(text).expect("a name"));
    let (secure, host, other) = (name("__Secure-s"), name("__Host-s"), name("__Secure-t"));
    let found = |place: &Place| match place {
        Place::Cookie(name) => Places::is_superseded(
            &self::Place::Cookie(CookieName::parse("s").expect("a name")),
            &[name],
        ),
        Place::Header(_) => false,
    };
    assert!(found(&secure) && found(&host));
    assert!(!found(&other) && !found(&name("s")));
}

#[test]
fn pieces_are_joined_up_to_the_first_that_is_missing() {
    assert_eq!(find("s", &["s.1=b; s.0=a; s.2=c"]), one("s", "abc"));
    assert_eq!(find("s", &["s.0=a; s.2=c"]), one("s", "a"));
    assert_eq!(find("s", &["s.0=a; s=whole"]), one("s", "whole"));
    assert_eq!(find("sb-*-t", &["sb-x-t.0=a; sb-x-t.1=b; sb-x-t-verifier=c"]), one("sb-x-t", "ab"));
}

#[test]
fn names_have_one_star_at_most() {
    for text in ["", "*", "*a", "a*b*", "a b", "a;b", "a=b", "a,b", "ä"] {
        assert!(CookieName::parse(text).is_none(), "{text:?}");
    }
    let name = CookieName::parse("a.*.c").expect("a name");
    assert!(name.matches("a.b.c") && name.matches("a.b.b.c"));
    assert!(!name.matches("a..c") && !name.matches("a.b.cc") && !name.matches("a.c"));
}

proptest! {
    /// A line of cookies leads to one value, to none, or to a refusal, and a value stands in the line.
    #[test]
    fn any_cookie_line_is_read_or_refused(line in "[ -~]{0,80}", name in "[a-c]{1,2}") {
        let lines = [line.as_str()];
        if let Ok(Some((found, value))) = find(&name, &lines) {
            prop_assert_eq!(found, name);
            prop_assert!(!value.is_empty() && value.len() <= line.len());
        }
    }

    /// The sidecar puts a cookie's pieces together again, in any order in which the browser sends them.
    #[test]
    fn pieces_in_any_order_make_the_whole(value in "[a-z]{1,60}", size in 5_usize..20, turn in 0_usize..8) {
        let mut pieces: Vec<String> = value
            .as_bytes()
            .chunks(size)
            .enumerate()
            .map(|(at, piece)| format!("s.{at}={}", String::from_utf8_lossy(piece)))
            .collect();
        let count = pieces.len();
        pieces.rotate_left(turn % count);
        let line = pieces.join("; ");
        prop_assert_eq!(find("s", &[line.as_str()]), one("s", &value));
    }
}
