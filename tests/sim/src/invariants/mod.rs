//! What must hold, one a file; each says in its first line which invariant of the reliability plan it is.
//!
//! Those that a node in service checks too are in `raft_groups::invariants`. They are pure: over a history, over what a node holds, or over what was seen of it before.

pub mod acked_is_held;
pub mod clean_voter;
pub mod committed_stays;
pub mod durable_stays;
pub mod log_matching;
pub mod no_phantom;
pub mod read_your_writes;
pub mod same_rows;
pub mod serves_again;
pub mod sync_error_is_final;
pub mod unknown_settles;

#[cfg(test)]
mod made_up {
    use crate::oracle::{Ended, Held, Write};
    use std::collections::BTreeMap;

    pub(super) fn held(entries: &[(u64, &str)]) -> Held {
        BTreeMap::from([(1, entries.iter().map(|(index, text)| (*index, (*text).to_owned())).collect())])
    }

    pub(super) fn write(text: &str, ended: Ended) -> Write {
        Write { group: 1, text: text.into(), ended }
    }
}
