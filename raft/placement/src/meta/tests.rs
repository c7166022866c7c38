//! The meta group's state machine: cases, golden bytes, and random commands.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn node(name: &str, disk: u8, incarnation: u64) -> Registration {
    Registration { name: name.into(), node_uuid: [disk; 16], incarnation, address: format!("{name}:7100") }
}

fn formed() -> MetaState {
    let mut state = MetaState::default();
    state.apply(2, MetaCommand::Bootstrap { cluster_id: [9; 16], founder: node("a", 1, 1) });
    state.apply(5, MetaCommand::Register(node("b", 2, 1)));
    state.apply(7, MetaCommand::Register(node("c", 3, 1)));
    let replicas = crate::spread(&[NodeId(1), NodeId(5), NodeId(7)], 3, 8);
    assert_eq!(state.apply(8, MetaCommand::DefineGroups { count: 8, replication: 3, replicas }), MetaOutcome::Defined);
    state
}

fn refused(outcome: &MetaOutcome) -> bool {
    matches!(outcome, MetaOutcome::Refused { .. })
}

#[test]
fn the_founder_has_id_1_and_others_the_index_of_their_entry() {
    let state = formed();
    let ids: Vec<_> = state.nodes().map(|(id, node)| (id.0, node.registration.name.clone())).collect();
    assert_eq!(ids, [(1, "a".to_owned()), (5, "b".to_owned()), (7, "c".to_owned())]);
    assert_eq!(state.replicas(GroupId(8)).len(), 3);
    assert_eq!(state.group_of(b"1.2.3"), Some(crate::group_of(crate::slot(b"1.2.3"), 8)));
}

#[test]
fn registering_the_same_disk_again_answers_the_same_id_and_refreshes_the_address() {
    let mut state = formed();
    let moved = Registration { address: "elsewhere:1".into(), ..node("b", 2, 4) };
    assert_eq!(state.apply(20, MetaCommand::Register(moved)), MetaOutcome::Registered { id: NodeId(5) });
    assert_eq!(state.node(NodeId(5)).unwrap().registration.address, "elsewhere:1");
    state.apply(21, MetaCommand::Register(node("b", 2, 3)));
    assert_eq!(state.node(NodeId(5)).unwrap().registration.incarnation, 4, "an older start does not overwrite");
}

#[test]
fn a_lost_disk_does_not_come_back_under_its_name_while_the_old_one_counts_as_a_copy() {
    let mut state = formed();
    let before = state.clone();
    let outcome = state.apply(20, MetaCommand::Register(node("b", 22, 1)));
    assert!(matches!(&outcome, MetaOutcome::Refused { why } if why.contains("replace the node")), "{outcome:?}");
    assert_eq!(state, before);
}

#[test]
fn a_replacement_takes_all_places_under_a_new_id_and_the_old_disk_stays_out() {
    let mut state = formed();
    let replace = MetaCommand::Replace { old: NodeId(5), new: node("b", 22, 1) };
    assert_eq!(state.apply(30, replace.clone()), MetaOutcome::Registered { id: NodeId(30) });
    assert_eq!(state.apply(31, replace), MetaOutcome::Registered { id: NodeId(30) }, "repeated");
    assert!(!state.is_replica(NodeId(5)) && state.replicas(GroupId(1)).contains(&NodeId(30)));
    assert!(refused(&state.apply(32, MetaCommand::Register(node("b", 2, 9)))));
    assert_eq!(state.node_named("b").unwrap().0, NodeId(30));
}

#[test]
fn a_node_that_is_given_up_is_replaced_by_the_next_empty_disk_of_its_name() {
    let mut state = formed();
    assert!(refused(&state.apply(19, MetaCommand::Condemn { name: "nobody".into() })));
    let given_up = MetaCommand::Condemn { name: "b".into() };
    assert_eq!(state.apply(20, given_up.clone()), MetaOutcome::Registered { id: NodeId(5) });
    // The old disk comes back in time: nothing is given up any more.
    state.apply(21, MetaCommand::Register(node("b", 2, 9)));
    assert!(refused(&state.apply(22, MetaCommand::Register(node("b", 22, 1)))));
    state.apply(23, given_up);
    assert_eq!(state.apply(24, MetaCommand::Register(node("b", 22, 1))), MetaOutcome::Registered { id: NodeId(24) });
    assert!(!state.is_replica(NodeId(5)) && state.groups()[&GroupId(3)].moved);
    // Never the last one.
    state.apply(25, MetaCommand::Condemn { name: "a".into() });
    state.apply(26, MetaCommand::Condemn { name: "b".into() });
    assert!(refused(&state.apply(27, MetaCommand::Condemn { name: "c".into() })));
}

