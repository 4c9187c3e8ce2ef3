//! Changes of the rules, each of which must break a property.

/// A change of the rules, to show that the properties can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Stored tokens are served without a look at the forgets that they know.
    IgnoresMarks,
    /// Only the store's mark counts, and not the one that the replica has heard of.
    TrustsTheStore,
    /// The marks are read when a mint has ended.
    ReadsMarksLate,
    /// A mint under way is kept although a forget came in between.
    KeepsCalledOff,
    /// The replica on which a forget begins forgets only before it tells the others.
    ForgetsOnce,
    /// A token in memory is shared as knowing a forget that is heard of and not yet carried out.
    SharesTooEarly,
    /// A lease is deleted whose holder is another replica.
    ReleasesAnyLease,
    /// A replica waits for the holder of the lease for as long as the lease is there.
    WaitsForEver,
    /// A replica does not notice that the store was flushed.
    OverlooksFlushes,
    /// A seal holds for any place.
    SealsForAnyPlace,
}
