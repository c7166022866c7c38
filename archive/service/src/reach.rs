//! Which images can be read now: Instance Availability (0008,0056) of answers.
//!
//! ```text
//!   a group's images can be read  ⇔  some voter of it is up and holds every body
//!       this node:  it votes in the group, and the group is not marked incomplete here
//!       a peer:     it votes in the group, was heard from within 3 s, and says that it pulls nothing
//! ```
//!
//! It is said by group, from what this node knows anyway, at most half a second old: no disk is looked at, and no peer asked. A
//! replica that is still being mirrored may have some bodies; what it has is not known by name, so that it counts as none: a
//! promise that is not kept is worse than a wait. There is no NEARLINE: nothing is brought back from a backup unasked.
//!
//! A patient is as available as the least available of its studies.

use crate::Archive;
use parking_lot::Mutex;
use raft_types::{ClusterStatus, GroupId, NodeHealth, StateMachine};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How long what is known is taken for true.
const KNOWN_FOR: Duration = Duration::from_millis(500);

/// What was found last, and when.
#[derive(Default)]
pub(crate) struct Reach(Mutex<Option<(Duration, Arc<BTreeSet<GroupId>>)>>);

/// The groups whose images cannot be read now. `incomplete` are those that this node does not hold whole.
fn unreachable(status: &ClusterStatus, incomplete: &[GroupId]) -> BTreeSet<GroupId> {
    let is_whole = |name: &String, group: GroupId| {
        if *name == status.answered_by {
            return !incomplete.contains(&group);
        }
        let peer = status.nodes.iter().find(|node| node.name == *name);
        peer.is_some_and(|peer| peer.health == NodeHealth::Up && peer.missing_bytes.is_none())
    };
    let gone = status.groups.iter().filter(|group| !group.voters.iter().any(|name| is_whole(name, group.id)));
    gone.map(|group| group.id).collect()
}

impl Archive {
    /// The groups whose images cannot be read now.
    pub(crate) async fn unreachable(&self) -> Arc<BTreeSet<GroupId>> {
        let now = self.clock().now();
        if let Some((at, known)) = &*self.reach().0.lock()
            && now.saturating_sub(*at) < KNOWN_FOR
        {
            return Arc::clone(known);
        }
        let catalog = Arc::clone(self.catalog());
        let incomplete = self.look_up(move || Ok(catalog.incomplete())).await;
        let known = &mut *self.reach().0.lock();
        let found = match (incomplete, &*known) {
            (Ok(Ok(incomplete)), _) => Arc::new(unreachable(&self.log().status(), &incomplete)),
            // The query that asks fails of the same: what was known is as good.
            (Ok(Err(_)) | Err(_), Some((_, before))) => Arc::clone(before),
            (Ok(Err(_)) | Err(_), None) => Arc::default(),
        };
        *known = Some((now, Arc::clone(&found)));
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        Find, Freshness, Include, Level, ServiceSettings,
        testing::{TestClock, archive_at},
    };
    use archive_model::{DataSet, Element, VR, Value, matching::Meaning, tags};
    use raft_types::{GroupStatus, NodeState, NodeStatus};

    const GROUP: GroupId = GroupId(7);

    /// One group with these voters, seen by `n1`, beside peers with their health and what they still pull.
    fn seen(voters: &[&str], peers: &[(&str, NodeHealth, Option<u64>)]) -> ClusterStatus {
        let group = GroupStatus {
            id: GROUP,
            leader: None,
            term: 1,
            voters: voters.iter().map(|name| (*name).to_owned()).collect(),
            voter_ids: Vec::new(),
            learners: vec!["n4".into()],
            last: None,
            committed: None,
            applied: None,
            purged: None,
        };
        let node = |(name, health, missing_bytes): &(&str, NodeHealth, Option<u64>)| NodeStatus {
            name: (*name).to_owned(),
            id: None,
            peer_address: String::new(),
            health: *health,
            leads: 0,
            lag_entries: 0,
            last_contact_ms: None,
            missing_bytes: *missing_bytes,
            state: NodeState::Member,
            copies: 0,
            copies_wanted: 0,
        };
        let nodes = peers.iter().map(node).collect();
        ClusterStatus { answered_by: "n1".into(), groups: vec![group], nodes, ..ClusterStatus::default() }
    }

    #[test]
    fn a_group_can_be_read_if_a_voter_that_is_up_holds_it_whole() {
        use NodeHealth::{Down, Unknown, Up};
        let all = ["n1", "n2", "n3"];
        let elsewhere = ["n2", "n3"];
        for (status, incomplete, readable, why) in [
            (seen(&all, &[("n2", Down, None), ("n3", Down, None)]), &[][..], true, "this node has it"),
            (seen(&all, &[("n2", Up, None), ("n3", Down, None)]), &[GROUP][..], true, "a peer has it"),
            (seen(&all, &[("n2", Up, Some(9)), ("n3", Down, None)]), &[GROUP][..], false, "both are being mirrored"),
            (seen(&all, &[("n2", Up, Some(0)), ("n3", Down, None)]), &[GROUP][..], false, "how much is not known yet"),
            (seen(&all, &[("n2", Unknown, None), ("n3", Down, None)]), &[GROUP][..], false, "nobody was heard from"),
            (
                seen(&all, &[("n2", Down, None), ("n3", Down, None)]),
                &[GroupId(8)][..],
                true,
                "another group is incomplete",
            ),
            (
                seen(&elsewhere, &[("n2", Up, None), ("n3", Down, None)]),
                &[][..],
                true,
                "this node keeps no bodies of it",
            ),
            (seen(&elsewhere, &[("n2", Down, None), ("n3", Down, None)]), &[][..], false, "and who does is down"),
            (seen(&elsewhere, &[("n4", Up, None)]), &[][..], false, "who is up does not vote"),
            (seen(&["n1"], &[]), &[][..], true, "a single node"),
        ] {
            assert_eq!(unreachable(&status, incomplete).is_empty(), readable, "{why}");
        }
    }

    /// All groups of the only replica turn incomplete, and complete again.
    #[tokio::test(start_paused = true)]
    async fn answers_say_what_can_be_read_half_a_second_later() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _log) = archive_at(folder.path(), ServiceSettings::default(), TestClock::new());
        crate::tests::store_one(&archive).await;
        let said = async |level: Level| {
            let keys: DataSet =
                [Element { tag: tags::PATIENT_ID, vr: VR::LO, value: Value::Empty }].into_iter().collect();
            let meaning = Meaning::default();
            let find = Find { level, keys, include: Include::Requested, limit: None, offset: 0, meaning };
            let mut matches = archive.find(find, Freshness::Local).await.unwrap();
            let answer = matches.next().await.expect("one").unwrap();
            answer.text(tags::INSTANCE_AVAILABILITY).map(str::to_owned)
        };
        let levels = [Level::Patient, Level::Study, Level::Series, Level::Instance];
        for level in levels {
            assert_eq!(said(level).await, None, "nothing is wrong, and nothing is said");
        }
        let groups = archive.log().groups();
        groups.iter().for_each(|group| archive.catalog().set_incomplete(*group).unwrap());
        assert_eq!(said(Level::Study).await, None, "it is not asked for each query");
        tokio::time::advance(KNOWN_FOR).await;
        for level in levels {
            assert_eq!(said(level).await.as_deref(), Some("UNAVAILABLE"), "{level:?}");
        }
        groups.iter().for_each(|group| archive.catalog().set_complete(*group).unwrap());
        tokio::time::advance(KNOWN_FOR).await;
        assert_eq!(said(Level::Study).await, None);
    }
}
