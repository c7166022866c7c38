//! I12, liveness: once faults have ended, all nodes agree on a leader and on three voters for each group, and miss nothing.

use crate::view::NodeView;

/// Checks all nodes; until it holds, the world waits.
///
/// # Errors
/// Says what is not well yet.
pub fn check(views: &[NodeView], nodes: usize, groups: u32) -> Result<(), String> {
    let Some(first) = views.first().filter(|_| views.len() == nodes) else {
        return Err(format!("I12: {} of {nodes} nodes run", views.len()));
    };
    for view in views {
        let name = &view.name;
        for group in 0..=groups {
            let Some(own) = view.groups.get(&group) else {
                return Err(format!("I12: {name} does not host g{group}"));
            };
            let reference = first.groups.get(&group);
            if own.leader.is_none() || Some(&own.leader) != reference.map(|other| &other.leader) {
                return Err(format!("I12: {name} takes {:?} for the leader of g{group}, others do not", own.leader));
            }
            if own.voters.len() != nodes || own.learners > 0 || view.raft_id.is_none_or(|id| !own.voters.contains(&id))
            {
                return Err(format!(
                    "I12: {name} sees voters {:?} and {} learners in g{group}",
                    own.voters, own.learners
                ));
            }
            if own.incomplete {
                return Err(format!("I12: {name} still misses bodies of g{group}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_groups::invariants::GroupView;
    use std::collections::BTreeMap;

    fn view(name: &str, id: u64, change: impl Fn(&mut GroupView)) -> NodeView {
        let mut group = GroupView { leader: Some("n1".into()), voters: vec![1, 2], ..GroupView::default() };
        change(&mut group);
        NodeView { name: name.into(), raft_id: Some(id), failed: false, groups: BTreeMap::from([(0, group)]) }
    }

    #[test]
    fn each_thing_that_is_not_well_is_seen() {
        let well = view("n1", 1, |_| {});
        let with = |second: NodeView| check(&[well.clone(), second], 2, 0);
        assert_eq!(with(view("n2", 2, |_| {})), Ok(()));
        assert!(check(std::slice::from_ref(&well), 2, 0).is_err(), "one is down");
        assert!(with(view("n2", 2, |group| group.leader = None)).is_err());
        assert!(with(view("n2", 2, |group| group.leader = Some("n2".into()))).is_err());
        assert!(with(view("n2", 2, |group| group.voters = vec![1])).is_err());
        assert!(with(view("n2", 2, |group| group.learners = 1)).is_err());
        assert!(with(view("n2", 2, |group| group.incomplete = true)).is_err());
        assert!(with(view("n2", 3, |_| {})).is_err(), "its own raft id does not vote");
    }
}
