//! Makes one real mint for a canary user, and reports what Velt's answer reveals beyond Velt's documentation.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Check, Finding, Findings, Surroundings};
use ground::logging::Chain;
use token::velt::{Inspection, TokenFacts, VeltClient, VerifyUser};
use token::{Details, MalformedReason, MintError, RefusedStatus, Unplanned};

/// Most names of claims that are shown, and the longest of them in bytes: Velt, or another server in its
/// place, chooses the names.
const MAX_CLAIMS: usize = 30;
const MAX_CLAIM_BYTES: usize = 40;

/// Life of a token below which the cache is kept busy.
const SHORT_LIFE: Duration = Duration::from_secs(3600);

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Mint);
    let Some(canary) = around.canary.clone() else { return Vec::new() };
    let client = match VeltClient::new(around.config.velt.clone()) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "do what the message says: velt-sidecar does not start like this";
            findings.fatal("[velt]", Chain(&error).to_string(), remedy);
            return findings.all();
        }
    };
    let organization = canary.organization.map(Into::into);
    let details = Details { organization, ..Details::default() };
    let request = match around.config.plan.request(canary.user.as_str().into(), details) {
        Ok(request) => request,
        Err(Unplanned::NoOrganization) => {
            findings.note(
                "velt.organization",
                "not minted: this API needs an organization, and here each user brings their own",
                "name one of yours: --organization ID",
            );
            return findings.all();
        }
        Err(Unplanned::Contradiction) => {
            findings.problem(
                "[[velt.resource]]",
                "not minted: two of them are the same resource with different rights",
                "give both the same role and expires_in, or keep one of them",
            );
            return findings.all();
        }
    };
    let inspection = client.inspect(&request).await;
    match &inspection.life {
        Ok(life) => {
            minted(&around, &inspection, &mut findings);
            if let Some(token) = &inspection.token {
                revealed(&around, token, *life, &mut findings);
            }
        }
        Err(error) => failed(&inspection, error, &mut findings),
    }
    findings.all()
}

fn minted(around: &Surroundings, inspection: &Inspection, findings: &mut Findings) {
    let allowed = around.config.resilience.attempt_timeout;
    let bytes = inspection.token.as_ref().map_or(0, |token| token.bytes);
    let what = format!("{} with a token of {bytes} bytes", answer(inspection));
    if inspection.spent > allowed {
        findings.warning(
            "velt.attempt_timeout",
            format!("{what}, which is more than the {allowed:?} that are allowed"),
            "allow more, or find out what is slow on the way to Velt",
        );
    } else {
        findings.ok("[velt]", what);
    }
}

/// Returns text such as `HTTP 200 after 12ms`, with Velt's own word for a failure.
fn answer(inspection: &Inspection) -> String {
    let spent = inspection.spent;
    match (inspection.http_status, &inspection.error_word) {
        (Some(status), Some(word)) => {
            format!("HTTP {} {word} after {spent:.1?}", status.as_u16())
        }
        (Some(status), None) => format!("HTTP {} after {spent:.1?}", status.as_u16()),
        (None, _) => format!("no answer to use after {spent:.1?}"),
    }
}

fn failed(inspection: &Inspection, error: &MintError, findings: &mut Findings) {
    let patience = match inspection.retry_after {
        Some(time) => format!(", Retry-After {time:?}"),
        None => String::new(),
    };
    let what = format!("{}{patience}: {}", answer(inspection), Chain(error));
    findings.problem("[velt]", what, remedy(error));
}

