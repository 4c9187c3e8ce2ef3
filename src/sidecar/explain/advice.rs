//! Advice on what to change if an answer is not the wanted one.

use http::{HeaderMap, HeaderName, Request};

use super::super::details::NoDetails;
use super::super::error::{NoGrants, NoToken};
use crate::inject::{Coverage, Eligibility, Injection, TokenRoute};
use ground::metrics::SpoofKind;
use ground::peer::Peer;
use identity::{Caller, Conclusion, Decision, Identity, OF_MESHES, Reads, Refusal, Trust};
use token::{MintError, SuspendedFor};

/// Advice about a peer whose address says nothing of the program behind it.
const BEHIND_MESH: &str = "if this pod is in a service mesh, every caller has this address: let the login proxy \
                           show a secret (identity.secret_header), or believe a signature (identity.source = \
                           \"assertion\"); if a login proxy on this machine connects by the machine's own \
                           address, have it connect by 127.0.0.1, or name the address by itself in \
                           identity.trusted_peers";

pub(super) fn on_identity(
    identity: &Identity,
    before: &HeaderMap,
    peer: &Peer,
    decision: &Decision,
) -> Option<String> {
    let address = peer.address().to_canonical();
    let secret = identity.secret_header();
    let forged = decision.spoofs.iter().any(|spoof| spoof.kind == SpoofKind::IdentityHeader);
    match (&decision.conclusion, identity.reads()) {
        (
            Conclusion::Refused(Refusal::Ambiguous { header, .. })
            | Conclusion::Ignored(Refusal::Ambiguous { header, .. }),
            _,
        ) => Some(format!(
            "have the login proxy remove every copy of {header} that comes from outside before it \
             sets its own"
        )),
        (Conclusion::Caller(Caller::Anonymous), Reads::Header(_))
            if identity.lacks_secret(decision.trust) =>
        {
            Some(format!(
                "have the login proxy send its secret in {} (identity.secret_header), with the value \
                 of VELT_SIDECAR_IDENTITY__SECRET or identity.secret_file",
                secret.map_or("", HeaderName::as_str)
            ))
        }
        (Conclusion::Caller(Caller::Anonymous), Reads::Header(_))
            if forged && !decision.trust.is_trusted() =>
        {
            Some(match decision.trust {
                Trust::NoName => "have the login proxy show a certificate with one of \
                                  identity.trusted_names; tell explain the names that it shows by \
                                  --peer-name"
                    .to_owned(),
                Trust::Page => {
                    "if this is the login proxy, have it send X-Forwarded-For; if a browser on \
                     this machine opens the app by a host name, add that name to \
                     identity.trusted_hosts"
                        .to_owned()
                }
                Trust::Itself => BEHIND_MESH.to_owned(),
                Trust::Stranger if OF_MESHES.contains(&address) => BEHIND_MESH.to_owned(),
                // The arm above gives the advice for a missing secret.
                Trust::Trusted(_) | Trust::NoSecret(_) | Trust::Stranger => format!(
                    "if {address} is the login proxy, add it to identity.trusted_peers; if it is \
                     not, change nothing: its headers must not name users"
                ),
            })
        }
        (Conclusion::Caller(Caller::Anonymous), Reads::Header(header)) => Some(format!(
            "have the login proxy send {header}, or name the header that it does send in \
             identity.user_header{}",
            similar(header, before)
        )),
        (Conclusion::Caller(Caller::Anonymous), Reads::Assertion(places))
            if places.have_cookie() =>
        {
            Some(format!(
                "sign in to the app: its login sets {places}; if the browser has a cookie of another \
                 name, name it in identity.assertion.cookie"
            ))
        }
        (Conclusion::Caller(Caller::Anonymous), Reads::Assertion(places)) => Some(format!(
            "have the login proxy send a signed assertion in {places}, or name its header in \
             identity.assertion.header"
        )),
        (Conclusion::Caller(Caller::Unverified), Reads::Assertion(_)) => Some(
            "ask a running sidecar, which has keys: --admin; if it has none either, see \
             identity.assertion.jwks_url and the log"
                .into(),
        ),
        _ => None,
    }
}

/// Returns a hint at a header of the request that looks like another front's name for the user.
fn similar(wanted: &HeaderName, before: &HeaderMap) -> String {
    let mut names = before.keys().filter(|name| {
        let name = name.as_str();
        *name != *wanted.as_str()
            && (name.contains("user") || name.contains("remote"))
            && name != "user-agent"
            && !name.starts_with("sec-")
            && name != "upgrade-insecure-requests"
    });
    names.next().map_or_else(String::new, |name| format!(" (this request has {name})"))
}

