//! DELETE of a study, a series or an instance, and the list of what was deleted. PS3.18 has no such transaction for
//! studies; what archives agree on is `DELETE` of the resource, 404 when it is not there. `?reason=` is kept with it.

use crate::{
    query::{Target, parameters},
    router::Shared,
    server::Peer,
    status::{Problem, refusal},
};
use archive_service::Tombstone;
use axum::{
    Extension, Json,
    extract::{Path, RawQuery, State},
};
use serde_json::{Value, json};

/// What is kept when nobody gave a reason.
const NO_REASON: &str = "no reason given";
/// Tombstones that one request answers, unless it asks for less.
const TOMBSTONES_MAX: u32 = 1000;

pub(crate) async fn delete(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    RawQuery(query): RawQuery,
    peer: Option<Extension<Peer>>,
) -> Result<Json<Value>, Problem> {
    let parameters = parameters(query.as_deref())?;
    let reason = parameters.iter().find(|(name, _)| name == "reason").map_or(NO_REASON, |(_, reason)| reason);
    let source = peer.map_or_else(String::new, |Extension(peer)| peer.0.ip().to_string());
    let what = target.what();
    let deleted = shared.archive.delete(target.to_delete()?, reason, &source).await;
    let deleted = deleted.map_err(|error| Problem::new(refusal(&error).status, error.to_string()))?;
    if deleted.instances == 0 {
        return Err(Problem::unknown(what));
    }
    Ok(Json(json!({ "instances": deleted.instances, "bytes": deleted.bytes })))
}

/// `GET /api/deletions?study=UID&limit=N`.
pub(crate) async fn deletions(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Tombstone>>, Problem> {
    let (mut study, mut limit) = (None, TOMBSTONES_MAX);
    for (name, value) in parameters(query.as_deref())? {
        match &*name {
            "study" => study = Some(crate::query::uid_of(&value, "study")?),
            "limit" => {
                limit = value.parse().map_err(|_| Problem::bad("limit is a number from 1 to 1000"))?;
            }
            _ => return Err(Problem::bad("/api/deletions takes study=UID and limit=N")),
        }
    }
    Ok(Json(shared.archive.tombstones(study, limit.clamp(1, TOMBSTONES_MAX)).await?))
}
