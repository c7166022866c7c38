//! Backups over a store in memory, over one that misbehaves, and over a folder.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use raft_tier::{
    ClusterStore, Manifest, Options, Progress, Report, Repository, Source, TierError, create, prune, restore_group,
    verify,
};
use raft_types::{BlockAddress, GroupId, StateMachine};
use rand::{Rng, SeedableRng};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use support::{Box2, CLUSTER, Fake, Rows, SMALL, Shelf, Ticks, content, faulty::Faulty, memory, over};

async fn back_up(fake: &Arc<Fake>, store: &ClusterStore, clock: &Ticks) -> Result<Manifest, TierError> {
    let source: Arc<dyn Source> = Arc::<Fake>::clone(fake);
    create(source, store, SMALL, clock, 1, &Progress::default()).await
}

async fn check(store: &ClusterStore, id: &str) -> Report {
    let scratch: Arc<dyn StateMachine> = Arc::new(Shelf::default());
    verify(store, id, scratch, &Progress::default()).await.expect("the store answers")
}

/// Restores into something new.
async fn restore(store: &ClusterStore, id: &str, keep: &Arc<Box2>, shelf: &Arc<Shelf>) -> Result<(), TierError> {
    let manifest = store.manifest(id).await?;
    let machine: Arc<dyn StateMachine> = Arc::<Shelf>::clone(shelf);
    let keep: Arc<dyn raft_tier::Keep> = Arc::<Box2>::clone(keep);
    for entry in &manifest.groups {
        restore_group(store, entry, &machine, &keep, &Progress::default()).await?;
    }
    Ok(())
}

fn filled(groups: u32, bodies: u32) -> Arc<Fake> {
    let fake = Fake::new(groups);
    for number in 0..bodies {
        fake.put(number % groups + 1, 200 + number * 37 % 1500);
    }
    fake
}

fn rows_of(fake: &Fake) -> BTreeMap<GroupId, Rows> {
    fake.shelf.rows.lock().clone()
}

async fn restored_is(store: &ClusterStore, id: &str, rows: &BTreeMap<GroupId, Rows>) {
    let (keep, shelf) = (Box2::new(u64::MAX), Arc::new(Shelf::default()));
    restore(store, id, &keep, &shelf).await.expect("sound");
    assert_eq!(*shelf.rows.lock(), *rows);
    assert!(shelf.incomplete().unwrap().is_empty(), "everything is here");
    let held = keep.held.lock();
    let named =
        rows.iter().flat_map(|(group, rows)| rows.bodies.iter().map(|(index, length)| (*group, *index, *length)));
    let mut count = 0;
    for (group, index, length) in named {
        assert_eq!(held[&(group, index)], content(BlockAddress { group, index }, length));
        count += 1;
    }
    assert_eq!(held.len(), count, "nothing that no row names");
}

/// Random puts, deletes and backups; each backup is restored and compared with what was there when it was made.
#[tokio::test]
async fn whatever_was_put_and_deleted_is_restored_as_it_was_at_each_backup() {
    for seed in 0..12 {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let ((_, store), fake, clock) = (memory(), Fake::new(3), Ticks::default());
        let mut points = Vec::new();
        for _ in 0..6 {
            for _ in 0..chance.random_range(0..40) {
                let group = chance.random_range(1..=3);
                if chance.random_bool(0.8) {
                    fake.put(group, chance.random_range(1..2_500));
                } else {
                    fake.delete(group, chance.random_range(0..40));
                }
            }
            let manifest = back_up(&fake, &store, &clock).await.expect("the store works");
            points.push((manifest.id, rows_of(&fake)));
        }
        for (id, rows) in &points {
            let report = check(&store, id).await;
            assert!(report.is_sound(), "seed {seed}: {report:?}");
            restored_is(&store, id, rows).await;
        }
        let kept = chance.random_range(1..4);
        prune(&store, kept, true, "1").await.expect("pruned");
        assert_eq!(store.backups().await.unwrap().len(), kept);
        for (id, rows) in points.iter().rev().take(kept) {
            restored_is(&store, id, rows).await;
        }
    }
}

