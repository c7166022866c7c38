//! I10, log matching: the same (index, term) is the same entry in every lane, and so is everything before it.

use std::collections::BTreeMap;

/// What a log holds: index → (term, digest of its bytes).
pub type Log = BTreeMap<u64, (u64, u64)>;

/// Every entry that was ever seen in a lane: (group, index, term) → digest.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<(u32, u64, u64), u64>);

impl Entries {
    /// Notes the log of one node.
    ///
    /// # Errors
    /// Names the entry that had other bytes before.
    pub fn note(&mut self, name: &str, group: u32, log: &Log) -> Result<(), String> {
        for (index, (term, digest)) in log {
            if self.0.entry((group, *index, *term)).or_insert(*digest) != digest {
                return Err(format!(
                    "I10: {name} has other bytes at {group}/{index} of term {term} than were seen before"
                ));
            }
        }
        Ok(())
    }
}

/// Checks two logs of one group.
///
/// # Errors
/// Names the index at which they differ, though they agree behind it.
pub fn check(group: u32, one: &Log, other: &Log) -> Result<(), String> {
    let mut agree_behind = None;
    for (index, (term, _)) in one.iter().rev() {
        let Some((other_term, _)) = other.get(index) else { continue };
        match (term == other_term, agree_behind) {
            (true, None) => agree_behind = Some(index),
            (false, Some(behind)) => {
                return Err(format!(
                    "I10: two logs of g{group} agree at {behind} and differ at {index}: terms {term} and {other_term}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_at_one_place_are_seen() {
        let mut entries = Entries::default();
        assert_eq!(entries.note("n1", 1, &Log::from([(3, (1, 77))])), Ok(()));
        assert_eq!(entries.note("n2", 1, &Log::from([(3, (2, 78))])), Ok(()), "of another term");
        assert!(entries.note("n3", 1, &Log::from([(3, (1, 79))])).is_err());
    }

    #[test]
    fn logs_that_agree_agree_in_all_that_comes_before() {
        let one = Log::from([(3, (1, 0)), (4, (2, 0)), (5, (2, 0))]);
        assert_eq!(check(1, &one, &Log::from([(3, (1, 0)), (4, (3, 0))])), Ok(()), "they part at 4");
        assert!(check(1, &one, &Log::from([(3, (1, 0)), (4, (1, 0)), (5, (2, 0))])).is_err());
    }
}
