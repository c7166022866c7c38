//! What is sent to other applications, for operators: `/api/sends`. C-MOVEs that run are listed among the others.
//!
//! ```text
//!   POST   /api/sends                     {"to": AE, "study": UID, "series"?: UID, "instance"?: UID} ─► 202 {"ids": […], "instances": n}
//!   GET    /api/sends?after=ID&limit=N    jobs by age; those that have ended are listed for three days
//!   GET    /api/sends/{ID}                one, with what is left of it
//!   DELETE /api/sends/{ID}                cancels it; one that has ended is forgotten
//! ```

use crate::{
    query::{parameters, uid_of},
    router::Shared,
    status::Problem,
};
use archive_model::AeTitle;
use archive_service::{Selection, sends::SendError};
use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Jobs that one request answers, at most and unless it asks for less.
const PAGE_MAX: u32 = 1000;

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        let status = match error {
            SendError::UnknownDestination(_) => StatusCode::CONFLICT,
            SendError::NothingToSend | SendError::UnknownJob(_) => StatusCode::NOT_FOUND,
            SendError::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            SendError::Full(_) => StatusCode::TOO_MANY_REQUESTS,
            SendError::Record(error) => return error.into(),
            SendError::Query(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}

/// An order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    to: String,
    study: String,
    #[serde(default)]
    series: Option<String>,
    #[serde(default)]
    instance: Option<String>,
}

/// The body is JSON: a form of another site cannot send that unasked.
pub(crate) async fn queue(
    State(shared): State<Shared>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let to = AeTitle::parse(&order.to).map_err(|error| Problem::bad(format!("`to`: {error}")))?;
    let one = |text: &Option<String>, what| -> Result<Vec<_>, Problem> {
        text.iter().map(|text| uid_of(text, what)).collect()
    };
    let what = Selection {
        patient: None,
        studies: vec![uid_of(&order.study, "study")?],
        series: one(&order.series, "series")?,
        instances: one(&order.instance, "instance")?,
    };
    let (ids, instances) = shared.archive.queue_send(&to, what).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "ids": ids, "instances": instances }))))
}

pub(crate) async fn list(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let (mut after, mut limit) = (String::new(), PAGE_MAX);
    for (name, value) in parameters(query.as_deref())? {
        match &*name {
            "after" => after = value,
            "limit" => {
                let number = value.parse().ok().filter(|number| (1..=PAGE_MAX).contains(number));
                limit = number.ok_or_else(|| Problem::bad("limit is a number from 1 to 1000"))?;
            }
            _ => return Err(Problem::bad("this takes after=ID and limit=N")),
        }
    }
    Ok(Json(json!(shared.archive.sends(&after, limit).await?)))
}

pub(crate) async fn get(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!(shared.archive.send_of(&id).await?)))
}

pub(crate) async fn cancel(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let was = shared.archive.cancel_send(&id).await?;
    let now = if was.has_ended() { "forgotten" } else { "cancelled" };
    Ok(Json(json!({ "id": id, "was": was.state, "now": now, "sent": was.sent, "instances": was.instances })))
}