#[test]
fn a_node_that_keeps_nothing_may_come_back_with_an_empty_disk() {
    let mut state = formed();
    state.apply(10, MetaCommand::Register(node("d", 4, 1)));
    assert_eq!(state.apply(11, MetaCommand::Register(node("d", 44, 1))), MetaOutcome::Registered { id: NodeId(11) });
    assert!(state.node(NodeId(10)).is_none());
}

#[test]
fn a_node_that_drains_leaves_only_when_it_keeps_nothing_and_never_comes_back() {
    let mut state = formed();
    let drain = |name: &str, reduce| MetaCommand::Drain { name: name.into(), reduce };
    let remove = |name: &str| MetaCommand::Remove { name: name.into() };
    let before = state.clone();
    let outcome = state.apply(20, drain("c", false));
    assert!(matches!(&outcome, MetaOutcome::Refused { why } if why.contains("--reduce")), "{outcome:?}");
    assert!(refused(&state.apply(21, remove("c"))), "it is in use");
    assert_eq!(state, before);
    state.apply(22, MetaCommand::Register(node("d", 4, 1)));
    assert_eq!(state.apply(23, drain("c", false)), MetaOutcome::Registered { id: NodeId(7) });
    assert!(refused(&state.apply(24, remove("c"))), "its copies have not moved yet");
    let replicas = (1..=8).map(|group| (group, vec![NodeId(1), NodeId(5), NodeId(22)])).collect();
    state.apply(25, MetaCommand::DefineGroups { count: 8, replication: 3, replicas });
    assert_eq!(state.apply(26, remove("c")), MetaOutcome::Registered { id: NodeId(7) });
    assert_eq!(state.apply(27, remove("c")), MetaOutcome::Registered { id: NodeId(7) }, "repeated");
    assert!(refused(&state.apply(28, MetaCommand::Register(node("c", 3, 9)))), "its disk stays out");
    assert_eq!(state.apply(29, MetaCommand::Register(node("c", 33, 1))), MetaOutcome::Registered { id: NodeId(29) });
    assert!(state.retired_disks().contains(&[3; 16]));
}

#[test]
fn copies_are_reduced_only_when_that_is_said_and_the_last_node_never_drains() {
    let mut state = formed();
    let mut drain = |name: &str, reduce| state.apply(20, MetaCommand::Drain { name: name.into(), reduce });
    assert!(!refused(&drain("a", true)));
    assert!(refused(&drain("b", false)));
    assert!(!refused(&drain("b", true)));
    assert!(refused(&drain("c", true)));
    assert_eq!((state.replication(), state.meta_voters()), (1, [NodeId(7)].into()));
    assert_eq!(state.replicas(GroupId::META), [NodeId(7)], "the founder gives the meta group away, too");
    state.apply(21, MetaCommand::Undrain { name: "b".into() });
    assert!(!refused(&state.apply(22, MetaCommand::Drain { name: "c".into(), reduce: false })));
}

#[test]
fn the_meta_group_has_an_odd_number_of_voters_and_at_most_five() {
    let mut state = MetaState::default();
    state.apply(2, MetaCommand::Bootstrap { cluster_id: [9; 16], founder: node("n0", 1, 1) });
    let voters: Vec<usize> = (1..8)
        .map(|number| {
            let count = state.meta_voters().len();
            let next = number as u8;
            state.apply(number + 2, MetaCommand::Register(node(&format!("n{next}"), next + 1, 1)));
            count
        })
        .collect();
    assert_eq!(voters, [1, 1, 3, 3, 5, 5, 5]);
}

#[test]
fn one_disk_under_two_names_is_refused() {
    let mut state = formed();
    assert!(refused(&state.apply(10, MetaCommand::Register(node("copy", 2, 1)))));
}

#[test]
fn a_cluster_is_bootstrapped_once() {
    let mut state = formed();
    let again = |id: u8| MetaCommand::Bootstrap { cluster_id: [id; 16], founder: node("a", 1, 1) };
    assert_eq!(state.apply(10, again(9)), MetaOutcome::Bootstrapped { cluster_id: [9; 16] });
    assert!(refused(&state.apply(11, again(8))));
    assert!(refused(&MetaState::default().apply(3, MetaCommand::Register(node("b", 2, 1)))));
}

