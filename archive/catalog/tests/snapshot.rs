//! The rows of a group go to another catalogue and are the same there, whatever was there before.

mod support;

use archive_catalog::{Admission, Command, Grounds, Include, InstanceHead, Level, OtherContent, Outcome, Target};
use archive_model::{CanonicalDigest, DataSet, Uid, VR, tags};
use bytes::Bytes;
use raft_types::{Applied, BodyRef, Exported, GroupId, StateMachine};
use std::ops::ControlFlow;
use support::{Bench, block, group_of, head, instance, query, text, upload};

const ONE: GroupId = GroupId(1);
const TWO: GroupId = GroupId(2);

fn export(bench: &Bench, group: GroupId) -> (Applied, Vec<Bytes>) {
    let (mut at, mut pieces) = (None, Vec::new());
    let mut sink = |exported| {
        match exported {
            Exported::At(applied) => at = Some(applied),
            Exported::Piece(piece) => pieces.push(piece),
        }
        ControlFlow::Continue(())
    };
    bench.catalog.export(group, &mut sink).expect("exported");
    (at.expect("the moment comes first"), pieces)
}

fn import(bench: &Bench, group: GroupId, (at, pieces): &(Applied, Vec<Bytes>)) {
    let mut pieces = pieces.iter().cloned();
    bench.catalog.import(group, at, &mut || Ok(pieces.next())).expect("imported");
}

fn grounds() -> Grounds {
    Grounds { reason: "asked for".into(), source: "10.0.0.1".into(), deleted_unix_ms: 7 }
}

fn target(study: &str, series: Option<&str>) -> Target {
    let uid = |text| Uid::parse(text).expect("a UID");
    Target { study: uid(study), series: series.map(uid), instance: None }
}

/// Instances of two patients in both groups; some large, some with versions, some still on their way, some deleted.
fn fill(bench: &mut Bench, first: usize, behind: usize) {
    for number in first..behind {
        let study = format!("1.{}", number % 7);
        let patient = if number % 7 < 3 { "A" } else { "B" };
        let set = instance(
            &study,
            &format!("2.{}.{}", number % 7, number % 2),
            &format!("3.{number}"),
            &[text(tags::PATIENT_ID, VR::LO, &[patient]), text(tags::MODALITY, VR::CS, &["CT"])],
        );
        let group = group_of(&study);
        if number % 5 == 0 {
            let parts: Vec<_> = (0..3).map(|seq| block(bench.next_index(group) + seq, 100)).collect();
            let upload = upload(u8::try_from(number).expect("few"));
            for seq in 0..3 {
                bench.run(group, &Command::Block { upload, seq }, 100);
            }
            if number % 10 == 0 {
                bench.run(group, &Command::Commit { upload, head: head(&set, 300, 1), blocks: parts }, 0);
            }
        } else {
            let canonical = (number % 2 == 1).then(|| CanonicalDigest::of_digest([1; 32]));
            bench.put_with(&InstanceHead { canonical, ..head(&set, 10, 1) });
        }
        if number % 4 == 0 {
            // Some are of before canonical digests, of some a version has one, of some both have.
            let canonical = (number % 3 > 0).then(|| CanonicalDigest::of_digest([2; 32]));
            bench.put_with(&InstanceHead { canonical, ..head(&set, 20, 2) }); // another content, or the first one of an upload that never ended
        }
        if number % 9 == 8 {
            let target = target(&study, (number % 2 == 0).then(|| format!("2.{}.0", number % 7)).as_deref());
            bench.run(group, &Command::Delete { target, grounds: grounds() }, 0);
        }
    }
}

fn everything(bench: &Bench) -> Vec<Vec<DataSet>> {
    let levels = [Level::Patient, Level::Study, Level::Series, Level::Instance];
    levels
        .iter()
        .map(|level| bench.find(&archive_catalog::Find { include: Include::All, ..query(*level, &[]) }))
        .collect()
}

