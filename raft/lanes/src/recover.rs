//! Opening a lane: from the files of a disk to the state of its groups.
//!
//! ```text
//!   sealed segment     footer → runs                          (no records are read)
//!   unsealed segment   scan metas; bodies of the last batch   (left by a crash, or by several)
//!   nothing good behind the first bad batch: torn tail, ignored; new writes open a fresh segment
//!   a good batch behind it, or a break in the chain between segments: damage (L5), the lane refuses to open
//! ```

use crate::{
    directory::{Directory, FooterRows},
    format::{BadHeader, PAGE_BYTES},
    group::Group,
    lane::{Held, Rows},
    options::LaneOptions,
    sabotage::{self, Sabotage},
    segment::{self, GroupCheckpoint, Scan, Segment, SegmentError},
    writer::Next,
};
use raft_types::{Disk, GroupId};
use std::{collections::BTreeMap, io};

/// Why a lane does not open. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk did not answer.
    #[error("could not {step}: {source}")]
    Io {
        /// What was being done.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The files are of another cluster, node or disk.
    #[error(
        "{name} belongs to another {what} ({found}, this one is {own}): start with the data directory of this node, or move it away and let the node be replaced"
    )]
    Foreign {
        /// The file.
        name: String,
        /// What differs.
        what: &'static str,
        /// The id in the file.
        found: String,
        /// The id of this node.
        own: String,
    },
    /// Written by a newer release.
    #[error("{name}: {why}")]
    Newer {
        /// The file.
        name: String,
        /// Which version.
        why: String,
    },
    /// Bytes that were durable are damaged. Nothing was cut.
    #[error(
        "the log is damaged: {0}; nothing was changed: keep the directory, and let this node be replaced from its peers"
    )]
    Damaged(String),
}

/// What recovery found.
pub(crate) struct Recovered {
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) written: BTreeMap<GroupId, Group>,
    pub(crate) segments: BTreeMap<u64, Held>,
    pub(crate) next: Next,
}

pub(crate) fn recover(disk: &dyn Disk, options: &LaneOptions) -> Result<Recovered, OpenError> {
    let files = open_all(disk, options)?;
    let cuts_rot = sabotage::is(options.sabotage, Sabotage::TruncateAtFirstBadBatch);
    let mut found = Recovered {
        groups: BTreeMap::new(),
        written: BTreeMap::new(),
        segments: BTreeMap::new(),
        next: Next::default(),
    };
    let mut chain: Option<(u64, u32)> = None;
    for (number, segment) in files.iter().enumerate() {
        found.next.segment = segment.sequence;
        let step = |step: &str| format!("{step} {}", segment.name);
        let first = segment.batch_header(PAGE_BYTES).map_err(io_error(step("read")))?;
        let followed = match files.get(number + 1) {
            Some(next) => next.batch_header(PAGE_BYTES).map_err(io_error(step("read behind")))?,
            None => None,
        }
        .map(|next| (next.sequence - 1, next.previous_crc));
        if let Some(first) = first
            && let Some(chain) = chain
            && (first.sequence != chain.0 + 1 || first.previous_crc != chain.1)
            && !cuts_rot
        {
            let why =
                format!("{} starts behind batch {}, but the log ends at {}", segment.name, first.sequence - 1, chain.0);
            return Err(OpenError::Damaged(why));
        }
        if let Some((trailer, groups, rows_at)) = segment.footer().map_err(damaged(segment))? {
            let mut rows = BTreeMap::new();
            for own in groups {
                rows.insert(own.group, FooterRows::of(&own, rows_at));
                found.groups.entry(own.group).or_default().load(segment.sequence, &own);
            }
            found.segments.insert(segment.sequence, Held { segment: segment.clone(), rows: Rows::Footer(rows) });
            chain = Some((trailer.last_sequence, trailer.last_crc));
            continue;
        }
        let Scan { directory, last, rot_at, written_to, checkpoints } =
            segment::scan(segment, chain, followed).map_err(damaged(segment))?;
        if let Some(at) = rot_at.filter(|_| !cuts_rot) {
            return Err(OpenError::Damaged(format!(
                "{}: the batch at {at} is bad, but a later one is good",
                segment.name
            )));
        }
        // A crash leaves the reserved rest of a segment behind: it is given back, or crashes would fill the disk. What was
        // written stays, good or torn.
        if segment.file.len().map_err(io_error(step("measure")))? > written_to {
            segment.file.set_len(written_to).map_err(io_error(step("cut the reserved space of")))?;
        }
        let Some(last) = last else { continue }; // no batch ever became durable here
        if !cuts_rot {
            check(&found.groups, &checkpoints, segment)?;
        }
        // The page cache may hold a batch that was never synced: sync before anyone calls it durable.
        segment.file.sync().map_err(io_error(step("sync")))?;
        for own in directory.table() {
            found.groups.entry(own.group).or_default().load(segment.sequence, &own);
        }
        let rows = Rows::Ram(Directory { groups: directory.groups });
        found.segments.insert(segment.sequence, Held { segment: segment.clone(), rows });
        chain = Some(last);
    }
    found.next.segment += 1;
    (found.next.last_batch, found.next.last_crc) = chain.unwrap_or_default();
    found.written = found.groups.iter().map(|(group, own)| (*group, own.written())).collect();
    Ok(found)
}

