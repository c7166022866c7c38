//! From a backup back into a state machine and a place for bodies, group by group. What is there already is not fetched
//! again, so that a restore that was cut off goes on where it was.

use crate::{ClusterStore, GroupEntry, Progress, TierError, create::read_index, pack::Pack};
use bytes::Bytes;
use futures::{StreamExt, stream};
use raft_types::{Applied, BodyRef, BoxFuture, GroupId, StateMachine};
use std::{collections::BTreeSet, sync::Arc};

/// Packs that are fetched at the same time: each takes up to 65 MiB.
const PACKS_AHEAD: usize = 2;
/// Bytes of bodies that are handed over at a time.
const PORTION_BYTES: usize = 4 << 20;

/// Where bodies go.
pub trait Keep: Send + Sync {
    /// Whether a body of this length is there. Blocking.
    fn holds(&self, group: GroupId, body: BodyRef) -> bool;
    /// Keeps bodies, durably.
    fn keep(&self, group: GroupId, bodies: Vec<(u64, Bytes)>) -> BoxFuture<'_, Result<(), String>>;
}

/// Puts one group of a backup into `machine` and `keep`. At the end every body that its rows name is there.
///
/// # Errors
/// When something in the backup is damaged, which is named, or when a store or a disk does not do its work. Nothing that
/// fails a check is ever handed over.
pub async fn restore_group(
    store: &ClusterStore,
    entry: &GroupEntry,
    machine: &Arc<dyn StateMachine>,
    keep: &Arc<dyn Keep>,
    progress: &Progress,
) -> Result<(), TierError> {
    let group = entry.group;
    if entry.applied.is_none() {
        return Ok(());
    }
    let target = |step: &str| {
        let step = format!("{step} {group}");
        move |why: String| TierError::Target { step, why }
    };
    let there = blocking(machine, move |machine| {
        let applied = machine.applied()?;
        Ok(applied.into_iter().find(|(found, _)| *found == group).and_then(|(_, applied)| applied.position))
    });
    let named = if there.await.map_err(target("look for the rows of"))? == entry.applied {
        blocking(machine, move |machine| machine.bodies(group)).await.map_err(target("list the bodies of"))?
    } else {
        import_rows(store, entry, machine, progress).await?
    };
    let mut missing = absent(keep, group, named).await.map_err(target("look for the bodies of"))?;
    let wanted: Vec<_> = stream::iter(entry.packs.clone())
        .map(|pack| {
            let missing = &missing;
            async move {
                let object = GroupEntry::pack_object(group, &pack.blake3);
                let index = read_index(store, group, &object, pack.bytes).await?;
                Ok::<_, TierError>(index.iter().any(|body| missing.contains(body)).then_some((object, pack)))
            }
        })
        .buffered(PACKS_AHEAD * 4)
        .collect()
        .await;
    let wanted: Vec<_> = wanted.into_iter().collect::<Result<_, _>>()?;
    let fetched = stream::iter(wanted.into_iter().flatten()).map(|(object, pack)| async move {
        let bytes = store.get_sound(&object, &pack.blake3).await.map_err(|(error, _)| error)?;
        progress.did_bytes(pack.bytes);
        Pack::open(&object, group, bytes)
    });
    let mut fetched = fetched.buffered(PACKS_AHEAD);
    while let Some(pack) = fetched.next().await {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        for (body, content, sound) in pack?.bodies() {
            if !sound {
                return Err(TierError::damaged(format!("body {group}/{}", body.index), "it fails its checksum"));
            }
            if !missing.remove(&body) {
                continue;
            }
            bytes += content.len();
            portion.push((body.index, content));
            if bytes >= PORTION_BYTES {
                bytes = 0;
                keep.keep(group, std::mem::take(&mut portion)).await.map_err(target("keep bodies of"))?;
            }
        }
        if !portion.is_empty() {
            keep.keep(group, portion).await.map_err(target("keep bodies of"))?;
        }
    }
    if let Some(body) = missing.first() {
        let why = format!("rows name it, and no pack of the backup holds it ({} such bodies)", missing.len());
        return Err(TierError::damaged(format!("body {group}/{}", body.index), why));
    }
    blocking(machine, move |machine| machine.set_complete(group)).await.map_err(target("complete"))
}

/// What of `named` is not kept yet.
async fn absent(keep: &Arc<dyn Keep>, group: GroupId, named: Vec<BodyRef>) -> Result<BTreeSet<BodyRef>, String> {
    let keep = Arc::clone(keep);
    let look = move || named.into_iter().filter(|body| !keep.holds(group, *body)).collect();
    tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())
}

async fn blocking<T: Send + 'static>(
    machine: &Arc<dyn StateMachine>,
    call: impl FnOnce(&dyn StateMachine) -> Result<T, raft_types::StateMachineError> + Send + 'static,
) -> Result<T, String> {
    let machine = Arc::clone(machine);
    let called = tokio::task::spawn_blocking(move || call(&*machine)).await.map_err(|error| error.to_string())?;
    called.map_err(|error| chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Imports the rows of a group into `machine`, and answers the bodies that they name.
pub(crate) async fn import_rows(
    store: &ClusterStore,
    entry: &GroupEntry,
    machine: &Arc<dyn StateMachine>,
    progress: &Progress,
) -> Result<Vec<BodyRef>, TierError> {
    let group = entry.group;
    if entry.applied.is_none() {
        return Ok(Vec::new());
    }
    // Parts are fetched here and unpacked there, one ahead.
    let (sender, mut parts) = tokio::sync::mpsc::channel(1);
    let applied = Applied { position: entry.applied, membership: None };
    let (importing, count) = (Arc::clone(machine), entry.rows.len());
    let import = tokio::task::spawn_blocking(move || {
        let mut part: Option<crate::rows::Part> = None;
        let (mut failed, mut came) = (None, 0);
        let mut next = || {
            loop {
                if let Some(open) = &mut part {
                    match open.next_piece() {
                        Ok(Some(piece)) => return Ok(Some(piece)),
                        Ok(None) => {}
                        Err(error) => {
                            let io = std::io::Error::other(error.to_string());
                            failed = Some(error);
                            return Err(io);
                        }
                    }
                }
                match parts.blocking_recv() {
                    Some(Ok(next)) => {
                        part = Some(next);
                        came += 1;
                    }
                    Some(Err(error)) => {
                        let error: TierError = error;
                        let io = std::io::Error::other(error.to_string());
                        failed = Some(error);
                        return Err(io);
                    }
                    None if came == count => return Ok(None),
                    // Whoever fetched is gone: rows that end early must not be taken for all.
                    None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        let imported = importing.import(group, &applied, &mut next);
        if let Some(error) = failed {
            return Err(error);
        }
        // The bytes have their digest, so what cannot be understood was written so.
        imported.map_err(|error| TierError::damaged(format!("the rows of {group}"), chain(&error)))?;
        importing
            .bodies(group)
            .map_err(|error| TierError::Target { step: format!("list the bodies of {group}"), why: chain(&error) })
    });
    for number in 0..entry.rows.len() {
        let part = store.rows_part(entry, number).await;
        progress.did_bytes(entry.rows[number].bytes);
        let last = part.is_err();
        if sender.send(part).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    import
        .await
        .map_err(|error| TierError::Target { step: format!("import the rows of {group}"), why: error.to_string() })?
}