#[test]
fn the_number_of_groups_never_changes_and_replicas_must_be_known() {
    let mut state = formed();
    let mut define =
        |count, replicas| refused(&state.apply(40, MetaCommand::DefineGroups { count, replication: 3, replicas }));
    assert!(define(9, vec![]));
    assert!(define(8, vec![(1, vec![NodeId(99)])]));
    assert!(define(8, vec![(1, vec![NodeId(1), NodeId(1)])]));
    assert!(define(8, vec![(1, vec![])]));
    assert!(define(8, vec![(9, vec![NodeId(1)])]));
    assert!(!define(8, vec![(1, vec![NodeId(5), NodeId(1)])]), "some groups may move later");
    assert_eq!(state.groups()[&GroupId(1)].preferred(), Some(NodeId(5)));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_state_without_documents_still_reads_and_has_none() {
    let state = formed();
    let new = state.encode();
    // Version 1 ended where the (empty) list of documents begins.
    let mut old = new[..new.len() - 1].to_vec();
    old[0] = 1;
    assert_eq!((new[0], new[new.len() - 1]), (2, 0));
    assert_eq!(MetaState::decode(&old).unwrap(), state);
    assert_eq!(MetaState::decode(&old).unwrap().document("peers"), Document::default());
    old[0] = 2;
    assert!(MetaState::decode(&old).is_err(), "a version 2 says what documents there are");
}

#[test]
fn documents_travel_with_the_state() {
    let mut state = formed();
    let set = |expect_version, text: &'static str| MetaCommand::SetDocument {
        key: "peers".into(),
        expect_version,
        bytes: Bytes::from_static(text.as_bytes()),
    };
    assert_eq!(state.apply(30, set(0, "a")), MetaOutcome::DocumentSet { version: 1 });
    assert_eq!(state.apply(31, set(1, "b")), MetaOutcome::DocumentSet { version: 2 });
    let again = MetaState::decode(&state.encode()).unwrap();
    assert_eq!(again, state);
    assert_eq!(again.document("peers"), Document { version: 2, bytes: Bytes::from_static(b"b") });
}

#[test]
fn the_bytes_of_every_version_never_change() {
    let founder =
        Registration { name: "a-0".into(), node_uuid: [0x11; 16], incarnation: 300, address: "a-0:7100".into() };
    let register = MetaCommand::Register(founder.clone());
    let uuid = "11".repeat(16);
    let (cluster, registered) = ("22".repeat(16), format!("03612d30{uuid}ac0208612d303a37313030"));
    let golden = [
        (
            MetaCommand::Bootstrap { cluster_id: [0x22; 16], founder: founder.clone() },
            format!("0100{cluster}{registered}"),
        ),
        (register, format!("0101{registered}")),
        (
            MetaCommand::DefineGroups { count: 64, replication: 3, replicas: vec![(1, vec![NodeId(1), NodeId(200)])] },
            "0102400301010201c801".to_owned(),
        ),
        (MetaCommand::Replace { old: NodeId(7), new: founder }, format!("010307{registered}")),
        (MetaCommand::Condemn { name: "a-0".into() }, "010403612d30".into()),
        (MetaCommand::Drain { name: "a-0".into(), reduce: true }, "010503612d3001".into()),
        (MetaCommand::Undrain { name: "a-0".into() }, "010603612d30".into()),
        (MetaCommand::Remove { name: "a-0".into() }, "010703612d30".into()),
        (
            MetaCommand::SetDocument { key: "p".into(), expect_version: 300, bytes: Bytes::from_static(b"xy") },
            "02080170ac02027879".into(),
        ),
    ];
    for (command, bytes) in golden {
        assert_eq!(hex(&command.encode()), bytes);
        assert_eq!(MetaCommand::decode(&command.encode()).unwrap(), command);
    }
    let outcomes = [
        (MetaOutcome::Bootstrapped { cluster_id: [0x22; 16] }, format!("0100{cluster}")),
        (MetaOutcome::Registered { id: NodeId(200) }, "0101c801".into()),
        (MetaOutcome::Defined, "0102".into()),
        (MetaOutcome::Refused { why: "no".into() }, "0103026e6f".into()),
        (MetaOutcome::DocumentSet { version: 300 }, "0204ac02".into()),
        (MetaOutcome::DocumentChanged { version: 2 }, "020502".into()),
    ];
    for (outcome, bytes) in outcomes {
        assert_eq!(hex(&outcome.encode()), bytes);
        assert_eq!(MetaOutcome::decode(&outcome.encode()).unwrap(), outcome);
    }
    let mut state = MetaState::default();
    state.apply(2, MetaCommand::Bootstrap { cluster_id: [0x22; 16], founder: node("a", 0x11, 1) });
    state.apply(3, MetaCommand::SetDocument { key: "p".into(), expect_version: 0, bytes: Bytes::from_static(b"xy") });
    let one = format!("01{cluster}01010161{uuid}0106613a37313030000000");
    assert_eq!(hex(&state.encode()), format!("02{one}0000 0100010100 0101700102 7879").replace(' ', ""));
    assert_eq!(MetaState::decode(&state.encode()).unwrap(), state);
}

