//! Wording of each decision, and the settings that took part in it.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request};

use super::super::details::{Detailed, NoDetails};
use super::super::error::NoToken;
use super::Key::Named;
use super::Step;
use ground::metrics::{Label as _, RefusalKind};
use ground::peer::Peer;
use hop::proxy::BadRequest;
use identity::{
    Attribute, Caller, Conclusion, Decision, Identity, Reads, Refusal, Shown, SignedIn, Trust, User,
};
use token::cache::Known;
use token::{MintError, MintPlan, MintRequest};

/// State of the cache, as far as it is known.
#[derive(Clone, Copy)]
pub(super) enum Cache<'a> {
    /// No sidecar was asked.
    Unasked,
    /// Cached state, and the error of a call if calls are held at the moment.
    Known(&'a Known, Option<&'a MintError>),
}

pub(super) fn step(
    name: &'static str,
    verdict: impl Into<String>,
    why: impl Into<String>,
    settings: &[&'static str],
) -> Step {
    let settings = settings.iter().copied().map(Named).collect();
    Step { name, verdict: verdict.into(), why: why.into(), settings }
}

pub(super) fn of_trust(identity: &Identity, peer: &Peer, trust: &Trust) -> Step {
    let address = peer.address().to_canonical();
    let secret = identity.secret_header();
    let (verdict, why) = match (trust, secret) {
        (Trust::Trusted(range), secret) => {
            // A range with a prefix of 0 bits holds all addresses. Then something else decides.
            let place = (range.prefix_len() > 0).then(|| format!("{address} is in {range}"));
            let name = identity.needs_name().then(|| "its certificate has a trusted name".into());
            let secret = secret.map(|secret| format!("{secret} holds the secret"));
            let reasons: Vec<String> = [place, name, secret].into_iter().flatten().collect();
            // The ranges alone decide, and they hold all addresses.
            let anywhere = || format!("{address} is in {range}");
            let why = if reasons.is_empty() { anywhere() } else { reasons.join(", and ") };
            ("trusted", why)
        }
        (Trust::Stranger, _) => {
            ("not trusted", format!("{address} is in none of the trusted ranges"))
        }
        (Trust::Itself, _) => {
            let why = format!(
                "{address} is this sidecar's own address, from which the proxy of a service mesh \
                 hands every caller on: it counts only where a setting names it by itself"
            );
            ("not trusted", why)
        }
        (Trust::NoName, _) => {
            let why = if peer.names.is_some() {
                "its certificate carries none of the trusted names"
            } else {
                "it has shown no certificate, and needs one with a trusted name"
            };
            ("not trusted", why.to_owned())
        }
        (Trust::Page, _) => {
            let why = format!(
                "{address} is a browser on this machine that asks for a page of another site (Host, \
                 Origin and Connection say so), and no login proxy"
            );
            ("not trusted", why)
        }
        (Trust::NoSecret(shown), secret) => {
            let header = secret.map_or("", HeaderName::as_str);
            let why = if *shown == Shown::Wrong {
                format!("{header} does not hold the secret, or is there more than once")
            } else {
                format!("{header}, which should hold the secret, is not there")
            };
            ("not trusted", why)
        }
    };
    let mut settings = vec!["identity.trusted_peers"];
    if identity.needs_name() {
        settings.push("identity.trusted_names");
    }
    if secret.is_some() {
        settings.push("identity.secret_header");
    }
    if *trust == Trust::Page {
        settings.push("identity.trusted_hosts");
    }
    step("peer", verdict, why, &settings)
}

pub(super) fn of_identity(
    identity: &Identity,
    before: &HeaderMap,
    decision: &Decision,
    live: bool,
) -> Step {
    let reads = identity.reads();
    let mut settings = settings_of(reads).to_vec();
    let (verdict, mut why) = match &decision.conclusion {
        Conclusion::Caller(caller) => {
            (words_of(caller), why_caller(reads, before, decision, caller, live))
        }
        Conclusion::Ignored(refusal) => {
            settings.push(setting_on(refusal));
            (
                words_of(&Caller::Anonymous),
                format!("{refusal} The sidecar drops it ({}).", setting_on(refusal)),
            )
        }
        Conclusion::Refused(refusal) => {
            settings.push(setting_on(refusal));
            ("refused".into(), refusal.to_string())
        }
    };
    if decision.flaws.of(Attribute::User).is_some() {
        settings.push("identity.placeholders");
    }
    // Other steps tell of the user and the grants.
    let left_out = |which: &Attribute| !matches!(which, Attribute::User | Attribute::Grants);
    for (attribute, flaw) in decision.flaws.iter().filter(|(which, _)| left_out(which)) {
        why = format!("{why}; the {} is left out, since {}", attribute.as_str(), flaw.reason());
    }
    for spoof in decision.spoofs.iter() {
        let header = spoof.removed.header.as_ref().map_or("", HeaderName::as_str);
        why = format!("{why}; {header} was removed ({})", spoof.kind.as_str());
    }
    step("identity", verdict, why, &settings)
}

fn words_of(caller: &Caller) -> Cow<'static, str> {
    match caller {
        Caller::Known(user) => format!("user {}", known(user)).into(),
        Caller::Anonymous => "no user (anonymous)".into(),
        Caller::Unverified => "no user (not verified)".into(),
        Caller::Unnamed => "not known yet".into(),
    }
}

