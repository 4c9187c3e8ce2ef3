//! The table `identity.assertion`: the issuer whose signature is believed, and the claims that are read.

use std::time::Duration;

use http::HeaderName;
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::reader::{Inline, Section};
use super::super::setting::Setting as _;
use super::super::words::PlaceName;
use super::preset::AssertionPreset;
use super::{Groups, MIN_SECRET_BYTES, check_plaintext};
use ground::groups::KnownGroups;
use ground::tls::Roots;
use identity::Placeholders;
use identity::assertion::{
    Algorithm, AssertionSource, ClaimNames, ClaimPath, CookieName, Format, Place, Places, Policy,
    RequiredClaim,
};
use identity::keys::KeyLocation;

/// Longest leeway. Clocks that are further apart are wrong, and a leeway keeps expired assertions alive.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// Keys of the table that are about signatures.
const SIGNATURE_KEYS: [&str; 10] = [
    "jwks_url",
    "key_url",
    "x509_url",
    "allow_plaintext",
    "issuer",
    "audience",
    "authorized_parties",
    "required_claims",
    "algorithms",
    "signer",
];

/// Other keys of the table.
const KEYS: [&str; 14] = [
    "header",
    "cookie",
    "sources",
    "format",
    "secret_file",
    "next_secret_file",
    "leeway",
    "on_invalid",
    "user_claim",
    "email_claim",
    "name_claim",
    "organization_claim",
    "groups_claim",
    "grants_claim",
];

/// Environment variables of the secrets.
const SECRET_VARIABLE: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__SECRET";
const NEXT_SECRET_VARIABLE: &str = "VELT_SIDECAR_IDENTITY__ASSERTION__NEXT_SECRET";

/// Complains about each key that is given, for a configuration that does not read the table.
pub fn refuse(section: &Section<'_, '_>) {
    for key in KEYS.into_iter().chain(SIGNATURE_KEYS) {
        section.refuse(
            key,
            "it has no effect while identity.source is \"header\"",
            "write source = \"assertion\" in [identity], or remove it",
        );
    }
}

/// Reads the table. Returns `None`, after a complaint, if a setting that is needed is missing.
pub fn read(
    section: &Section<'_, '_>,
    preset: Option<&AssertionPreset>,
    groups: &Groups,
    placeholders: Placeholders,
    roots: &Roots,
) -> Option<AssertionSource> {
    let of = |field: fn(&AssertionPreset) -> Option<&'static str>| preset.and_then(field);
    let cookies = read_cookies(section, preset);
    let format = read_format(section, preset, !cookies.is_empty());
    let places = read_places(section, of(|preset| preset.header), cookies, format);
    let secrets = read_secrets(section, format);
    let proof = if format.is_sealed() {
        refuse_signatures(section, format);
        Some((None, Proof::default()))
    } else {
        read_signatures(section, preset, !secrets.is_empty())
    };
    let leeway: Duration = section.value("leeway", "30s");
    if leeway > MAX_LEEWAY {
        let remedy = "write at most \"5m\", and set the clocks";
        section.complain_about(
            "leeway",
            "assertions would be believed long after they expire",
            remedy,
        );
    }
    // A session that has expired is the everyday end of a session, and the app shows its login.
    let by_cookie = places.as_ref().is_some_and(Places::have_cookie);
    let on_invalid = section.value("on_invalid", if by_cookie { "anonymous" } else { "refuse" });
    let claims = read_claims(section, preset, groups, placeholders);
    let (keys, proof) = proof?;
    let policy = Policy {
        issuer: proof.issuer,
        audience: proof.audience,
        authorized_parties: proof.authorized_parties,
        required: proof.required,
        algorithms: proof.algorithms,
        leeway,
        signer: proof.signer,
        claims: claims?,
    };
    let roots = roots.clone();
    Some(AssertionSource { places: places?, format, keys, secrets, roots, policy, on_invalid })
}

fn read_cookies(section: &Section<'_, '_>, preset: Option<&AssertionPreset>) -> Vec<CookieName> {
    match preset.map(|preset| preset.cookies).filter(|cookies| !cookies.is_empty()) {
        Some(cookies) => section.list_or("cookie", cookies).unwrap_or_default(),
        None => section.optional_list("cookie").unwrap_or_default(),
    }
}

fn read_format(
    section: &Section<'_, '_>,
    preset: Option<&AssertionPreset>,
    has_cookie: bool,
) -> Format {
    let format: Option<Format> =
        section.optional_or("format", preset.and_then(|preset| preset.format));
    if !has_cookie && section.has("format") {
        section.complain_of_no_effect(
            "format",
            "it has no effect without a cookie",
            "write cookie = [\"...\"] in [identity.assertion], or remove it",
        );
    }
    format.unwrap_or(Format::Jwt)
}

