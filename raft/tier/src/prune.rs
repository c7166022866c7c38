//! Removing old backups, and every object that no kept one names.
//!
//! Manifests go first, so that none ever names what is gone (B6). A manifest that cannot be read stops it: what it names
//! is not known.

use crate::{
    ClusterStore, Manifest, TierError,
    lease::{Lease, Work},
};
use serde::Serialize;
use std::collections::BTreeSet;

/// What is removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Backups that stay, oldest first.
    pub kept: Vec<String>,
    /// Backups that go.
    pub backups: Vec<String>,
    /// Packs that go.
    pub packs: u64,
    /// Objects with rows that go.
    pub rows: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Whether it was done, and not only counted.
    pub done: bool,
}

/// Keeps the `keep` newest backups and removes the rest; without `yes` it only counts. `id` is unique among prunes.
///
/// # Errors
/// When somebody else works there, a kept manifest is damaged, or the store does not answer.
pub async fn prune(store: &ClusterStore, keep: usize, yes: bool, id: &str) -> Result<Pruned, TierError> {
    let lease = Lease::take(store, Work::Prune, id).await?;
    let pruned = run(store, keep.max(1), yes).await;
    lease.release().await;
    pruned
}

async fn run(store: &ClusterStore, keep: usize, yes: bool) -> Result<Pruned, TierError> {
    let ids = store.backups().await?;
    let (old, kept) = ids.split_at(ids.len().saturating_sub(keep));
    let mut named = BTreeSet::new();
    for id in kept {
        let manifest: Manifest = store.manifest(id).await?;
        named.extend(manifest.groups.iter().flat_map(|group| group.objects().map(|(object, _)| object)));
    }
    let mut pruned = Pruned { kept: kept.to_vec(), backups: old.to_vec(), done: yes, ..Pruned::default() };
    let mut gone = Vec::new();
    for folder in ["packs", "rows"] {
        for (object, meta) in store.list(folder).await?.into_iter().filter(|(object, _)| !named.contains(object)) {
            *(if folder == "packs" { &mut pruned.packs } else { &mut pruned.rows }) += 1;
            pruned.bytes += meta.size;
            gone.push(object);
        }
    }
    if yes {
        let manifests: Vec<String> = old.iter().map(|id| format!("backups/{id}.json")).collect();
        store.remove(&manifests).await?;
        store.remove(&gone).await?;
    }
    Ok(pruned)
}
