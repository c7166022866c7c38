//! I10, order of positions: purged ≤ applied ≤ committed ≤ last, and applied ≤ last but for rows that just came in.

use super::GroupView;

/// Checks one group. `committed` is the newest index that is known to be committed anywhere.
///
/// # Errors
/// Names the group and both positions.
pub fn check(name: &str, group: u32, own: &GroupView, committed: Option<u64>) -> Result<(), String> {
    let index = |at: Option<raft_types::LogPosition>| at.map(|at| at.index);
    let (purged, applied, last) = (index(own.purged), index(own.applied), index(own.last));
    if group != 0 && purged > applied {
        return Err(format!("I10: {name} purged g{group} up to {purged:?}, and has applied {applied:?}"));
    }
    if applied > last && !own.incomplete {
        return Err(format!("I10: {name} applied g{group} up to {applied:?}, and its log ends at {last:?}"));
    }
    if applied > committed {
        return Err(format!("I10: {name} applied g{group} up to {applied:?}, and committed is {committed:?}"));
    }
    if index(own.committed) > last && !own.incomplete {
        return Err(format!("I10: {name} knows g{group} committed up to {:?}, behind {last:?}", own.committed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_types::LogPosition;

    #[test]
    fn each_order_is_checked() {
        let look = |[purged, applied, committed, last]: [u64; 4], anywhere| {
            let at = |index| Some(LogPosition { term: 1, index });
            let (purged, applied, committed, last) = (at(purged), at(applied), at(committed), at(last));
            check("n1", 1, &GroupView { purged, applied, committed, last, ..GroupView::default() }, Some(anywhere))
        };
        assert_eq!(look([1, 2, 3, 4], 3), Ok(()));
        assert!(look([3, 2, 3, 4], 3).is_err(), "purged before it was applied");
        assert!(look([1, 5, 3, 4], 9).is_err(), "applied what the log does not have");
        assert!(look([1, 4, 3, 4], 3).is_err(), "applied what nobody committed");
        assert!(look([1, 2, 5, 4], 9).is_err(), "committed beyond the log");
    }
}
