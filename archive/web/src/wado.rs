//! WADO-URI (PS3.18 chapter 9): one object by a query string, as older viewers and links in reports ask for it.
//!
//! ```text
//!   /wado?requestType=WADO&studyUID=1.2&seriesUID=1.2.3&objectUID=1.2.3.4&contentType=application/dicom&transferSyntax=…
//! ```
//!
//! What it cannot do is refused, never left out: who asks for an anonymised object gets none that is not.

use crate::{
    query::{Target, parameters},
    range::kept,
    retrieve::{file, listing, on_the_web},
    router::Shared,
    status::Problem,
};
use archive_model::{COMPRESSED, EXPLICIT_LE};
use archive_service::InstanceRow;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

const DICOM: &str = "application/dicom";

pub(crate) async fn get(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    // Names are case-sensitive in the standard; links in the field are not.
    let get = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    };
    if !get("requestType").is_some_and(|kind| kind.eq_ignore_ascii_case("WADO")) {
        return Err(Problem::bad("say requestType=WADO: it is the one request there is"));
    }
    let uid = |name: &str| {
        let text = get(name).map(str::to_owned);
        text.ok_or_else(|| Problem::bad(format!("{name} is missing: name studyUID, seriesUID and objectUID")))
    };
    let target = Target::of_instance(uid("studyUID")?, uid("seriesUID")?, uid("objectUID")?);
    if get("anonymize").is_some_and(|value| value.eq_ignore_ascii_case("yes")) {
        let what = "nothing is anonymised here: leave `anonymize` out, or de-identify what you retrieve";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, what));
    }
    let mut rows = listing(&shared, &target).await?.rows;
    let row = rows.swap_remove(0);
    let kinds = get("contentType").map(|kinds| kinds.split(',').map(media_type).collect::<Vec<_>>());
    let as_file = match &kinds {
        Some(kinds) => kinds.iter().any(|kind| [DICOM, "*/*", "application/*"].contains(&kind.as_str())),
        // By default an image is a picture (PS3.18 §9.1.2.2.1), anything else is what it is.
        None => row.frame_count == 0,
    };
    if !as_file {
        let what = "pictures are had by WADO-RS: GET /dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered; \
                    here say contentType=application/dicom";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, what));
    }
    let syntax = syntax(&shared, &row, get("transferSyntax"))?;
    let response = file(&shared, &headers, &row, &syntax).await?;
    Ok(kept(&shared, &row, response))
}

/// Without parameters, in lower case.
fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The transfer syntax in which the object leaves.
fn syntax(shared: &Shared, row: &InstanceRow, asked: Option<&str>) -> Result<String, Problem> {
    let own = on_the_web(row);
    match asked {
        None | Some("*") => Ok(own.to_owned()),
        Some(asked) if asked == own => Ok(own.to_owned()),
        Some(asked)
            if (asked == EXPLICIT_LE || COMPRESSED.contains(&asked)) && shared.archive.may_convert(row, asked) =>
        {
            Ok(asked.to_owned())
        }
        Some(_) => Err(Problem::not_acceptable(&format!("transferSyntax={own}, or but for videos {EXPLICIT_LE}"))),
    }
}