/// Describes a user. Values are in quotes, so that no byte of a value can pass for anything else.
fn known(user: &User) -> String {
    let mut text = format!("{:?}", user.id.as_str());
    for (name, value) in [
        ("organization", user.organization.name()),
        ("email", user.email.as_deref()),
        ("name", user.name.as_deref()),
    ] {
        if let Some(value) = value {
            text = format!("{text}, {name} {value:?}");
        }
    }
    match user.is_admin {
        Some(true) => text + ", admin",
        _ => text,
    }
}

fn why_caller(
    reads: Reads<'_>,
    before: &HeaderMap,
    decision: &Decision,
    caller: &Caller,
    live: bool,
) -> String {
    let trusted = decision.trust.is_trusted();
    match (reads, caller) {
        (Reads::Header(header), _) if decision.flaws.of(Attribute::User).is_some() => {
            format!("{header} names no user: {}", RefusalKind::Placeholder.reason())
        }
        (Reads::Assertion(places), _) if decision.flaws.of(Attribute::User).is_some() => {
            format!("{places} names no user: {}", RefusalKind::Placeholder.reason())
        }
        (Reads::Header(header), Caller::Known(_)) => format!("{header} names one user"),
        (Reads::Header(header), _) if !trusted && before.contains_key(header) => {
            format!("{header} counts only from a trusted peer")
        }
        (Reads::Assertion(places), Caller::Known(_)) => {
            format!("the assertion in {places} is from its issuer and valid")
        }
        (Reads::Assertion(places), Caller::Unverified) if live => {
            format!("there are no keys to check {places} with; the log says why")
        }
        (Reads::Assertion(places), Caller::Unverified) => {
            format!("the configuration alone has no keys to check {places} with")
        }
        (Reads::Assertion(places), _) if places.are_in(before) => {
            format!("the assertion in {places} is empty, of another scheme, or names no user")
        }
        (Reads::Assertion(places), _) => format!("{places} is not there"),
        (Reads::Header(header), _) if before.contains_key(header) => {
            format!("{header} is empty, so it names no user")
        }
        (Reads::Header(header), _) => format!("{header} is not there"),
        (Reads::App(header), _) => format!("the app names the user, in {header} of its response"),
    }
}

fn settings_of(reads: Reads<'_>) -> &'static [&'static str] {
    match reads {
        Reads::Header(_) | Reads::App(_) => &["identity.source", "identity.user_header"],
        Reads::Assertion(places) if places.have_cookie() => {
            &["identity.source", "identity.assertion.cookie", "identity.assertion.issuer"]
        }
        Reads::Assertion(_) => {
            &["identity.source", "identity.assertion.header", "identity.assertion.issuer"]
        }
    }
}

fn setting_on(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Ambiguous { .. } => "identity.on_ambiguous",
        Refusal::Invalid(_) => "identity.assertion.on_invalid",
    }
}

pub(super) fn of_bad_request(bad: &BadRequest) -> Step {
    step("message", "refused", bad.to_string(), &[])
}

pub(super) fn of_required<B>(request: &Request<B>) -> Step {
    let why = format!("{} may be asked by known callers only", request.uri().path());
    step("required user", "refused", why, &["identity.require_on"])
}

pub(super) fn of_app_asked(
    identity: &Identity,
    said: Option<&Result<Caller, Refusal>>,
    said_so: bool,
) -> Step {
    let path = identity.app_path().map_or("", http::uri::PathAndQuery::as_str);
    let verdict = match said {
        Some(Ok(caller)) => words_of(caller),
        Some(Err(_)) => "refused".into(),
        None => "no user".into(),
    };
    let why = if said_so {
        format!(
            "asked at {path} with the browser's cookies, the app answers as --response-status and \
             --response-header say"
        )
    } else {
        format!(
            "the sidecar would ask the app at {path} with the browser's cookies; explain does not \
             ask, so give the app's answer by --response-status and --response-header"
        )
    };
    step("app's word", verdict, why, &["identity.app_path", "identity.user_header"])
}

