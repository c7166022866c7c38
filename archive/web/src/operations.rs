//! For operators and for the page: health, metrics, the cluster, events.

use crate::{router::Shared, server::NodeOrder, status::Problem};
use archive_service::{ClusterStatus, Totals};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, future::Either, stream};
use prometheus::{Encoder, TextEncoder};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the state is looked at for those who listen.
const NEWS_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn live(State(shared): State<Shared>) -> Response {
    if shared.health.live() {
        "live\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "storage has failed: restart this node and look at its log\n").into_response()
    }
}

pub(crate) async fn ready(State(shared): State<Shared>) -> Response {
    match shared.health.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

pub(crate) async fn metrics(State(shared): State<Shared>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.registry.gather(), &mut text) {
        Ok(()) => {
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("gather metrics: {error}")).into_response()
        }
    }
}

pub(crate) async fn cluster(State(shared): State<Shared>) -> Json<ClusterStatus> {
    Json(shared.archive.status())
}

/// Gives a lost node up. The body is JSON, empty or not: a form of another site cannot send that unasked.
pub(crate) async fn replace(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(_): Json<Value>,
) -> Result<StatusCode, Problem> {
    let ordered = shared.health.replace(name).await;
    ordered.map(|()| StatusCode::NO_CONTENT).map_err(|why| Problem::new(StatusCode::CONFLICT, why))
}

/// Orders a scrub of this node's disk. The body is JSON, for the reason above.
pub(crate) async fn scrub(State(shared): State<Shared>, Json(_): Json<Value>) -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({ "order": shared.health.scrub() })))
}

/// Orders a compaction of this node's disk.
pub(crate) async fn compact(State(shared): State<Shared>, Json(_): Json<Value>) -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({ "order": shared.health.compact() })))
}

/// What may be said with an order.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderBody {
    /// Fewer copies may be kept from now on.
    #[serde(default)]
    reduce: bool,
}

/// Moves a node's copies to the others.
pub(crate) async fn drain(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(body): Json<OrderBody>,
) -> Result<StatusCode, Problem> {
    order(&shared, name, NodeOrder::Drain { reduce: body.reduce }).await
}

/// Lets a node stay that was to be drained.
pub(crate) async fn undrain(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(_): Json<Value>,
) -> Result<StatusCode, Problem> {
    order(&shared, name, NodeOrder::Undrain).await
}

/// Removes a node that keeps nothing.
pub(crate) async fn remove(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(_): Json<Value>,
) -> Result<StatusCode, Problem> {
    order(&shared, name, NodeOrder::Remove).await
}

async fn order(shared: &Shared, name: String, order: NodeOrder) -> Result<StatusCode, Problem> {
    let ordered = shared.health.order(name, order).await;
    ordered.map(|()| StatusCode::NO_CONTENT).map_err(|why| Problem::new(StatusCode::CONFLICT, why))
}

/// Where a backup goes.
#[derive(serde::Deserialize)]
pub(crate) struct BackupOrder {
    to: String,
}

/// Begins a backup; how far it is, [`backup`] says. The body is JSON: see [`replace`].
pub(crate) async fn begin_backup(
    State(shared): State<Shared>,
    Json(order): Json<BackupOrder>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let begun = shared.health.begin_backup(order.to);
    begun.map_err(|why| Problem::new(StatusCode::CONFLICT, why))?;
    Ok((StatusCode::ACCEPTED, Json(shared.health.backup())))
}

/// The backup that runs on this node, or the last one.
pub(crate) async fn backup(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.health.backup())
}

pub(crate) async fn totals(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    Ok(Json(totals_json(shared.archive.totals().await?)))
}

fn totals_json(totals: Totals) -> Value {
    let Totals { patients, studies, series, instances, bytes, versions } = totals;
    json!({
        "patients": patients, "studies": studies, "series": series, "instances": instances,
        "bytes": bytes, "versions": versions,
    })
}

/// The cluster and the totals now, and again whenever they change.
pub(crate) async fn events(
    State(shared): State<Shared>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Ok(permit) = Arc::clone(&shared.listeners).try_acquire_owned() else {
        let what = "too many pages listen to this node: close some, or read /api/cluster";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, what));
    };
    // A watch keeps the newest only: a slow listener skips, and never makes others wait. It ends with the node.
    let news = stream::unfold(shared.news.clone(), |mut news| async move {
        news.changed().await.ok()?;
        let state = Arc::clone(&news.borrow_and_update());
        Some((state, news))
    });
    let first = state_json(&shared).await;
    let first =
        first.map_or_else(|| Either::Left(stream::empty()), |state| Either::Right(stream::once(async { state })));
    let events = first.chain(news).map(move |state| {
        let _held = &permit;
        Ok(Event::default().event("state").data(&*state))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn state_json(shared: &Shared) -> Option<Arc<str>> {
    let totals = shared.archive.totals().await.ok()?;
    Some(json!({ "cluster": shared.archive.status(), "totals": totals_json(totals) }).to_string().into())
}

/// Looks at the state while somebody listens, and tells it when it has changed.
pub(crate) async fn tell_news(shared: Shared, news: watch::Sender<Arc<str>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(NEWS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if shared.listeners.available_permits() == shared.settings.listeners_max {
            continue;
        }
        if let Some(state) = state_json(&shared).await {
            news.send_if_modified(|last| {
                let changed = **last != *state;
                if changed {
                    *last = state;
                }
                changed
            });
        }
    }
}