/// Reads the places, in the order of `sources`.
fn read_places(
    section: &Section<'_, '_>,
    preset_header: Option<&str>,
    cookies: Vec<CookieName>,
    format: Format,
) -> Option<Places> {
    let header: Option<HeaderName> = match preset_header {
        Some(header) => section.optional_or("header", Some(header)),
        None if cookies.is_empty() => section.required("header"),
        None => section.optional("header"),
    };
    if header.is_some() && format.is_sealed() {
        section.complain_of_no_effect(
            "header",
            "it has no effect while a secret opens the cookie",
            "remove it",
        );
    }
    let order: Option<Vec<PlaceName>> = section.optional_list("sources");
    let both = header.is_some() && !cookies.is_empty();
    if let Some(order) = &order
        && (!both || order.len() != 2 || order[0] == order[1])
    {
        let remedy = "write sources = [\"header\", \"cookie\"] or [\"cookie\", \"header\"] beside both \
                      header and cookie, or remove it";
        section.complain_about("sources", "it orders header and cookie, each once", remedy);
    }
    let headers: Vec<Place> = header.into_iter().map(Place::Header).collect();
    let cookies = cookies.into_iter().map(Place::Cookie);
    let cookie_first = order.is_some_and(|order| order.first() == Some(&PlaceName::Cookie));
    Places::new(if cookie_first {
        cookies.chain(headers).collect()
    } else {
        headers.into_iter().chain(cookies).collect()
    })
}

/// Reads the secret, and the next secret while it is being changed.
fn read_secrets(section: &Section<'_, '_>, format: Format) -> Vec<SecretString> {
    let read = |key: &str, variable: &str| {
        let secret = section.optional_secret(key, variable, Inline::Refused)?;
        if secret.expose_secret().len() < MIN_SECRET_BYTES {
            section.complain_about(
                key,
                &format!("it has fewer than {MIN_SECRET_BYTES} bytes, so it could be guessed"),
                "make a longer one (openssl rand -hex 32), and give it to the app and to the sidecar",
            );
        }
        Some(secret)
    };
    let secret = read("secret", SECRET_VARIABLE);
    let next = read("next_secret", NEXT_SECRET_VARIABLE);
    let given = ["secret", "secret_file"].into_iter().any(|key| section.has(key));
    let awaited = !given && (format.is_sealed() || next.is_some());
    let stand_in = awaited.then(|| section.stand_in("secret", SECRET_VARIABLE)).flatten();
    if awaited && stand_in.is_none() {
        section.complain_of_missing(
            "secret",
            "it is missing: the secret with which the app seals its sessions, or signs them",
            &format!(
                "set the environment variable {SECRET_VARIABLE}, or secret_file = \"/path/to/file\" in \
                 [identity.assertion]"
            ),
        );
    }
    secret.or(stand_in).into_iter().chain(next).collect()
}

/// Claims and algorithms that a signed assertion has to show beside its signature.
#[derive(Default)]
struct Proof {
    issuer: Option<String>,
    audience: Vec<String>,
    authorized_parties: Vec<String>,
    required: Vec<RequiredClaim>,
    algorithms: Vec<Algorithm>,
    signer: Option<String>,
}

/// Complains about settings of signatures, of which a sealed cookie has none.
fn refuse_signatures(section: &Section<'_, '_>, format: Format) {
    let name = if format == Format::Authjs { "authjs" } else { "nextauth" };
    for key in SIGNATURE_KEYS {
        let problem =
            format!("it has no effect with format = \"{name}\": a secret opens the cookie");
        section.refuse(key, &problem, "remove it");
    }
}