#[test]
fn bytes_of_a_newer_release_ask_for_an_upgrade() {
    assert!(matches!(MetaCommand::decode(&[3, 0]), Err(DecodeError::Newer { found: 3, newest: 2, .. })));
    assert!(matches!(MetaCommand::decode(&[]), Err(DecodeError::Malformed { .. })));
    assert!(matches!(MetaCommand::decode(&[0, 1]), Err(DecodeError::Malformed { .. })));
    assert!(matches!(MetaOutcome::decode(&[1, 2, 0]), Err(DecodeError::Malformed { .. })));
}

fn any_command() -> impl Strategy<Value = MetaCommand> {
    let node = || (0..5_u8, 0..8_u8).prop_map(|(name, disk)| node(&format!("n{name}"), disk, 1));
    let replicas =
        proptest::collection::vec((0..4_u32, proptest::collection::vec((0..40_u64).prop_map(NodeId), 0..4)), 0..4);
    prop_oneof![
        1 => (0..2_u8, node()).prop_map(|(id, founder)| MetaCommand::Bootstrap { cluster_id: [id; 16], founder }),
        4 => node().prop_map(MetaCommand::Register),
        1 => (2..4_u32, replicas)
            .prop_map(|(count, replicas)| MetaCommand::DefineGroups { count, replication: 3, replicas }),
        1 => ((0..40_u64).prop_map(NodeId), node()).prop_map(|(old, new)| MetaCommand::Replace { old, new }),
        1 => (0..5_u8).prop_map(|name| MetaCommand::Condemn { name: format!("n{name}") }),
        1 => (0..5_u8, any::<bool>())
            .prop_map(|(name, reduce)| MetaCommand::Drain { name: format!("n{name}"), reduce }),
        1 => (0..5_u8).prop_map(|name| MetaCommand::Undrain { name: format!("n{name}") }),
        1 => (0..5_u8).prop_map(|name| MetaCommand::Remove { name: format!("n{name}") }),
        1 => (0..3_u8, 0..3_u64, proptest::collection::vec(any::<u8>(), 0..4)).prop_map(|(key, expect_version, bytes)| {
            MetaCommand::SetDocument { key: format!("k{key}"), expect_version, bytes: bytes.into() }
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_applied_ids_are_never_reused_and_replicas_are_living_nodes(
        commands in proptest::collection::vec(any_command(), 0..40)
    ) {
        let mut state = MetaState::default();
        let mut disks: BTreeMap<NodeId, [u8; 16]> = BTreeMap::new();
        for (index, command) in commands.into_iter().enumerate() {
            let before = state.clone();
            if refused(&state.apply(index as u64, command)) {
                prop_assert_eq!(&state, &before);
            }
            for (id, node) in state.nodes() {
                let disk = *disks.entry(id).or_insert(node.registration.node_uuid);
                prop_assert_eq!(disk, node.registration.node_uuid);
            }
            let living: Vec<_> = state.nodes().filter(|(_, node)| !node.retired).collect();
            let names: BTreeSet<_> = living.iter().map(|(_, node)| &node.registration.name).collect();
            prop_assert_eq!(names.len(), living.len(), "a name has one living node");
            for placement in state.groups().values() {
                prop_assert!(placement.replicas.iter().all(|id| state.node(*id).is_some()));
            }
            if state.cluster_id().is_some() {
                prop_assert!(state.meta_voters().len() % 2 == 1);
            }
        }
        prop_assert_eq!(MetaState::decode(&state.encode()).unwrap(), state);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = MetaCommand::decode(&bytes);
        let _ = MetaState::decode(&bytes);
        let _ = MetaOutcome::decode(&bytes);
    }
}
