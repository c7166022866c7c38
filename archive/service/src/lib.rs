//! The use cases: store, find, retrieve, delete. One order of steps for every protocol.
//!
//! ```text
//!   dimse ─┐                                        ┌─► catalog   rows: find, instances, headers, frames
//!          ├─► Archive: store · find · read ────────┤
//!   web  ──┘                                        └─► dyn Propose   the replicated log: propose, read index, read
//! ```
//!
//! The order of a store is the promise, and a skipped step does not compile:
//!
//! ```text
//!   Offer ─► Ingest (permit, pre-validate, cut, hash) ─► Scanned ─► InstanceHead ─► propose ─► Proposed ─► Stored
//! ```
//!
//! Invariants
//! - S-1 `Stored` exists only for an instance whose bytes and row are durable on a majority and applied.
//! - S-2 Nothing is looked into before the pre-validator has accepted it; nothing is committed before it has seen the end.
//! - S-3 Bytes in memory hold a permit of a budget, from before they are gathered until the log has answered:
//!   what its caches keep after that, they count themselves.
//! - S-4 An outcome that is not known is `StoreError::Unknown`, never success and never "refused".

mod archive;
mod codec;
mod convert;
mod decode;
mod delete;
mod encode;
mod error;
mod ingest;
mod memory;
mod metrics;
mod orphans;
mod query;
mod read;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use archive::Archive;
pub use archive_catalog::{
    Admission, CatalogError, Find, Include, InstanceRow, Level, Protocol, Selection, Source, Target, Tombstone, Totals,
};
pub use codec::{CodecError, CodecSettings};
pub use convert::{ConvertError, Converting};
pub use decode::NativeFrames;
pub use delete::Deleted;
pub use error::{QueryError, StoreError};
pub use ingest::{Ingest, Offer, Stored};
pub use query::{Freshness, Headers, Matches};
pub use raft_types::{ClusterStatus, ReadError};
pub use read::Reading;
pub use settings::{RemoteAe, ServiceSettings};
