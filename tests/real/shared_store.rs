//! The store of shared tokens with real servers: Redis alone, behind Sentinel and as a cluster.

#[allow(dead_code, reason = "tests of the whole sidecar use the rest")]
pub mod servers;
