//! I10, monotonic terms: what term a raft id was once seen in, it never goes back behind, restarts included.

use std::collections::BTreeMap;

/// The newest term of each (raft id, group).
#[derive(Debug, Default)]
pub struct Terms(BTreeMap<(u64, u32), u64>);

impl Terms {
    /// Notes that `raft_id` is in `term` of `group`.
    ///
    /// # Errors
    /// When it was in a newer one before.
    pub fn note(&mut self, raft_id: u64, group: u32, term: u64) -> Result<(), String> {
        let known = self.0.entry((raft_id, group)).or_default();
        if term < *known {
            return Err(format!("I10: raft id {raft_id} was in term {known} of g{group}, and is now in {term}"));
        }
        *known = term;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_goes_back_is_seen() {
        let mut terms = Terms::default();
        assert_eq!(terms.note(1, 1, 4), Ok(()));
        assert_eq!(terms.note(1, 1, 4), Ok(()));
        assert_eq!(terms.note(2, 1, 3), Ok(()), "another raft id");
        assert_eq!(terms.note(1, 2, 3), Ok(()), "another group");
        assert!(terms.note(1, 1, 3).is_err());
    }
}
