//! The replicated index: what is held, and where. One SQLite database per node, fed by the log and by nothing else.
//!
//! ```text
//!   committed entries of all groups ─► apply: one transaction, rows and applied positions together
//!                                         │
//!        patient 1─n study 1─n series 1─n instance 1─n version         upload: blocks of objects that still arrive
//!                                         │
//!   find (C-FIND, QIDO) · instances (retrieve) · headers (metadata) · frames · totals
//! ```
//!
//! Invariants
//! - K-1 `apply` is a function of (rows of the group, position, command): no clock, no chance, no order of a map.
//! - K-2 Rows and applied position are one transaction; an entry is applied once.
//! - K-3 Counts and modalities change in the same apply as the instance they count.
//! - K-4 The first content under a UID stays what the UID answers, unless who sends another one has the policy to replace it;
//!   what does not answer is kept beside it as a version. Nothing that was acknowledged goes (`versions.rs`).
//! - K-5 The database is never the only truth: it can be rebuilt from the log.
//! - D-1…D-3 What is deleted stays deleted: see `delete.rs`.
//! - J-1…J-6 What a rejection note names is hidden or goes, on every node the same: see `reject.rs`.
//! - X-1…X-5 Indexes that an operator adds are derived on each node, and never narrow too much: see `extra.rs`.
//! - R-1…R-4 Work that lives in the log is in records, one version after the other: see `record.rs`.
//!
//! Study, series and instance live in one group, so their rows are the same on every node. A patient is a view over the
//! studies of all groups: counts are sums, and its attributes are those of its study with the least UID, so that no
//! order between groups matters. Studies without a Patient ID have a patient each.

mod apply;
mod availability;
mod ballast;
mod catalog;
mod checkpoint;
mod command;
mod delete;
mod error;
mod export;
mod extra;
mod find;
mod head;
mod import;
mod keys;
mod levels;
mod named;
mod narrow;
mod pool;
mod record;
mod reject;
mod retrieve;
mod row;
pub mod sabotage;
mod schema;
mod versions;
mod witness;

pub use availability::Availability;
pub use catalog::{Catalog, CatalogOptions, Totals};
pub use command::{
    Admission, BlockPart, Command, Expect, Grounds, InstanceHead, OtherContent, Outcome, Protocol, RecordName,
    RefusedWhy, RejectAction, RejectedAgain, Rejection, Source, Target, UploadId,
};
pub use delete::Tombstone;
pub use error::CatalogError;
pub use extra::{ExtraIndex, ExtraState, FillStep};
pub use find::{Find, Include, Level, Search};
pub use head::{HeadError, instance_head};
pub use keys::{COMPUTED, KEYS, Key};
pub use record::{Due, Record};
pub use reject::{Rejected, RejectedState};
pub use retrieve::{HeaderPages, Selection};
pub use row::InstanceRow;
pub use versions::Version;
