//! The block store of one disk: a lane is one append-only log that all Raft groups of the disk share.
//!
//! ```text
//!   append  save_vote  truncate_after  purge            entries  body
//!      │        │            │           │                 ▲       ▲
//!      ▼        ▼            ▼           ▼                 │       │
//!   ┌─────────────────── queue ───────────────┐   pending overlay ─┤
//!   └──────────────────────┬──────────────────┘                    │
//!             writer: drain → write → one fdatasync → callbacks in queue order
//!                          │                                       │
//!   segment 1 (sealed) │ segment 2 (sealed) │ segment 3 (active) ──┘ (group, index) → run → row → pread → verify
//! ```
//!
//! Invariants, each with a test that names it:
//!
//! - **L1** A callback is called once, in the order of submission, after the `fdatasync` that covers its record.
//! - **L2** What `append` took is readable when it returns; it is durable when its callback says so.
//! - **L3** After a crash every record whose callback said "durable" is there; what follows the last good batch is gone
//!   as a whole (a torn batch is never half there).
//! - **L4** A rewritten index never answers with its old bytes.
//! - **L5** Damage in the middle is an error that names the place; it is never cut away and never called "absent".
//! - **L6** The first failed write or `fdatasync` is final: every later callback gets an error.
//! - **L7** Recovery reads no bodies but those of the last batch, whose durability nothing proves.
//!
//! The bytes are drawn in [`format`]; `DESIGN.md` beside this crate says what happens at each crash point.

mod ask;
mod batch;
mod compact;
pub mod crash;
mod directory;
mod error;
mod folder;
pub mod format;
mod group;
mod inventory;
mod lane;
mod metrics;
mod options;
mod read;
mod recover;
mod rewrite;
pub mod sabotage;
mod scrub;
mod sealed;
mod segment;
mod survey;
mod suspect;
mod writer;

pub use compact::{Head, RewriteError, Rewrote, Spent};
pub use error::LaneError;
pub use folder::FolderDisk;
pub use lane::{Body, ClosedSegment, Done, Entry, GroupState, Lane, LaneStatus, ThinEntry};
pub use metrics::LaneMetrics;
pub use options::{LaneOptions, Writer};
pub use recover::OpenError;
pub use sabotage::Sabotage;
pub use scrub::{Finding, Scrub, ScrubStep, Scrubbed};
pub use segment::Identity;
pub use suspect::OnHole;
