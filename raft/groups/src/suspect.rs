//! A node whose log has a hole: it may have forgotten a vote, or an entry that it acknowledged. It must never act under its
//! raft id again, and goes on as a new member that already has nearly everything.
//!
//! ```text
//!   1  identity.json: a new node uuid, no raft id, `replaces` = the old one         durable before anything else
//!   2  every group incomplete; its log given up beyond what its rows have applied, and purged up to there
//!   3  the segments with holes rewritten from what verifies: the hole is no more
//!   4  REJOIN: the meta group retires the old raft id, and gives its places to a new one
//!   5  learner ─ log or rows ─ mirror pulls what the hole swallowed ─ complete ─ voter
//! ```
//!
//! | the process dies… | the next start |
//! |---|---|
//! | before 1 is durable | finds the hole, and begins with 1: nothing was said under the old id since |
//! | after 1, before 3 has ended | finds the hole; `replaces` says that it is known: goes on with 2 |
//! | after 3, before 4 | finds no hole; `replaces` is there and no raft id: does 2 and 3 again, which change nothing, and asks |
//! | after 4 is committed, before the raft id is written | asks again: the same uuid gets the same id |
//! | after that | a member like any other |
//!
//! What lies beyond the applied rows is given up, because nobody knows whether the hole held a truncation of it. What the rows
//! name is committed, and stays.
//!
//! A single node has nobody to be a new member of: it goes on, serves what verifies, and says what it is.

use crate::{Identity, IdentityError, identity::random, log_store::durably, node::Node};
use raft_lanes::{Lane, Spent};
use raft_types::{Disk, GroupId, Seed};
use std::{collections::BTreeMap, io, sync::Arc};

impl Identity {
    /// Step 1, right after the lane was opened: a member whose log has a hole gives up its raft id, durably. The lane's new
    /// segments carry the new node uuid.
    ///
    /// # Errors
    /// When the identity cannot be written; the node must not start then.
    pub fn settled_with(self, lane: &Lane, store: &dyn Disk, seed: &dyn Seed) -> Result<Self, IdentityError> {
        let Some(why) = lane.suspect().filter(|_| self.is_member()) else { return Ok(self) };
        let renewed = self.given_up(random(seed));
        renewed.save(store)?;
        lane.set_node_uuid(renewed.node_uuid.into_bytes());
        tracing::error!(
            why,
            old = ?renewed.replaces,
            "the log has a hole: this node goes on as a new member, and pulls from its peers what it lost"
        );
        Ok(renewed)
    }
}

impl Node {
    /// Steps 2 and 3. Everything is durable when this returns.
    pub(crate) async fn give_up_log(&self) -> io::Result<()> {
        self.set_phase("the log has a hole: giving it up, and keeping rows and images");
        let machine = Arc::clone(&self.machine);
        let note = move || {
            let applied = machine.applied()?;
            for (group, _) in &applied {
                machine.set_incomplete(*group)?;
            }
            machine.settle()?;
            Ok::<_, raft_types::StateMachineError>(applied)
        };
        let noted = self.options.blocking().run(note).await.map_err(io::Error::other)?;
        let applied: BTreeMap<_, _> =
            noted.map_err(|error| io::Error::other(crate::machine::chain(&error)))?.into_iter().collect();
        self.note_missing(Some(0));
        for group in self.lane.groups() {
            // The meta group is rebuilt from its log, which the others have whole.
            let position = applied.get(&group).and_then(|applied| applied.position).filter(|_| group != GroupId::META);
            let state = self.lane.state(group);
            let keep = position.map(|at| at.index);
            if state.last.is_some_and(|last| keep.is_none_or(|keep| last.index > keep)) {
                durably(|done| self.lane.truncate_after(group, keep, done)).await?;
            }
            let Some(upto) = position else { continue };
            if state.purged.is_none_or(|purged| purged < upto) {
                // What rows have applied is committed: the purge must not take it for doubtful.
                let last = self.lane.state(group).last;
                if let Some(last) = last {
                    self.lane.save_committed(group, last.min(upto)).map_err(io::Error::other)?;
                }
                durably(|done| self.lane.purge(group, upto, done)).await?;
            }
        }
        durably(|done| self.lane.turn(done)).await?;
        self.rewrite_holes(&applied.into_keys().collect::<Vec<_>>()).await
    }

    /// Rewrites the segments with holes from what of them is whole.
    async fn rewrite_holes(&self, groups: &[GroupId]) -> io::Result<()> {
        let holes: Vec<_> = self
            .lane
            .closed_segments()
            .into_iter()
            .filter(|own| own.damaged.is_some())
            .map(|own| own.sequence)
            .collect();
        if holes.is_empty() {
            return Ok(());
        }
        let (machine, lane, groups) = (Arc::clone(&self.machine), self.lane.clone(), groups.to_vec());
        let look = move || {
            let mut spent = BTreeMap::new();
            for group in groups {
                let Some(upto) = lane.state(group).purged.map(|purged| purged.index) else { continue };
                // What is lost already is no part of what is moved: the mirror pulls it.
                let named = machine.bodies(group)?.into_iter();
                let live = named.filter(|body| lane.holds(group, body.index, body.length_bytes));
                spent.insert(group, Spent { upto, live: live.map(|body| body.index).collect(), alone: false });
            }
            Ok::<_, raft_types::StateMachineError>(spent)
        };
        let spent = self.options.blocking().run(look).await.map_err(io::Error::other)?;
        let spent = spent.map_err(|error| io::Error::other(crate::machine::chain(&error)))?;
        for sequence in holes {
            let rewrote = self.rewrite(sequence, spent.clone(), BTreeMap::new(), true).await;
            let rewrote = rewrote.map_err(|error| io::Error::other(format!("segment {sequence}: {error}")))?;
            tracing::warn!(sequence, ?rewrote, "a segment with a hole was rewritten from what of it is whole");
        }
        Ok(())
    }
}
