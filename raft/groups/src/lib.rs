//! The one crate that imports openraft: many Raft groups on one node, over one lane and one wire.
//!
//! ```text
//!   Propose ─► node ─► openraft, one core per group ─► log_store ─► lane (thin entries: bodies only on disk and wire)
//!                │                    │      └────────► machine ──► applier ─► StateMachine (one transaction for all)
//!                │                    └──────────────► transport ─► wire ─► serve on the peer
//!                └─ life, place, members, keeper, mirror, retention: join, who keeps what, leaders, disk, missing bodies, old log
//! ```
//!
//! No openraft type is in a file, on the wire or in a public signature of this crate.
//! The traps that this crate keeps are numbered in the design; each comment that cites one is backed by a test.

mod backup;
mod bodies;
mod catch_up;
mod compact;
mod documents;
mod heads;
mod identity;
pub mod invariants;
mod keeper;
mod life;
mod log_store;
mod machine;
mod members;
mod meta;
mod metrics;
mod mirror;
mod node;
mod options;
mod place;
mod propose;
mod read_index;
mod recover;
mod refound;
mod replace;
mod retention;
mod rows;
mod rpc;
mod runtime;
mod scrub;
mod serve;
mod status;
#[cfg(test)]
mod suite;
mod suspect;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod types;
mod upkeep;
mod verify;

pub use backup::RowsReceiver;
pub use identity::{Identity, IdentityError};
pub use node::{Node, StartError};
pub use options::{NodeOptions, Timing};
pub use recover::{Bodies, Frozen, GroupPlan, Plan, Recovered, Survivor, plan, recover};
pub use refound::{RefoundError, Unfinished, refound_group, refound_meta};
pub use replace::ReplaceError;
pub use retention::Retention;
pub use upkeep::Upkeep;
