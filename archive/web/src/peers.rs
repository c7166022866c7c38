//! The registry of application entities, for operators and for the page: `/api/peers`.
//!
//! ```text
//!   GET    /api/peers              version, entries, what the command line adds
//!   GET    /api/peers/{AE}         one entry; `*` is those that are not listed, `*dicomweb` DICOMweb clients
//!   PUT    /api/peers/{AE}         sets it, whole: what is left out has its default
//!   DELETE /api/peers/{AE}         removes it
//!   POST   /api/peers/{AE}/echo    C-ECHO from this node
//! ```
//!
//! The version of the registry is the ETag of every answer; `If-Match` makes a change wait for nobody else's.

use crate::{router::Shared, status::Problem};
use archive_model::AeTitle;
use archive_service::peers::{ANYBODY, Peer, PeersError};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Bytes of an entry, at most.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
/// Time for an echo, its connection included.
const ECHO_WITHIN: Duration = Duration::from_secs(15);

impl From<PeersError> for Problem {
    fn from(error: PeersError) -> Self {
        let status = match &error {
            PeersError::Bad(_) => StatusCode::BAD_REQUEST,
            PeersError::Unknown(_) => StatusCode::NOT_FOUND,
            PeersError::Changed(_) => StatusCode::PRECONDITION_FAILED,
            PeersError::Refused(_) => StatusCode::CONFLICT,
            PeersError::Undecided(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

pub(crate) async fn list(State(shared): State<Shared>) -> Result<Response, Problem> {
    let peers = shared.archive.peers();
    let registry = peers.registry()?;
    let remotes: Vec<Value> = peers
        .remotes()
        .map(|remote| json!({ "ae": remote.title, "address": remote.address, "in_force": !registry.lists(remote.title.as_str()) }))
        .collect();
    let entries: Vec<&Peer> = registry.peers().collect();
    // What is not set, but in force all the same.
    let anybody = registry.get(ANYBODY).map(|peer| &**peer);
    let body = json!({ "version": registry.version(), "peers": entries, "anybody": anybody, "command_line": remotes });
    Ok(tagged(registry.version(), Json(body)))
}

pub(crate) async fn get(State(shared): State<Shared>, Path(ae): Path<String>) -> Result<Response, Problem> {
    let ae = title(&ae)?;
    let registry = shared.archive.peers().registry()?;
    let peer = registry.get(ae.as_str()).ok_or(PeersError::Unknown(ae))?;
    Ok(tagged(registry.version(), Json(&**peer)))
}

pub(crate) async fn put(
    State(shared): State<Shared>,
    Path(ae): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let ae = title(&ae)?;
    let not_json = |why: String| Problem::bad(format!("the entry is not one: {why}"));
    let mut entry: Value = serde_json::from_slice(&body).map_err(|error| not_json(error.to_string()))?;
    let fields = entry.as_object_mut().ok_or_else(|| not_json("it is no JSON object".into()))?;
    let own = fields.entry("ae").or_insert_with(|| json!(ae));
    if own.as_str().map(AeTitle::parse) != Some(Ok(ae.clone())) {
        return Err(Problem::bad(format!("the path says {ae}, and `ae` in the entry something else")));
    }
    let peer: Peer = serde_json::from_value(entry).map_err(|error| not_json(error.to_string()))?;
    let (version, is_new) = shared.archive.peers().set(peer.clone(), expected(&headers)?).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(version, (status, Json(peer))))
}

pub(crate) async fn delete(
    State(shared): State<Shared>,
    Path(ae): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let version = shared.archive.peers().remove(&title(&ae)?, expected(&headers)?).await?;
    Ok(tagged(version, StatusCode::NO_CONTENT))
}

/// C-ECHO from this node. The body is JSON: a form of another site cannot send that unasked.
pub(crate) async fn echo(
    State(shared): State<Shared>,
    Path(ae): Path<String>,
    Json(_): Json<Value>,
) -> Result<Json<Value>, Problem> {
    let ae = title(&ae)?;
    let Some(destination) = shared.archive.peers().destination(ae.as_str()) else {
        let known = shared.archive.peers().registry()?.lists(ae.as_str());
        return Err(if known {
            Problem::new(StatusCode::CONFLICT, format!("{ae} has no address: it only calls"))
        } else {
            PeersError::Unknown(ae).into()
        });
    };
    let (remote, started) = (destination.remote, Instant::now());
    let address = remote.address.clone();
    let echoed = tokio::time::timeout(ECHO_WITHIN, shared.health.echo(shared.archive.ae_title().clone(), remote)).await;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    let why = match echoed {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some(format!("no answer within {} seconds", ECHO_WITHIN.as_secs())),
    };
    let from = shared.archive.status().answered_by;
    Ok(Json(json!({
        "ae": ae, "address": address, "from": from, "ok": why.is_none(), "milliseconds": milliseconds, "why": why,
    })))
}

fn title(text: &str) -> Result<AeTitle, Problem> {
    AeTitle::parse(text).map_err(|error| Problem::bad(format!("{error}: a title has 1 to 16 characters")))
}

/// The version that the client has seen.
pub(crate) fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("*") => Ok(None),
        Ok(tag) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
            version.map(Some).ok_or_else(|| Problem::bad("If-Match is the ETag of an answer before, such as \"7\""))
        }
        Err(_) => Err(Problem::bad("If-Match is the ETag of an answer before, such as \"7\"")),
    }
}

pub(crate) fn tagged(version: u64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
