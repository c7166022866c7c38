//! Opening a lane: from the files of a disk to the state of its groups.
//!
//! ```text
//!   sealed segment     footer → runs                          (no records are read)
//!   … footer damaged   the batches say the same; the segment is noted, and rewritten     (sealed.rs)
//!   … header damaged   the checksums of the batches say whose it is; noted, and rewritten
//!   unsealed segment   scan metas; bodies of the last batch   (left by a crash, or by several)
//!   nothing good behind the first bad batch: torn tail, ignored; new writes open a fresh segment
//!   a good batch behind it: damage (L5): the lane refuses to open, or opens and is suspect         (suspect.rs)
//!   a break in the chain between segments: the lane refuses to open
//! ```

use crate::{
    compact,
    directory::{Directory, FooterGroup, FooterRows},
    format::{BadHeader, PAGE_BYTES, SegmentHeader},
    group::Group,
    lane::{Close, Held, Rows},
    options::LaneOptions,
    sabotage::{self, Sabotage},
    sealed,
    segment::{self, Scan, Segment, SegmentError},
    suspect::{self, OnHole, Patched},
    writer::Next,
};
use raft_types::{Disk, GroupId, LogPosition};
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
    /// Where the log has a hole.
    pub(crate) suspect: Option<String>,
}

pub(crate) fn recover(disk: &dyn Disk, options: &LaneOptions) -> Result<Recovered, OpenError> {
    compact::remove_unfinished(disk).map_err(io_error("remove an unfinished rewrite".into()))?;
    let files = open_all(disk, options)?;
    let cuts_rot = sabotage::is(options.sabotage, Sabotage::TruncateAtFirstBadBatch);
    let mut found = Recovered {
        groups: BTreeMap::new(),
        written: BTreeMap::new(),
        segments: BTreeMap::new(),
        next: Next::default(),
        suspect: None,
    };
    let mut holed: Option<u64> = None;
    let mut chain: Option<(u64, u32)> = None;
    let mut claims = Vec::new();
    for (number, Opened { segment, mut damaged }) in files.iter().cloned().enumerate() {
        let segment = &segment;
        found.next.segment = segment.sequence;
        let step = |step: &str| format!("{step} {}", segment.name);
        let first = segment.batch_header(PAGE_BYTES).map_err(io_error(step("read")))?;
        let followed = match files.get(number + 1) {
            Some(next) => next.segment.batch_header(PAGE_BYTES).map_err(io_error(step("read behind")))?,
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
        let footer = match segment.footer() {
            Ok(footer) => footer,
            Err(SegmentError::Damaged(what)) => {
                damaged.get_or_insert(what);
                None
            }
            Err(error) => return Err(broken(segment)(error)),
        };
        if let Some((trailer, groups, rows_at)) = footer {
            let mut rows = BTreeMap::new();
            for own in groups {
                rows.insert(own.group, FooterRows::of(&own, rows_at));
                found.lose_between(holed, &own);
                found.groups.entry(own.group).or_default().load(segment.sequence, &own);
            }
            let last = (trailer.last_sequence, trailer.last_crc);
            let close = Some(Close { end: trailer.footer_at, last });
            let held = Held { segment: segment.clone(), rows: Rows::Footer(rows), close, damaged };
            found.segments.insert(segment.sequence, held);
            chain = Some(last);
            continue;
        }
        let sealed = sealed::once(segment, followed).map_err(io_error(step("read")))?;
        let (directory, close, checkpoints) = match sealed.filter(|_| !cuts_rot) {
            // Its footer is damaged: the batches say the same.
            Some(close) => {
                damaged.get_or_insert_with(|| format!("{}: the footer is damaged", segment.name));
                match sealed::rebuild(segment, &close, chain) {
                    Ok((directory, checkpoints)) => (directory, close, checkpoints),
                    Err(SegmentError::Damaged(_)) if options.on_hole != OnHole::Refuse => {
                        let directory = found.around(segment, chain, followed, Some(close), options.on_hole)?.0;
                        holed = Some(segment.sequence);
                        (directory, close, Vec::new())
                    }
                    Err(error) => return Err(broken(segment)(error)),
                }
            }
            None => {
                let Scan { mut directory, mut last, mut rot_at, written_to, mut checkpoints, mut end } =
                    segment::scan(segment, chain, followed).map_err(broken(segment))?;
                // The successor names a batch that is not whole here: it was synced, so it is no torn one.
                let lacks = followed.is_some_and(|followed| last.is_some_and(|last| last.0 < followed.0));
                if (rot_at.is_some() || lacks) && options.on_hole != OnHole::Refuse {
                    let (around, close) = found.around(segment, chain, followed, None, options.on_hole)?;
                    (directory, last, end, rot_at) = (around, Some(close.last), close.end, None);
                    checkpoints.clear();
                    holed = Some(segment.sequence);
                    damaged.get_or_insert_with(|| format!("{}: a batch is damaged", segment.name));
                }
                if let Some(at) = rot_at.filter(|_| !cuts_rot) {
                    return Err(OpenError::Damaged(format!(
                        "{}: the batch at {at} is bad, but a later one is good",
                        segment.name
                    )));
                }
                // A crash leaves the reserved rest of a segment behind: it is given back, or crashes would fill the disk.
                // What was written stays, good or torn.
                // Of a segment with a hole nothing is cut at all: its rewrite gives the rest back.
                let is_holed = holed == Some(segment.sequence);
                if !is_holed && segment.file.len().map_err(io_error(step("measure")))? > written_to {
                    segment.file.set_len(written_to).map_err(io_error(step("cut the reserved space of")))?;
                }
                let Some(last) = last else { continue }; // no batch ever became durable here
                (directory, Close { end, last }, checkpoints)
            }
        };
        if !cuts_rot {
            for (group, said) in checkpoints {
                // Where segments are gone whose entries were all purged, the oldest one left is believed.
                let own = found.groups.get(&group).and_then(|own| own.last);
                if number > 0 && said.last != own && found.suspect.is_none() {
                    claims.push((segment.name.clone(), group, said.last, own));
                }
            }
        }
        // The page cache may hold a batch that was never synced: sync before anyone calls it durable.
        segment.file.sync().map_err(io_error(step("sync")))?;
        for own in directory.table() {
            if holed != Some(segment.sequence) {
                found.lose_between(holed, &own);
            }
            found.groups.entry(own.group).or_default().load(segment.sequence, &own);
        }
        let rows = Rows::Ram(Directory { groups: directory.groups });
        let held = Held { segment: segment.clone(), rows, close: Some(close), damaged };
        found.segments.insert(segment.sequence, held);
        chain = Some(close.last);
    }
    check(&found.groups, claims)?;
    found.next.segment += 1;
    (found.next.last_batch, found.next.last_crc) = chain.unwrap_or_default();
    found.written = found.groups.iter().map(|(group, own)| (*group, own.written())).collect();
    Ok(found)
}

impl Recovered {
    /// Reads a segment with a hole: the lane is suspect from here on.
    fn around(
        &mut self,
        segment: &Segment,
        before: Option<(u64, u32)>,
        followed: Option<(u64, u32)>,
        sealed: Option<Close>,
        on_hole: OnHole,
    ) -> Result<(Directory, Close), OpenError> {
        let around = suspect::read_around(segment, before, followed, sealed, &self.groups, on_hole);
        let Patched { directory, close, hole_at } = around.map_err(broken(segment))?;
        let why = format!("{}: the batch at {hole_at} is bad, but a later one is good", segment.name);
        self.suspect.get_or_insert(why);
        Ok((directory, close))
    }

    /// Entries that a hole swallowed, and that only the next segment shows to be missing: their rows keep their places in the
    /// segment with the hole, so that they are damaged and not absent.
    fn lose_between(&mut self, holed: Option<u64>, own: &FooterGroup) {
        let Some(holed) = holed.filter(|_| own.rows > 0) else { return };
        let Some(group) = self.groups.get_mut(&own.group) else { return };
        let behind = group.last.map_or(0, |last| last.index + 1).min(own.cut_from.unwrap_or(u64::MAX));
        let from = group.purged.map_or(behind, |purged| behind.max(purged.index + 1));
        let Some(Rows::Ram(directory)) = self.segments.get_mut(&holed).map(|held| &mut held.rows) else { return };
        let rows = directory.groups.entry(own.group).or_default();
        let reaches = rows.rows.last().map(|_| rows.first + rows.rows.len() as u64);
        if reaches.is_some_and(|reaches| reaches != from) || group.runs.last().is_some_and(|run| run.segment > holed) {
            return; // the gap has another reason
        }
        let term = group.last.map_or(0, |last| last.term);
        for index in from..own.first {
            rows.lose(index, term);
            group.placed(holed, index);
        }
    }
}

/// A segment, and what is damaged about it already.
#[derive(Clone)]
struct Opened {
    segment: Segment,
    damaged: Option<String>,
}

/// Opens the segments in order, checks whose they are, and drops those whose header never became durable.
fn open_all(disk: &dyn Disk, options: &LaneOptions) -> Result<Vec<Opened>, OpenError> {
    let identity = &options.identity;
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
                let segment = Segment { name, sequence, seed: header.seed(), file };
                opened.push(Opened { segment, damaged: None });
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
            _ => {
                // Whose it is follows from its batches: their checksums start from disk, lane and sequence.
                let header = SegmentHeader {
                    lane: identity.lane,
                    sequence,
                    cluster_id: identity.cluster_id,
                    node_uuid: identity.node_uuid,
                    disk_uuid: identity.disk_uuid,
                    rewritten: None,
                };
                let segment = Segment { name, sequence, seed: header.seed(), file };
                let why = format!("{}: its header is damaged", segment.name);
                if !is_ours(&segment).map_err(io_error(format!("read {}", segment.name)))? {
                    return Err(OpenError::Damaged(why));
                }
                opened.push(Opened { segment, damaged: Some(why) });
            }
        }
    }
    Ok(opened)
}

