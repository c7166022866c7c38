//! I10, election safety: one leader per term and group, whoever says so.

use std::collections::BTreeMap;

/// Who was seen to lead, by (group, term).
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<(u32, u64), String>);

impl Leaders {
    /// Notes that somebody takes `leader` for the leader of `group` in `term`.
    ///
    /// # Errors
    /// When another one led in that term.
    pub fn note(&mut self, group: u32, term: u64, leader: &str) -> Result<(), String> {
        let known = self.0.entry((group, term)).or_insert_with(|| leader.to_owned());
        if known != leader {
            return Err(format!("I10: g{group} has two leaders in term {term}: {known} and {leader}"));
        }
        Ok(())
    }

    /// Forgets older terms of `group`: a node never goes back into one, and a year of them is many.
    pub(crate) fn forget_below(&mut self, group: u32, term: u64) {
        self.0.retain(|(own, known), _| *own != group || *known >= term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_seen() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.note(1, 4, "n1"), Ok(()));
        assert_eq!(leaders.note(1, 5, "n2"), Ok(()), "another term");
        assert_eq!(leaders.note(2, 4, "n2"), Ok(()), "another group");
        assert!(leaders.note(1, 4, "n2").is_err());
    }
}
