//! Several replicas of the sidecar that share tokens through real Redis servers.

mod attacks;
mod crowd;
mod faults;
mod fleet;
mod forgets;
mod network;
mod partition;
mod rights;
mod rollout;
mod sealed;
mod sharing;
