//! Three nodes in one process, with paused time: disks that lose what was not synced, a wire that delays and cuts, and
//! an oracle that knows *unknown*.
//!
//! ```text
//!   seed ─► plan: workload and faults ─► world: nodes over crash disks and the hub ─► history
//!                                              │ safety: faults, and a watch that looks at every node all the time
//!                                              │ liveness: faults end, everything converges, new writes are taken
//!                                              ▼
//!                                         what every node holds ───────────────────► oracle
//! ```
//!
//! The seed decides workload, faults, delays, torn sectors and fsync times; and, since a run has one thread and paused time,
//! openraft's election time-outs and whom tokio wakes first (`raft_groups::testing::run_seeded`). So a seed repeats the run, step
//! by step, which a test of its own sees to; a failure is printed with its whole story.
//!
//! What must hold is in `invariants`, one a file, under the ids of the reliability plan (I1 … I12). What goes wrong is in
//! `faults`. That the harness sees anything at all is proven by bugs on purpose (`raft_lanes::Sabotage`).

pub mod client;
pub mod faults;
pub mod invariants;
pub mod oracle;
pub mod plan;
pub mod view;
pub mod watch;
pub mod world;
