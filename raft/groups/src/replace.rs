//! A lost disk is replaced: its node is given up, and the next empty disk under its name takes its places with a raft id of
//! its own. Ordered by an operator, or by itself when such a disk has asked for long enough.

use crate::{
    node::Node,
    rpc::{code, refusal},
};
use bytes::Bytes;
use raft_placement::{MetaCommand, MetaOutcome, Registration};
use raft_types::{Command, GroupId, NodeId, Propose, Refusal, Versioned};
use std::time::Duration;

/// How long the meta group may take to decide.
const DECIDE_WITHIN: Duration = Duration::from_secs(8);

/// Why the meta group did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// It said no; the sentence says why.
    #[error("{0}")]
    Refused(String),
    /// It did not decide: no majority of it is reachable.
    #[error("the cluster did not decide: {0}; try again when a majority of its nodes is up")]
    Undecided(String),
}

impl From<ReplaceError> for Refusal {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Refused(why) => refusal(code::REFUSED, why),
            ReplaceError::Undecided(why) => refusal(code::NOT_LEADER, why),
        }
    }
}

impl Node {
    /// Gives up the node of this name: the next empty disk that asks to join under it takes its places and is mirrored
    /// from the others. If its own disk comes back first, nothing has happened.
    ///
    /// # Errors
    /// When there is no such node, when it is the last one, or when the cluster cannot decide.
    pub async fn replace(&self, name: &str) -> Result<(), ReplaceError> {
        let id = self.propose_to_meta(MetaCommand::Condemn { name: name.to_owned() }).await?;
        tracing::warn!(node = name, raft_id = %id, "given up: the next empty disk under this name replaces it");
        Ok(())
    }

    /// Proposes to the meta group; answers the raft id that it names.
    pub(crate) async fn propose_to_meta(&self, command: MetaCommand) -> Result<NodeId, ReplaceError> {
        let command = Command { head: command.encode(), body: Bytes::new() };
        let proposed = self.propose(GroupId::META, command, DECIDE_WITHIN).await;
        let outcome = proposed.map_err(|error| ReplaceError::Undecided(error.to_string()))?.outcome;
        match MetaOutcome::decode(&outcome) {
            Ok(MetaOutcome::Registered { id }) => Ok(id),
            Ok(MetaOutcome::Refused { why }) => Err(ReplaceError::Refused(why)),
            Ok(other) => Err(ReplaceError::Undecided(format!("it answered {other:?}"))),
            Err(error) => Err(ReplaceError::Undecided(error.to_string())),
        }
    }

    /// Whether this disk has asked to join for as long as an empty disk must before it replaces its namesake.
    pub(crate) fn has_asked_for_long(&self, registration: &Registration) -> bool {
        let (now, mut asking) = (self.clock.now(), self.asking.lock());
        let own = asking.entry(registration.name.clone()).or_insert((registration.node_uuid, now));
        if own.0 != registration.node_uuid {
            *own = (registration.node_uuid, now);
        }
        now.saturating_sub(own.1) >= self.options.replace_after
    }
}
