//! End of a mint: its outcome in the metrics, its span, and how long a failure is remembered.

use std::time::Duration;

use super::MintResult;
use crate::{MintError, MintRequest, SuspendedFor};
use ground::metrics::{Label as _, MintOutcome};
use ground::trace::OpenSpan;

/// Time for which a permanent refusal is answered from memory.
const REFUSAL_MEMORY: Duration = Duration::from_secs(60);

/// Time for which the first transient failure is answered from memory; doubles with each failure in a row.
const FAILURE_MEMORY: Duration = Duration::from_secs(1);

/// Longest time for which a transient failure is answered from memory.
const LONGEST_FAILURE_MEMORY: Duration = Duration::from_secs(30);

/// Returns how long `error`, the `count`th failure in a row, is answered from memory before Velt is asked
/// again.
pub(super) fn memory_of(error: &MintError, count: u32) -> Duration {
    let transient = FAILURE_MEMORY
        .saturating_mul(1 << count.saturating_sub(1).min(16))
        .min(LONGEST_FAILURE_MEMORY);
    match error {
        MintError::Refused { .. } | MintError::Mismatch => REFUSAL_MEMORY,
        // The breaker spares Velt; a longer memory would hide that the breaker has ended.
        MintError::Suspended { retry_after, .. } => *retry_after,
        // The next request for this user queues again.
        MintError::Queued => Duration::ZERO,
        MintError::RateLimited { retry_after } | MintError::Unavailable { retry_after, .. } => {
            retry_after.unwrap_or(transient).clamp(transient, REFUSAL_MEMORY)
        }
        MintError::Timeout
        | MintError::LookUp { .. }
        | MintError::Connect { .. }
        | MintError::Malformed { .. }
        | MintError::Panicked => transient,
    }
}

/// Records the result of a mint, with all of its attempts, in a span. The span does not name the user.
pub(super) fn end_span(span: OpenSpan, request: &MintRequest, result: &MintResult) {
    let outcome = outcome(result).as_str();
    let mut attributes = vec![("velt_sidecar.outcome", outcome.into())];
    if let Ok(endpoint) = request.issuer().endpoint.parse::<http::Uri>() {
        let host = endpoint.host().unwrap_or_default().to_owned();
        attributes.push(("server.address", host.into()));
        attributes.extend(endpoint.port_u16().map(|port| ("server.port", port.into())));
    }
    if result.is_err() {
        attributes.push(("error.type", outcome.into()));
    }
    span.end("mint", attributes, result.is_err());
}

/// Returns the outcome of a mint, as a label.
pub(super) fn outcome(result: &MintResult) -> MintOutcome {
    result.as_ref().err().map_or(MintOutcome::Minted, outcome_of)
}

/// Returns the outcome of a mint that failed, as a label.
pub(crate) fn outcome_of(error: &MintError) -> MintOutcome {
    match error {
        MintError::Refused { .. } => MintOutcome::Refused,
        MintError::RateLimited { .. } => MintOutcome::RateLimited,
        MintError::Unavailable { .. } => MintOutcome::Unavailable,
        MintError::Timeout => MintOutcome::Timeout,
        MintError::LookUp { .. } => MintOutcome::LookUpFailed,
        MintError::Connect { .. } => MintOutcome::ConnectFailed,
        MintError::Queued => MintOutcome::Queued,
        MintError::Malformed { .. } => MintOutcome::Malformed,
        MintError::Mismatch => MintOutcome::Mismatch,
        MintError::Suspended { suspended: SuspendedFor::Outage, .. } => MintOutcome::Suspended,
        MintError::Suspended { suspended: SuspendedFor::Refusals, .. } => {
            MintOutcome::SuspendedRefused
        }
        MintError::Panicked => MintOutcome::Panicked,
    }
}
