//! The second level of the token cache: tokens that the replicas of a sidecar share in a store (Redis 6.2 or later,
//! or Valkey), sealed, so that the store learns neither token nor user.
//!
//! The store is an optimization. Each call to it has a time limit, and each fault of it means that this replica goes
//! on as if there were no store: from its memory, and by minting.

#![forbid(unsafe_code)]

pub mod entry;
pub mod protocol;
pub mod seal;
pub mod store;
