//! `triptych recover`: when most nodes are lost for good, what is left becomes a cluster of one. Collects, plans, asks,
//! applies.

use crate::{
    Failure,
    serve::{open_folder, segment_bytes},
    world::SystemClock,
};
use archive_catalog::{Catalog, CatalogOptions};
use clap::Args;
use indicatif::{HumanBytes, ProgressBar};
use raft_groups::{
    Frozen, Identity, Plan, Recovered, Survivor, Unfinished, plan, recover, refound_group, refound_meta,
};
use raft_lanes::{Lane, LaneOptions, Writer};
use raft_types::{Disk, LogPosition, StateMachine};
use serde_json::json;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tempfile::TempDir;
use uuid::Uuid;

/// Flags of `recover`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecoverFlags {
    /// The folder that becomes the new cluster: of a stopped node, the one with the most.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folders of other stopped nodes that are left; they are only read. May be given several times.
    #[arg(long, value_name = "DIR")]
    also: Vec<PathBuf>,
    /// Name of the node from now on. Default: the one that it has.
    #[arg(long)]
    name: Option<String>,
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
    /// Print JSON: stable names for scripts. Without --yes it prints the plan and does nothing.
    #[arg(long)]
    json: bool,
}

/// What keeps a folder ours while its survivor is used: its lock, and a copy of its catalogue.
struct Guard {
    folder: Arc<dyn Disk>,
    log: Arc<dyn Disk>,
    _scratch: Option<TempDir>,
}

