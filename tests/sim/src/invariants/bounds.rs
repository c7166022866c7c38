//! I10, order of positions: purged ≤ applied ≤ committed ≤ last, and applied ≤ last but for rows that just came in.

use crate::view::NodeView;

/// Checks one node. `committed` is the newest that is known to be committed anywhere, by group.
///
/// # Errors
/// Names the group and both positions.
pub fn check(view: &NodeView, committed: impl Fn(u32) -> Option<u64>) -> Result<(), String> {
    let name = &view.name;
    for (group, own) in &view.groups {
        let index = |at: Option<raft_types::LogPosition>| at.map(|at| at.index);
        let (purged, applied, last) = (index(own.purged), index(own.applied), index(own.last));
        if *group != 0 && purged > applied {
            return Err(format!("I10: {name} purged g{group} up to {purged:?}, and has applied {applied:?}"));
        }
        if applied > last && !own.incomplete {
            return Err(format!("I10: {name} applied g{group} up to {applied:?}, and its log ends at {last:?}"));
        }
        if applied > committed(*group) {
            return Err(format!(
                "I10: {name} applied g{group} up to {applied:?}, and committed is {:?}",
                committed(*group)
            ));
        }
        if index(own.committed) > last && !own.incomplete {
            return Err(format!("I10: {name} knows g{group} committed up to {:?}, behind {last:?}", own.committed));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::GroupView;
    use raft_types::LogPosition;
    use std::collections::BTreeMap;

    fn view(purged: u64, applied: u64, committed: u64, last: u64) -> NodeView {
        let at = |index| Some(LogPosition { term: 1, index });
        let group = GroupView {
            purged: at(purged),
            applied: at(applied),
            committed: at(committed),
            last: at(last),
            ..GroupView::default()
        };
        NodeView { name: "n1".into(), raft_id: Some(1), failed: false, groups: BTreeMap::from([(1, group)]) }
    }

    #[test]
    fn each_order_is_checked() {
        assert_eq!(check(&view(1, 2, 3, 4), |_| Some(3)), Ok(()));
        assert!(check(&view(3, 2, 3, 4), |_| Some(3)).is_err(), "purged before it was applied");
        assert!(check(&view(1, 5, 3, 4), |_| Some(9)).is_err(), "applied what the log does not have");
        assert!(check(&view(1, 4, 3, 4), |_| Some(3)).is_err(), "applied what nobody committed");
        assert!(check(&view(1, 2, 5, 4), |_| Some(9)).is_err(), "committed beyond the log");
    }
}