pub(super) fn of_app_said(
    identity: &Identity,
    said: &Result<Caller, Refusal>,
    assumed: bool,
) -> Step {
    let header = match identity.reads() {
        Reads::Header(header) | Reads::App(header) => header.as_str(),
        // An app that is asked names the user; an assertion is not the app's word.
        Reads::Assertion(_) => "user",
    };
    let (verdict, why) = match said {
        Ok(caller @ Caller::Known(_)) => {
            (words_of(caller), format!("{header} of the app's response names one user"))
        }
        Ok(_) if assumed => (
            "no user (anonymous)".into(),
            format!("without --response-header the app is taken to send no {header}"),
        ),
        Ok(_) => ("no user (anonymous)".into(), format!("the app's response has no {header}")),
        Err(refusal) => ("refused".into(), refusal.to_string()),
    };
    step("app's word", verdict, why, &["identity.user_header"])
}

pub(super) fn of_details(path: &str, kept: Option<&Detailed>, live: bool) -> Step {
    let (verdict, why) = match kept {
        Some(Ok(user)) => (
            format!("user {}", known(user)),
            format!("the app has answered at {path} a while ago, and its answer is kept"),
        ),
        Some(Err(reason @ NoDetails::LongHost)) => (
            format!("none: {reason}"),
            format!("the app is not asked at {path} for such a request"),
        ),
        Some(Err(reason)) => (
            format!("none: {reason}"),
            format!("the app was asked at {path} a moment ago, and is soon asked again"),
        ),
        None if live => (
            "asked for".into(),
            format!(
                "no answer about this user is kept, so a request asks the app at {path}; explain does \
                 not ask"
            ),
        ),
        None => (
            "asked for, unless kept".into(),
            format!(
                "the app tells them at {path}; only a running sidecar knows what is kept: add --admin"
            ),
        ),
    };
    step("details", verdict, why, &["identity.details_path", "identity.details_max_age"])
}

/// Explains why a user who was signed out gets no token.
pub(super) fn of_signed_out(signed_in: SignedIn) -> Step {
    let why = if signed_in.at.is_some() {
        "the user was signed out after the login that the assertion tells (auth_time)"
    } else {
        "the user was signed out a while ago, and this identity does not tell when they signed in"
    };
    step("logout", "no token for this user", why, &["logout.refuse_for"])
}

pub(super) fn of_no_request(plan: &MintPlan, absent: &NoToken) -> Step {
    match absent {
        NoToken::NoOrganization => step(
            "token",
            "none",
            format!(
                "the {} API needs an organization, and there is none",
                plan.issuer().api.name()
            ),
            &["velt.api"],
        ),
        NoToken::Unverified => step("token", "none", "the identity could not be checked", &[]),
        _ => step("token", "none", "no user is signed in", &[]),
    }
}

pub(super) fn of_cache(plan: &MintPlan, request: &MintRequest, cache: Cache<'_>) -> Step {
    let api = plan.issuer().api.name();
    let organization = match request.organization() {
        Some(organization) => format!(" in {organization:?}"),
        None => String::new(),
    };
    let asked = format!("{:?}{organization}", request.user.as_str());
    let mint = format!("the {api} API at {}", plan.issuer().endpoint);
    let (verdict, why) = match cache {
        Cache::Unasked => (
            "looked up, else minted".into(),
            format!(
                "for {asked}, by {mint}; only a running sidecar knows what is cached: add --admin"
            ),
        ),
        Cache::Known(Known::Fresh { remaining }, _) => {
            ("cached, fresh".into(), format!("for {asked}, for {} more", span(*remaining)))
        }
        Cache::Known(Known::Due { remaining, refreshing }, _) => {
            let refresh = if *refreshing { "being refreshed" } else { "due for a refresh" };
            let why = format!("for {asked}, for {} more, and {refresh}", span(*remaining));
            ("cached, due".into(), why)
        }
        Cache::Known(Known::InFlight, _) => {
            ("being minted".into(), format!("for {asked}, by {mint}; a request joins it"))
        }
        Cache::Known(Known::FailedRecently { error, retry_in }, _) => (
            format!("none: {error}"),
            format!(
                "for {asked}; the sidecar remembers this failure and tries again in {}",
                span(*retry_in)
            ),
        ),
        Cache::Known(known, Some(error)) => {
            let state = absent(known);
            let pause = span(error.retry_after().unwrap_or_default());
            (format!("{state}, and calls suspended for {pause}"), format!("for {asked}; {error}"))
        }
        Cache::Known(known, _) => (
            format!("{}, so minted", absent(known)),
            format!("for {asked}, by {mint}; a request starts it"),
        ),
    };
    step("token", verdict, why, &["velt.api", "velt.endpoint"])
}

fn absent(known: &Known) -> &'static str {
    if matches!(known, Known::Expired) { "expired" } else { "not cached" }
}

/// Writes a time, rounded up to seconds, minutes or hours.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match seconds {
        0..=120 => format!("{seconds} s"),
        121..=7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

pub(super) fn of_insisting() -> Step {
    step(
        "delivery",
        "refused before the app is asked",
        "no token can be had",
        &["delivery.header.on_failure"],
    )
}
