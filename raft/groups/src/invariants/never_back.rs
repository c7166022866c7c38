//! I10, positions only grow: what a process has purged, applied and known to be committed, it does not take back.

use super::GroupView;

/// Checks one group between two looks in the life of one process.
///
/// # Errors
/// Names the position that went back.
pub fn check(name: &str, group: u32, before: &GroupView, now: &GroupView) -> Result<(), String> {
    for (what, old, new) in [
        ("purged", before.purged, now.purged),
        ("applied", before.applied, now.applied),
        ("committed", before.committed, now.committed),
    ] {
        if new.map(|at| at.index) < old.map(|at| at.index) {
            return Err(format!("I10: {name} had {what} g{group} up to {old:?}, and now up to {new:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_types::LogPosition;

    #[test]
    fn each_position_that_goes_back_is_seen() {
        let at = |index| Some(LogPosition { term: 1, index });
        let view = |purged, applied, committed| GroupView { purged, applied, committed, ..GroupView::default() };
        let before = view(at(1), at(3), at(4));
        assert_eq!(check("n1", 1, &before, &view(at(2), at(3), at(4))), Ok(()));
        assert!(check("n1", 1, &before, &view(None, at(3), at(4))).is_err());
        assert!(check("n1", 1, &before, &view(at(1), at(2), at(4))).is_err());
        assert!(check("n1", 1, &before, &view(at(1), at(3), at(3))).is_err());
    }
}
