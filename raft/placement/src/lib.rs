//! Who keeps what: pure functions and one pure state machine, no I/O, no clock, no chance.
//!
//! ```text
//!   Study UID ─slot()─► 0..4096 ─group_of()─► g1…gn ─MetaState─► replicas, the first of them preferred as leader
//!                                                ▲
//!                             spread() plans it, `MetaCommand::DefineGroups` records it in the meta group
//!   nodes come and go: next_move() and even_leaders() plan the next small change of that table
//!   start of a node: decide() reads its identity and what the peers say, and answers what to do
//! ```

pub mod bootstrap;
mod documents;
pub mod meta;
pub mod moves;
pub mod slots;
pub mod spread;

pub use bootstrap::{Decision, Own, Reason, Seen, Situation, decide};
pub use meta::{GroupPlacement, MetaCommand, MetaNode, MetaOutcome, MetaState, Registration};
pub use moves::{Busy, Candidate, even_leaders, next_move, target_replication};
pub use slots::{SLOTS, group_of, slot, slots_of};
pub use spread::{rebalance, spread};
