//! Headers and assertions that the common fronts send, by their documentation (cited in `docs/fronts`), and
//! the sessions of the common logins (`logins`).
//!
//! A preset is a set of other defaults for the keys of `identity`. A value that only the operator can know
//! has no default and stays required.

mod logins;

use super::super::schema::Form;
use super::super::setting::Setting;
use super::super::words::SourceName;

/// The defaults for one front.
pub struct Preset {
    pub name: &'static str,
    pub source: SourceName,
    pub user_header: Option<&'static str>,
    pub email_header: Option<&'static str>,
    pub name_header: Option<&'static str>,
    pub groups_header: Option<&'static str>,
    pub groups_separator: &'static str,
    /// Headers in which the front says more of the user than the sidecar reads.
    pub guarded: &'static [&'static str],
    pub assertion: AssertionPreset,
    /// Whether callers through this front come from addresses of the pod's own, so that an address does not
    /// tell the front from other callers. Such a front also passes a signed assertion on: with
    /// `source = "assertion"`, the field `assertion` has the defaults.
    pub is_behind_mesh: bool,
}

/// The defaults of `identity.assertion`. `{issuer}`, `{audience}` and `{region}` stand for what
/// the operator wrote.
pub struct AssertionPreset {
    pub header: Option<&'static str>,
    pub cookies: &'static [&'static str],
    pub format: Option<&'static str>,
    pub jwks_url: Option<&'static str>,
    pub key_url: Option<&'static str>,
    pub x509_url: Option<&'static str>,
    pub issuer: Option<&'static str>,
    pub audience: &'static [&'static str],
    pub required: &'static [&'static str],
    pub algorithms: &'static [&'static str],
    pub user_claim: Option<&'static str>,
    pub email_claim: Option<&'static str>,
    pub name_claim: Option<&'static str>,
    pub groups_claim: Option<&'static str>,
    /// Claims of which the first that is there names the organization.
    pub organization_claims: &'static [&'static str],
    /// Whether assertions name the origin of the page for which they were made (`azp`), and no audience.
    pub has_party: bool,
    /// Whether the issuer has a key set for each app, so that the keys stand for the audience.
    pub is_bound_by_keys: bool,
    /// Whether the front is a load balancer that shares its keys with other load balancers.
    pub needs_signer: bool,
}

impl AssertionPreset {
    /// Whether the preset says where the keys are, perhaps with the help of what the operator writes.
    pub fn knows_keys(&self) -> bool {
        self.jwks_url.or(self.key_url).or(self.x509_url).is_some()
    }
}

const NO_ASSERTION: AssertionPreset = AssertionPreset {
    header: None,
    cookies: &[],
    format: None,
    jwks_url: None,
    key_url: None,
    x509_url: None,
    issuer: None,
    audience: &[],
    required: &[],
    algorithms: &[],
    user_claim: None,
    email_claim: None,
    name_claim: None,
    groups_claim: None,
    organization_claims: &[],
    has_party: false,
    is_bound_by_keys: false,
    needs_signer: false,
};

const PLAIN: Preset = Preset {
    name: "",
    source: SourceName::Header,
    user_header: None,
    email_header: None,
    name_header: None,
    groups_header: None,
    groups_separator: ",",
    guarded: &[],
    assertion: NO_ASSERTION,
    is_behind_mesh: false,
};

const SIGNED: Preset = Preset { source: SourceName::Assertion, ..PLAIN };

const OIDC: AssertionPreset =
    AssertionPreset { user_claim: Some("sub"), email_claim: Some("email"), ..NO_ASSERTION };

