//! I10, only a clean replica becomes a voter: one that has the log and every body that its rows name.

/// Entries by which a replica may lag when it becomes a voter, and what comes in until that is looked at.
const LAG_MAX: u64 = 64;

/// Checks one replica at the moment at which it is first seen to vote.
///
/// # Errors
/// Says what it lacks.
pub fn check(name: &str, group: u32, missing_bodies: usize, incomplete: bool, lag: u64) -> Result<(), String> {
    if missing_bodies == 0 && !incomplete && lag <= LAG_MAX {
        return Ok(());
    }
    Err(format!(
        "I10: {name} votes in g{group} and is no copy: {missing_bodies} bodies missing, incomplete: {incomplete}, {lag} behind"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_a_flag_and_a_lag_each_count() {
        assert_eq!(check("n1", 1, 0, false, 10), Ok(()));
        assert!(check("n1", 1, 1, false, 0).is_err());
        assert!(check("n1", 1, 0, true, 0).is_err());
        assert!(check("n1", 1, 0, false, 100).is_err());
    }
}
