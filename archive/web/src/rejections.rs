//! What rejection notes name, and its restoration by hand.

use crate::{
    query::{parameters, uid_of},
    router::Shared,
    server::Peer,
    status::{Problem, refusal},
};
use archive_service::{
    Target,
    rejection::{Rejected, RejectionTitle},
};
use axum::{
    Extension, Json,
    extract::{RawQuery, State},
};
use serde_json::{Value, json};

/// Instances that one request answers, unless it asks for less.
const REJECTIONS_MAX: u32 = 10_000;

/// `GET /api/rejections?study=UID&restored=true&limit=N`.
pub(crate) async fn list(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Json<Vec<Value>>, Problem> {
    let (mut study, mut restored, mut limit) = (None, false, REJECTIONS_MAX);
    for (name, value) in parameters(query.as_deref())? {
        match &*name {
            "study" => study = Some(uid_of(&value, "study")?),
            "restored" => {
                restored = value.parse().map_err(|_| Problem::bad("restored is `true` or `false`"))?;
            }
            "limit" => {
                limit = value.parse().map_err(|_| Problem::bad("limit is a number from 1 to 10000"))?;
            }
            _ => return Err(Problem::bad("/api/rejections takes study=UID, restored=true and limit=N")),
        }
    }
    let found = shared.archive.rejections(study, restored, limit.clamp(1, REJECTIONS_MAX)).await?;
    Ok(Json(found.iter().map(described).collect()))
}

/// `POST /api/rejections/restore?study=UID&series=UID&instance=UID`.
pub(crate) async fn restore(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
    peer: Option<Extension<Peer>>,
) -> Result<Json<Value>, Problem> {
    let (mut study, mut series, mut instance) = (None, None, None);
    for (name, value) in parameters(query.as_deref())? {
        let place = match &*name {
            "study" => &mut study,
            "series" => &mut series,
            "instance" => &mut instance,
            _ => return Err(Problem::bad("/api/rejections/restore takes study=UID, series=UID and instance=UID")),
        };
        *place = Some(uid_of(&value, &name)?);
    }
    let study = study.ok_or_else(|| Problem::bad("/api/rejections/restore needs study=UID"))?;
    if instance.is_some() && series.is_none() {
        return Err(Problem::bad("an instance is named with its series: add series=UID"));
    }
    let source = peer.map_or_else(String::new, |Extension(peer)| peer.0.ip().to_string());
    let restored = shared.archive.restore_rejected(Target { study, series, instance }, &source).await;
    let restored = restored.map_err(|error| Problem::new(refusal(&error).status, error.to_string()))?;
    Ok(Json(json!({ "instances": restored.instances, "lifted": restored.lifted })))
}

fn described(Rejected { study, series, instance, state, bytes, rejection }: &Rejected) -> Value {
    let [note_study, note_series, note_instance] = &rejection.note;
    let title = RejectionTitle::ALL.into_iter().find(|title| title.code() == rejection.code);
    json!({
        "study": study, "series": series, "instance": instance, "state": state, "bytes": bytes,
        "code": rejection.code, "title": title.map(RejectionTitle::meaning), "action": rejection.action,
        "again": rejection.again, "source": rejection.source, "rejected_unix_ms": rejection.rejected_unix_ms,
        "note": { "study": note_study, "series": note_series, "instance": note_instance },
    })
}
