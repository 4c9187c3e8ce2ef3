//! Tests of the headers that a ruling removes: each verdict, from the login proxy and from another peer.

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::*;
use crate::assertion::{
    AssertionSource, ClaimNames, ClaimPath, Format, InvalidAssertion, OnInvalid, Place, Places,
    Policy,
};
use crate::keys::KeyLocation;
use crate::{Granted, Groups, Organization, Placeholder, Placeholders, Settings, Source, User};
use ground::groups::{GroupSet, KnownGroups};
use ground::metrics::Metrics;
use ground::tls::Roots;

const JWT: HeaderName = HeaderName::from_static("x-jwt");
const USER: HeaderName = HeaderName::from_static("x-user");
const EMAIL: HeaderName = HeaderName::from_static("x-email");
const GROUPS: HeaderName = HeaderName::from_static("x-groups");

fn placeholders() -> Placeholders {
    Placeholders::new(Placeholder::parse("-"))
}

fn by_assertion(header: HeaderName, on_invalid: OnInvalid) -> Source {
    let claims = ClaimNames {
        placeholders: placeholders(),
        ..ClaimNames::of_user(ClaimPath::parse("sub").expect("a path"))
    };
    let policy = Policy {
        issuer: Some("i".into()),
        audience: vec!["a".into()],
        authorized_parties: Vec::new(),
        required: Vec::new(),
        algorithms: Vec::new(),
        leeway: Duration::ZERO,
        signer: None,
        claims,
    };
    let keys = Some(KeyLocation::Set("http://keys.example/".parse().expect("a URL")));
    let (places, format) = (Places::new(vec![Place::Header(header)]), Format::Jwt);
    let (places, secrets, roots) = (places.expect("a header"), Vec::new(), Roots::Bundled);
    let source = AssertionSource { places, format, keys, secrets, roots, policy, on_invalid };
    Source::Assertion(Box::new(source))
}

fn by_headers() -> HeaderSource {
    HeaderSource {
        user: USER,
        email: Some(EMAIL),
        name: None,
        organization: None,
        groups: None,
        groups_separator: ',',
        groups_lines: GroupsLines::One,
        admin_groups: Vec::new(),
        known_groups: KnownGroups::default(),
        grants: None,
        placeholders: placeholders(),
    }
}

fn identity(source: Source, ambiguous: OnAmbiguous, forward: ForwardIdentity) -> Identity {
    let settings = Settings {
        source,
        details: None,
        guarded: vec![GROUPS, USER, EMAIL],
        trusted_peers: Vec::new(),
        trusted_names: Vec::new(),
        secret: None,
        trusted_hosts: Vec::new(),
        trusted_proxies: None,
        ambiguous,
        forward,
        token_headers: Vec::new(),
    };
    Identity::new(settings, Metrics::new().identity).expect("no file is read")
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}

/// Carries a ruling out. Returns the conclusion, the numbers of forged headers and aliases, and the names
/// that are left.
fn carry_out(identity: &Identity, ruling: &Ruling<'_>, mut headers: HeaderMap) -> String {
    let seen = identity.guard.scan(&headers);
    let forged = identity.guard.remove(ruling.forged, &mut headers, &seen);
    identity.guard.remove(ruling.hidden, &mut headers, &seen);
    let conclusion = match &ruling.conclusion {
        Conclusion::Caller(Caller::Known(_)) => "known",
        Conclusion::Caller(Caller::Anonymous) => "anonymous",
        Conclusion::Caller(Caller::Unverified) => "unverified",
        Conclusion::Caller(Caller::Unnamed) => "unnamed",
        Conclusion::Ignored(_) => "ignored",
        Conclusion::Refused(_) => "refused",
    };
    let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    let (headers, aliases) = (forged.headers.count, forged.aliases.count);
    format!("{conclusion}, forged {headers} and {aliases}, left {}", left.join(" "))
}

