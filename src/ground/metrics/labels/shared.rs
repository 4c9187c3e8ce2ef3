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
    /// The token is no younger than the token that is to be replaced.
    Old = "old",
    /// The token's life has ended, by this replica's clock.
    Ended = "ended",
    /// The token seems to have been minted over a minute in the future: the clocks of two replicas differ.
    Clock = "clock",
    /// Content in the place of the token, or of a mark, that no key of this replica has sealed for that place.
    Foreign = "foreign",
    /// The store did not answer, or not in time.
    Fault = "fault",
});

label!(
    /// Course of the lease for a mint.
    SharedLease, "result", {
    /// Lease that this replica has got, so that it mints for all replicas.
    Won = "won",
    /// Another replica's mint was awaited, and its token is served.
    Awaited = "awaited",
    /// Another replica's mint was awaited in vain, and this replica minted without the lease.
    GaveUp = "gave_up",
    /// The lease ended while this replica minted.
    Lost = "lost",
});

label!(
    /// Result of an attempt to share a token that this replica has minted.
    SharedWrite, "result", {
    Written = "written",
    /// The store did not take the token. This replica tries again later.
    Failed = "failed",
    /// The store has a token already, or the token was forgotten meanwhile.
    Needless = "needless",
});

label!(
    /// Origin of a forget: the replica that was called, or a loss of the store.
    SharedForget, "origin", {
    /// Forget that began here, and that all replicas were told of.
    Here = "here",
    /// Forget that began here. The store did not take it, so the other replicas are told later.
    HereAlone = "here_alone",
    Elsewhere = "elsewhere",
    /// Forget that the store had lost, or had not taken, and that this replica has now written into the store.
    PutBack = "put_back",
});
