//! Storage commitment (PS3.18 §13.4, §13.5): `POST /commitment-requests/{transaction}` asks, `GET` of the same asks for the
//! result. The records are those of the DIMSE service: both see the same transactions.
//!
//! ```text
//!   POST ─► 200 with the result, if it is there within some seconds · 202 · 400 · 409 the UID is in use · 503
//!   GET  ─► 200 with the result · 202 · 404 nobody has asked
//! ```
//!
//! The list is a Referenced SOP Sequence. The result's Transaction UID is the one in the path (§13.4.1.1).

use crate::{
    accept::{Accept, Form, content_type},
    qido::FORMS,
    query::{parameters, uid_of},
    router::Shared,
    status::Problem,
    stow,
};
use archive_model::{
    Limits,
    json::{from_json, no_bulk, to_json},
};
use archive_service::{
    Freshness, RecordError,
    commitment::{BadRequest, Report, Requester, references},
};
use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::time::Duration;

/// Bytes of a request, at most: about 30,000 instances.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// How long a request waits for its result before 202: clients have deadlines of 15 s for a whole exchange.
const RESULT_WITHIN: Duration = Duration::from_secs(3);
/// When a client that got 202 is to ask again.
const ASK_AGAIN_SECONDS: u32 = 2;

pub(crate) async fn ask(
    State(shared): State<Shared>,
    Path(transaction): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let transaction = uid_of(&transaction, "transaction")?;
    let (parts, body) = request.into_parts();
    let media_type = media_type(&parts.headers, &parts.uri)?;
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(content_type);
    if !kind.is_some_and(|(kind, _)| ["application/dicom+json", "application/json"].contains(&&*kind)) {
        let what = "send a Storage Commitment Request Module (PS3.18 J.1) as application/dicom+json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    let (mut body, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(piece) = stow::next(&shared, &mut body).await? {
        if bytes.len() + piece.len() > REQUEST_BYTES_MAX {
            let what = "the request is larger than 8 MiB: ask for the instances in several";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what));
        }
        bytes.extend_from_slice(&piece);
    }
    let set = from_json(&bytes, &Limits::default()).map_err(|error| Problem::bad(error.to_string()))?;
    let wanted = references(&set).map_err(|error| match error {
        BadRequest::Argument { .. } => Problem::bad(error.to_string()),
        BadRequest::TooMany => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
    })?;
    let asked = match shared.archive.request_commitment(&transaction, wanted, Requester::Web).await {
        Ok(asked) => asked,
        Err(RecordError::Conflict { .. }) => {
            let what = "the transaction UID is in use with another list: take a new one";
            return Err(Problem::new(StatusCode::CONFLICT, what));
        }
        Err(error) => return Err(error.into()),
    };
    let report = shared.archive.commitment_within(&asked, RESULT_WITHIN).await;
    Ok(answer(&shared, media_type, report.as_ref()))
}

pub(crate) async fn result(
    State(shared): State<Shared>,
    Path(transaction): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let media_type = media_type(&headers, &uri)?;
    let transaction = uid_of(&transaction, "transaction")?;
    match shared.archive.commitment(&transaction, Freshness::ReadIndex).await? {
        Some(report) => Ok(answer(&shared, media_type, report.as_ref())),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such transaction: POST a list of instances to this path")),
    }
}

fn media_type(headers: &HeaderMap, uri: &Uri) -> Result<&'static str, Problem> {
    match Accept::of(headers, &parameters(uri.query())?).choose(&FORMS[..2], &[]) {
        Some(Form::Single(media_type)) => Ok(media_type),
        _ => Err(Problem::not_acceptable("application/dicom+json")),
    }
}

fn answer(shared: &Shared, media_type: &'static str, report: Option<&Report>) -> Response {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match report {
        Some(report) => {
            let json = to_json(&report.data_set(shared.archive.ae_title().as_str()), &no_bulk);
            ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type)), no_store], json).into_response()
        }
        None => {
            let again = (header::RETRY_AFTER, ASK_AGAIN_SECONDS.into());
            (StatusCode::ACCEPTED, [again, no_store]).into_response()
        }
    }
}
