//! A state machine that remembers every command. It has a live and a settled copy, as a database has one that a power
//! loss may take back and one that it may not.

use bytes::Bytes;
use parking_lot::Mutex;
use raft_types::{
    Applied, BodyRef, Committed, CommittedEntry, Exported, GroupId, LogPosition, Outcome, StateMachine,
    StateMachineError,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, ops::ControlFlow};

/// The body of a command whose head begins so is named by no row.
pub const SPENT: &[u8] = b"spent ";

/// Remembers commands, and answers each with its head.
#[derive(Default)]
pub struct Journal {
    live: Mutex<BTreeMap<GroupId, Rows>>,
    settled: Mutex<BTreeMap<GroupId, Rows>>,
}

#[derive(Debug, Clone, Default)]
struct Rows {
    applied: Applied,
    commands: Vec<Remembered>,
    incomplete: bool,
}

/// A command as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Where it stood.
    pub position: LogPosition,
    /// Its head.
    pub head: Bytes,
    /// Bytes of its body.
    pub body_bytes: u32,
}

impl Journal {
    /// The commands of `group`, in order.
    #[must_use]
    pub fn commands(&self, group: GroupId) -> Vec<Remembered> {
        self.live.lock().get(&group).map(|rows| rows.commands.clone()).unwrap_or_default()
    }

    /// What the next process finds: all of it, or after a power loss what was settled.
    #[must_use]
    pub fn survivor(&self, power_loss: bool) -> Self {
        let left = if power_loss { self.settled.lock().clone() } else { self.live.lock().clone() };
        Self { settled: Mutex::new(left.clone()), live: Mutex::new(left) }
    }
}

fn failed(step: &str, source: impl std::error::Error + Send + Sync + 'static) -> StateMachineError {
    StateMachineError { step: step.into(), source: Box::new(source) }
}

fn named_by(commands: &[Remembered]) -> Vec<BodyRef> {
    let of = |command: &Remembered| BodyRef { index: command.position.index, length_bytes: command.body_bytes };
    let named = commands.iter().filter(|command| command.body_bytes > 0 && !command.head.starts_with(SPENT));
    named.map(of).collect()
}

impl StateMachine for Journal {
    fn apply(&self, batch: &[Committed]) -> Result<Vec<Outcome>, StateMachineError> {
        let mut live = self.live.lock();
        Ok(batch
            .iter()
            .map(|Committed { group, position, entry }| {
                let rows = live.entry(*group).or_default();
                assert!(rows.applied.position < Some(*position), "{group}: {position} is applied twice");
                rows.applied.position = Some(*position);
                match entry {
                    CommittedEntry::Blank => Bytes::new(),
                    CommittedEntry::Membership(record) => {
                        rows.applied.membership = Some((*position, record.clone()));
                        Bytes::new()
                    }
                    CommittedEntry::Command { head, body_len } => {
                        let body_bytes = u32::try_from(*body_len).unwrap_or(u32::MAX);
                        rows.commands.push(Remembered { position: *position, head: head.clone(), body_bytes });
                        head.clone()
                    }
                }
            })
            .collect())
    }

    fn applied(&self) -> Result<Vec<(GroupId, Applied)>, StateMachineError> {
        Ok(self.live.lock().iter().map(|(group, rows)| (*group, rows.applied.clone())).collect())
    }

    fn settle(&self) -> Result<Vec<(GroupId, LogPosition)>, StateMachineError> {
        let live = self.live.lock().clone();
        let positions = live.iter().filter_map(|(group, rows)| Some((*group, rows.applied.position?))).collect();
        *self.settled.lock() = live;
        Ok(positions)
    }

    fn export(
        &self,
        group: GroupId,
        sink: &mut dyn FnMut(Exported) -> ControlFlow<()>,
    ) -> Result<(), StateMachineError> {
        let rows = self.live.lock().get(&group).cloned().unwrap_or_default();
        if sink(Exported::At(rows.applied)).is_break() {
            return Ok(());
        }
        for some in rows.commands.chunks(10) {
            let piece = postcard::to_allocvec(some).map_err(|error| failed("export", error))?;
            if sink(Exported::Piece(piece.into())).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn import(
        &self,
        group: GroupId,
        applied: &Applied,
        pieces: &mut dyn FnMut() -> io::Result<Option<Bytes>>,
    ) -> Result<(), StateMachineError> {
        let mut commands = Vec::new();
        while let Some(piece) = pieces().map_err(|error| failed("read the pieces", error))? {
            let some: Vec<Remembered> = postcard::from_bytes(&piece).map_err(|error| failed("import", error))?;
            commands.extend(some);
        }
        let mut live = self.live.lock();
        live.insert(group, Rows { applied: applied.clone(), commands, incomplete: true });
        *self.settled.lock() = live.clone();
        Ok(())
    }

    fn bodies(&self, group: GroupId) -> Result<Vec<BodyRef>, StateMachineError> {
        let live = self.live.lock();
        Ok(live.get(&group).map(|rows| named_by(&rows.commands)).unwrap_or_default())
    }

    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, StateMachineError> {
        let some: Vec<Remembered> = postcard::from_bytes(piece).map_err(|error| failed("read a piece", error))?;
        Ok(named_by(&some))
    }

    fn incomplete(&self) -> Result<Vec<GroupId>, StateMachineError> {
        Ok(self.live.lock().iter().filter(|(_, rows)| rows.incomplete).map(|(group, _)| *group).collect())
    }

    fn set_incomplete(&self, group: GroupId) -> Result<(), StateMachineError> {
        if let Some(rows) = self.live.lock().get_mut(&group) {
            rows.incomplete = true;
        }
        Ok(())
    }

    fn set_complete(&self, group: GroupId) -> Result<(), StateMachineError> {
        if let Some(rows) = self.live.lock().get_mut(&group) {
            rows.incomplete = false;
        }
        Ok(())
    }
}
