//! Sessions and tokens of the common logins that apps have, by their libraries (cited in `docs/logins`).

use super::{AssertionPreset, NO_ASSERTION, OIDC, Preset, SIGNED};

/// Token that a page sends in `Authorization`, as the SDKs of identity providers do.
const BEARER: AssertionPreset = AssertionPreset { header: Some("Authorization"), ..OIDC };

/// Session that Auth.js seals in a cookie.
const SEALED: AssertionPreset = AssertionPreset {
    user_claim: Some("sub"),
    email_claim: Some("email"),
    name_claim: Some("name"),
    ..NO_ASSERTION
};

/// Presets of logins.
pub(super) static LOGINS: [Preset; 11] = [
    Preset {
        name: "clerk",
        assertion: AssertionPreset {
            cookies: &["__session"],
            jwks_url: Some("{issuer}/.well-known/jwks.json"),
            algorithms: &["RS256"],
            user_claim: Some("sub"),
            organization_claims: &["o.id", "org_id"],
            // A user who has yet to choose an organization counts as signed out at Clerk.
            required: &["sts!=pending"],
            has_party: true,
            ..NO_ASSERTION
        },
        ..SIGNED
    },
    Preset {
        name: "supabase",
        assertion: AssertionPreset {
            cookies: &["sb-*-auth-token"],
            format: Some("supabase"),
            jwks_url: Some("{issuer}/.well-known/jwks.json"),
            audience: &["authenticated"],
            algorithms: &["ES256", "RS256"],
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "authjs",
        assertion: AssertionPreset {
            cookies: &["__Secure-authjs.session-token", "authjs.session-token"],
            format: Some("authjs"),
            ..SEALED
        },
        ..SIGNED
    },
    Preset {
        name: "nextauth",
        assertion: AssertionPreset {
            cookies: &["__Secure-next-auth.session-token", "next-auth.session-token"],
            format: Some("nextauth"),
            ..SEALED
        },
        ..SIGNED
    },
    Preset {
        name: "firebase",
        assertion: AssertionPreset {
            cookies: &["__session"],
            x509_url: Some("https://www.googleapis.com/identitytoolkit/v3/relyingparty/publicKeys"),
            issuer: Some("https://session.firebase.google.com/{audience}"),
            algorithms: &["RS256"],
            name_claim: Some("name"),
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "auth0",
        assertion: AssertionPreset {
            // The issuer ends with a slash.
            jwks_url: Some("{issuer}.well-known/jwks.json"),
            algorithms: &["RS256"],
            organization_claims: &["org_id"],
            ..BEARER
        },
        ..SIGNED
    },
    Preset {
        name: "cognito",
        assertion: AssertionPreset {
            cookies: &["CognitoIdentityServiceProvider.*.idToken"],
            jwks_url: Some("{issuer}/.well-known/jwks.json"),
            algorithms: &["RS256"],
            required: &["token_use=id"],
            groups_claim: Some("cognito:groups"),
            ..OIDC
        },
        ..SIGNED
    },
    Preset {
        name: "workos",
        assertion: AssertionPreset {
            algorithms: &["RS256"],
            organization_claims: &["org_id"],
            // Environments older than 2025 share one issuer. Each client has a key set of its own, at
            // https://api.workos.com/sso/jwks/<client id>, which no other client's token fits.
            is_bound_by_keys: true,
            email_claim: None,
            ..BEARER
        },
        ..SIGNED
    },
    Preset {
        name: "okta",
        assertion: AssertionPreset {
            jwks_url: Some("{issuer}/v1/keys"),
            algorithms: &["RS256"],
            // `sub` is the login name, which may change.
            user_claim: Some("uid"),
            email_claim: None,
            groups_claim: Some("groups"),
            ..BEARER
        },
        ..SIGNED
    },
    Preset {
        name: "keycloak",
        assertion: AssertionPreset {
            jwks_url: Some("{issuer}/protocol/openid-connect/certs"),
            algorithms: &["RS256"],
            name_claim: Some("name"),
            groups_claim: Some("groups"),
            ..BEARER
        },
        ..SIGNED
    },
    Preset {
        name: "entra",
        assertion: AssertionPreset {
            // The issuer ends with `/v2.0`, and its keys are beside it.
            jwks_url: Some("{issuer}/../discovery/v2.0/keys"),
            algorithms: &["RS256"],
            // `sub` differs from app to app, `oid` is the user's in the whole tenant.
            user_claim: Some("oid"),
            name_claim: Some("name"),
            groups_claim: Some("groups"),
            ..BEARER
        },
        ..SIGNED
    },
];
