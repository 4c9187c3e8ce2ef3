//! Several replicas of the sidecar that share tokens through real Redis servers.

mod attacks;
mod crowd;
mod faults;
mod fleet;
mod forgets;
mod rollout;
mod sealed;
mod sharing;
