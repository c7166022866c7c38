//! I1: every acknowledged write is held by every node, at the index that was acknowledged.

use crate::oracle::{Ended, Held, Write};

/// Checks one node.
///
/// # Errors
/// Names the write that is lost.
pub fn check(history: &[Write], name: &str, held: &Held) -> Result<(), String> {
    for write in history {
        let Ended::Acknowledged(index) = write.ended else { continue };
        let entries = held.get(&write.group).map(Vec::as_slice).unwrap_or_default();
        let found =
            entries.binary_search_by_key(&index, |(index, _)| *index).is_ok_and(|at| entries[at].1 == write.text);
        if !found {
            return Err(format!(
                "I1: {} was acknowledged at {}/{index}, and {name} does not hold it",
                write.text, write.group
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{held, write};

    #[test]
    fn a_lost_and_a_moved_write_are_seen() {
        let history = [write("a", Ended::Acknowledged(3)), write("b", Ended::Unknown), write("c", Ended::Refused)];
        assert_eq!(check(&history, "n1", &held(&[(3, "a")])), Ok(()));
        assert!(check(&history, "n1", &held(&[])).is_err());
        assert!(check(&history, "n1", &held(&[(4, "a")])).is_err(), "another index");
        assert!(check(&history, "n1", &held(&[(3, "b")])).is_err(), "another write at its index");
    }
}