/// B1, B2: the maker dies before each of its calls in turn.
#[tokio::test]
async fn a_backup_that_dies_at_any_step_leaves_none_and_the_next_one_is_whole() {
    let fake = filled(2, 40);
    let mut steps = 0;
    for dies_at in 0.. {
        let (inner, sound) = memory();
        let faulty = Arc::new(Faulty { dies_at, ..Faulty::new(&inner) });
        let clock = Ticks::default();
        let made = back_up(&fake, &over(Arc::<Faulty>::clone(&faulty) as Arc<dyn ObjectStore>), &clock).await;
        let backups = sound.backups().await.unwrap();
        match made {
            Ok(manifest) => {
                assert_eq!(backups, std::slice::from_ref(&manifest.id));
                assert!(check(&sound, &manifest.id).await.is_sound());
            }
            // The manifest may be there when only the look at it failed: then it is whole.
            Err(_) => {
                for id in &backups {
                    assert!(check(&sound, id).await.is_sound(), "call {dies_at}");
                }
            }
        }
        let next = back_up(&fake, &sound, &clock).await.expect("goes on");
        assert!(check(&sound, &next.id).await.is_sound(), "after a death at call {dies_at}");
        restored_is(&sound, &next.id, &rows_of(&fake)).await;
        if faulty.calls.load(SeqCst) < dies_at {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "only {steps} steps");
}

/// B1: 503, silence, lost and altered puts, cut and altered reads. Either it says that it failed, or it is whole.
#[tokio::test(start_paused = true)]
async fn nothing_is_called_good_that_is_not_whatever_the_store_does() {
    let (mut made, mut failed) = (0, 0);
    for seed in 0..60 {
        let fake = filled(2, 30);
        let (inner, sound) = memory();
        let clock = Ticks::default();
        for percent in [8, 30] {
            let faulty = over(Arc::new(Faulty::troubled(&inner, seed, percent)));
            match back_up(&fake, &faulty, &clock).await {
                Ok(manifest) => {
                    made += 1;
                    let report = check(&sound, &manifest.id).await;
                    assert!(report.is_sound(), "seed {seed}: {report:?}");
                }
                Err(_) => failed += 1,
            }
            fake.put(1, 700);
        }
        // What failed ones left harms no later one.
        let next = back_up(&fake, &sound, &clock).await.expect("the store works again");
        assert!(check(&sound, &next.id).await.is_sound(), "seed {seed}");
    }
    assert!(made > 20 && failed > 10, "{made} were made, {failed} failed");
}

/// B2: the packs that a failed backup left are not sent again.
#[tokio::test]
async fn packs_of_a_failed_backup_are_used_by_the_next_one() {
    let fake = filled(1, 60);
    let (inner, sound) = memory();
    let whole = Arc::new(Faulty::new(&inner));
    let clock = Ticks::default();
    let store = over(Arc::<Faulty>::clone(&whole) as Arc<dyn ObjectStore>);
    back_up(&fake, &store, &clock).await.unwrap();
    let calls = whole.calls.load(SeqCst);
    // The same again elsewhere, dead just before its manifest.
    let (inner, sound_again) = memory();
    let dying = Faulty { dies_at: calls - 3, ..Faulty::new(&inner) };
    assert!(back_up(&fake, &over(Arc::new(dying)), &clock).await.is_err());
    assert!(sound_again.backups().await.unwrap().is_empty());
    let reads = fake.reads.load(SeqCst);
    let next = back_up(&fake, &sound_again, &clock).await.unwrap();
    assert_eq!(fake.reads.load(SeqCst), reads, "every body was in a pack already");
    assert!(check(&sound_again, &next.id).await.is_sound());
    drop(sound);
}

#[tokio::test]
async fn only_what_is_new_is_read_and_sent() {
    let fake = filled(2, 60);
    let ((_, store), clock) = (memory(), Ticks::default());
    let first = back_up(&fake, &store, &clock).await.unwrap();
    assert_eq!(first.totals.sent_bytes, first.totals.stored_bytes);
    let reads = fake.reads.load(SeqCst);
    let same = back_up(&fake, &store, &clock).await.unwrap();
    assert_eq!((same.totals.sent_bytes, fake.reads.load(SeqCst)), (0, reads));
    assert_eq!(same.previous.as_deref(), Some(first.id.as_str()));
    fake.put(1, 900);
    let more = back_up(&fake, &store, &clock).await.unwrap();
    assert_eq!(fake.reads.load(SeqCst), reads + 1);
    assert!(more.totals.sent_bytes < 900 + 2_000, "{}", more.totals.sent_bytes);
}

/// B5, over a store that is slow to take: memory is what was set, and two packs are on their way.
#[tokio::test(start_paused = true)]
async fn memory_and_the_queue_are_bounded() {
    let fake = Fake::new(1);
    for _ in 0..300 {
        fake.put(1, 1 << 20);
    }
    let (inner, _) = memory();
    let faulty = Arc::new(Faulty { slow: Some(Duration::from_secs(20)), ..Faulty::new(&inner) });
    let options = Options { memory_bytes: 40 << 20, ..Options::default() };
    let source: Arc<dyn Source> = Arc::<Fake>::clone(&fake);
    let store = over(Arc::<Faulty>::clone(&faulty) as Arc<dyn ObjectStore>);
    create(source, &store, options, &Ticks::default(), 1, &Progress::default()).await.unwrap();
    let most = fake.held_bytes_max.load(SeqCst);
    // The store in memory keeps a copy of its own.
    assert!(most <= options.memory_bytes, "{most} bytes of bodies at one time");
    assert!(most > 20 << 20, "two packs and more: the bound was met");
    assert!(faulty.putting_max.load(SeqCst) <= 2, "{}", faulty.putting_max.load(SeqCst));
}

/// B3: a body that is deleted between the look at the rows and its turn begins its group anew.
#[tokio::test]
async fn a_body_that_is_deleted_meanwhile_is_not_missed_and_not_named() {
    let fake = filled(1, 30);
    let ((_, store), clock) = (memory(), Ticks::default());
    *fake.vanishes.lock() = Some(BlockAddress { group: GroupId(1), index: 17 });
    let manifest = back_up(&fake, &store, &clock).await.expect("begun anew");
    assert_eq!(manifest.groups[0].bodies, 29);
    assert!(check(&store, &manifest.id).await.is_sound());
    restored_is(&store, &manifest.id, &rows_of(&fake)).await;
}

#[tokio::test]
async fn rows_that_end_before_their_end_make_no_backup() {
    let fake = filled(1, 30);
    fake.rows_break.store(true, SeqCst);
    let ((_, store), clock) = (memory(), Ticks::default());
    let error = back_up(&fake, &store, &clock).await.expect_err("rows are missing").to_string();
    assert!(error.contains("ended before their end"), "{error}");
    assert!(store.backups().await.unwrap().is_empty());
}

async fn objects(memory: &InMemory) -> Vec<Path> {
    let listed: Vec<_> = futures::TryStreamExt::try_collect(memory.list(None)).await.unwrap();
    listed.into_iter().map(|meta: object_store::ObjectMeta| meta.location).collect()
}

/// B4.
#[tokio::test]
async fn a_flipped_byte_or_a_lost_object_is_found_and_named_and_never_restored() {
    let fake = filled(2, 24);
    let ((memory, store), clock) = (memory(), Ticks::default());
    let id = back_up(&fake, &store, &clock).await.unwrap().id;
    let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    for object in objects(&memory).await {
        let sound = memory.get(&object).await.unwrap().bytes().await.unwrap();
        for _ in 0..6 {
            let mut bytes = sound.to_vec();
            let at = chance.random_range(0..bytes.len());
            bytes[at] ^= 1 << chance.random_range(0..8);
            memory.put(&object, bytes.into()).await.unwrap();
            named(&store, &id, &object).await;
        }
        memory.delete(&object).await.unwrap();
        if !object.as_ref().contains("/backups/") {
            named(&store, &id, &object).await;
        }
        memory.put(&object, sound.into()).await.unwrap();
    }
    assert!(check(&store, &id).await.is_sound());
    restored_is(&store, &id, &rows_of(&fake)).await;
}

async fn named(store: &ClusterStore, id: &str, object: &Path) {
    let name = object.filename().unwrap();
    let report = check(store, id).await;
    assert!(report.damage.iter().any(|damage| damage.object.contains(name)), "{object}: {report:?}");
    let error = restore(store, id, &Box2::new(u64::MAX), &Arc::new(Shelf::default())).await.expect_err("damaged");
    assert!(error.to_string().contains(name), "{error}");
}

#[tokio::test]
async fn a_restore_that_was_cut_off_fetches_only_what_it_misses() {
    let fake = filled(1, 80);
    let (inner, store) = memory();
    let id = back_up(&fake, &store, &Ticks::default()).await.unwrap().id;
    let packs = store.manifest(&id).await.unwrap().groups[0].packs.len() as u64;
    let (keep, shelf) = (Box2::new(packs / 2), Arc::new(Shelf::default()));
    restore(&store, &id, &keep, &shelf).await.expect_err("the disk is full");
    assert!(!shelf.incomplete().unwrap().is_empty(), "not complete");
    keep.fails_after.store(u64::MAX, SeqCst);
    let counting = Arc::new(Faulty::new(&inner));
    restore(&over(Arc::<Faulty>::clone(&counting) as Arc<dyn ObjectStore>), &id, &keep, &shelf).await.expect("goes on");
    // The manifest, the end of each pack, and the packs that were missing; no rows.
    let gets = counting.gets.load(SeqCst);
    assert!(gets <= 1 + packs + packs.div_ceil(2), "{gets} reads for {packs} packs");
    assert!(shelf.incomplete().unwrap().is_empty());
}

/// B6.
#[tokio::test]
async fn what_is_kept_stays_whole_and_nobody_prunes_while_a_backup_is_made() {
    let fake = filled(2, 40);
    let ((memory, store), clock) = (memory(), Ticks::default());
    let first = back_up(&fake, &store, &clock).await.unwrap();
    for index in 0..20 {
        fake.delete(1, index);
    }
    fake.put(2, 50);
    let second = back_up(&fake, &store, &clock).await.unwrap();
    let before = objects(&memory).await.len();
    let counted = prune(&store, 1, false, "1").await.unwrap();
    assert_eq!(
        (objects(&memory).await.len(), counted.done, counted.backups.as_slice()),
        (before, false, &[first.id][..])
    );
    assert!(counted.packs > 0, "the images of some packs were all deleted");

    let at_work = Path::from(format!("some/prefix/{CLUSTER}/locks/backup-9-9"));
    memory.put(&at_work, "at work\n".into()).await.unwrap();
    let error = prune(&store, 1, true, "2").await.expect_err("a backup is being made").to_string();
    assert!(error.contains("backup-9-9") && error.contains("wait"), "{error}");
    memory.delete(&at_work).await.unwrap();
    let at_work = Path::from(format!("some/prefix/{CLUSTER}/locks/prune-9-9"));
    memory.put(&at_work, "at work\n".into()).await.unwrap();
    assert!(matches!(back_up(&fake, &store, &clock).await, Err(TierError::Busy(_))));
    memory.delete(&at_work).await.unwrap();

    let pruned = prune(&store, 1, true, "3").await.unwrap();
    assert_eq!((pruned.packs, pruned.rows, pruned.bytes), (counted.packs, counted.rows, counted.bytes));
    assert!(check(&store, &second.id).await.is_sound());
    restored_is(&store, &second.id, &rows_of(&fake)).await;
    let again = prune(&store, 1, false, "4").await.unwrap();
    assert_eq!((again.packs, again.rows), (0, 0));
    assert!(objects(&memory).await.iter().all(|object| !object.as_ref().contains("/locks/")), "locks are given back");
}

#[tokio::test]
async fn a_backup_is_chosen_by_id_by_time_or_as_the_newest() {
    let fake = filled(1, 3);
    let ((_, store), clock) = (memory(), Ticks::default());
    assert!(matches!(store.pick(None).await, Err(TierError::NoBackup(_))));
    let first = back_up(&fake, &store, &clock).await.unwrap();
    let second = back_up(&fake, &store, &clock).await.unwrap();
    assert_eq!(store.pick(None).await.unwrap(), second.id);
    assert_eq!(store.pick(Some(&first.id)).await.unwrap(), first.id);
    let between = raft_tier::format_unix_ms(first.started_unix_ms);
    assert_eq!(store.pick(Some(&between)).await.unwrap(), first.id);
    assert_eq!(store.pick(Some("2025-11-27")).await.unwrap(), second.id);
    assert!(store.pick(Some("2025-11-25")).await.is_err());
    assert!(store.pick(Some("lately")).await.unwrap_err().to_string().contains("neither the id"));
}

#[tokio::test]
async fn a_folder_is_a_store_and_addresses_that_are_none_say_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/backups", folder.path().display());
    assert!(Repository::open(&url).unwrap_err().to_string().contains("no such folder"), "reading makes none");
    let repository = Repository::create(&url).expect("a folder");
    assert!(repository.the_cluster(None).await.unwrap_err().to_string().contains("holds no backup"));
    let (fake, clock) = (filled(2, 20), Ticks::default());
    let id = back_up(&fake, &repository.cluster(CLUSTER), &clock).await.expect("made").id;
    let store = repository.the_cluster(None).await.expect("the only one");
    assert!(check(&store, &id).await.is_sound());
    restored_is(&store, &id, &rows_of(&fake)).await;
    for bad in ["/plain/path", "file://relative", "s3://", "ftp://x/y"] {
        assert!(Repository::open(bad).unwrap_err().to_string().contains("s3://bucket/prefix"), "{bad}");
    }
}
