//! `triptych restore`: a data folder from a backup. It can be cut off at any point: until it is done the folder is no
//! node's, and the same command goes on where it was.
//!
//! ```text
//!   marker ─► identity ─► each group: rows into the catalogue, bodies into the log ─► each group and the meta group: this
//!   node alone, under a new cluster id (raft/groups/src/refound.rs) ─► identity ─► marker gone
//! ```

use crate::{
    Failure,
    serve::{open_folder, segment_bytes},
    stores::{FromFlags, bar, watched},
    world::{SystemClock, SystemSeed},
};
use archive_catalog::{Catalog, CatalogOptions};
use bytes::Bytes;
use clap::Args;
use indicatif::HumanBytes;
use raft_groups::{Identity, Unfinished, refound_group, refound_meta};
use raft_lanes::{Lane, LaneOptions};
use raft_tier::{ClusterStore, Keep, Manifest, Progress, format_unix_ms, restore_group};
use raft_types::{BodyRef, BoxFuture, Disk, GroupId, StateMachine};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use uuid::Uuid;

/// Flags of `restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreFlags {
    #[command(flatten)]
    from: FromFlags,
    /// Which backup: an id, or a time in UTC such as 2026-11-26T00:30:00Z for the newest not after it. Default the newest.
    #[arg(long, value_name = "ID|TIME")]
    at: Option<String>,
    /// The folder that is made: empty, or one in which this restore was cut off.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Name of the node that it becomes, for `triptych serve --name`.
    #[arg(long, default_value = "n1")]
    name: String,
}

/// A lane as a place for bodies.
struct LaneKeep(Lane);

impl Keep for LaneKeep {
    fn holds(&self, group: GroupId, body: BodyRef) -> bool {
        self.0.holds(group, body.index, body.length_bytes)
    }

    fn keep(&self, group: GroupId, bodies: Vec<(u64, Bytes)>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let bytes = bodies.iter().map(|(_, body)| body.len() as u64 + 64).sum(); // 64: a record's header
            let permit = self.0.reserve(bytes).await;
            let (sender, durable) = tokio::sync::oneshot::channel();
            let done = move |result| {
                drop(permit);
                drop(sender.send(result));
            };
            self.0.append_blocks(group, bodies, Box::new(done)).map_err(|error| error.to_string())?;
            let result: std::io::Result<()> = durable.await.map_err(|_| "the log stopped".to_owned())?;
            result.map_err(|error| error.to_string())
        })
    }
}

pub(crate) fn run(flags: RestoreFlags) -> Result<ExitCode, Failure> {
    crate::client::runtime()?.block_on(restore(flags))
}

async fn restore(flags: RestoreFlags) -> Result<ExitCode, Failure> {
    let store = flags.from.open().await?;
    let folder = open_folder(&flags.data)?;
    let (marker, manifest) = begin(&flags, &store, &*folder).await?;
    let mut identity = Identity::load_or_create(&*folder, &flags.name, &SystemSeed)?;
    identity.cluster_id = Some(marker.cluster_id);
    let lane = open_lane(&flags.data, &identity)?;
    let machine: Arc<dyn StateMachine> =
        Arc::new(Catalog::open(&flags.data.join("catalog"), CatalogOptions::default())?);
    let keep: Arc<dyn Keep> = Arc::new(LaneKeep(lane.clone()));
    let (bar, progress) = (bar("restore"), Progress::default());
    progress.set_groups(manifest.groups.len() as u64);
    let restored = watched(&bar, &progress, async {
        for entry in &manifest.groups {
            restore_group(&store, entry, &machine, &keep, &progress).await?;
            progress.group_done();
        }
        Ok::<_, raft_tier::TierError>(())
    });
    if let Err(error) = restored.await {
        // What is durable by now is used by the next try.
        tokio::task::spawn_blocking(move || lane.shutdown()).await?;
        return Err(format!("{error}; the folder is not usable: {}", marker.advice()).into());
    }
    let groups = manifest.groups.iter().map(|entry| entry.group).collect::<Vec<_>>();
    let (name, count) = (flags.name.clone(), manifest.group_count);
    let alone = identity.clone();
    let mut marker_here = marker.clone();
    marker_here.documents = manifest.documents.clone();
    tokio::task::spawn_blocking(move || {
        for group in groups {
            refound_group(&lane, &*machine, group, &name)?;
        }
        refound_meta(&lane, &alone, &marker_here, count)?;
        machine.settle().map_err(raft_groups::RefoundError::from)?;
        lane.shutdown();
        Ok::<_, raft_groups::RefoundError>(())
    })
    .await??;
    marker.finish(&*folder, identity)?;
    say(&flags, &manifest, marker.cluster_id);
    Ok(ExitCode::SUCCESS)
}

/// Chooses the backup, and marks the folder: a new one, or one in which this very restore was begun.
async fn begin(
    flags: &RestoreFlags,
    store: &ClusterStore,
    folder: &dyn Disk,
) -> Result<(Unfinished, Manifest), Failure> {
    let data = flags.data.display();
    let begun = Unfinished::load(folder)?;
    let source_of = |id: &str| format!("backup {id} of cluster {}", store.id());
    let id = match (&begun, &flags.at) {
        (Some(begun), None) => {
            // The newest may be a newer one by now: what was begun is finished.
            let ids = store.backups().await?;
            let same = ids.into_iter().find(|id| source_of(id) == begun.source);
            same.ok_or_else(|| format!("--data {data}: {}", begun.advice()))?
        }
        (_, at) => store.pick(at.as_deref()).await?,
    };
    let manifest = store.manifest(&id).await?;
    if let Some(begun) = begun {
        if begun.what != "restore" || begun.source != source_of(&id) || begun.name != flags.name {
            return Err(format!("--data {data}: {} (as node {})", begun.advice(), begun.name).into());
        }
        return Ok((begun, manifest));
    }
    for entry in std::fs::read_dir(&flags.data)? {
        let name = entry?.file_name();
        if name != "LOCK" {
            let name = name.to_string_lossy();
            return Err(format!(
                "--data {data}: the folder is not empty ({name}): name an empty one, a restore replaces nothing"
            )
            .into());
        }
    }
    let marker = Unfinished::new("restore", source_of(&id), flags.name.clone(), Uuid::new_v4());
    marker.save(folder)?;
    Ok((marker, manifest))
}

fn open_lane(data: &Path, identity: &Identity) -> Result<Lane, Failure> {
    let log = open_folder(&data.join("log"))?;
    let options = LaneOptions { segment_bytes: segment_bytes(&*log, None)?, ..LaneOptions::new(identity.of_lane()) };
    Ok(Lane::open(log, Arc::new(SystemClock::new()), options)?)
}

fn say(flags: &RestoreFlags, manifest: &Manifest, cluster_id: Uuid) {
    let data = flags.data.display().to_string();
    if flags.from.json {
        let said = json!({
            "restored": manifest.id, "from_cluster_id": manifest.cluster_id, "cluster_id": cluster_id, "data": data,
            "name": flags.name, "bodies": manifest.totals.bodies, "body_bytes": manifest.totals.body_bytes,
            "groups": manifest.group_count,
        });
        println!("{said:#}");
        return;
    }
    println!(
        "backup {} of {} is restored: {} blocks of images, {}; it is cluster {cluster_id} now",
        manifest.id,
        format_unix_ms(manifest.started_unix_ms),
        manifest.totals.bodies,
        HumanBytes(manifest.totals.body_bytes)
    );
    println!("start it with: triptych serve --data {data} --name {}", flags.name);
}
