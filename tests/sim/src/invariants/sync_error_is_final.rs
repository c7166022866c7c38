//! I11: a node whose fsync has failed says that it has failed, and goes on with nothing.

/// Checks one node some seconds after a sync of its disk failed.
///
/// # Errors
/// When it has not noticed.
pub fn check(name: &str, sync_failed: bool, reported: bool) -> Result<(), String> {
    if sync_failed && !reported {
        return Err(format!("I11: an fsync of {name} has failed, and it goes on"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_after_a_failed_sync_is_seen() {
        assert_eq!(check("n1", false, false), Ok(()));
        assert_eq!(check("n1", true, true), Ok(()));
        assert!(check("n1", true, false).is_err());
    }
}
