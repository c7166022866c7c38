//! Backups in an object store: a directory or a bucket that holds enough to make the archive anew.
//!
//! ```text
//!   <prefix>/<cluster id>/packs/<group>/<blake3>                          bodies, about 64 MiB, immutable      pack.rs
//!   <prefix>/<cluster id>/rows/<group>/<term>-<index>-<part>-<blake3>     rows of one moment, zstd             rows.rs
//!   <prefix>/<cluster id>/backups/<unix ms>-<n>.json                      what belongs together, written last  manifest.rs
//!   <prefix>/<cluster id>/locks/<what>-<unix ms>-<n>                      who works here now                   lease.rs
//! ```
//!
//! A body has an address, (group, log index), that never changes and is never used twice within a cluster id: what an
//! earlier backup holds is not sent again. A backup is one moment of each group, and moments of groups differ: it is
//! consistent per group, never across groups.
//!
//! Invariants, each with a test that names it:
//!
//! - **B1** A backup exists when its manifest does, and the manifest is written after everything that it names was
//!   written *and checked* (read back and its digest compared; where the store checks a digest itself, that and the length).
//! - **B2** What fails at any step leaves no manifest. Packs that it left are used by the next one, once their digest is
//!   checked.
//! - **B3** Every body that the rows of a backup name is in a pack that its manifest names.
//! - **B4** Objects are named by their digest and never changed: a flipped byte anywhere is found, and named.
//! - **B5** Memory is a budget in bytes; at most two packs are on their way.
//! - **B6** Nothing that a kept backup names is pruned, and nothing while a backup is being made.
//!
//! | it dies… | what is left |
//! |---|---|
//! | while rows or packs are written | objects that no manifest names: the next backup uses the packs, `prune` removes the rest |
//! | before the manifest | the same, and no backup |
//! | after the manifest | a backup |
//! | a prune, at any point | manifests go first: none ever names what is gone |
//!
//! Nothing here knows DICOM, openraft or files of a node.

mod create;
mod error;
mod lease;
mod manifest;
mod pack;
mod progress;
mod prune;
mod repository;
mod restore;
mod rows;
mod time;
mod verify;

pub use create::{Options, RowsReceiver, Source, create};
pub use error::TierError;
pub use manifest::{GroupEntry, Manifest, ObjectEntry, PackEntry, Totals};
pub use progress::{Progress, ProgressView};
pub use prune::{Pruned, prune};
pub use repository::{ClusterStore, Repository, WriteCheck};
pub use restore::{Keep, restore_group};
pub use time::{format_unix_ms, parse_unix_ms};
pub use verify::{Damage, Report, verify};

/// Chooses the cryptography of TLS for this process, once: `ring`, the smallest that is there. Calls after the first one
/// do nothing.
pub fn install_tls() {
    // An error says that one was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
