//! What must hold of a history, however it ended. Pure: the world hands in what it saw.

use crate::invariants::{acked_is_held, no_phantom, same_rows, unknown_settles};
use std::collections::BTreeMap;

/// How one write ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Acknowledged, under this index.
    Acknowledged(u64),
    /// Refused: nothing was written.
    Refused,
    /// Nobody knows: it may appear later, and once seen must stay.
    Unknown,
}

/// One write of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The group.
    pub group: u32,
    /// What was written; unique.
    pub text: String,
    /// How it ended.
    pub ended: Ended,
}

/// What one node has applied: group → (index, text) in order.
pub type Held = BTreeMap<u32, Vec<(u64, String)>>;

/// The first invariant that does not hold, in words.
///
/// # Errors
/// Says which invariant of the design is broken, and by what.
pub fn check(history: &[Write], nodes: &BTreeMap<String, Held>) -> Result<(), String> {
    for (name, held) in nodes {
        no_phantom::check(history, name, held)?;
        acked_is_held::check(history, name, held)?;
        unknown_settles::check(history, name, held)?;
    }
    same_rows::check(nodes)
}
