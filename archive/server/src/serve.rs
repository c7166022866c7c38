//! `triptych serve`: opens what is on disk, starts what listens, says where, and stops in the right order.
//!
//! ```text
//!  start:  ports → lock the folder → identity → lane (recovery) → catalogue → wire → node (joins in the background)
//!          → use cases → dimse, web
//!  stop:   not ready → dimse, web (drain) → use cases → node (hands over its leaders) → wire → lane → catalogue
//! ```

use crate::{
    Failure,
    alone::Alone,
    backup::Backups,
    logging, peer,
    settings::{ServeFlags, Settings},
    watchdog,
    world::{SystemClock, SystemSeed},
};
use archive_catalog::{Catalog, CatalogOptions};
use archive_dimse::{AvailabilityNotifier, CommitmentReporter, Deadlines, DimseServer, DimseSettings, InstanceSender};
use archive_model::AeTitle;
use archive_service::{Archive, RemoteAe, ServiceSettings};
use archive_web::{Health, NodeOrder, Web, WebSettings};
use raft_groups::{Identity, Node, NodeOptions, Retention, Unfinished, Upkeep};
use raft_lanes::{FolderDisk, Lane, LaneMetrics, LaneOptions, OnHole};
use raft_types::{
    BoxFuture, Clock, Disk, Documents, Message, Propose, Refusal, Seed, Serve, StateMachine, Stream, Wire,
};
use raft_wire::{Hello, TcpWire, WireOptions};
use std::{
    io::Write,
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// Between two looks at the catalogue's write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// A disk smaller than this gets small segments.
const SMALL_DISK_BYTES: u64 = 64 << 30;
/// The exit code after a disk or a group has failed: a supervisor should start the node again, once.
pub(crate) const EXIT_FAILED: i32 = 70;

pub(crate) fn run(flags: ServeFlags) -> Result<ExitCode, Failure> {
    let settings = flags.settle()?;
    logging::start(&settings.log, settings.log_json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

/// What a node's folder holds, opened.
struct Opened {
    store: Arc<dyn Disk>,
    identity: Identity,
    lane: Lane,
    catalog: Arc<Catalog>,
}

async fn serve(settings: Settings) -> Result<ExitCode, Failure> {
    // The ports first: a second start on one machine fails before it touches the data.
    let dimse = bind("dimse", &settings.dimse).await?;
    let http = bind("http", &settings.http).await?;

    let registry = prometheus::Registry::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let opened = {
        let (settings, registry, clock) = (settings.clone(), registry.clone(), Arc::clone(&clock));
        tokio::task::spawn_blocking(move || open(&settings, &registry, clock)).await??
    };
    let Opened { store, identity, lane, catalog } = opened;

    let serve = Arc::new(LateServe::default());
    let tcp = start_wire(&settings, &identity, &registry, Arc::<LateServe>::clone(&serve)).await?;
    let wire: Arc<dyn Wire> = match &tcp {
        Some(tcp) => Arc::<TcpWire>::clone(tcp),
        None => Arc::new(Alone),
    };
    let options = NodeOptions {
        groups: settings.groups,
        registry: registry.clone(),
        retention: Retention {
            keep_bytes: settings.log_keep_bytes,
            keep_for: settings.log_keep,
            every: Retention::default().every.min(settings.log_keep),
        },
        replace_after: settings.replace_after,
        upkeep: Upkeep { scrub_pass: settings.scrub_pass, ..Upkeep::default() },
        mirror_bytes_per_second: settings.mirror_bytes_per_second,
        ..NodeOptions::new(identity, settings.peers.clone())
    };
    #[cfg(feature = "planted-bugs")]
    let options = NodeOptions { sabotage: crate::planted::bug()?, ..options };
    let machine: Arc<dyn StateMachine> = Arc::<Catalog>::clone(&catalog);
    let seed: Arc<dyn Seed> = Arc::new(SystemSeed);
    let node = Node::start(options, lane.clone(), wire, machine, Arc::clone(&clock), seed, store).await?;
    // Nobody but this line sets it.
    let _ = serve.0.set(node.serve());

    let _watchdog = watchdog::start(lane.clone())?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(until(stop.clone(), present(Arc::clone(&node), tcp.clone())));
    tasks.spawn(until(stop.clone(), checkpoint(Arc::clone(&catalog))));

    let log: Arc<dyn Propose> = Arc::<Node>::clone(&node);
    let service = ServiceSettings {
        ae_title: settings.ae_title.clone(),
        remotes: settings.remotes.clone(),
        ingest_bytes_max: settings.ingest_bytes,
        read_bytes_max: settings.read_bytes,
        queries_max: size(settings.queries),
        codec: settings.codec.clone(),
        limits: settings.limits.clone(),
        commitment_report_for: settings.commitment_report_for,
        rejections: settings.rejections,
        study_quiet: settings.study_quiet,
        notify_for: settings.notify_for,
        compare_padding: settings.compare_padding,
        ..ServiceSettings::default()
    };
    let documents: Arc<dyn Documents> = Arc::<Node>::clone(&node);
    let archive = Archive::new(Arc::clone(&catalog), log, documents, clock, service, &registry);
    let peers = Arc::clone(archive.peers());
    tasks.spawn(until(stop.clone(), async move { peers.follow().await }));
    tasks.spawn(until(stop.clone(), archive.clone().forget_orphans()));
    tasks.spawn(until(stop.clone(), archive.clone().work_on_indexes()));
    let reporter = Arc::new(CommitmentReporter::new(settings.ae_title.clone()));
    // It ends by itself when the archive drains.
    tasks.spawn(until(stop.clone(), archive.clone().work_on_commitments(reporter)));
    tasks.spawn(until(stop.clone(), archive.clone().work_on_rejections()));
    let notifier = Arc::new(AvailabilityNotifier::new(settings.ae_title.clone()));
    tasks.spawn(until(stop.clone(), archive.clone().work_on_availability(notifier)));
    let deadlines = Deadlines { artim: settings.artim, progress: settings.progress, idle: settings.idle };
    let sender = Arc::new(InstanceSender::new(deadlines).ahead(settings.send_ahead));
    tasks.spawn(until(stop.clone(), archive.clone().work_on_sends(sender)));
    let dimse_settings = DimseSettings {
        associations_max: size(settings.associations),
        associations_per_peer_max: size(settings.associations_per_peer),
        deadlines,
        check_called_ae: settings.check_called_ae,
        drain: settings.drain,
        send_ahead: settings.send_ahead,
    };
    let dimse = DimseServer::start(dimse, archive.clone(), dimse_settings, &registry)?;
    let backups = Backups::new(Arc::clone(&node), Arc::<Catalog>::clone(&catalog), tasks.clone(), stop.clone());
    if let Some(to) = settings.backup_to.clone() {
        tasks.spawn(until(stop.clone(), Arc::clone(&backups).make_now_and_then(to, settings.backup_every)));
    }
    let health: Arc<dyn Health> = Arc::new(NodeHealth(Arc::clone(&node), backups, archive.clone()));
    let web_settings = WebSettings {
        connections_max: size(settings.connections),
        connections_per_peer_max: size(settings.connections_per_peer),
        // Half of the read budget: a reader holds up to 3 MiB.
        readers_per_peer_max: usize::try_from(settings.read_bytes / (6 << 20)).unwrap_or(usize::MAX),
        body_timeout: settings.progress,
        write_timeout: settings.progress,
        drain_timeout: settings.drain,
        cors_origins: settings.cors_origins.clone(),
        ..WebSettings::new(http.local_addr()?)
    };
    let web = Web::start_on(http, archive.clone(), web_settings, health, registry)?;
    say_where(&settings, &dimse, &web, tcp.as_deref())?;

    let mut fatal = node.fatal();
    let failed = tokio::select! {
        () = asked_to_stop() => None,
        failed = fatal.wait_for(Option::is_some) => failed.ok().and_then(|why| why.clone()),
    };
    if let Some(why) = failed {
        // What the disk holds is what counts: nothing that is still in memory may be answered for (trap 17).
        error!(why, "ending at once: the peers go on; see why before the node is started again");
        std::process::exit(EXIT_FAILED);
    }
    info!("stopping: running operations may end");
    archive.drain();
    node.drain().await;
    tokio::join!(dimse.shutdown(), web.shutdown());
    archive.shutdown().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    node.shutdown().await;
    if let Some(tcp) = tcp {
        tcp.shutdown().await;
    }
    tokio::task::spawn_blocking(move || lane.shutdown()).await?;
    drop(catalog);
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn open(settings: &Settings, registry: &prometheus::Registry, clock: Arc<dyn Clock>) -> Result<Opened, Failure> {
    let store = open_folder(&settings.data)?;
    let unfinished =
        Unfinished::load(&*store).map_err(|error| format!("--data {}: {error}", settings.data.display()))?;
    if let Some(unfinished) = unfinished {
        return Err(format!("--data {}: {}", settings.data.display(), unfinished.advice()).into());
    }
    let identity = Identity::load_or_create(&*store, &settings.name, &SystemSeed)
        .map_err(|error| format!("--data {}: {error}", settings.data.display()))?;
    let log = open_folder(&settings.data.join("log"))?;
    let options = LaneOptions {
        segment_bytes: segment_bytes(&*log, settings.segment_bytes)?,
        former_cluster_ids: identity.former_of_lane(),
        metrics: Some(LaneMetrics::register(registry)?),
        former_node_uuids: identity.former_uuids(),
        on_hole: if settings.peers.len() > 1 { OnHole::Suspect } else { OnHole::SuspectAlone },
        ..LaneOptions::new(identity.of_lane())
    };
    let lane =
        Lane::open(log, clock, options).map_err(|error| format!("--data {}: {error}", settings.data.display()))?;
    // Before anything is said in the name of this node.
    let identity = match settings.peers.len() > 1 {
        true => identity
            .settled_with(&lane, &*store, &SystemSeed)
            .map_err(|error| format!("--data {}: {error}", settings.data.display()))?,
        false => identity,
    };
    if identity.is_member() && lane.status().segments == 0 {
        return Err(format!(
            "--data {}: this node belongs to a cluster, but its log/ is empty: mount the disk that holds it; if it is \
             lost, move the whole folder away and start with an empty one, so that the node is mirrored anew",
            settings.data.display()
        )
        .into());
    }
    let options = CatalogOptions { query_headers_max: settings.query_headers, ..CatalogOptions::default() };
    let catalog = Catalog::open(&settings.data.join("catalog"), options)
        .map_err(|error| format!("--data {}: {}", settings.data.display(), crate::chain(&error)))?;
    Ok(Opened { store, identity, lane, catalog: Arc::new(catalog) })
}

/// The size of a segment: as set, or as fits the disk.
pub(crate) fn segment_bytes(log: &dyn Disk, set: Option<u64>) -> std::io::Result<u64> {
    let default_bytes = if log.space()?.total_bytes < SMALL_DISK_BYTES { 64 << 20 } else { 1 << 30 };
    Ok(set.unwrap_or(default_bytes))
}

pub(crate) fn open_folder(folder: &Path) -> Result<Arc<dyn Disk>, Failure> {
    match FolderDisk::open(folder) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(format!(
            "--data {}: another process uses this folder: stop it, or give this node a folder of its own",
            folder.display()
        )
        .into()),
        Err(error) => Err(format!("--data {}: {error}", folder.display()).into()),
    }
}

async fn bind(setting: &str, address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        format!("--{setting} {address}: {error}; is another program listening there? choose another port").into()
    })
}

/// The wire to the peers; none for a single node, which has none.
async fn start_wire(
    settings: &Settings,
    identity: &Identity,
    registry: &prometheus::Registry,
    serve: Arc<LateServe>,
) -> Result<Option<Arc<TcpWire>>, Failure> {
    if settings.peers.len() <= 1 {
        return Ok(None);
    }
    let others = settings.peers.iter().filter(|(name, _)| **name != settings.name);
    let others = others.map(|(name, address)| (name.clone(), address.clone())).collect();
    let options = WireOptions { registry: Some(registry.clone()), ..WireOptions::new(settings.peer.clone(), others) };
    let started = TcpWire::start(options, hello(identity), serve).await;
    let wire = started.map_err(|error| {
        format!("--peer {}: {error}; is another program listening there? choose another port", settings.peer)
    })?;
    Ok(Some(wire))
}

fn hello(identity: &Identity) -> Hello {
    Hello {
        cluster_id: identity.cluster_id.map(uuid::Uuid::into_bytes),
        name: identity.name.clone(),
        node_uuid: identity.node_uuid.into_bytes(),
        incarnation: identity.incarnation,
        blank: !identity.is_member(),
        wire_versions: Hello::WIRE_VERSIONS,
    }
}

/// Presents the node to its peers as it learns who it is, and lets the wire know where they are.
async fn present(node: Arc<Node>, wire: Option<Arc<TcpWire>>) {
    let Some(wire) = wire else { return };
    let (mut identity, mut addresses) = (node.identity(), node.addresses());
    loop {
        // First, and not only when it changes: what was said before this task began counts as seen.
        wire.set_hello(hello(&identity.borrow_and_update()));
        let mut members = addresses.borrow_and_update().clone();
        if !members.is_empty() {
            members.remove(&identity.borrow().name);
            wire.set_peers(members);
        }
        let changed = tokio::select! {
            changed = identity.changed() => changed,
            changed = addresses.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Moves the catalogue's write-ahead log along, off the applier's thread.
async fn checkpoint(catalog: Arc<Catalog>) {
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        let catalog = Arc::clone(&catalog);
        match tokio::task::spawn_blocking(move || catalog.checkpoint()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = crate::chain(&error), "the catalogue was not checkpointed"),
            Err(error) => warn!(%error, "the catalogue was not checkpointed"),
        }
    }
}

pub(crate) async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Ctrl-C, or what a supervisor sends.
async fn asked_to_stop() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => _ = terminate.recv().await,
            Err(error) => {
                warn!(%error, "SIGTERM cannot be heard; use Ctrl-C");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminate => {}
        result = tokio::signal::ctrl_c() => {
            if let Err(error) = result {
                warn!(%error, "Ctrl-C cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Tells a person where everything is.
fn say_where(settings: &Settings, dimse: &DimseServer, web: &Web, wire: Option<&TcpWire>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let name = &settings.name;
    writeln!(out, "triptych {} node {name}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  DICOM     {} as {}", dimse.local_address(), settings.ae_title)?;
    writeln!(out, "  page      http://{}/", web.local_address())?;
    writeln!(out, "  DICOMweb  http://{}/dicom-web", web.local_address())?;
    if let Some(wire) = wire {
        let peers: Vec<_> = settings.peers.iter().map(|(name, at)| format!("{name}={at}")).collect();
        writeln!(out, "  peers     {} on {}", peers.join(" "), wire.local_address())?;
    } else {
        writeln!(out, "  peers     none: a single node keeps one copy; with --peers it grows, see README")?;
    }
    writeln!(out, "  data      {}", settings.data.display())?;
    out.flush()?;
    Ok(())
}

/// What `/health/*` says.
struct NodeHealth(Arc<Node>, Arc<Backups>, Archive);

impl Health for NodeHealth {
    fn live(&self) -> bool {
        self.0.fatal().borrow().is_none()
    }

    fn ready(&self) -> Result<(), String> {
        if !*self.0.ready().borrow() {
            return Err(self.0.status().phase);
        }
        // Until then nobody is admitted.
        self.2.peers().registry().map(|_| ()).map_err(|error| error.to_string())
    }

    fn scrub(&self) -> u64 {
        self.0.order_scrub()
    }

    fn compact(&self) -> u64 {
        self.0.order_compaction()
    }

    fn replace(&self, name: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.0.replace(&name).await.map_err(|error| error.to_string()) })
    }

    fn order(&self, name: String, order: NodeOrder) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let done = match order {
                NodeOrder::Drain { reduce } => self.0.drain_node(&name, reduce).await,
                NodeOrder::Undrain => self.0.undrain_node(&name).await,
                NodeOrder::Remove => self.0.remove_node(&name).await,
            };
            done.map_err(|error| error.to_string())
        })
    }

    fn echo(&self, calling: AeTitle, remote: RemoteAe) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { peer::echo_to(&calling, &remote).await.map_err(|error| error.to_string()) })
    }

    fn begin_backup(&self, to: String) -> Result<(), String> {
        self.1.begin(&to)
    }

    fn backup(&self) -> serde_json::Value {
        self.1.state()
    }
}

/// Calls of peers that come before the node has started are refused, not lost: peers ask again.
#[derive(Default)]
struct LateServe(OnceLock<Arc<dyn Serve>>);

impl Serve for LateServe {
    fn call(self: Arc<Self>, from: String, request: Message) -> BoxFuture<'static, Result<Message, Refusal>> {
        match self.0.get() {
            Some(serve) => Arc::clone(serve).call(from, request),
            None => Box::pin(async { Err(Refusal { code: 0, reason: "this node is starting".into() }) }),
        }
    }

    fn stream(self: Arc<Self>, from: String, first: Message, stream: Box<dyn Stream>) -> BoxFuture<'static, ()> {
        match self.0.get() {
            Some(serve) => Arc::clone(serve).stream(from, first, stream),
            None => Box::pin(async {}),
        }
    }
}