pub(crate) fn run(flags: RecoverFlags) -> Result<ExitCode, Failure> {
    let folder = open_existing(&flags.data)?;
    let begun = Unfinished::load(&*folder)?;
    if let Some(other) = begun.as_ref().filter(|begun| begun.what != "recover") {
        return Err(format!("--data {}: {}", flags.data.display(), other.advice()).into());
    }
    let mut former = begun.as_ref().map(|begun| begun.former_cluster_ids.clone()).unwrap_or_default();
    // Where it was cut off, there may be segments of the new cluster.
    let accepted: Vec<Uuid> = former.iter().copied().chain(begun.as_ref().map(|begun| begun.cluster_id)).collect();
    let (own, guard) = open(&flags.data, folder, &accepted, None)?;
    let old_id = former.first().copied().or(own.identity.cluster_id).ok_or("no cluster id")?;
    if former.is_empty() {
        former = std::iter::once(old_id).chain(own.identity.former_cluster_ids.iter().copied()).collect();
    }
    let (mut others, mut guards) = (Vec::new(), Vec::new());
    for also in &flags.also {
        let scratch = tempfile::Builder::new().prefix("recover-").tempdir_in(&flags.data)?;
        let (other, guard) = open(also, open_existing(also)?, &[], Some(scratch))?;
        if other.identity.cluster_id != Some(old_id) {
            let theirs = other.identity.cluster_id.unwrap_or_default();
            return Err(format!("--also {}: it belongs to cluster {theirs}, --data to {old_id}", also.display()).into());
        }
        others.push(other);
        guards.push(guard);
    }
    let plan = plan(&own, &others, begun.as_ref())?;
    if !flags.json {
        print!("{}", describe(&plan, old_id, &others));
    }
    if !flags.yes {
        if flags.json {
            println!("{:#}", json!({ "cluster_id": old_id, "plan": plan, "done": false }));
            return Ok(ExitCode::SUCCESS);
        }
        if !agreed(old_id)? {
            println!("nothing was changed");
            return Ok(ExitCode::FAILURE);
        }
    }
    let name = flags.name.clone().unwrap_or_else(|| own.identity.name.clone());
    let marker = begun.unwrap_or_else(|| {
        let mut new = Unfinished::new("recover", format!("cluster {old_id}"), name, Uuid::new_v4());
        (new.former_cluster_ids, new.group_count) = (former, plan.group_count);
        new.documents = plan.documents.clone();
        new
    });
    let recovered = apply(&flags, own, &guard, &others, &plan, &marker)?;
    drop(guards);
    if flags.json {
        println!(
            "{:#}",
            json!({
                "cluster_id": old_id, "plan": plan, "done": true, "new_cluster_id": marker.cluster_id, "name": marker.name,
                "recovered": recovered,
            })
        );
    } else {
        say(&flags, &recovered, &marker);
    }
    Ok(if recovered.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open_existing(folder: &Path) -> Result<Arc<dyn Disk>, Failure> {
    if !folder.join("identity.json").is_file() {
        return Err(format!("{}: no data folder of a node: it has no identity.json", folder.display()).into());
    }
    open_folder(folder)
}

/// Opens a folder for reading. With `scratch` its catalogue is copied there first, so that nothing in it changes.
fn open(
    folder: &Path,
    disk: Arc<dyn Disk>,
    accepted: &[Uuid],
    scratch: Option<TempDir>,
) -> Result<(Survivor, Guard), Failure> {
    let at = folder.display();
    let identity = Identity::load(&*disk)?.ok_or_else(|| format!("{at}: it has no identity.json"))?;
    if !identity.is_member() {
        return Err(format!("{at}: this node never belonged to a cluster: there is nothing to recover in it").into());
    }
    let log = open_folder(&folder.join("log"))?;
    let mut options = LaneOptions { writer: Writer::Stepped, ..LaneOptions::new(identity.of_lane()) };
    options.former_cluster_ids = identity.former_of_lane();
    options.former_node_uuids = identity.former_uuids();
    options.former_cluster_ids.extend(accepted.iter().map(|id| id.into_bytes()));
    let frozen: Arc<dyn Disk> = Arc::new(Frozen(Arc::clone(&log)));
    let lane = Lane::open(frozen, Arc::new(SystemClock::new()), options).map_err(|error| format!("{at}: {error}"))?;
    let rows = folder.join("catalog");
    let rows = match &scratch {
        Some(scratch) => {
            copy_rows(&rows, scratch.path()).map_err(|error| format!("{at}: copy the catalogue: {error}"))?
        }
        None => rows,
    };
    let catalog =
        Catalog::open(&rows, CatalogOptions::default()).map_err(|error| format!("{at}: {}", crate::chain(&error)))?;
    let machine: Arc<dyn StateMachine> = Arc::new(catalog);
    let survivor = Survivor { folder: at.to_string(), identity, lane, machine };
    Ok((survivor, Guard { folder: disk, log, _scratch: scratch }))
}

/// Copies the database and its write-ahead log; the node is stopped, so that both are still.
fn copy_rows(from: &Path, to: &Path) -> std::io::Result<PathBuf> {
    if from.is_dir() {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name();
            // The index of the write-ahead log is made anew.
            if entry.file_type()?.is_file() && !name.to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), to.join(name))?;
            }
        }
    }
    Ok(to.to_path_buf())
}

/// Does what was planned.
fn apply(
    flags: &RecoverFlags,
    own: Survivor,
    guard: &Guard,
    others: &[Survivor],
    plan: &Plan,
    marker: &Unfinished,
) -> Result<Recovered, Failure> {
    marker.save(&*guard.folder)?;
    let Survivor { folder, identity, lane, machine } = own;
    drop(lane); // it only read
    let mut new = identity.clone();
    new.cluster_id = Some(marker.cluster_id);
    let mut options =
        LaneOptions { segment_bytes: segment_bytes(&*guard.log, None)?, ..LaneOptions::new(new.of_lane()) };
    options.former_cluster_ids = identity.former_of_lane();
    options.former_node_uuids = identity.former_uuids();
    options.former_cluster_ids.extend(marker.former_cluster_ids.iter().map(|id| id.into_bytes()));
    options.former_cluster_ids.extend(identity.cluster_id.map(Uuid::into_bytes));
    let lane = Lane::open(Arc::clone(&guard.log), Arc::new(SystemClock::new()), options)?;
    let own = Survivor { folder, identity, lane, machine };
    let bar = if flags.json {
        ProgressBar::hidden()
    } else {
        crate::client::bar(plan.groups.len() as u64, "recover [{bar:30}] group {pos} of {len}")
    };
    let recovered = recover(&own, others, plan, &mut |done| bar.set_position(done))?;
    for group in &plan.groups {
        refound_group(&own.lane, &*own.machine, group.group, &marker.name)?;
    }
    refound_meta(&own.lane, &own.identity, marker, plan.group_count)?;
    own.machine.settle()?;
    bar.finish_and_clear();
    own.lane.shutdown();
    marker.finish(&*guard.folder, own.identity)?;
    Ok(recovered)
}

