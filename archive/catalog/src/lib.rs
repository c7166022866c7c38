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
//! - K-4 The first content under a UID stays what the UID answers; other contents are kept beside it as versions.
//! - K-5 The database is never the only truth: it can be rebuilt from the log.
//! - D-1…D-3 What is deleted stays deleted: see `delete.rs`.
//!
//! Study, series and instance live in one group, so their rows are the same on every node. A patient is a view over the
//! studies of all groups: counts are sums, and its attributes are those of its study with the least UID, so that no
//! order between groups matters. Studies without a Patient ID have a patient each.

mod apply;
mod ballast;
mod catalog;
mod command;
mod delete;
mod error;
mod export;
mod find;
mod head;
mod import;
mod keys;
mod levels;
mod named;
mod narrow;
mod pool;
mod retrieve;
mod row;
pub mod sabotage;
mod schema;
mod witness;

pub use catalog::{Catalog, CatalogOptions, Totals};
pub use command::{
    Admission, BlockPart, Command, Grounds, InstanceHead, Outcome, Protocol, RefusedWhy, Source, Target, UploadId,
};
pub use delete::Tombstone;
pub use error::CatalogError;
pub use find::{Find, Include, Level, Search};
pub use head::{HeadError, instance_head};
pub use keys::{KEYS, Key};
pub use retrieve::{HeaderPages, Selection};
pub use row::InstanceRow;
