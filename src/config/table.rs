//! The tables of `sidecar.toml` that need more than a few lines, one file each.

pub mod delivery;
pub mod identity;
pub mod velt;
