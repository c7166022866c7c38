//! What must hold of a history, however it ended. Pure: the world hands in what it saw.

use std::collections::{BTreeMap, BTreeSet};

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
    let attempted: BTreeSet<(u32, &str)> = history.iter().map(|write| (write.group, write.text.as_str())).collect();
    for (name, held) in nodes {
        for (group, entries) in held {
            for pair in entries.windows(2) {
                if pair[0].0 >= pair[1].0 {
                    return Err(format!("I10: {name} applied g{group} out of order: {} then {}", pair[0].0, pair[1].0));
                }
            }
            for (index, text) in entries {
                if !attempted.contains(&(*group, text.as_str())) {
                    return Err(format!("I3: {name} holds {text} at {group}/{index}, which nobody wrote"));
                }
            }
        }
        for write in history {
            let Ended::Acknowledged(index) = write.ended else { continue };
            let found = held.get(&write.group).is_some_and(|entries| entries.contains(&(index, write.text.clone())));
            if !found {
                return Err(format!(
                    "I1: {} was acknowledged at {}/{index}, and {name} does not hold it",
                    write.text, write.group
                ));
            }
        }
        for write in history.iter().filter(|write| write.ended == Ended::Refused) {
            if held.get(&write.group).is_some_and(|entries| entries.iter().any(|(_, text)| *text == write.text)) {
                return Err(format!("I2: {} was refused, and {name} holds it", write.text));
            }
        }
    }
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

    fn held(entries: &[(u64, &str)]) -> Held {
        BTreeMap::from([(1, entries.iter().map(|(index, text)| (*index, (*text).to_owned())).collect())])
    }

    fn write(text: &str, ended: Ended) -> Write {
        Write { group: 1, text: text.into(), ended }
    }

    fn broken(history: &[Write], nodes: &[&[(u64, &str)]]) -> String {
        let nodes = nodes.iter().enumerate().map(|(number, entries)| (format!("n{number}"), held(entries))).collect();
        check(history, &nodes).err().unwrap_or_default().chars().take(3).collect()
    }

    #[test]
    fn each_broken_promise_is_seen_and_a_kept_one_is_not() {
        let history = [write("a", Ended::Acknowledged(3)), write("b", Ended::Unknown), write("c", Ended::Refused)];
        assert_eq!(broken(&history, &[&[(3, "a")], &[(3, "a")]]), "");
        assert_eq!(broken(&history, &[&[(3, "a"), (4, "b")], &[(3, "a"), (4, "b")]]), "", "unknown may be there");
        assert_eq!(broken(&history, &[&[], &[(3, "a")]]), "I1:");
        assert_eq!(broken(&history, &[&[(4, "a")]]), "I1:", "another index");
        assert_eq!(broken(&history, &[&[(3, "a"), (4, "c")]]), "I2:");
        assert_eq!(broken(&history, &[&[(3, "a"), (4, "x")]]), "I3:");
        assert_eq!(broken(&history, &[&[(4, "b"), (3, "a")]]), "I10");
        assert_eq!(broken(&history, &[&[(3, "a"), (4, "b")], &[(3, "a")]]), "I10");
    }
}
