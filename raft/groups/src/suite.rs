//! openraft's own storage suite over our adapters. Snapshots, which this release does not build, are stood in for.

use crate::{
    log_store::LogStore,
    machine::{Applier, GroupMachine, Progress, Sink},
    options::Blocking,
    testing::Journal,
    types::{LogId, StoredMembership, Types},
};
use futures::Stream;
use openraft::{
    OptionalSend, RaftSnapshotBuilder, StorageError,
    alias::{SnapshotMetaOf, SnapshotOf},
    storage::{EntryResponder, RaftStateMachine},
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
        let identity = Identity { cluster_id: [0; 16], node_uuid: [1; 16], disk_uuid: [2; 16], lane: 0 };
        let options = LaneOptions { segment_bytes: 1 << 20, ..LaneOptions::new(identity) };
        let lane = Lane::open(Arc::new(CrashDisk::new()), Arc::new(Still), options).expect("an empty disk");
        let histogram = prometheus::Histogram::with_opts(prometheus::HistogramOpts::new("a", "b")).expect("a name");
        let applier = Applier::start(Arc::new(Journal::default()), true, histogram).expect("no thread");
        let group = GroupId(1);
        let inner = GroupMachine::new(group, None, Sink::Data(applier), Progress::new(None), &Applied::default());
        let machine = WithSnapshots { inner: inner.expect("nothing applied"), installed: None, built: None };
        Ok(((), LogStore::new(lane, group, Blocking::Thread, None, None), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_log_and_machine_pass_openrafts_storage_suite() {
    Suite::test_all(Stores).await.expect("the suite passes");
}
