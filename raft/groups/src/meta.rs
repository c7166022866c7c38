//! The meta group's state, in RAM on every node: rebuilt from the log at each start, watched by whoever acts on it.

use crate::machine::nothing;
use raft_placement::{MetaCommand, MetaState};
use raft_types::{Committed, CommittedEntry, DecodeError, Outcome, Versioned};
use std::sync::Arc;
use tokio::sync::watch;

/// The newest applied state.
pub(crate) struct MetaHolder {
    state: watch::Sender<Arc<MetaState>>,
}

impl MetaHolder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: watch::channel(Arc::new(MetaState::default())).0 })
    }

    pub(crate) fn state(&self) -> Arc<MetaState> {
        Arc::clone(&self.state.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.state.subscribe()
    }

    pub(crate) fn apply(&self, entries: &[Committed]) -> Result<Vec<Outcome>, DecodeError> {
        let mut state = MetaState::clone(&self.state.borrow());
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            outcomes.push(match &entry.entry {
                CommittedEntry::Blank | CommittedEntry::Membership(_) => nothing(),
                CommittedEntry::Command { head, .. } => {
                    state.apply(entry.position.index, MetaCommand::decode(head)?).encode()
                }
            });
        }
        self.state.send_replace(Arc::new(state));
        Ok(outcomes)
    }
}
