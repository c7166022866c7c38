//! The worklist and the performed procedure steps by HTTP, in the DICOM JSON model.
//!
//! ```text
//!   GET    /api/worklist?after=KEY&limit=N          entries with what names them
//!   POST   /api/worklist                            one entry, or an array of them; each is one scheduled step
//!   GET    /api/worklist/{study}/{step}             DELETE takes it off
//!   GET    /api/mpps?after=UID&limit=N              GET /api/mpps/{uid}
//! ```

use crate::{
    query::{parameters, uid_of},
    router::Shared,
    status::{Problem, refusal},
};
use archive_model::{
    DataSet, Limits,
    json::{data_sets_from_json, from_json, no_bulk, to_json},
};
use archive_service::{DocumentError, EntryError, EntryId, RecordError};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::StatusCode,
};
use serde_json::{Value, json, value::RawValue};

/// Entries that one request answers, at most and unless it asks for less.
const PAGE_MAX: u32 = 200;

fn problem(error: &DocumentError) -> Problem {
    match error {
        DocumentError::TooLarge | DocumentError::Record(RecordError::TooLarge) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        DocumentError::Version => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        DocumentError::Busy | DocumentError::Record(RecordError::Conflict { .. }) => {
            Problem::new(StatusCode::CONFLICT, error.to_string())
        }
        DocumentError::Record(RecordError::Store(error)) => Problem::new(refusal(error).status, error.to_string()),
        DocumentError::Record(RecordError::Query(error)) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
    }
}

fn raw(set: &DataSet) -> Result<Box<RawValue>, Problem> {
    String::from_utf8(to_json(set, &no_bulk))
        .ok()
        .and_then(|text| RawValue::from_string(text).ok())
        .ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the entry cannot be written as JSON"))
}

/// `after` and `limit` of a query string.
fn page(query: Option<&str>) -> Result<(String, u32), Problem> {
    let (mut after, mut limit) = (String::new(), PAGE_MAX);
    for (name, value) in parameters(query)? {
        match &*name {
            "after" => after = value,
            "limit" => limit = value.parse().map_err(|_| Problem::bad("limit is a number from 1 to 200"))?,
            _ => return Err(Problem::bad("this takes after=KEY and limit=N")),
        }
    }
    Ok((after, limit.clamp(1, PAGE_MAX)))
}

#[derive(serde::Serialize)]
pub(crate) struct Kept {
    key: String,
    data_set: Box<RawValue>,
}

fn kept(page: Vec<(String, DataSet)>) -> Result<Json<Vec<Kept>>, Problem> {
    let rows = page.into_iter().map(|(key, set)| Ok(Kept { key, data_set: raw(&set)? }));
    Ok(Json(rows.collect::<Result<_, Problem>>()?))
}

pub(crate) async fn list(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Json<Vec<Kept>>, Problem> {
    let (after, limit) = page(query.as_deref())?;
    kept(shared.archive.worklist().list(&after, limit).await.map_err(|error| problem(&error))?)
}

pub(crate) async fn enter(State(shared): State<Shared>, body: Bytes) -> Result<(StatusCode, Json<Value>), Problem> {
    let wrong = |error: archive_model::json::JsonError| Problem::bad(format!("no DICOM JSON: {error}"));
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let entries = if is_array {
        data_sets_from_json(&body, &Limits::default()).map_err(wrong)?
    } else {
        vec![from_json(&body, &Limits::default()).map_err(wrong)?]
    };
    // All are looked at before the first is entered: an array with a wrong one changes nothing.
    for (at, entry) in entries.iter().enumerate() {
        EntryId::of(entry).map_err(|error| Problem::bad(format!("entry {at}: {error}")))?;
    }
    let mut entered = Vec::with_capacity(entries.len());
    for entry in entries {
        let id = shared.archive.worklist().put(entry).await.map_err(|error| match error {
            EntryError::Attribute { .. } => Problem::bad(error.to_string()),
            EntryError::Document(error) => problem(&error),
        })?;
        entered.push(json!({ "study": id.study, "step": id.step }));
    }
    Ok((StatusCode::CREATED, Json(json!({ "entered": entered }))))
}

pub(crate) async fn get(
    State(shared): State<Shared>,
    Path((study, step)): Path<(String, String)>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let found = shared.archive.worklist().get(&EntryId { study, step }).await.map_err(|error| problem(&error))?;
    let entry = found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such entry: see GET /api/worklist"))?;
    Ok(Json(raw(&entry)?))
}

pub(crate) async fn remove(
    State(shared): State<Shared>,
    Path((study, step)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match shared.archive.worklist().remove(&EntryId { study, step }).await.map_err(|error| problem(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::new(StatusCode::NOT_FOUND, "no such entry: see GET /api/worklist")),
    }
}

pub(crate) async fn performed(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Kept>>, Problem> {
    let (after, limit) = page(query.as_deref())?;
    kept(shared.archive.performed_steps().list(&after, limit).await.map_err(|error| problem(&error))?)
}

pub(crate) async fn performed_step(
    State(shared): State<Shared>,
    Path(uid): Path<String>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let uid = uid_of(&uid, "performed procedure step")?;
    let found = shared.archive.performed_steps().get(&uid).await.map_err(|error| problem(&error))?;
    let step = found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such step: see GET /api/mpps"))?;
    Ok(Json(raw(&step)?))
}
