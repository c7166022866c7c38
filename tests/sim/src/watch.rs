//! What is checked while a run goes on: it remembers what it saw, across the deaths of processes.

use crate::{
    invariants::{committed_stays, durable_stays, log_matching},
    view::{NodeView, log_of},
};
use raft_groups::invariants::{bounds, one_leader, terms_grow};
use raft_groups::testing::{Journal, term_of_vote};
use raft_lanes::Lane;
use raft_types::GroupId;
use std::collections::BTreeMap;

/// The memory of a run.
#[derive(Debug, Default)]
pub struct Watch {
    terms: terms_grow::Terms,
    leaders: one_leader::Leaders,
    entries: log_matching::Entries,
    applied: committed_stays::Applied,
    durable: durable_stays::Durable,
    committed: BTreeMap<u32, u64>,
}

impl Watch {
    /// A cheap look at all nodes that run.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn look(&mut self, views: &[NodeView]) -> Result<(), String> {
        for (group, own) in views.iter().flat_map(|view| &view.groups) {
            let known = self.committed.entry(*group).or_default();
            *known = (*known).max(own.committed.map_or(0, |at| at.index));
        }
        // What a node whose disk has failed still has in memory was told to nobody, and goes with its process.
        for view in views.iter().filter(|view| !view.failed) {
            for (group, own) in &view.groups {
                if let (Some(id), 1..) = (view.raft_id, own.term) {
                    self.terms.note(id, *group, own.term)?;
                }
                if let Some(leader) = &own.leader {
                    self.leaders.note(*group, own.term, leader)?;
                }
                bounds::check(&view.name, *group, own, self.committed.get(group).copied())?;
            }
        }
        Ok(())
    }

    /// A long look at logs and rows.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn compare(&mut self, groups: u32, nodes: &[(&str, &Lane, &Journal)]) -> Result<(), String> {
        for group in 0..=groups {
            let mut logs = Vec::with_capacity(nodes.len());
            for (name, lane, journal) in nodes {
                // A lane that cannot read its log says so by itself; what it does read must match.
                let log = log_of(lane, group).unwrap_or_default();
                self.entries.note(name, group, &log)?;
                logs.push(log);
                for command in journal.commands(GroupId(group)) {
                    let text = String::from_utf8_lossy(&command.head);
                    let at = (group, command.position.index);
                    self.applied.note(name, at, command.position.term, &text)?;
                }
            }
            for (number, one) in logs.iter().enumerate() {
                for other in &logs[number + 1..] {
                    log_matching::check(group, one, other)?;
                }
            }
        }
        Ok(())
    }

    /// A process dies.
    ///
    /// # Errors
    /// What the last look at it finds.
    pub fn dies(&mut self, view: &NodeView, lane: &Lane) -> Result<(), String> {
        let Some(id) = view.raft_id else { return Ok(()) };
        for group in lane.groups() {
            let (durable, purged) = (lane.durable(group), lane.state(group).purged);
            // A purge beyond the end of the log stands for rows, and is not a durable entry.
            if let Some(durable) = durable.filter(|durable| purged.is_none_or(|purged| purged.index < durable.index)) {
                self.durable.dies(id, group.0, durable);
            }
        }
        for (group, own) in view.groups.iter().filter(|(_, own)| own.term > 0 && !view.failed) {
            self.terms.note(id, *group, own.term)?;
        }
        Ok(())
    }

    /// The next process of a raft id has opened its lane, and has not said anything yet.
    ///
    /// # Errors
    /// When it has forgotten something.
    pub fn opens(&mut self, raft_id: u64, groups: u32, lane: &Lane) -> Result<(), String> {
        for group in 0..=groups {
            let state = lane.state(GroupId(group));
            let term = state.vote.as_deref().and_then(term_of_vote).unwrap_or(0);
            self.terms.note(raft_id, group, term)?;
            let term_at = |index| lane.position(GroupId(group), index).map(|at| at.term);
            self.durable.opens(raft_id, group, state.last, term_at)?;
        }
        Ok(())
    }
}