/// Reads what proves a signed assertion: the place of the keys, which is `None` if a secret signs, and the
/// claims that bind it to this app.
fn read_signatures(
    section: &Section<'_, '_>,
    preset: Option<&AssertionPreset>,
    has_secret: bool,
) -> Option<(Option<KeyLocation>, Proof)> {
    let signer = read_signer(section, preset);
    let audience: Vec<String> = match preset.map(|preset| preset.audience) {
        Some(default) if !default.is_empty() => {
            section.list_or("audience", default).unwrap_or_default()
        }
        _ => section.list("audience", &[]),
    };
    let authorized_parties: Vec<String> =
        section.optional_list("authorized_parties").unwrap_or_default();
    let required: Vec<RequiredClaim> = match preset.map(|preset| preset.required) {
        Some(default) if !default.is_empty() => {
            section.list_or("required_claims", default).unwrap_or_default()
        }
        _ => section.optional_list("required_claims").unwrap_or_default(),
    };
    let bound = !audience.is_empty()
        || !authorized_parties.is_empty()
        || required.iter().any(RequiredClaim::names_client)
        || signer.is_some()
        || preset.is_some_and(|preset| preset.needs_signer || preset.is_bound_by_keys);
    if !bound {
        complain_about_audience(section, preset);
    }
    let of = |field: fn(&AssertionPreset) -> Option<&'static str>| preset.and_then(field);
    let issuer = read_issuer(section, of(|preset| preset.issuer), audience.first());
    let algorithms: Vec<Algorithm> = match preset {
        Some(preset) if !preset.algorithms.is_empty() => {
            section.list_or("algorithms", preset.algorithms).unwrap_or_default()
        }
        _ => section.list("algorithms", &["RS256", "ES256"]),
    };
    let symmetric = algorithms.iter().any(|algorithm| algorithm.is_symmetric());
    let has_secret =
        has_secret || symmetric && section.stand_in("secret", SECRET_VARIABLE).is_some();
    check_algorithms(section, &algorithms, has_secret);
    let known = Known {
        issuer: issuer.as_deref(),
        audience: audience.first().map(String::as_str),
        region: signer.as_deref().and_then(region_of),
    };
    let only_secret = has_secret && algorithms.iter().all(|algorithm| algorithm.is_symmetric());
    let keys = if only_secret {
        for key in ["jwks_url", "key_url", "x509_url"] {
            section.refuse(
                key,
                "it has no effect while all algorithms use the secret",
                "remove it",
            );
        }
        Some(None)
    } else {
        read_keys(section, preset, &known).map(Some)
    };
    let (keys, issuer) = (keys?, Some(issuer?));
    Some((keys, Proof { issuer, audience, authorized_parties, required, algorithms, signer }))
}

fn complain_about_audience(section: &Section<'_, '_>, preset: Option<&AssertionPreset>) {
    if preset.is_some_and(|preset| preset.has_party) {
        section.complain_of_missing(
            "authorized_parties",
            "it is missing, so that tokens of other sites of the issuer would be believed",
            "write authorized_parties = [\"https://app.example.com\"] in [identity.assertion]: the \
             origins of this app's pages",
        );
        return;
    }
    section.complain_of_missing(
        "audience",
        "it is missing, so that every token of the issuer, for any app, would be believed",
        "write audience = [\"...\"] in [identity.assertion]: the name of this app in the \
         assertion's aud claim; for an issuer without aud, authorized_parties or \
         required_claims = [\"client_id=...\"]",
    );
}

fn check_algorithms(section: &Section<'_, '_>, algorithms: &[Algorithm], has_secret: bool) {
    if algorithms.is_empty() {
        let remedy = "write those that the issuer signs with, such as [\"RS256\"]";
        section.complain_about("algorithms", "no assertion could be valid", remedy);
    }
    let symmetric = algorithms.iter().any(|algorithm| algorithm.is_symmetric());
    if symmetric && !has_secret {
        section.complain_about(
            "algorithms",
            "\"HS256\" needs the secret that is shared with the issuer",
            &format!("set {SECRET_VARIABLE} or secret_file, or remove \"HS256\""),
        );
    }
    if has_secret && !symmetric {
        section.complain_of_no_effect(
            "secret",
            "it has no effect, since no algorithm uses it",
            "write algorithms = [\"HS256\"] in [identity.assertion], or remove the secret",
        );
    }
}

fn read_claims(
    section: &Section<'_, '_>,
    preset: Option<&AssertionPreset>,
    groups: &Groups,
    placeholders: Placeholders,
) -> Option<ClaimNames> {
    let of = |field: fn(&AssertionPreset) -> Option<&'static str>| preset.and_then(field);
    let user = section.optional_or("user_claim", of(|preset| preset.user_claim).or(Some("sub")));
    let organizations = preset.map_or(&[][..], |preset| preset.organization_claims);
    let named = section.has("organization_claim");
    let first = section.optional_or("organization_claim", organizations.first().copied());
    let further = organizations.iter().skip(1).filter(|_| !named);
    Some(ClaimNames {
        email: section.optional_or("email_claim", of(|preset| preset.email_claim)),
        name: section.optional_or("name_claim", of(|preset| preset.name_claim)),
        organization: first
            .into_iter()
            .chain(further.filter_map(|text| ClaimPath::parse(text)))
            .collect(),
        groups: section.optional_or("groups_claim", of(|preset| preset.groups_claim)),
        groups_separator: groups.separator,
        admin_groups: groups.admins.clone(),
        known_groups: KnownGroups::default(),
        grants: section.optional("grants_claim"),
        placeholders,
        user: user?,
    })
}

