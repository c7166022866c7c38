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
    rendered::one,
    retrieve::{file, listing, on_the_web},
    router::Shared,
    status::Problem,
    viewing::{Asked, EXTENT_MAX, PIXELS_MAX},
};
use archive_model::{COMPRESSED, EXPLICIT_LE};
use archive_service::{InstanceRow, Shown};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

const DICOM: &str = "application/dicom";
const RENDERED: &str = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered";

pub(crate) async fn get(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    for (at, (name, _)) in parameters.iter().enumerate() {
        if parameters[..at].iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
            return Err(Problem::bad(format!("{name} is there twice: say it once")));
        }
    }
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
    if get("anonymize").is_some_and(|value| !value.eq_ignore_ascii_case("no")) {
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
        let wanted = kinds.as_deref().unwrap_or(&[]);
        let chosen = wanted.iter().find_map(|kind| match kind.as_str() {
            "image/png" => Some("image/png"),
            "image/jpeg" | "image/*" => Some("image/jpeg"),
            _ => None,
        });
        let media_type = match chosen {
            None if kinds.is_some() => {
                return Err(Problem::not_acceptable("contentType=image/jpeg, image/png or application/dicom"));
            }
            chosen => chosen.unwrap_or("image/jpeg"),
        };
        let frame = match get("frameNumber").map(str::parse) {
            None => 1,
            Some(Ok(number)) => number,
            Some(Err(_)) => return Err(Problem::bad("frameNumber is a whole number from 1")),
        };
        let (viewing, disregarded) = Asked::of(&as_of_wado_rs(get)?, false)?.into_viewing(media_type);
        return one(&shared, &headers, &row, Shown::Frame(frame), &viewing, disregarded).await;
    }
    let syntax = syntax(&shared, &row, get("transferSyntax"))?;
    let response = file(&shared, &headers, &row, &syntax).await?;
    Ok(kept(&shared, &row, response))
}

/// What of a picture WADO-URI asks by other names than WADO-RS does (PS3.18 §9.1.2.2.2, §8.3.5.1).
fn as_of_wado_rs<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Vec<(String, String)>, Problem> {
    for never in ["region", "presentationUID", "presentationSeriesUID"] {
        if get(never).is_some() {
            let what = format!("{never} is not done here: leave it out, or ask {RENDERED}?viewport=vw,vh,sx,sy,sw,sh");
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, what));
        }
    }
    let mut asked: Vec<(String, String)> = Vec::new();
    let mut ask = |name: &str, value: String| asked.push((name.into(), value));
    let extent = |name: &str| {
        let number = get(name).map(str::parse::<u32>).transpose();
        number.map_err(|_| Problem::bad(format!("{name} is a whole number of pixels")))
    };
    // One extent alone: the other follows from the picture, whose proportions stay.
    let follows = |given: u32| (PIXELS_MAX / u64::from(given.max(1))).min(u64::from(EXTENT_MAX));
    match (extent("columns")?, extent("rows")?) {
        (None, None) => {}
        (Some(columns), Some(rows)) => ask("viewport", format!("{columns},{rows}")),
        (Some(columns), None) => ask("viewport", format!("{columns},{}", follows(columns))),
        (None, Some(rows)) => ask("viewport", format!("{},{rows}", follows(rows))),
    }
    match (get("windowCenter"), get("windowWidth")) {
        (None, None) => {}
        (Some(centre), Some(width)) => ask("window", format!("{centre},{width},linear")),
        _ => return Err(Problem::bad("windowCenter and windowWidth go together")),
    }
    for (name, there) in [("imageQuality", "quality"), ("annotation", "annotation")] {
        if let Some(value) = get(name) {
            ask(there, value.to_owned());
        }
    }
    Ok(asked)
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