/// Presets of fronts.
static FRONTS: [Preset; 10] = [
    Preset {
        name: "oauth2-proxy",
        user_header: Some("X-Forwarded-User"),
        email_header: Some("X-Forwarded-Email"),
        name_header: Some("X-Forwarded-Preferred-Username"),
        groups_header: Some("X-Forwarded-Groups"),
        guarded: &["X-Forwarded-Access-Token"],
        ..PLAIN
    },
    Preset {
        name: "oauth2-proxy-auth-request",
        user_header: Some("X-Auth-Request-User"),
        email_header: Some("X-Auth-Request-Email"),
        name_header: Some("X-Auth-Request-Preferred-Username"),
        groups_header: Some("X-Auth-Request-Groups"),
        guarded: &["X-Auth-Request-Access-Token"],
        ..PLAIN
    },
    Preset {
        name: "pomerium",
        guarded: &[
            "X-Pomerium-Claim-Email",
            "X-Pomerium-Claim-Groups",
            "X-Pomerium-Claim-Name",
            "X-Pomerium-Claim-Sub",
            "X-Pomerium-Claim-User",
        ],
        assertion: AssertionPreset {
            header: Some("X-Pomerium-Jwt-Assertion"),
            jwks_url: Some("https://{audience}/.well-known/pomerium/jwks.json"),
            issuer: Some("{audience}"),
            algorithms: &["ES256"],
            name_claim: Some("name"),
            groups_claim: Some("groups"),
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "authentik",
        user_header: Some("X-authentik-uid"),
        email_header: Some("X-authentik-email"),
        name_header: Some("X-authentik-name"),
        groups_header: Some("X-authentik-groups"),
        groups_separator: "|",
        guarded: &[
            "X-authentik-username",
            "X-authentik-entitlements",
            "X-authentik-jwt",
            "X-authentik-meta-jwks",
            "X-authentik-meta-outpost",
            "X-authentik-meta-provider",
            "X-authentik-meta-app",
            "X-authentik-meta-version",
        ],
        ..PLAIN
    },
    Preset {
        name: "authelia",
        user_header: Some("Remote-User"),
        email_header: Some("Remote-Email"),
        name_header: Some("Remote-Name"),
        groups_header: Some("Remote-Groups"),
        ..PLAIN
    },
    Preset {
        name: "cloudflare-access",
        guarded: &["Cf-Access-Authenticated-User-Email"],
        assertion: AssertionPreset {
            header: Some("Cf-Access-Jwt-Assertion"),
            jwks_url: Some("{issuer}/cdn-cgi/access/certs"),
            algorithms: &["RS256"],
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "google-iap",
        guarded: &["X-Goog-Authenticated-User-Email", "X-Goog-Authenticated-User-Id"],
        assertion: AssertionPreset {
            header: Some("X-Goog-Iap-Jwt-Assertion"),
            jwks_url: Some("https://www.gstatic.com/iap/verify/public_key-jwk"),
            issuer: Some("https://cloud.google.com/iap"),
            algorithms: &["ES256"],
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "aws-alb",
        guarded: &["X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Accesstoken"],
        assertion: AssertionPreset {
            header: Some("X-Amzn-Oidc-Data"),
            key_url: Some("https://public-keys.auth.elb.{region}.amazonaws.com/"),
            algorithms: &["ES256"],
            name_claim: Some("name"),
            needs_signer: true,
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "azure-easy-auth",
        user_header: Some("X-MS-CLIENT-PRINCIPAL-ID"),
        name_header: Some("X-MS-CLIENT-PRINCIPAL-NAME"),
        guarded: &[
            "X-MS-CLIENT-PRINCIPAL",
            "X-MS-CLIENT-PRINCIPAL-IDP",
            "X-MS-TOKEN-AAD-ID-TOKEN",
            "X-MS-TOKEN-AAD-ACCESS-TOKEN",
            "X-MS-TOKEN-AAD-REFRESH-TOKEN",
            "X-MS-TOKEN-AAD-EXPIRES-ON",
        ],
        ..PLAIN
    },
    // The operator chooses the header names: `outputClaimToHeaders` has no default names.
    Preset {
        name: "istio",
        assertion: AssertionPreset { header: Some("Authorization"), ..OIDC },
        is_behind_mesh: true,
        ..PLAIN
    },
];

impl Setting for &'static Preset {
    const EXPECTED: &'static str = "\"oauth2-proxy\", \"oauth2-proxy-auth-request\", \"pomerium\", \
        \"authentik\", \"authelia\", \"cloudflare-access\", \"google-iap\", \"aws-alb\", \
        \"azure-easy-auth\" or \"istio\" for a front, or \"clerk\", \"supabase\", \"authjs\", \"nextauth\", \
        \"firebase\", \"auth0\", \"cognito\", \"workos\", \"okta\", \"keycloak\" or \"entra\" for a login of the \
        app's own";
    fn form() -> Form {
        Form::Words(FRONTS.iter().chain(&logins::LOGINS).map(|preset| preset.name).collect())
    }
    fn parse(text: &str) -> Option<Self> {
        FRONTS.iter().chain(&logins::LOGINS).find(|preset| preset.name == text)
    }
}
