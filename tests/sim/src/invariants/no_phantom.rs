//! I3: nothing is held that nobody wrote, and each log is applied in order.

use crate::oracle::{Held, Write};
use std::collections::BTreeSet;

/// Checks one node.
///
/// # Errors
/// Names the phantom.
pub fn check(history: &[Write], name: &str, held: &Held) -> Result<(), String> {
    let attempted: BTreeSet<(u32, &str)> = history.iter().map(|write| (write.group, write.text.as_str())).collect();
    for (group, entries) in held {
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(format!("I3: {name} applied g{group} out of order: {} then {}", pair[0].0, pair[1].0));
        }
        if let Some((index, text)) = entries.iter().find(|(_, text)| !attempted.contains(&(*group, text.as_str()))) {
            return Err(format!("I3: {name} holds {text} at {group}/{index}, which nobody wrote"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{held, write};
    use crate::oracle::Ended;

    #[test]
    fn a_phantom_and_a_wrong_order_are_seen() {
        let history = [write("a", Ended::Acknowledged(3)), write("b", Ended::Unknown)];
        assert_eq!(check(&history, "n1", &held(&[(3, "a"), (4, "b")])), Ok(()));
        assert!(check(&history, "n1", &held(&[(3, "a"), (4, "x")])).is_err());
        assert!(check(&history, "n1", &held(&[(4, "b"), (3, "a")])).is_err());
    }
}