/// Values for the placeholders in a preset's templates.
struct Known<'a> {
    issuer: Option<&'a str>,
    audience: Option<&'a str>,
    region: Option<&'a str>,
}

impl Known<'_> {
    /// Fills in `template`. Returns `None` if a value is missing, about which other code complains.
    fn fill(&self, template: &str) -> Option<String> {
        let mut text = template.to_owned();
        for (name, value) in
            [("{issuer}", self.issuer), ("{audience}", self.audience), ("{region}", self.region)]
        {
            if text.contains(name) {
                text = text.replace(name, value?);
            }
        }
        Some(text)
    }
}

fn read_issuer(
    section: &Section<'_, '_>,
    preset: Option<&str>,
    audience: Option<&String>,
) -> Option<String> {
    let Some(template) = preset else { return section.required("issuer") };
    let known = Known { issuer: None, audience: audience.map(String::as_str), region: None };
    section.optional_or("issuer", known.fill(template).as_deref())
}

/// Reads the ARN of an AWS load balancer.
fn read_signer(section: &Section<'_, '_>, preset: Option<&AssertionPreset>) -> Option<String> {
    let needed = preset.is_some_and(|preset| preset.needs_signer);
    let signer: Option<String> = section.optional("signer");
    let remedy = "write the ARN of your load balancer: signer = \
         \"arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/my-app/50dc6c495c0c9188\"";
    match &signer {
        None if needed => section.complain_of_missing(
            "signer",
            "it is missing, and without it any load balancer of any AWS account could sign",
            remedy,
        ),
        Some(signer) if region_of(signer).is_none() => {
            section.complain_about("signer", "this is no load balancer's ARN", remedy);
        }
        _ => {}
    }
    signer
}

/// Returns the region in a load balancer's ARN.
fn region_of(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next();
    let (Some("arn"), Some(_), Some("elasticloadbalancing"), Some(region), Some(_), Some(name)) =
        (next(), next(), next(), next(), next(), next())
    else {
        return None;
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let named = name.starts_with("loadbalancer/app/");
    (named && !region.is_empty() && region.bytes().all(plain)).then_some(region)
}

/// Reads the one place of the keys.
fn read_keys(
    section: &Section<'_, '_>,
    preset: Option<&AssertionPreset>,
    known: &Known<'_>,
) -> Option<KeyLocation> {
    type Make = fn(Url) -> KeyLocation;
    let places: [(&str, Option<&str>, Make); 3] = [
        ("jwks_url", preset.and_then(|preset| preset.jwks_url), KeyLocation::Set),
        ("key_url", preset.and_then(|preset| preset.key_url), KeyLocation::Each),
        ("x509_url", preset.and_then(|preset| preset.x509_url), KeyLocation::Certificates),
    ];
    let given = places.iter().filter(|(key, ..)| section.has(key)).count();
    let mut found = places.into_iter().filter_map(|(key, template, make)| {
        // A place that is written replaces the preset's.
        let template = template.filter(|_| given == 0).and_then(|text| known.fill(text));
        let url = section.optional_or::<Url>(key, template.as_deref())?;
        Some((key, url, make))
    });
    let first = found.next();
    if let Some((other, ..)) = found.last() {
        let problem = "the keys can only be in one place";
        section.complain_about(other, problem, "keep one of jwks_url, key_url and x509_url");
        return None;
    }
    let Some((key, url, make)) = first else {
        // Do not complain about a URL that the preset derives from a missing value: the missing value has
        // been complained of already.
        let derived = preset.is_some_and(AssertionPreset::knows_keys);
        if !derived && given == 0 {
            section.complain_of_missing(
                "jwks_url",
                "it is missing, so that no signature could be checked",
                &format!("write jwks_url = {}: the issuer's key set", Url::EXPECTED),
            );
        }
        return None;
    };
    let problem = "keys that come over the network in plain text can be replaced on the way";
    check_plaintext(section, key, &url, problem, "a stand-in of the issuer");
    Some(make(with_slash(url, key)))
}

/// Appends a slash to `key_url`, because joining replaces the part of the URL after the last slash by the id.
fn with_slash(mut url: Url, key: &str) -> Url {
    if key == "key_url" && !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}
