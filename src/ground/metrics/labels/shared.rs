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
    /// What stands in the token's place was not sealed for it by a key of this replica.
    Unreadable = "unreadable",
    /// The store did not answer, or not in time.
    Fault = "fault",
});

label!(
    /// Course of the lease for a mint.
    SharedLease, "result", {
    /// This replica has the lease, and mints for all.
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
    /// This one; all replicas were told.
    Here = "here",
    /// This one; the store did not take it, so the other replicas are told later.
    HereAlone = "here_alone",
    Elsewhere = "elsewhere",
    /// The store had lost the forget, and this replica put it back.
    PutBack = "put_back",
});
