//! The DIMSE face: C-ECHO, C-STORE, C-FIND, C-MOVE, C-GET and storage commitment as provider, and the user side that C-MOVE and the command
//! line need.
//!
//! ```text
//!   server ─ accept ─► association (PDUs, machine, contexts) ─► provider: one message after the other
//!                                                                 ├─ store      pieces straight into the use case, the end in a window
//!                                                                 ├─ find       answers as they are found
//!                                                                 ├─ retrieve   sub-operations, here or to a third party
//!                                                                 └─ commitment reports over this association or a new one
//!   scu ─ request ─► association
//! ```
//!
//! Invariants
//! - D-1 `0000` to C-STORE is spelled from a `Stored`, and from nothing else.
//! - D-2 A refused or lost object leaves nothing visible, and does not disturb the next one on the association.
//! - D-3 Every state has a deadline that counts progress, not size.
//! - D-4 Statuses are in `status.rs`, and no text of a patient is in a comment, a log line or a metric.

pub mod association;
mod availability;
mod command;
mod commitment;
pub mod conformance;
mod delivery;
mod find;
mod held;
mod metrics;
mod performed;
mod provider;
mod retrieve;
pub mod scu;
mod send;
mod server;
pub mod status;
mod store;
#[cfg(test)]
mod tests;
mod window;
mod worklist;

pub use association::Deadlines;
pub use availability::AvailabilityNotifier;
pub use commitment::CommitmentReporter;
pub use send::InstanceSender;
pub use server::{DimseServer, DimseSettings};
