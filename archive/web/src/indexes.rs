//! Indexes for attributes of the header, for operators: `/api/indexes`.
//!
//! ```text
//!   GET    /api/indexes                version, instances, and each index with how far this node is with it
//!   GET    /api/indexes/{ATTRIBUTE}    one of them: `KVP`, `(0018,0060)` or `(0009,"ACME 1.0",01)`, percent-encoded
//!   PUT    /api/indexes/{ATTRIBUTE}    adds it: {"level":"series","vr":"DS"}; a standard attribute has its VR from the dictionary
//!   DELETE /api/indexes/{ATTRIBUTE}    removes it
//! ```
//!
//! The version of the list is the ETag of every answer; `If-Match` makes a change wait for nobody else's.

use crate::{
    peers::{expected, tagged},
    router::Shared,
    status::Problem,
};
use archive_model::Attribute;
use archive_service::indexes::{IndexError, IndexState, index_of, tag_text};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is said of an index beside its attribute.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    level: String,
    #[serde(default)]
    vr: Option<String>,
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        let status = match &error {
            IndexError::Bad(_) => StatusCode::BAD_REQUEST,
            IndexError::Unknown(_) => StatusCode::NOT_FOUND,
            IndexError::Changed(_) => StatusCode::PRECONDITION_FAILED,
            IndexError::Refused(_) => StatusCode::CONFLICT,
            IndexError::Undecided(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

pub(crate) async fn list(State(shared): State<Shared>) -> Result<Response, Problem> {
    let (version, states) = shared.archive.indexes().await?;
    let totals = shared.archive.totals().await?;
    let body = json!({
        "version": version,
        "answered_by": shared.archive.status().answered_by,
        "instances": totals.instances,
        "indexes": states.iter().map(described).collect::<Vec<_>>(),
    });
    Ok(tagged(version, Json(body)))
}

pub(crate) async fn get(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, Problem> {
    let attribute = attribute(&name)?;
    let (version, states) = shared.archive.indexes().await?;
    let state = states.iter().find(|state| state.index.attribute == attribute);
    Ok(tagged(version, Json(described(state.ok_or(IndexError::Unknown(attribute))?))))
}

pub(crate) async fn put(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let not_json = |error| Problem::bad(format!("the index is none: {error}; such as {{\"level\":\"study\"}}"));
    let said: Said = serde_json::from_slice(&body).map_err(not_json)?;
    let index = index_of(&name, said.vr.as_deref(), &said.level)?;
    let (version, is_new) = shared.archive.add_index(index.clone(), expected(&headers)?).await?;
    let (_, states) = shared.archive.indexes().await?;
    let state = states.iter().find(|state| state.index == index);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(version, (status, Json(state.map(described)))))
}

pub(crate) async fn delete(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let version = shared.archive.remove_index(&attribute(&name)?, expected(&headers)?).await?;
    Ok(tagged(version, StatusCode::NO_CONTENT))
}

fn attribute(name: &str) -> Result<Attribute, Problem> {
    name.trim().parse().map_err(Problem::bad)
}

fn described(state: &IndexState) -> Value {
    let IndexState { index, ready, instances_left } = state;
    json!({
        "attribute": index.attribute.to_string(),
        "tag": tag_text(&index.attribute),
        "vr": index.vr.to_string(),
        "level": index.level.name(),
        "state": if *ready { "ready" } else { "filling" },
        "instances_left": instances_left,
    })
}