/// Asks for the cluster's id: nobody types that by mistake.
fn agreed(id: Uuid) -> Result<bool, Failure> {
    print!("type the id of the old cluster (its first 8 characters are enough) to go on: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let typed = line.trim().to_lowercase();
    Ok(typed.len() >= 8 && id.to_string().starts_with(&typed))
}

fn at(position: Option<LogPosition>) -> String {
    position.map_or_else(|| "-".into(), |position| position.to_string())
}

/// The plan as a person reads it.
fn describe(plan: &Plan, old_id: Uuid, others: &[Survivor]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| _ = writeln!(text, "{args}");
    line(format_args!("cluster {old_id} of {}", plan.nodes.join(", ")));
    line(format_args!(
        "folders that are not here: {}",
        if plan.absent.is_empty() { "none".to_owned() } else { plan.absent.join(", ") }
    ));
    line(format_args!(""));
    line(format_args!(
        "{:<6} {:<28} {:>12} {:>12} {:>12} {:>10} {:>8} {:>6}",
        "GROUP", "LONGEST LOG IN", "LAST", "COMMITTED", "APPLIED", "MAY APPEAR", "TO COPY", "LOST"
    ));
    for group in &plan.groups {
        let best = &group.held[group.best];
        let committed = group.held.iter().filter_map(|held| held.committed).max();
        line(format_args!(
            "{:<6} {:<28} {:>12} {:>12} {:>12} {:>10} {:>8} {:>6}",
            group.group.to_string(),
            best.folder,
            at(best.last),
            at(committed),
            at(group.held[0].applied),
            group.may_appear,
            group.to_copy.count,
            group.lost.count
        ));
    }
    line(format_args!(""));
    let may_appear: u64 = plan.groups.iter().map(|group| group.may_appear).sum();
    line(format_args!(
        "may appear: {may_appear} entries at the ends of these logs are not known to be committed; they are kept, whether          their senders were answered or not"
    ));
    line(format_args!(
        "at risk:    what the lost nodes had acknowledged beyond these logs is not known here, and is lost if there was any"
    ));
    let newer = plan.groups.iter().filter(|group| group.newer_leader).count();
    if newer > 0 {
        line(format_args!(
            "            in {newer} groups a newer leader had begun of whom nothing is left here: it may have acknowledged some"
        ));
    }
    let lost: u64 = plan.groups.iter().map(|group| group.lost.bytes).sum();
    if lost > 0 {
        line(format_args!("lost:       {} of images lie in none of these folders", HumanBytes(lost)));
    }
    if others.is_empty() && !plan.absent.is_empty() {
        line(format_args!("            if the folder of another node is left, name it with --also before you go on"));
    }
    line(format_args!(
        "then:       this folder is a cluster of its own under a new id; the old nodes are refused, and may only come back \
         with empty folders"
    ));
    text
}

fn say(flags: &RecoverFlags, recovered: &Recovered, marker: &Unfinished) {
    println!(
        "recovered {} groups: {} entries came from other folders, {} were applied, {} blocks of images were copied; it is \
         cluster {} now",
        recovered.groups, recovered.entries, recovered.applied, recovered.copied.count, marker.cluster_id
    );
    for address in &recovered.lost {
        println!("lost: block {address} lies in none of the folders");
    }
    println!("start it with: triptych serve --data {} --name {}", flags.data.display(), marker.name);
}
