//! I10, state-machine safety: once all is settled, every node has applied the same.

use crate::oracle::Held;
use std::collections::BTreeMap;

/// Checks all nodes.
///
/// # Errors
/// Names two that differ.
pub fn check(nodes: &BTreeMap<String, Held>) -> Result<(), String> {
    let mut nodes = nodes.iter();
    let Some((first, reference)) = nodes.next() else { return Ok(()) };
    match nodes.find(|(_, held)| *held != reference) {
        Some((other, _)) => Err(format!("I10: {first} and {other} applied different logs")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::held;

    #[test]
    fn one_entry_more_is_a_difference() {
        let nodes = |second: &[(u64, &str)]| {
            BTreeMap::from([("n1".to_owned(), held(&[(3, "a")])), ("n2".to_owned(), held(second))])
        };
        assert_eq!(check(&nodes(&[(3, "a")])), Ok(()));
        assert!(check(&nodes(&[(3, "a"), (4, "b")])).is_err());
    }
}