/// Opens the segments in order, checks whose they are, and drops those whose header never became durable.
fn open_all(disk: &dyn Disk, options: &LaneOptions) -> Result<Vec<Segment>, OpenError> {
    let names = disk.list().map_err(io_error("list the segments".into()))?;
    let mut segments: Vec<(u64, String)> =
        names.into_iter().filter_map(|name| Some((segment::sequence(&name)?, name))).collect();
    segments.sort_unstable();
    let newest = segments.last().map(|(sequence, _)| *sequence);
    let mut opened = Vec::with_capacity(segments.len());
    for (sequence, name) in segments {
        let file = disk.open(&name).map_err(io_error(format!("open {name}")))?;
        let length = file.len().map_err(io_error(format!("measure {name}")))?;
        let header = if length < PAGE_BYTES {
            Err(BadHeader::Empty)
        } else {
            Segment::header(&*file).map_err(io_error(format!("read {name}")))?
        };
        match header {
            Ok(header) if header.sequence == sequence => {
                belongs(&name, &header, options)?;
                opened.push(Segment { name, sequence, seed: header.seed(), file });
            }
            Err(BadHeader::Newer(_)) => {
                return Err(OpenError::Newer {
                    name,
                    why: header.err().map(|why| why.to_string()).unwrap_or_default(),
                });
            }
            // Header, checkpoint and name become durable in one step; a crash before leaves any of it.
            Err(_)
                if Some(sequence) == newest && holds_nothing(&*file).map_err(io_error(format!("read {name}")))? =>
            {
                disk.remove(&name).map_err(io_error(format!("remove the empty {name}")))?;
            }
            _ => return Err(OpenError::Damaged(format!("{name}: its header is damaged"))),
        }
    }
    Ok(opened)
}

/// Whether no page of the file starts like a batch: nothing in it can ever have been acknowledged.
fn holds_nothing(file: &dyn raft_types::DiskFile) -> io::Result<bool> {
    let end = file.len()?;
    // The checkpoint is the first batch: a second one exists only if header and checkpoint were synced.
    let mut at = PAGE_BYTES;
    let mut batches = 0;
    let mut magic = [0; 4];
    while at < end && batches < 2 {
        file.read_at(at, &mut magic)?;
        batches += u32::from(magic == *b"TRBA");
        at += PAGE_BYTES;
    }
    Ok(batches < 2)
}

fn belongs(name: &str, header: &crate::format::SegmentHeader, options: &LaneOptions) -> Result<(), OpenError> {
    let (identity, unset) = (&options.identity, [0; 16]);
    let pairs = [
        ("node", header.node_uuid, identity.node_uuid),
        ("disk", header.disk_uuid, identity.disk_uuid),
        ("cluster", header.cluster_id, identity.cluster_id),
    ];
    for (what, found, own) in pairs {
        let former = options.former_cluster_ids.contains(&found);
        let open = what == "cluster" && (found == unset || own == unset || former);
        if found != own && !open {
            let (found, own) = (hex(&found), hex(&own));
            return Err(OpenError::Foreign { name: name.into(), what, found, own });
        }
    }
    Ok(())
}

/// The checkpoint that opens a segment must say what the older segments gave: two roads to one truth.
fn check(
    groups: &BTreeMap<GroupId, Group>,
    checkpoints: &[(GroupId, GroupCheckpoint)],
    segment: &Segment,
) -> Result<(), OpenError> {
    for (group, said) in checkpoints {
        let found = groups.get(group).and_then(|own| own.last);
        if said.last != found {
            let why = format!("{} says that {group} ended at {:?}, but {found:?} was found", segment.name, said.last);
            return Err(OpenError::Damaged(why));
        }
    }
    Ok(())
}

fn io_error(step: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { step, source }
}

fn damaged(segment: &Segment) -> impl FnOnce(SegmentError) -> OpenError {
    let name = segment.name.clone();
    move |error| match error {
        SegmentError::Io(source) => OpenError::Io { step: format!("read {name}"), source },
        SegmentError::Damaged(what) => OpenError::Damaged(what),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
