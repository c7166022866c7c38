//! Other contents that are kept under a UID beside the one that it answers: which there are of a study. Each is had as it
//! was received, from the URL of its instance with `?as=received&version=N`.

use crate::{
    query::{parameters, uid_of},
    router::Shared,
    status::Problem,
};
use archive_service::Version;
use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde_json::{Value, json};

/// Versions that one request answers.
const VERSIONS_MAX: u32 = 10_000;

/// `GET /api/versions?study=UID`.
pub(crate) async fn list(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Json<Vec<Value>>, Problem> {
    let mut study = None;
    for (name, value) in parameters(query.as_deref())? {
        match &*name {
            "study" => study = Some(uid_of(&value, "study")?),
            _ => return Err(Problem::bad("/api/versions takes study=UID")),
        }
    }
    let study = study.ok_or_else(|| Problem::bad("/api/versions needs study=UID"))?;
    let found = shared.archive.versions(study, None, VERSIONS_MAX).await?;
    Ok(Json(found.iter().map(described).collect()))
}

fn described(Version { row, received_unix_ms, source }: &Version) -> Value {
    let digest: String = row.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = crate::retrieve::instance_url("/dicom-web", row);
    json!({
        "study": row.study, "series": row.series, "instance": row.instance, "number": row.version,
        "sop_class": row.sop_class, "transfer_syntax": row.transfer_syntax, "bytes": row.length_bytes,
        "blake3": digest, "received_unix_ms": received_unix_ms,
        "calling_ae": source.calling_ae, "protocol": source.protocol.name(), "from": source.peer,
        "url": format!("{url}?as=received&version={}", row.version),
    })
}
