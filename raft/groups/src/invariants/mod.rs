//! What must hold of the groups of a running node, one a file. The simulation checks it after every step; a node in service
//! checks itself every second and counts what is broken: `raft_groups_invariant_violations_total`.
//!
//! They are pure: over positions that were read, and over what was seen before.

pub mod bounds;
pub mod follower_keeps;
pub mod never_back;
pub mod one_leader;
pub mod terms_grow;

use crate::node::Node;
use openraft::async_runtime::watch::WatchReceiver;
use raft_types::LogPosition;
use std::collections::BTreeMap;

/// One group on one node at one moment.
#[derive(Debug, Clone, Default)]
pub struct GroupView {
    /// Its term; 0 until openraft has started.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<String>,
    /// Raft ids of the voters.
    pub voters: Vec<u64>,
    /// How many learners there are.
    pub learners: usize,
    /// Whether bodies may be missing here.
    pub incomplete: bool,
    /// End of what was purged.
    pub purged: Option<LogPosition>,
    /// End of what was applied.
    pub applied: Option<LogPosition>,
    /// End of what is known to be committed.
    pub committed: Option<LogPosition>,
    /// End of the log.
    pub last: Option<LogPosition>,
}

/// What a node in service remembers of its own groups.
#[derive(Debug, Default)]
pub(crate) struct OwnWatch {
    terms: terms_grow::Terms,
    leaders: one_leader::Leaders,
    followers: follower_keeps::Followers,
    before: BTreeMap<u32, GroupView>,
}

/// Checks one group; answers which invariants are broken, and how.
fn broken(watch: &mut OwnWatch, id: u64, name: &str, group: u32, now: &GroupView) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut note = |invariant, result: Result<(), String>| found.extend(result.err().map(|why| (invariant, why)));
    if now.term > 0 {
        note("terms_grow", watch.terms.note(id, group, now.term));
    }
    if let Some(leader) = &now.leader {
        note("one_leader", watch.leaders.note(group, now.term, leader));
        watch.leaders.forget_below(group, now.term);
    }
    if let Some(before) = watch.before.get(&group) {
        note("never_back", never_back::check(name, group, before, now));
        // Positions cannot be read at one moment: what was lower a second ago must be lower than what is higher now.
        let lower = GroupView {
            purged: before.purged,
            applied: now.applied,
            last: now.applied.max(now.last),
            ..GroupView::default()
        };
        let upper = GroupView {
            applied: before.applied,
            committed: before.committed,
            last: now.last,
            incomplete: now.incomplete,
            ..GroupView::default()
        };
        for (view, committed) in [(lower, now.applied), (upper, now.committed)] {
            note("bounds", bounds::check(name, group, &view, committed.map(|at| at.index)));
        }
    }
    watch.before.insert(group, now.clone());
    found
}

impl Node {
    /// Looks at the own groups, and counts what is broken.
    pub(crate) fn watch_invariants(&self, watch: &mut OwnWatch, incomplete: &[raft_types::GroupId]) {
        let Some(id) = self.raft_id() else { return };
        for group in self.all_groups() {
            let metrics = group.raft.metrics();
            let role = group.role();
            let leader = role.leader.and_then(|leader| self.name_of(&role, leader));
            let state = self.lane.state(group.id);
            let view = GroupView {
                term: role.term,
                leader,
                incomplete: incomplete.contains(&group.id),
                purged: state.purged,
                applied: group.progress.applied(),
                committed: metrics.borrow_watched().local_committed.as_ref().map(crate::types::position),
                last: state.last,
                ..GroupView::default()
            };
            let mut found = broken(watch, id.0, self.name(), group.id.0, &view);
            for (follower, matched) in metrics.borrow_watched().replication.iter().flatten() {
                let index = matched.as_ref().map_or(0, |at| at.index);
                let kept = watch.followers.note(group.id.0, role.term, *follower, index);
                found.extend(kept.err().map(|why| ("follower_keeps", why)));
            }
            for (invariant, why) in found {
                self.metrics.violations.with_label_values(&[invariant]).inc();
                tracing::error!(invariant, why, "AN INVARIANT IS BROKEN: keep this node's log and data, and report it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(term: u64, leader: &str, positions: [u64; 4]) -> GroupView {
        let at = |index| Some(LogPosition { term: 1, index });
        let [purged, applied, committed, last] = positions.map(at);
        GroupView { term, leader: Some(leader.into()), purged, applied, committed, last, ..GroupView::default() }
    }

    #[test]
    fn a_node_in_service_sees_what_is_broken_and_nothing_else() {
        let mut watch = OwnWatch::default();
        let mut look = |now: GroupView| -> Vec<&'static str> {
            broken(&mut watch, 7, "n1", 1, &now).into_iter().map(|(invariant, _)| invariant).collect()
        };
        assert!(look(view(1, "n1", [0, 5, 5, 9])).is_empty());
        // Applied was read before committed was told: by the next look it has been.
        assert!(look(view(1, "n1", [2, 12, 9, 12])).is_empty());
        assert!(look(view(1, "n1", [2, 12, 12, 14])).is_empty());
        assert!(look(view(2, "n2", [2, 13, 13, 14])).is_empty());
        assert_eq!(look(view(2, "n3", [2, 13, 13, 14])), ["one_leader"]);
        assert_eq!(look(view(1, "n1", [2, 13, 13, 14])), ["terms_grow"]);
        assert_eq!(look(view(3, "n3", [2, 11, 13, 14])), ["never_back"]);
        assert!(look(view(3, "n3", [2, 16, 13, 16])).is_empty());
        assert!(look(view(3, "n3", [2, 16, 14, 16])).contains(&"bounds"), "applied, and never committed");
    }
}
