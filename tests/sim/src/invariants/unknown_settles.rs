//! I2: a write that was refused is nowhere; one whose outcome is unknown may be there. (Both or no nodes: [`same_rows`].)
//!
//! [`same_rows`]: super::same_rows

use crate::oracle::{Ended, Held, Write};
use std::collections::BTreeSet;

/// Checks one node.
///
/// # Errors
/// Names the refused write that is there.
pub fn check(history: &[Write], name: &str, held: &Held) -> Result<(), String> {
    let texts: BTreeSet<(u32, &str)> =
        held.iter().flat_map(|(group, entries)| entries.iter().map(|(_, text)| (*group, text.as_str()))).collect();
    match history.iter().find(|write| write.ended == Ended::Refused && texts.contains(&(write.group, &write.text))) {
        Some(write) => Err(format!("I2: {} was refused, and {name} holds it", write.text)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{held, write};

    #[test]
    fn unknown_may_be_there_and_refused_may_not() {
        let history = [write("b", Ended::Unknown), write("c", Ended::Refused)];
        assert_eq!(check(&history, "n1", &held(&[(4, "b")])), Ok(()));
        assert_eq!(check(&history, "n1", &held(&[])), Ok(()));
        assert!(check(&history, "n1", &held(&[(4, "c")])).is_err());
    }
}