/// Whether trailer or a batch near the start is that of this segment of this disk.
fn is_ours(segment: &Segment) -> io::Result<bool> {
    if matches!(segment.footer(), Ok(Some(_))) {
        return Ok(true);
    }
    // 4,096 pages: a batch header that is damaged too is followed by the next one within the greatest batch.
    for page in 1..4096 {
        if segment.batch_header(page * PAGE_BYTES)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
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

fn belongs(name: &str, header: &SegmentHeader, options: &LaneOptions) -> Result<(), OpenError> {
    let (identity, unset) = (&options.identity, [0; 16]);
    let pairs = [
        ("node", header.node_uuid, identity.node_uuid),
        ("disk", header.disk_uuid, identity.disk_uuid),
        ("cluster", header.cluster_id, identity.cluster_id),
    ];
    for (what, found, own) in pairs {
        let open = match what {
            "cluster" => found == unset || own == unset || options.former_cluster_ids.contains(&found),
            "node" => options.former_node_uuids.contains(&found),
            _ => false,
        };
        if found != own && !open {
            let (found, own) = (hex(&found), hex(&own));
            return Err(OpenError::Foreign { name: name.into(), what, found, own });
        }
    }
    Ok(())
}

/// The checkpoint that opens a segment must say what the older segments gave: two roads to one truth. Entries that were
/// purged later may be gone by compaction, and with them what the checkpoint speaks of.
fn check(
    groups: &BTreeMap<GroupId, Group>,
    claims: Vec<(String, GroupId, Option<LogPosition>, Option<LogPosition>)>,
) -> Result<(), OpenError> {
    for (name, group, said, found) in claims {
        let purged = groups.get(&group).and_then(|own| own.purged);
        if said.is_none() || found > said || purged < said {
            let why = format!("{name} says that {group} ended at {said:?}, but {found:?} was found");
            return Err(OpenError::Damaged(why));
        }
    }
    Ok(())
}

fn io_error(step: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { step, source }
}

fn broken(segment: &Segment) -> impl FnOnce(SegmentError) -> OpenError {
    let name = segment.name.clone();
    move |error| match error {
        SegmentError::Io(source) => OpenError::Io { step: format!("read {name}"), source },
        SegmentError::Damaged(what) => OpenError::Damaged(what),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
