//! Backups that this node makes: on order, and now and then by itself.

use archive_catalog::Catalog;
use bytes::Bytes;
use parking_lot::Mutex;
use raft_groups::Node;
use raft_tier::{ClusterStore, Manifest, Options, Progress, Repository, Source, TierError, create};
use raft_types::{BlockAddress, BodyRef, BoxFuture, GroupId, KeptDocument, Propose, Seed, StateMachine};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    serve::until,
    world::{SystemClock, SystemSeed},
};

/// Between two looks whether a backup is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The node as a backup sees it.
struct NodeSource {
    node: Arc<Node>,
    catalog: Arc<Catalog>,
    cluster_id: Uuid,
}

impl Source for NodeSource {
    fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    fn node(&self) -> String {
        self.node.identity().borrow().name.clone()
    }

    fn groups(&self) -> Vec<GroupId> {
        self.node.groups()
    }

    fn rows(&self, group: GroupId) -> BoxFuture<'_, Result<raft_groups::RowsReceiver, String>> {
        Box::pin(self.node.rows_of(group))
    }

    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, String> {
        self.catalog.bodies_of(piece).map_err(|error| crate::chain(&error))
    }

    fn documents(&self) -> Vec<KeptDocument> {
        self.node.kept_documents()
    }

    fn body(&self, address: BlockAddress, length_bytes: u32) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let read = self.node.read(address, 0..u64::from(length_bytes)).await;
            read.map_err(|error| error.to_string())
        })
    }
}

/// What is said of a backup.
#[derive(Default)]
enum State {
    /// None was begun since the start.
    #[default]
    None,
    Running {
        to: String,
        progress: Arc<Progress>,
    },
    Done {
        to: String,
        progress: Arc<Progress>,
        manifest: Box<Manifest>,
    },
    Failed {
        to: String,
        progress: Arc<Progress>,
        why: String,
    },
}

/// The backups of this node: at most one runs.
pub(crate) struct Backups {
    node: Arc<Node>,
    catalog: Arc<Catalog>,
    state: Mutex<State>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Backups {
    pub(crate) fn new(
        node: Arc<Node>,
        catalog: Arc<Catalog>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { node, catalog, state: Mutex::default(), tasks, stop })
    }

    /// Begins a backup, which goes on in the background.
    pub(crate) fn begin(self: &Arc<Self>, to: &str) -> Result<(), String> {
        let progress = self.occupy(to)?;
        let (own, to) = (Arc::clone(self), to.to_owned());
        let stop = self.stop.clone();
        self.tasks.spawn(until(stop, async move { own.run(to, progress).await }));
        Ok(())
    }

    /// Takes the only place.
    fn occupy(&self, to: &str) -> Result<Arc<Progress>, String> {
        let cluster_known = self.node.identity().borrow().cluster_id.is_some();
        if !cluster_known {
            return Err("this node belongs to no cluster yet: try again when it is ready".into());
        }
        let mut state = self.state.lock();
        if let State::Running { to, .. } = &*state {
            return Err(format!("a backup to {to} is being made here: wait until it has ended"));
        }
        let progress = Arc::new(Progress::default());
        *state = State::Running { to: to.to_owned(), progress: Arc::clone(&progress) };
        Ok(progress)
    }

    async fn run(&self, to: String, progress: Arc<Progress>) {
        let made = self.make(&to, &progress).await;
        let state = match made {
            Ok(manifest) => {
                let totals = manifest.totals;
                info!(
                    id = manifest.id,
                    bodies = totals.bodies,
                    stored_bytes = totals.stored_bytes,
                    sent_bytes = totals.sent_bytes,
                    "backup made"
                );
                State::Done { to, progress, manifest: Box::new(manifest) }
            }
            Err(error) => {
                let why = crate::chain(&error);
                error!(why, "no backup was made");
                State::Failed { to, progress, why }
            }
        };
        *self.state.lock() = state;
    }

    async fn make(&self, to: &str, progress: &Progress) -> Result<Manifest, TierError> {
        let (store, cluster_id) = self.store(to).await?;
        let source = NodeSource { node: Arc::clone(&self.node), catalog: Arc::clone(&self.catalog), cluster_id };
        let nonce = u32::try_from(SystemSeed.next() >> 32).unwrap_or_default();
        create(Arc::new(source), &store, Options::default(), &SystemClock::new(), nonce, progress).await
    }

    async fn store(&self, to: &str) -> Result<(ClusterStore, Uuid), TierError> {
        let unknown = || TierError::Source { what: "its cluster".into(), why: "it belongs to none yet".into() };
        let cluster_id = self.node.identity().borrow().cluster_id.ok_or_else(unknown)?;
        let url = to.to_owned();
        let opened = tokio::task::spawn_blocking(move || Repository::create(&url)).await;
        let repository =
            opened.map_err(|error| TierError::Target { step: format!("open {to}"), why: error.to_string() })??;
        Ok((repository.cluster(cluster_id), cluster_id))
    }

    /// Makes a backup whenever the newest one is old enough, as long as this node leads the meta group.
    pub(crate) async fn make_now_and_then(self: Arc<Self>, to: String, every: Duration) {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let (clock, mut newest) = (SystemClock::new(), None);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = raft_types::Clock::unix_ms(&clock);
            let is_due = |newest: Option<u64>| newest.is_none_or(|newest| now.saturating_sub(newest) >= every_ms);
            if !self.node.is_meta_leader() || !is_due(newest) {
                continue;
            }
            // Another node may have made one while it led.
            newest = match self.newest(&to).await {
                Ok(newest) => newest,
                Err(error) => {
                    warn!(error = crate::chain(&error), "whether a backup is due is not known");
                    continue;
                }
            };
            if !is_due(newest) {
                continue;
            }
            match self.occupy(&to) {
                Ok(progress) => self.run(to.clone(), progress).await,
                Err(why) => info!(why, "a backup is due and waits"),
            }
        }
    }

    /// When the newest backup was begun.
    async fn newest(&self, to: &str) -> Result<Option<u64>, TierError> {
        let ids = self.store(to).await?.0.backups().await?;
        Ok(ids.last().and_then(|id| id.split_once('-')?.0.parse().ok()))
    }

    /// The backup that runs, or the last one.
    pub(crate) fn state(&self) -> Value {
        match &*self.state.lock() {
            State::None => json!({ "state": "none" }),
            State::Running { to, progress } => json!({ "state": "running", "to": to, "progress": progress.view() }),
            State::Done { to, progress, manifest } => json!({
                "state": "done", "to": to, "progress": progress.view(), "id": manifest.id,
                "cluster_id": manifest.cluster_id, "started_unix_ms": manifest.started_unix_ms,
                "finished_unix_ms": manifest.finished_unix_ms, "totals": manifest.totals, "previous": manifest.previous,
            }),
            State::Failed { to, progress, why } => {
                json!({ "state": "failed", "to": to, "progress": progress.view(), "why": why })
            }
        }
    }
}
