//! openraft's own storage suite over our adapters. Snapshots, which this release does not build, are stood in for.

use crate::{
    log_store::LogStore,
    machine::{Applier, GroupMachine, Progress, Sink},
    options::Blocking,
    testing::Journal,
    types::{LogId, StoredMembership, Types, blank},
};
use futures::Stream;
use openraft::{
    OptionalSend, RaftLogReader, RaftSnapshotBuilder, StorageError,
    alias::{SnapshotMetaOf, SnapshotOf},
    entry::RaftEntry,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
};
use raft_lanes::{Identity, Lane, LaneOptions, crash::CrashDisk};
use raft_types::{Applied, Clock, GroupId};
use std::{io, sync::Arc, time::Duration};

struct Still;
impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

/// Our machine for apply; a snapshot is only its meta.
struct WithSnapshots {
    inner: GroupMachine,
    installed: Option<SnapshotMetaOf<Types>>,
    built: Option<SnapshotMetaOf<Types>>,
}

struct Builder(SnapshotMetaOf<Types>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = ();
    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Ok(openraft::Snapshot { meta: self.0.clone(), snapshot: () })
    }
}

impl RaftStateMachine<Types> for WithSnapshots {
    type SnapshotData = ();
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        match &self.installed {
            Some(meta) => Ok((meta.last_log_id, meta.last_membership.clone())),
            None => self.inner.applied_state().await,
        }
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        self.inner.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (last_log_id, last_membership) = self.inner.applied_state().await.expect("in memory");
        let meta = openraft::SnapshotMeta { last_log_id, last_membership };
        self.built = Some(meta.clone());
        Builder(meta)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, (): ()) -> Result<(), io::Error> {
        self.installed = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        let meta = self.installed.clone().or_else(|| self.built.clone());
        Ok(meta.map(|meta| openraft::Snapshot { meta, snapshot: () }))
    }
}

struct Stores;

impl StoreBuilder<Types, LogStore, WithSnapshots, ()> for Stores {
    async fn build(&self) -> Result<((), LogStore, WithSnapshots), StorageError<Types>> {
        let histogram = prometheus::Histogram::with_opts(prometheus::HistogramOpts::new("a", "b")).expect("a name");
        let applier = Applier::start(Arc::new(Journal::default()), true, histogram).expect("no thread");
        let group = GroupId(1);
        let inner = GroupMachine::new(group, None, Sink::Data(applier), Progress::new(None), &Applied::default());
        let machine = WithSnapshots { inner: inner.expect("nothing applied"), installed: None, built: None };
        Ok(((), log_over_an_empty_disk(LaneOptions::new(IDENTITY)), machine))
    }
}

const IDENTITY: Identity = Identity { cluster_id: [0; 16], node_uuid: [1; 16], disk_uuid: [2; 16], lane: 0 };

fn log_over_an_empty_disk(options: LaneOptions) -> LogStore {
    let options = LaneOptions { segment_bytes: 1 << 20, ..options };
    let lane = Lane::open(Arc::new(CrashDisk::new()), Arc::new(Still), options).expect("an empty disk");
    LogStore::new(lane, GroupId(1), Blocking::Thread, None, None)
}

/// It ended the group, and with it the node: a leader of a healthy node died while another one was replaced.
#[tokio::test]
async fn what_was_purged_under_a_stream_is_no_error_of_the_storage() {
    let mut log = log_over_an_empty_disk(LaneOptions { cache_bytes: 0, ..LaneOptions::new(IDENTITY) });
    let entry = |index| blank(raft_types::LogPosition { term: 1, index });
    for index in 0..10 {
        log.append([entry(index)], IOFlushed::noop()).await.expect("a disk that works");
    }
    log.purge(entry(5).log_id()).await.expect("a disk that works");
    let indexes = |entries: Vec<crate::types::Entry>| entries.iter().map(|entry| entry.index()).collect::<Vec<_>>();
    assert_eq!(indexes(log.limited_get_log_entries(3, 10).await.expect("no error")), Vec::<u64>::new());
    assert_eq!(indexes(log.limited_get_log_entries(6, 10).await.expect("no error")), [6, 7, 8, 9]);
    assert_eq!(indexes(log.try_get_log_entries(3..10).await.expect("no error")), [6, 7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_log_and_machine_pass_openrafts_storage_suite() {
    Suite::test_all(Stores).await.expect("the suite passes");
}
