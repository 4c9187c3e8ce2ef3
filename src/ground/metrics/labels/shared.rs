//! Words of the labels about tokens that replicas share.

use super::Label;

label!(
    /// Result of a look for a token in the shared store.
    SharedRead, "result", {
    /// The store has a token, and it is served.
    Served = "served",
    /// The store has no token for this request.
    Absent = "absent",
    /// The token was minted before a forget that concerns it.
    Forgotten = "forgotten",
    /// The token is no younger than the one to be replaced.
    Old = "old",
    /// The token's life has ended, by this replica's clock.
    Ended = "ended",
    /// The token seems to be minted over a minute from now: the clocks of two replicas differ.
    Clock = "clock",
    /// Content in the token's place that no key of this replica has sealed for it.
    Foreign = "foreign",
    /// The store did not answer, or not in time.
    Fault = "fault",
});

label!(
    /// Course of the lease for a mint.
    SharedLease, "result", {
    /// Lease that this replica has got, and mints for all.
    Won = "won",
    /// Another replica's mint was awaited, and its token is served.
    Awaited = "awaited",
    /// Another replica's mint was awaited in vain, and this replica minted too.
    GaveUp = "gave_up",
    /// The lease ended while this replica minted.
    Lost = "lost",
});

label!(
    /// Result of an attempt to share a token that this replica has minted.
    SharedWrite, "result", {
    Written = "written",
    /// The store did not take the token. It is tried again.
    Failed = "failed",
    /// A token is there already, or the token was forgotten meanwhile.
    Needless = "needless",
});

label!(
    /// Replica by whose call tokens were forgotten.
    SharedForget, "origin", {
    /// Forget that began here, and that all replicas were told of.
    Here = "here",
    /// Forget that began here. The store did not take it, so the other replicas are told later.
    HereAlone = "here_alone",
    Elsewhere = "elsewhere",
    /// The store had lost the forget, and this replica put it back.
    PutBack = "put_back",
});