#[test]
fn a_group_is_the_same_where_its_rows_were_imported_and_other_groups_are_untouched() {
    let (mut leader, mut follower) = (Bench::new(), Bench::new());
    fill(&mut leader, 0, 60);
    // The follower is behind in one group, and its rows have other local numbers.
    fill(&mut follower, 0, 25);
    let other_before = export(&follower, TWO);
    let (sent, other) = (export(&leader, ONE), export(&leader, TWO));
    import(&follower, ONE, &sent);
    assert_eq!(export(&follower, ONE), sent, "the same rows make the same bytes");
    assert_eq!(export(&follower, TWO), other_before);
    assert_eq!(follower.catalog.incomplete().expect("read"), [ONE]);
    import(&follower, TWO, &other);
    assert_eq!(everything(&follower), everything(&leader));
    assert_eq!(follower.catalog.totals().expect("totals"), leader.catalog.totals().expect("totals"));
    follower.catalog.set_complete(ONE).expect("marked");
    assert_eq!(follower.catalog.incomplete().expect("read"), [TWO]);
    assert_eq!(follower.catalog.applied().expect("positions"), leader.catalog.applied().expect("positions"));
    // And it goes on from there as the leader does.
    for bench in [&mut leader, &mut follower] {
        let position = bench.catalog.applied().expect("positions");
        let last = position.iter().find(|(group, _)| *group == ONE).expect("applied").1.position.expect("some").index;
        bench.skip(ONE, (last + 1).saturating_sub(bench.next_index(ONE)));
        let last = position.iter().find(|(group, _)| *group == TWO).expect("applied").1.position.expect("some").index;
        bench.skip(TWO, (last + 1).saturating_sub(bench.next_index(TWO)));
        fill(bench, 60, 90);
    }
    assert_eq!(everything(&follower), everything(&leader));
    assert_eq!(export(&follower, ONE), export(&leader, ONE));
}

#[test]
fn an_import_over_what_is_there_already_changes_nothing() {
    let mut bench = Bench::new();
    fill(&mut bench, 0, 40);
    let (before, totals) = (everything(&bench), bench.catalog.totals().expect("totals"));
    let rows = export(&bench, ONE);
    import(&bench, ONE, &rows);
    assert_eq!((everything(&bench), bench.catalog.totals().expect("totals")), (before, totals));
}

#[test]
fn rows_that_end_early_or_are_none_leave_everything_as_it_was() {
    let mut bench = Bench::new();
    fill(&mut bench, 0, 40);
    let (at, _) = export(&bench, ONE);
    let before = bench.dump();
    let broken = bench.catalog.import(ONE, &at, &mut || Err(std::io::ErrorKind::UnexpectedEof.into()));
    assert!(broken.is_err());
    for piece in [&b""[..], b"\x01\xff\xff", b"\x02"] {
        let mut once = Some(Bytes::from_static(piece));
        assert!(bench.catalog.import(ONE, &at, &mut || Ok(once.take())).is_err(), "{piece:?}");
    }
    assert_eq!(bench.dump(), before);
}

#[test]
fn the_bodies_that_rows_name_are_those_of_instances_versions_and_uploads() {
    let mut bench = Bench::new();
    let group = group_of("1.1");
    let set = |number: u8| instance("1.1", "1.2", &format!("1.3.{number}"), &[]);
    bench.put(&head(&set(1), 10, 1)); // 1
    bench.put(&head(&set(1), 10, 1)); // 2: the same again, its body is not needed
    bench.put(&head(&set(1), 11, 2)); // 3: a version
    bench.run(group, &Command::Block { upload: upload(1), seq: 0 }, 7); // 4: on its way
    bench.run(group, &Command::Block { upload: upload(2), seq: 0 }, 8); // 5: given up
    bench.run(group, &Command::Abort { uploads: vec![upload(2)] }, 0); // 6
    let body = |index, length_bytes| BodyRef { index, length_bytes };
    assert_eq!(bench.catalog.bodies(group).expect("bodies"), [body(1, 10), body(3, 11), body(4, 7)]);
}

