//! Three nodes in one process, with paused time: disks that lose what was not synced, a wire that delays and cuts, and
//! an oracle that knows *unknown*.
//!
//! ```text
//!   seed ─► plan: workload and faults ─► world: nodes over crash disks and the hub ─► history
//!                                              │ faults end, everything converges        │
//!                                              ▼                                         ▼
//!                                         what every node holds ───────────────────► oracle
//! ```
//!
//! The seed decides workload, faults, delays, torn sectors and fsync times. openraft draws its election time-outs by
//! itself, so a seed gives the same story, but not the same instants: a failure is printed with its whole story.

pub mod oracle;
pub mod plan;
pub mod world;
