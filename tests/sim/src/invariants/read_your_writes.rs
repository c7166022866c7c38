//! I4: after the acknowledgement a read index at any node that answers finds the write.

/// Checks one read: `found` is what the node had at `index` when its read index returned.
///
/// # Errors
/// Names the write that was not seen.
pub fn check(group: u32, index: u64, text: &str, found: Option<&str>) -> Result<(), String> {
    if found == Some(text) {
        return Ok(());
    }
    Err(format!("I4: {text} at {group}/{index} was acknowledged, and elsewhere {found:?} is seen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_something_else_are_both_wrong() {
        assert_eq!(check(1, 3, "a", Some("a")), Ok(()));
        assert!(check(1, 3, "a", None).is_err());
        assert!(check(1, 3, "a", Some("b")).is_err());
    }
}