/// V-5, in rows that were there before canonical digests, in new ones, and where those were imported.
#[test]
fn padding_is_no_content_and_an_old_row_is_told_apart_by_its_bytes() {
    let mut leader = Bench::new();
    let set = instance("1.1", "1.2", "1.3", &[]);
    let sent = |bytes: u8, canonical: Option<u8>| InstanceHead {
        canonical: canonical.map(|number| CanonicalDigest::of_digest([number; 32])),
        ..head(&set, u64::from(bytes), bytes)
    };
    let stored = Outcome::Stored;
    assert_eq!(leader.put_with(&sent(10, None)), stored(Admission::New), "of an older release");
    assert_eq!(leader.put_with(&sent(10, Some(1))), stored(Admission::Same), "the same bytes");
    assert_eq!(leader.put_with(&sent(11, Some(1))), stored(Admission::Version { number: 1 }), "it cannot be told");
    assert_eq!(leader.put_with(&sent(12, Some(1))), stored(Admission::Alike), "to a version");
    assert_eq!(leader.put_with(&sent(13, Some(3))), stored(Admission::Version { number: 2 }));
    assert_eq!(leader.put_with(&sent(14, None)), stored(Admission::Version { number: 3 }));
    let mut follower = Bench::new();
    let group = group_of("1.1");
    let rows = export(&leader, group);
    assert_eq!(rows.1[0][0], 5, "a piece with canonical digests is of version 5");
    import(&follower, group, &rows);
    follower.skip(group, 6);
    for bench in [&mut leader, &mut follower] {
        for policy in [OtherContent::Keep, OtherContent::Reject, OtherContent::Replace] {
            let again = Command::put_small(sent(15, Some(3)), policy);
            assert_eq!(bench.run(group, &again, 15), stored(Admission::Alike), "{policy:?}");
        }
        let replace = Command::put_small(sent(16, Some(4)), OtherContent::Replace);
        assert_eq!(bench.run(group, &replace, 16), stored(Admission::Replaced { number: 4 }));
        assert_eq!(bench.put_with(&sent(17, Some(4))), stored(Admission::Alike), "to what the UID answers");
        assert_eq!(bench.put_with(&sent(18, Some(1))), stored(Admission::Alike), "to a version, still");
        assert_eq!(bench.catalog.totals().expect("totals").versions, 4);
    }
    assert_eq!(export(&leader, group), export(&follower, group));
}

/// Older releases know every row but the last, and pieces without that are theirs.
#[test]
fn the_bytes_of_a_canonical_row_are_those_of_version_5() {
    let mut bench = Bench::new();
    let set = instance("1.1", "1.2", "1.3", &[]);
    let canonical = Some(CanonicalDigest::of_digest([9; 32]));
    bench.put(&head(&set, 10, 1));
    let group = group_of("1.1");
    let before = export(&bench, group).1.swap_remove(0);
    assert_eq!(before[..2], [3, 4], "version 3: patient, study, series, instance");
    let mut bench = Bench::new();
    bench.put_with(&InstanceHead { canonical, ..head(&set, 10, 1) });
    let piece = export(&bench, group).1.swap_remove(0);
    // 12 = Canonical([rule 1, digest]), and everything in front of it is as it was.
    let row = [&[12, 33, 1][..], &[9; 32]].concat();
    assert_eq!(piece, [&[5, 5][..], &before[2..], &row].concat());
}

/// D-1, D-2: through a snapshot too.
#[test]
fn deleted_stays_deleted_where_the_rows_were_imported() {
    let (mut leader, mut follower) = (Bench::new(), Bench::new());
    let group = group_of("1.1");
    let stored = head(&instance("1.1", "1.2", "1.3", &[]), 10, 1);
    leader.put(&stored);
    follower.put(&stored);
    let delete = Command::Delete { target: target("1.1", None), grounds: grounds() };
    assert_eq!(leader.run(group, &delete, 0), Outcome::Deleted { instances: 1, bytes: 10 });
    import(&follower, group, &export(&leader, group));
    follower.skip(group, 1);
    for bench in [&mut leader, &mut follower] {
        assert!(everything(bench).iter().all(Vec::is_empty));
        assert_eq!(bench.catalog.bodies(group).expect("bodies"), []);
        assert_eq!(bench.put(&stored), Outcome::Refused(archive_catalog::RefusedWhy::Deleted), "a late copy");
        assert_eq!(bench.run(group, &delete, 0), Outcome::Deleted { instances: 0, bytes: 0 });
        let tombstones = bench.catalog.tombstones(Some(&stored.study), 10).expect("tombstones");
        let [one] = &tombstones[..] else { panic!("one tombstone: {tombstones:?}") };
        assert_eq!((one.instances, one.bytes, &*one.reason), (1, 10, "asked for"));
        assert_eq!(bench.catalog.tombstones(Some(&stored.series), 10).expect("tombstones"), []);
        let anew = InstanceHead { received_unix_ms: 99, ..stored.clone() };
        assert_eq!(bench.put(&anew), Outcome::Stored(Admission::New), "sent anew");
    }
    assert_eq!(export(&leader, group), export(&follower, group));
}

#[test]
fn what_is_settled_is_what_is_applied() {
    let mut bench = Bench::new();
    assert_eq!(bench.catalog.settle().expect("settled"), []);
    fill(&mut bench, 0, 10);
    let applied: Vec<_> = bench.catalog.applied().expect("positions");
    let settled = bench.catalog.settle().expect("settled");
    assert_eq!(settled, applied.into_iter().map(|(group, at)| (group, at.position.expect("some"))).collect::<Vec<_>>());
}