fn said(user: Option<&str>) -> Said {
    let user = user.map(|id| User {
        id: id.into(),
        email: None,
        name: None,
        organization: Organization::Unnamed,
        is_admin: None,
        groups: Groups::In(GroupSet::default()),
        grants: Granted::NotAsked,
    });
    Said::of(user, Flaws::default())
}

fn verdict(name: &str) -> Result<Verdict, Refusal> {
    Ok(match name {
        "user" => Verdict::Valid(said(Some("ada"))),
        "no user" => Verdict::Valid(said(None)),
        "absent" => Verdict::Absent(Flaws::default()),
        "other scheme" => Verdict::OtherScheme,
        "no keys" => Verdict::Unavailable,
        "invalid" => Verdict::Invalid(InvalidAssertion::Signature),
        _ => return Err(Refusal::ambiguous(RefusalKind::Repeated, &JWT)),
    })
}

#[test]
fn each_verdict_removes_its_headers() {
    const FRONT: bool = true;
    const OTHER: bool = false;
    const PLAIN: &str = "forged 2 and 1, left x-jwt x-other";
    const LEFTOVERS: &str = "forged 1 and 1, left x-jwt x-email x-other";
    const NONE: &str = "forged 0 and 0, left x-jwt x-user x_user x-email x-other";
    const HIDDEN: &str = "forged 0 and 0, left x-other";
    const EVERY: &str = "forged 2 and 1, left x-other";
    // The e-mail address is blank.
    let request =
        [("x-jwt", "t"), ("x-user", "eve"), ("x_user", "eve"), ("x-email", "-"), ("x-other", "a")];
    for (name, on_invalid, ambiguous, peer, conclusion, headers_left) in [
        ("user", OnInvalid::Refuse, OnAmbiguous::Refuse, FRONT, "known", NONE),
        ("user", OnInvalid::Refuse, OnAmbiguous::Refuse, OTHER, "known", PLAIN),
        ("no user", OnInvalid::Refuse, OnAmbiguous::Refuse, FRONT, "anonymous", LEFTOVERS),
        ("no user", OnInvalid::Refuse, OnAmbiguous::Refuse, OTHER, "anonymous", PLAIN),
        ("absent", OnInvalid::Refuse, OnAmbiguous::Refuse, FRONT, "anonymous", LEFTOVERS),
        ("absent", OnInvalid::Refuse, OnAmbiguous::Refuse, OTHER, "anonymous", PLAIN),
        ("other scheme", OnInvalid::Refuse, OnAmbiguous::Refuse, FRONT, "anonymous", LEFTOVERS),
        ("other scheme", OnInvalid::Refuse, OnAmbiguous::Refuse, OTHER, "anonymous", PLAIN),
        ("no keys", OnInvalid::Refuse, OnAmbiguous::Refuse, FRONT, "unverified", NONE),
        ("no keys", OnInvalid::Refuse, OnAmbiguous::Refuse, OTHER, "unverified", EVERY),
        ("invalid", OnInvalid::Refuse, OnAmbiguous::Drop, FRONT, "refused", NONE),
        ("invalid", OnInvalid::Refuse, OnAmbiguous::Drop, OTHER, "refused", PLAIN),
        ("invalid", OnInvalid::Anonymous, OnAmbiguous::Refuse, FRONT, "ignored", EVERY),
        ("invalid", OnInvalid::Anonymous, OnAmbiguous::Refuse, OTHER, "ignored", EVERY),
        ("ambiguous", OnInvalid::Anonymous, OnAmbiguous::Refuse, FRONT, "refused", NONE),
        ("ambiguous", OnInvalid::Anonymous, OnAmbiguous::Refuse, OTHER, "refused", PLAIN),
        ("ambiguous", OnInvalid::Refuse, OnAmbiguous::Drop, FRONT, "ignored", HIDDEN),
        ("ambiguous", OnInvalid::Refuse, OnAmbiguous::Drop, OTHER, "ignored", EVERY),
    ] {
        let identity = identity(by_assertion(JWT, on_invalid), ambiguous, ForwardIdentity::Keep);
        let Reader::Assertion(assertions) = &identity.reader else { panic!("by assertion") };
        let headers = headers(&request);
        let ruling = identity.rule_by_verdict(assertions, verdict(name), peer, &headers);
        let found = carry_out(&identity, &ruling, headers);
        assert_eq!(found, format!("{conclusion}, {headers_left}"), "{name}, front: {peer}");
    }
}