fn remedy(error: &MintError) -> &'static str {
    match error {
        MintError::Refused { status, .. } => match status {
            RefusedStatus::InvalidArgument | RefusedStatus::FailedPrecondition => {
                "check that velt.api is the one that this workspace has, velt.endpoint (if it is written) \
                 the URL of that API, and the organization one of its own; and copy both credentials \
                 again from Velt's console"
            }
            RefusedStatus::NotFound | RefusedStatus::Unnamed => {
                "check that velt.endpoint, if it is written, is the URL of velt.api; and copy the API \
                 key and the auth token again, both of the same workspace, from Velt's console"
            }
            RefusedStatus::PermissionDenied | RefusedStatus::Unauthenticated => {
                "copy the API key and the auth token again, both of the same workspace, from \
                 Velt's console"
            }
        },
        MintError::RateLimited { .. } => {
            "wait, and see in Velt's console who else uses this API key"
        }
        MintError::Unavailable { .. }
        | MintError::Timeout
        | MintError::LookUp { .. }
        | MintError::Connect { .. } => {
            "see the findings about velt.endpoint; if there are none, wait for Velt to come back"
        }
        MintError::Malformed { reason: MalformedReason::NoUserClaim } => {
            "Velt's tokens name no user here: write verify_user = \"auto\" in [velt]"
        }
        MintError::Malformed {
            reason: MalformedReason::NotVelt { .. } | MalformedReason::Encoded,
        } => {
            "have the firewall or proxy on the way let calls to velt.endpoint through as they are; if \
             there is none, check that velt.endpoint is the URL of velt.api"
        }
        MintError::Malformed { .. } => {
            "check that velt.endpoint is the URL of velt.api; another server answers there"
        }
        MintError::Mismatch => {
            "do not put this into service: Velt, or a cache in between, gives one user's token to \
             another user"
        }
        MintError::Suspended { .. } | MintError::Queued | MintError::Panicked => {
            "report this bug of velt-sidecar"
        }
    }
}

/// Reports what Velt does not document: whether its token is a JWT, and which claims the token has.
fn revealed(around: &Surroundings, token: &TokenFacts, life: Duration, findings: &mut Findings) {
    let Some(algorithm) = &token.algorithm else {
        findings.note(
            "velt.verify_user",
            "the token is no JWT: neither its user nor its end can be read",
            "nothing to do: it is served for 48 hours at most, as Velt documents",
        );
        return;
    };
    let algorithm = visible(algorithm).unwrap_or("an odd algorithm");
    let shown: Vec<&str> =
        token.claims.iter().filter_map(|name| visible(name)).take(MAX_CLAIMS).collect();
    let hidden = token.claims.len() - shown.len();
    let more = if hidden == 0 { String::new() } else { format!(" and {hidden} not shown") };
    findings
        .ok("[velt]", format!("a JWT ({algorithm}) with the claims {}{more}", shown.join(", ")));
    look_at_times(token, life, findings);
    let verify = around.config.velt.verify_user;
    match token.names_user {
        Some(true) => findings.ok("velt.verify_user", "its userId is the one that was asked for"),
        Some(false) => findings.warning(
            "velt.verify_user",
            "its userId is another one than was asked for, and \"off\" lets that pass",
            "write verify_user = \"auto\" in [velt], and ask Velt what the claim means",
        ),
        None if verify == VerifyUser::Off => {}
        None => findings.note(
            "velt.verify_user",
            "it has no claim userId, so a token that Velt mixes up would not be noticed",
            "nothing to do here",
        ),
    }
}

fn look_at_times(token: &TokenFacts, life: Duration, findings: &mut Findings) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let from_now = |time: f64| {
        let way = if time < now { "ago" } else { "ahead" };
        format!("{} {way}", roughly((time - now).abs()))
    };
    let times = [("iat", token.issued_at), ("nbf", token.not_before), ("exp", token.expires_at)];
    let said: Vec<String> = times
        .into_iter()
        .map(|(name, time)| match time {
            Some(time) => format!("{name} {}", from_now(time)),
            None => format!("no {name}"),
        })
        .collect();
    let what = format!("{}; served for {} at most", said.join(", "), roughly(life.as_secs_f64()));
    if token.expires_at.is_none() {
        let remedy = "nothing to do: without exp, the 48 hours that Velt documents are taken";
        findings.note("[velt]", what, remedy);
    } else if life < SHORT_LIFE {
        let remedy = "expect one mint per user that often; look at expires_in of [[velt.resource]] \
                      and at the clock";
        findings.note("[velt]", what, remedy);
    } else {
        findings.ok("[velt]", what);
    }
}

/// Writes a time in seconds in the largest unit of which the time has at least one.
fn roughly(seconds: f64) -> String {
    if seconds >= 3600.0 {
        format!("{:.1} h", seconds / 3600.0)
    } else if seconds >= 60.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{seconds:.0} s")
    }
}

/// Returns `text` if it is short and looks like a name.
fn visible(text: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:./".contains(&byte);
    let fine = !text.is_empty() && text.len() <= MAX_CLAIM_BYTES && text.bytes().all(plain);
    fine.then_some(text)
}
