//! `triptych serve`: opens what is on disk, starts what listens, says where, and stops in the right order.
//!
//! ```text
//!  start:  lock the folder → lane (recovery) → catalogue → wire → node (joins in the background) → dimse, web
//!  stop:   dimse, web (drain) → use cases → node (hands over its leaders) → wire → lane → catalogue
//! ```

use crate::{
    Failure, identity, logging,
    settings::{ServeFlags, Settings},
    world::{SystemClock, SystemSeed},
};
use archive_catalog::{Catalog, CatalogOptions};
use archive_service::{Archive, ServiceSettings};
use raft_groups::{Node, NodeOptions};
use raft_lanes::{FolderDisk, Lane};
use raft_types::{BoxFuture, Clock, Disk, Message, Propose, Refusal, Serve, StateMachine, Stream, Wire};
use raft_wire::TcpWire;
use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long associations and requests in flight may go on once a stop was asked for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn run(flags: ServeFlags) -> Result<ExitCode, Failure> {
    let settings = flags.settle()?;
    logging::start(&settings.log, settings.log_json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<ExitCode, Failure> {
    // The ports first: a second start on one machine fails before it touches the data.
    let dimse = bind("dimse", &settings.dimse).await?;
    let http = bind("http", &settings.http).await?;

    let registry = prometheus::Registry::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (store, lane, catalog) = {
        let (settings, registry, clock) = (settings.clone(), registry.clone(), Arc::clone(&clock));
        tokio::task::spawn_blocking(move || open(&settings, &registry, clock)).await??
    };
    todo!()
}

async fn bind(setting: &str, address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        format!("--{setting} {address}: {error}; is another program listening there? choose another port").into()
    })
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
