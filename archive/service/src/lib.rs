//! The use cases: store, find, retrieve, delete, commit. One order of steps for every protocol.
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
//! - A-1…A-3 Who is told what is available: see `availability.rs`.
//! - N-1…N-5 What rejection notes do: see `rejection.rs`.
//! - CO-1…CO-5 What a peer is shown in place of what is stored: see `coerce.rs`.
//! - PR-1…PR-4 Who is admitted, and by which rules: see `peers.rs`.
//! - IX-1…IX-4 Indexes that operators add: see `indexes.rs`.
//! - Q-1…Q-5 What is sent although a node dies: see `sends.rs`.
//! - RE-1…RE-4 How frames become pictures: see `render.rs`.
//! - S-4 An outcome that is not known is `StoreError::Unknown`, never success and never "refused".

mod archive;
pub mod availability;
mod codec;
pub mod coerce;
pub mod commitment;
mod convert;
mod decode;
mod delete;
pub mod document;
mod documents;
mod due;
mod encode;
mod error;
pub mod indexes;
mod ingest;
mod memory;
mod metrics;
mod orphans;
mod packed;
pub mod peers;
mod performed;
mod query;
mod reach;
mod read;
mod records;
pub mod rejection;
pub mod render;
pub mod sends;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod worklist;

pub use archive::Archive;
pub use archive_catalog::{
    Admission, COMPUTED, CatalogError, Expect, Find, Include, InstanceRow, KEYS, Key, Level, OtherContent, Protocol,
    Record, Selection, Source, Target, Tombstone, Totals, Version,
};
pub use codec::{CodecError, CodecSettings};
pub use convert::{ConvertError, Converting};
pub use decode::NativeFrames;
pub use delete::Deleted;
pub use documents::DocumentError;
pub use error::{QueryError, StoreError};
pub use ingest::{Ingest, Offer, Stored};
pub use peers::Peers;
pub use performed::{PerformedSteps, StepError};
pub use query::{Freshness, Headers, Listing, Matches};
pub use raft_types::{BoxFuture, ClusterStatus, ReadError};
pub use read::Reading;
pub use records::{RecordError, Records};
pub use render::{Picture, RegionAsked, RenderError, Shown, Viewing};
pub use settings::{RemoteAe, ServiceSettings};
pub use worklist::{EntryError, EntryId, Worklist, WorklistMatches};
