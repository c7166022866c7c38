//! What the world sees of one node at one moment.

use raft_groups::{Node, invariants::GroupView};
use raft_lanes::Lane;
use raft_types::{GroupId, LogPosition, Propose, StateMachine};
use std::{collections::BTreeMap, fmt};

/// One node.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its raft id, once it has one.
    pub raft_id: Option<u64>,
    /// Whether its disk has failed: what it still has in memory was told to nobody.
    pub failed: bool,
    /// Its groups, the meta group as 0.
    pub groups: BTreeMap<u32, GroupView>,
}

impl NodeView {
    /// Looks at a node.
    #[must_use]
    pub fn of(name: &str, node: &Node, lane: &Lane, machine: &dyn StateMachine) -> Self {
        let incomplete = machine.incomplete().unwrap_or_default();
        let of = |status: raft_types::GroupStatus| {
            let view = GroupView {
                term: status.term,
                leader: status.leader,
                voters: status.voter_ids.iter().map(|id| id.0).collect(),
                learners: status.learners.len(),
                incomplete: incomplete.contains(&status.id),
                purged: lane.state(status.id).purged,
                applied: status.applied,
                committed: status.committed,
                last: status.last,
            };
            (status.id.0, view)
        };
        let groups = node.status().groups.into_iter().map(of).collect();
        let raft_id = node.identity().borrow().raft_id.map(|id| id.0);
        Self { name: name.to_owned(), raft_id, failed: lane.status().failed.is_some(), groups }
    }

    /// Whether this node takes itself for the leader of `group`.
    #[must_use]
    pub fn leads(&self, group: u32) -> bool {
        self.groups.get(&group).is_some_and(|own| own.leader.as_deref() == Some(self.name.as_str()))
    }
}

impl fmt::Display for NodeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (raft id {:?})", self.name, self.raft_id)?;
        for (group, own) in &self.groups {
            let at = |position: Option<LogPosition>| position.map_or_else(|| "-".to_owned(), |at| at.to_string());
            let (purged, applied) = (at(own.purged), at(own.applied));
            let (committed, last) = (at(own.committed), at(own.last));
            let GroupView { term, leader, voters, learners, incomplete, .. } = own;
            let leader = leader.as_deref().unwrap_or("nobody");
            writeln!(
                f,
                "  g{group}: term {term}, led by {leader}, voters {voters:?}, {learners} learners, incomplete {incomplete}; \
                 purged {purged}, applied {applied}, committed {committed}, last {last}"
            )?;
        }
        Ok(())
    }
}

/// The log of `group` in this lane: index → (term, digest of the head).
///
/// # Errors
/// What the lane says when it cannot read its own log.
pub fn log_of(lane: &Lane, group: u32) -> Result<crate::invariants::log_matching::Log, raft_lanes::LaneError> {
    let state = lane.state(GroupId(group));
    let Some(last) = state.last.filter(|last| last.index >= state.first) else { return Ok(BTreeMap::new()) };
    let entries = lane.entries(GroupId(group), state.first..last.index + 1, u64::MAX)?;
    let digest = |entry: &raft_lanes::ThinEntry| {
        let bytes = entry.head.iter().copied().chain([entry.kind]);
        // FNV-1a: any digest would do.
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        hash ^ u64::from(entry.body_len)
    };
    Ok(entries.iter().map(|entry| (entry.position.index, (entry.position.term, digest(entry)))).collect())
}
