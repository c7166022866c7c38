//! I10, committed entries are immutable: what any node once applied at an index is what every node applies there.

use std::collections::BTreeMap;

/// Everything that was ever seen applied: (group, index) → (term, text).
#[derive(Debug, Default)]
pub struct Applied(BTreeMap<(u32, u64), (u64, String)>);

impl Applied {
    /// Notes that `name` has applied `text` of `term` at `index`.
    ///
    /// # Errors
    /// When something else was applied there.
    pub fn note(&mut self, name: &str, (group, index): (u32, u64), term: u64, text: &str) -> Result<(), String> {
        match self.0.get(&(group, index)) {
            None => {
                self.0.insert((group, index), (term, text.to_owned()));
                Ok(())
            }
            Some((known_term, known)) if (*known_term, known.as_str()) == (term, text) => Ok(()),
            Some((known_term, known)) => Err(format!(
                "I10: {name} applied {text} of term {term} at {group}/{index}, where {known} of term {known_term} was applied"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_and_another_term_are_seen() {
        let mut applied = Applied::default();
        assert_eq!(applied.note("n1", (1, 3), 1, "a"), Ok(()));
        assert_eq!(applied.note("n2", (1, 3), 1, "a"), Ok(()));
        assert_eq!(applied.note("n2", (2, 3), 1, "b"), Ok(()), "another group");
        assert!(applied.note("n3", (1, 3), 1, "b").is_err());
        assert!(applied.note("n3", (1, 3), 2, "a").is_err());
    }
}
