//! I10, no amnesia: what a lane called durable when its process died is there when the next one of that raft id opens it.

use raft_types::LogPosition;
use std::collections::BTreeMap;

/// What was durable at the last death, by (raft id, group).
#[derive(Debug, Default)]
pub struct Durable(BTreeMap<(u64, u32), LogPosition>);

impl Durable {
    /// A process dies with this log.
    pub fn dies(&mut self, raft_id: u64, group: u32, durable: LogPosition) {
        self.0.insert((raft_id, group), durable);
    }

    /// The next one opens; `last` is the end of its log, `term_at` the term that it has at an index, if it knows.
    ///
    /// # Errors
    /// When the log is shorter or another one.
    pub fn opens(
        &self,
        raft_id: u64,
        group: u32,
        last: Option<LogPosition>,
        term_at: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), String> {
        let Some(durable) = self.0.get(&(raft_id, group)) else { return Ok(()) };
        if last.is_none_or(|last| last.index < durable.index) {
            return Err(format!(
                "I10: raft id {raft_id} had g{group} durable up to {durable}, and its log ends at {last:?}"
            ));
        }
        match term_at(durable.index) {
            Some(term) if term != durable.term => {
                Err(format!("I10: raft id {raft_id} had {durable} durable in g{group}, and finds term {term} there"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_log_and_another_one_are_seen() {
        let at = |term, index| LogPosition { term, index };
        let mut durable = Durable::default();
        durable.dies(1, 1, at(2, 7));
        assert_eq!(durable.opens(1, 1, Some(at(2, 9)), |_| Some(2)), Ok(()), "more than that is well");
        assert_eq!(durable.opens(2, 1, None, |_| None), Ok(()), "another raft id");
        assert!(durable.opens(1, 1, Some(at(2, 6)), |_| None).is_err());
        assert!(durable.opens(1, 1, None, |_| None).is_err());
        assert!(durable.opens(1, 1, Some(at(3, 7)), |_| Some(3)).is_err());
    }
}
