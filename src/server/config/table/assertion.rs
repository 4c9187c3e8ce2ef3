//! The table `identity.assertion`: the issuer whose signature is believed, and the claims that are read.

use std::time::Duration;

use http::HeaderName;
use reqwest::Url;

use super::super::reader::Section;
use super::super::setting::Setting as _;
use super::preset::AssertionPreset;
use super::{Groups, check_plaintext};
use ground::groups::KnownGroups;
use ground::tls::Roots;
use identity::Placeholders;
use identity::assertion::{AssertionSource, ClaimNames, Policy};
use identity::keys::KeyLocation;

/// Longest leeway. Clocks that are further apart are wrong, and a leeway keeps expired assertions alive.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// Keys of the table.
const KEYS: [&str; 16] = [
    "header",
    "jwks_url",
    "key_url",
    "allow_plaintext",
    "issuer",
    "audience",
    "algorithms",
    "leeway",
    "signer",
    "on_invalid",
    "user_claim",
    "email_claim",
    "name_claim",
    "organization_claim",
    "groups_claim",
    "grants_claim",
];

/// Complains about each key that is given, for a configuration that does not read the table.
pub fn refuse(section: &Section<'_, '_>) {
    for key in KEYS {
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
    let header = match of(|preset| preset.header) {
        Some(header) => section.optional_or("header", Some(header)),
        None => section.required::<HeaderName>("header"),
    };
    let signer = read_signer(section, preset);
    let audience: Vec<String> = section.list("audience", &[]);
    if audience.is_empty() && signer.is_none() && !preset.is_some_and(|preset| preset.needs_signer)
    {
        section.complain_about(
            "audience",
            "it is missing, so that every token of the issuer, for any app, would be believed",
            "write audience = [\"...\"] in [identity.assertion]: the name of this app in the \
             assertion's aud claim",
        );
    }
    let issuer = read_issuer(section, of(|preset| preset.issuer), audience.first());
    let known = Known {
        issuer: issuer.as_deref(),
        audience: audience.first().map(String::as_str),
        region: signer.as_deref().and_then(region_of),
    };
    let keys = read_keys(section, preset, &known);
    let algorithms = match preset {
        Some(preset) if !preset.algorithms.is_empty() => {
            section.list_or("algorithms", preset.algorithms).unwrap_or_default()
        }
        _ => section.list("algorithms", &["RS256", "ES256"]),
    };
    if algorithms.is_empty() {
        let remedy = "write those that the issuer signs with, such as [\"RS256\"]";
        section.complain_about("algorithms", "no assertion could be valid", remedy);
    }
    let leeway: Duration = section.value("leeway", "30s");
    if leeway > MAX_LEEWAY {
        let remedy = "write at most \"5m\", and set the clocks";
        section.complain_about(
            "leeway",
            "assertions would be believed long after they expire",
            remedy,
        );
    }
    let on_invalid = section.value("on_invalid", "refuse");
    let user = section.optional_or("user_claim", of(|preset| preset.user_claim).or(Some("sub")));
    let claims = ClaimNames {
        email: section.optional_or("email_claim", of(|preset| preset.email_claim)),
        name: section.optional_or("name_claim", of(|preset| preset.name_claim)),
        organization: section.optional("organization_claim"),
        groups: section.optional_or("groups_claim", of(|preset| preset.groups_claim)),
        groups_separator: groups.separator,
        admin_groups: groups.admins.clone(),
        known_groups: KnownGroups::default(),
        grants: section.optional("grants_claim"),
        placeholders,
        user: user?,
    };
    let policy = Policy { issuer: issuer?, audience, algorithms, leeway, signer, claims };
    let roots = roots.clone();
    Some(AssertionSource { header: header?, keys: keys?, roots, policy, on_invalid })
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
        None if needed => section.complain_about(
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

fn read_keys(
    section: &Section<'_, '_>,
    preset: Option<&AssertionPreset>,
    known: &Known<'_>,
) -> Option<KeyLocation> {
    let given = |key: &str, template: Option<&'static str>, other: &str| {
        let template = template.filter(|_| !section.has(other));
        section.optional_or::<Url>(key, template.and_then(|text| known.fill(text)).as_deref())
    };
    let set = given("jwks_url", preset.and_then(|preset| preset.jwks_url), "key_url");
    let each = given("key_url", preset.and_then(|preset| preset.key_url), "jwks_url");
    let (key, url, location): (_, _, fn(Url) -> KeyLocation) = match (set, each) {
        (Some(set), None) => ("jwks_url", set, KeyLocation::Set),
        (None, Some(each)) => ("key_url", each, KeyLocation::Each),
        (Some(_), Some(_)) => {
            let problem = "the keys can only be in one place";
            section.complain_about("key_url", problem, "keep jwks_url or key_url");
            return None;
        }
        (None, None) => {
            // Do not complain about a URL that the preset derives from a missing value: the missing value has
            // been complained of already.
            let derived = preset.is_some_and(|preset| {
                preset.jwks_url.or(preset.key_url).is_some() && !section.has("jwks_url")
            });
            if !derived && !section.has("jwks_url") && !section.has("key_url") {
                section.complain_about(
                    "jwks_url",
                    "it is missing, so that no signature could be checked",
                    &format!("write jwks_url = {}: the issuer's key set", Url::EXPECTED),
                );
            }
            return None;
        }
    };
    let problem = "keys that come over the network in plain text can be replaced on the way";
    check_plaintext(section, key, &url, problem, "a stand-in of the issuer");
    Some(location(with_slash(url, key)))
}

/// Appends a slash to `key_url`, because joining replaces the part of the URL after the last slash by the id.
fn with_slash(mut url: Url, key: &str) -> Url {
    if key == "key_url" && !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}
