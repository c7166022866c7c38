//! Whether a backup is what it should be: everything is read, every digest compared, the rows are taken into a scratch
//! state machine, and every body that they name is looked for.

use crate::{ClusterStore, GroupEntry, Progress, TierError, pack::Pack, restore::import_rows};
use futures::{StreamExt, stream};
use raft_types::StateMachine;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// Packs that are read at the same time: each takes up to 65 MiB.
const PACKS_AHEAD: usize = 2;
/// Lines of damage that are kept; the rest is counted.
const DAMAGE_MAX: usize = 1_000;

/// What is wrong with one object or body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The object, or the body as `g3/57`.
    pub object: String,
    /// What is wrong.
    pub why: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The backup.
    pub id: String,
    /// Groups.
    pub groups: u64,
    /// Objects that were read, the manifest included.
    pub objects: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bodies that rows name, and that were found sound.
    pub bodies: u64,
    /// Bytes of those.
    pub body_bytes: u64,
    /// What is wrong; empty for a sound backup.
    pub damage: Vec<Damage>,
    /// Further damage, not listed.
    pub more_damage: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    fn add(&mut self, object: String, why: String) {
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(Damage { object, why });
        } else {
            self.more_damage += 1;
        }
    }

    /// Notes damage; anything else ends the job.
    fn note(&mut self, error: TierError) -> Result<(), TierError> {
        match error {
            TierError::Damaged { object, why } => {
                self.add(object, why);
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// Reads all of backup `id`. `scratch` is an empty state machine that is thrown away afterwards.
///
/// # Errors
/// When the store does not answer: what is damaged is in the report, and no error.
pub async fn verify(
    store: &ClusterStore,
    id: &str,
    scratch: Arc<dyn StateMachine>,
    progress: &Progress,
) -> Result<Report, TierError> {
    let mut report = Report { id: id.to_owned(), objects: 1, ..Report::default() };
    let manifest = match store.manifest(id).await {
        Ok(manifest) => manifest,
        Err(error) => {
            report.note(error)?;
            return Ok(report);
        }
    };
    progress.set_groups(manifest.groups.len() as u64);
    progress.more_bytes(manifest.totals.stored_bytes);
    report.groups = manifest.groups.len() as u64;
    if u64::from(manifest.group_count) != report.groups {
        report.add(format!("backups/{id}.json"), "it does not name all groups".into());
    }
    for entry in &manifest.groups {
        verify_group(store, entry, &scratch, &mut report, progress).await?;
        progress.group_done();
    }
    Ok(report)
}

async fn verify_group(
    store: &ClusterStore,
    entry: &GroupEntry,
    scratch: &Arc<dyn StateMachine>,
    report: &mut Report,
    progress: &Progress,
) -> Result<(), TierError> {
    let named = match import_rows(store, entry, scratch, progress).await {
        Ok(named) => Some(named),
        Err(error) => {
            report.note(error)?;
            None
        }
    };
    report.objects += (entry.rows.len() + entry.packs.len()) as u64;
    report.bytes += entry.objects().map(|(_, bytes)| bytes).sum::<u64>();
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    let packs = stream::iter(entry.packs.clone()).map(|pack| async move {
        let object = GroupEntry::pack_object(entry.group, &pack.blake3);
        let read = store.get_sound(&object, &pack.blake3).await;
        progress.did_bytes(pack.bytes);
        (object, read)
    });
    let mut packs = packs.buffered(PACKS_AHEAD);
    while let Some((object, read)) = packs.next().await {
        let bytes = match read {
            Ok(bytes) => Some(bytes),
            Err((error, came)) => {
                report.note(error)?;
                came // which bodies of it are still sound
            }
        };
        let Some(bytes) = bytes else { continue };
        let group = entry.group;
        let name = object.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let pack = Pack::open(&name, group, bytes)?;
            Ok(pack.bodies().map(|(body, _, sound)| (body, sound)).collect::<Vec<_>>())
        })
        .await
        .map_err(|error| TierError::Target { step: format!("look at {object}"), why: error.to_string() })?;
        match looked {
            Ok(bodies) => {
                for (body, sound) in bodies {
                    if sound {
                        found.insert(body.index, body.length_bytes);
                    } else {
                        report
                            .add(format!("{group}/{}", body.index), format!("the body fails its checksum in {object}"));
                    }
                }
            }
            Err(error) => report.note(error)?,
        }
    }
    let Some(named) = named else { return Ok(()) };
    let (mut bodies, mut bytes) = (0, 0);
    for body in named {
        bytes += u64::from(body.length_bytes);
        bodies += 1;
        match found.get(&body.index) {
            Some(length) if *length == body.length_bytes => {
                report.bodies += 1;
                report.body_bytes += u64::from(body.length_bytes);
            }
            Some(length) => {
                let why = format!("its rows say {} bytes, its pack {length}", body.length_bytes);
                report.add(format!("{}/{}", entry.group, body.index), why);
            }
            None => report.add(
                format!("{}/{}", entry.group, body.index),
                format!("rows name this body of {} bytes, and no sound pack of the backup holds it", body.length_bytes),
            ),
        }
    }
    if (bodies, bytes) != (entry.bodies, entry.body_bytes) {
        let why = format!("it counts {} bodies of {}, its rows name {bodies}", entry.bodies, entry.group);
        report.add("the manifest".into(), why);
    }
    Ok(())
}