#[test]
fn unusable_assertion_in_authorization_stays_for_the_app() {
    let source = by_assertion(AUTHORIZATION, OnInvalid::Anonymous);
    let identity = identity(source, OnAmbiguous::Refuse, ForwardIdentity::Keep);
    let Reader::Assertion(assertions) = &identity.reader else { panic!("by assertion") };
    for (name, trusted, expected) in [
        ("no keys", true, "unverified, forged 0 and 0, left authorization x-user"),
        ("no keys", false, "unverified, forged 1 and 0, left authorization"),
        ("invalid", true, "ignored, forged 1 and 0, left authorization"),
        ("invalid", false, "ignored, forged 1 and 0, left authorization"),
    ] {
        let headers = headers(&[("authorization", "Bearer t"), ("x-user", "eve")]);
        let ruling = identity.rule_by_verdict(assertions, verdict(name), trusted, &headers);
        assert_eq!(carry_out(&identity, &ruling, headers), expected, "{name}, front: {trusted}");
    }
}

#[tokio::test]
async fn identity_headers_are_hidden_unless_the_request_is_refused() {
    let plain = || Source::Header(Box::new(by_headers()));
    let app = || {
        let path = "/me".parse().expect("a path");
        Source::App(Box::new(crate::AppSource { headers: by_headers(), path }))
    };
    let user: &[_] = &[("x-user", "ada"), ("x-email", "a@b.example"), ("x-groups", "staff")];
    let nobody: &[_] = &[("x-user", ""), ("x-email", "a@b.example"), ("x-groups", "-")];
    let twice: &[_] = &[("x-user", "ada"), ("x-groups", "a"), ("x-groups", "b")];
    let (keep, strip) = (ForwardIdentity::Keep, ForwardIdentity::Strip);
    let (refuse, drop) = (OnAmbiguous::Refuse, OnAmbiguous::Drop);
    for (source, ambiguous, forward, trusted, lines, expected) in [
        (plain(), refuse, keep, true, user, "known, forged 0 and 0, left x-user x-email x-groups"),
        (plain(), refuse, strip, true, user, "known, forged 0 and 0, left "),
        (plain(), refuse, keep, false, user, "anonymous, forged 3 and 0, left "),
        (plain(), refuse, strip, false, user, "anonymous, forged 3 and 0, left "),
        (plain(), refuse, keep, true, nobody, "anonymous, forged 1 and 0, left x-user x-groups"),
        (plain(), refuse, strip, true, nobody, "anonymous, forged 1 and 0, left "),
        (plain(), refuse, keep, true, twice, "refused, forged 0 and 0, left x-user x-groups"),
        (plain(), refuse, strip, true, twice, "refused, forged 0 and 0, left x-user x-groups"),
        (plain(), drop, keep, true, twice, "ignored, forged 0 and 0, left "),
        (plain(), drop, keep, false, twice, "anonymous, forged 2 and 0, left "),
        (app(), refuse, keep, true, user, "unnamed, forged 3 and 0, left "),
        (app(), refuse, keep, false, user, "unnamed, forged 3 and 0, left "),
    ] {
        let identity = identity(source, ambiguous, forward);
        let headers = headers(lines);
        let seen = identity.guard.scan(&headers);
        let ruling = identity.rule(Asking::ToExplain, trusted, &headers, &seen).await;
        let found = carry_out(&identity, &ruling, headers.clone());
        assert_eq!(found, expected, "{lines:?}, front: {trusted}, {ambiguous:?}, {forward:?}");
    }
}