pub(super) fn on_route<B>(
    coverage: Coverage<'_>,
    request: &Request<B>,
    injection: &Injection,
) -> Option<String> {
    let path = request.uri().path();
    if let Some(route) = nearly(path, injection) {
        return Some(format!("for a token, ask {} in exactly this spelling", route.path));
    }
    match coverage {
        Coverage::Path => {
            Some(format!("add {path:?} to delivery.header.paths, or ask a token route"))
        }
        Coverage::Disabled => {
            Some("ask a token route, or write delivery.header.enabled = true".into())
        }
        Coverage::Method | Coverage::Destination | Coverage::Prefetch => {
            Some("fetch it from a script with GET or POST, or ask a token route".into())
        }
        Coverage::Covered(_) | Coverage::Document(_) => None,
    }
}

pub(super) fn on_absence(absent: &NoToken) -> Option<String> {
    match absent {
        NoToken::Failed(
            MintError::Refused { .. }
            | MintError::Suspended { suspended: SuspendedFor::Refusals, .. },
        ) => Some(
            "compare velt.api_key and velt.auth_token with Velt's console; then forget the \
             failure: velt-sidecar admin invalidate --user ID"
                .into(),
        ),
        NoToken::NoOrganization => Some(
            "write velt.organization, or have the login proxy send identity.organization_header"
                .into(),
        ),
        NoToken::NoDetails(NoDetails::Refused(_)) => Some(
            "have the app answer 200 with a JSON object, or 204, at identity.details_path for this \
             user; then forget the answer: velt-sidecar admin invalidate --user ID"
                .into(),
        ),
        NoToken::NoDetails(_) => {
            Some("see what the app answers at identity.details_path, and the sidecar's log".into())
        }
        NoToken::NoGrants(NoGrants::Unusable(_)) => Some(
            "have the program that names the user write Velt's list of resources, and [] for a user \
             without grants"
                .into(),
        ),
        NoToken::NoGrants(NoGrants::Groups) => {
            Some("have the program that names the user write the groups as plain text".into())
        }
        NoToken::NoGrants(NoGrants::Unsent) => {
            Some("write api = \"v2\" in [velt], or have the app leave resources out".into())
        }
        NoToken::NoGrants(NoGrants::Contradiction) => Some(
            "give the same role and end to each resource that a [[velt.resource]] and the user's \
             grants, or two of the user's groups, have in common"
                .into(),
        ),
        NoToken::Failed(_) => Some("nothing to do: the sidecar tries again by itself".into()),
        NoToken::AppWord(_) => {
            Some("have the app send identity.user_header once, and plainly".into())
        }
        NoToken::UnnamedBy(status) if status.is_redirection() => Some(
            "have the front's X-Forwarded-Proto reach the app (identity.trusted_proxies), or let the \
             app answer at identity.app_path without a redirect"
                .into(),
        ),
        NoToken::SignedOut => Some(
            "sign in again; an identity without the time of the login waits for logout.refuse_for".into(),
        ),
        NoToken::Anonymous
        | NoToken::NoSecret
        | NoToken::Unbelieved(_)
        | NoToken::Unnamed
        | NoToken::UnnamedBy(_)
        | NoToken::Unverified
        | NoToken::DetailsPending
        | NoToken::Pending
        | NoToken::Queued => None,
    }
}

pub(super) fn on_response(
    eligibility: Eligibility,
    storable_by: Option<&HeaderName>,
) -> Option<String> {
    match (eligibility, storable_by) {
        (Eligibility::Storable, Some(header)) => Some(format!(
            "have the app leave out {header} here, or send Cache-Control: no-store, and no other \
             header that lets caches store; or ask a token route"
        )),
        (Eligibility::Shared, _) => Some(
            "have the app leave out Timing-Allow-Origin and sandbox here, or ask a token route"
                .into(),
        ),
        (Eligibility::NotEligible, _) => {
            Some("ask for a response that succeeds, or ask a token route".into())
        }
        _ => None,
    }
}

/// Returns the token route that was probably meant.
pub(super) fn nearly<'a>(path: &str, injection: &'a Injection) -> Option<&'a TokenRoute> {
    let plain = |path: &str| {
        let segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
        let segments: Vec<_> = segments.map(str::to_lowercase).collect();
        segments.join("/").replace("%2f", "/").replace("%2d", "-")
    };
    let routes = injection.routes();
    routes.iter().find(|route| route.path != path && plain(&route.path) == plain(path))
}
