//! WADO-RS: pictures, thumbnails, and what is shown by itself, videos and documents (PS3.18 §10.4.1.1.3, §10.4.1.1.4, §8.7.4).
//!
//! ```text
//!   instance, frame    one picture, of the first frame; multipart/related when asked for: one of each frame
//!   frames 1,2         multipart/related, in that order
//!   study, series      multipart/related: each frame of each image, made when the client has taken the one before
//!   …/thumbnail        one picture: of a series its middle image, of a study that of its first series with images
//!   video, document    its own bytes; a document as an attachment
//! ```
//!
//! Pictures of one instance have a strong ETag: digest and request (RE-3). Those of several are cut off where one fails: a
//! client that got less than there is must see that.

use crate::{
    accept::{Accept, Form},
    address::base,
    capabilities::with_options,
    frames::numbers,
    multipart::Joiner,
    query::{Target, parameters},
    retrieve::{Piece, etag, instance_url, listing, stale, streamed, unchanged},
    router::Shared,
    status::Problem,
    viewing::Asked,
};
use archive_model::transfer_syntax;
use archive_service::{
    CodecError, InstanceRow, Listing, RenderError, Shown, Viewing,
    document::{DocumentBody, is_document},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::Response,
    routing::get,
};
use futures::stream;
use serde::Deserialize;
use std::{collections::VecDeque, sync::Arc};

const JPEG: &str = "image/jpeg";
const PNG: &str = "image/png";
/// Pictures of one answer.
const PICTURES_MAX: usize = 100_000;
/// Pixels that are no picture of the patient by themselves: labels, doses, maps. The thumbnail of a study is not of them, if
/// it has others.
const DERIVED_CLASSES: [&str; 6] = [
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.11.8",
    "1.2.840.10008.5.1.4.1.1.200.8",
];

/// The last step of a path, if it names frames.
#[derive(Debug, Deserialize)]
pub(crate) struct Frames {
    list: Option<String>,
}

/// Below each resource that has pictures.
pub(crate) fn routes() -> Router<Shared> {
    let study = "/studies/{study}";
    let series = "/studies/{study}/series/{series}";
    let instance = "/studies/{study}/series/{series}/instances/{instance}";
    let frames = "/studies/{study}/series/{series}/instances/{instance}/frames/{list}";
    [study, series, instance, frames].into_iter().fold(Router::new(), |router, base| {
        router
            .route(&format!("{base}/rendered"), with_options(get(rendered)))
            .route(&format!("{base}/thumbnail"), with_options(get(thumbnail)))
    })
}

/// `…/rendered`
pub(crate) async fn rendered(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    Path(frames): Path<Frames>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    let asked = Asked::of(&parameters, false)?;
    let accept = Accept::of(&headers, &parameters);
    let numbers = frames.list.as_deref().map(numbers).transpose()?;
    let Listing { mut rows, may_be_stale } = listing(&shared, &target).await?;
    let is_instance = target.what() == "the instance";
    if let (true, [row]) = (is_instance, &rows[..]) {
        if is_document(row) {
            return document(&shared, row, &accept, &headers).await;
        }
        if transfer_syntax(&row.transfer_syntax).pixel.is_video() {
            return video(&shared, row, &accept, &headers).await;
        }
    }
    let most = rows.first().map_or(1, |row| row.frame_count.max(1));
    if is_instance && numbers.iter().flatten().any(|number| *number > most) {
        return Err(RenderError::NoFrame { frames: most }.into());
    }
    let before = rows.len();
    if !is_instance {
        rows.retain(|row| shared.archive.may_render(row));
    }
    let left_out = rows.len() < before;
    let single = match (&numbers, is_instance) {
        (Some(numbers), _) => numbers.len() == 1,
        (None, true) => true,
        (None, false) => matches!(&rows[..], [row] if row.frame_count == 1),
    };
    let multipart = [Form::Multipart(JPEG), Form::Multipart(PNG)];
    let forms = if single { vec![Form::Single(JPEG), Form::Single(PNG)] } else { Vec::new() };
    let forms: Vec<Form> = forms.into_iter().chain(multipart).collect();
    let offered =
        if single { "image/jpeg or image/png" } else { "multipart/related; type=\"image/jpeg\" or \"image/png\"" };
    let form = accept.choose(&forms, &[]).ok_or_else(|| Problem::not_acceptable(offered))?;
    if rows.is_empty() {
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "nothing of it has a picture: retrieve it as it is"));
    }
    match form {
        Form::Single(media_type) => {
            let shown = Shown::Frame(numbers.as_deref().and_then(<[u32]>::first).copied().unwrap_or(1));
            let (viewing, disregarded) = asked.into_viewing(media_type);
            one(&shared, &headers, &rows[0], shown, &viewing, disregarded).await
        }
        Form::Multipart(media_type) => {
            let (viewing, mut disregarded) = asked.into_viewing(media_type);
            if left_out {
                disregarded.push("some instances have no picture and are left out");
            }
            let etag = etag(&rows, &format!("{} {}", uri.path(), viewing.tag(&rows[0], Shown::Representative)));
            if let Some(response) = unchanged(&headers, &etag) {
                return Ok(response);
            }
            let base = base(&headers, &uri);
            // Never collected: Number of Frames may say two billion.
            let pictures = rows.into_iter().flat_map(|row| {
                let row = Arc::new(row);
                let all = if numbers.is_some() { 0 } else { row.frame_count.max(1) };
                let frames = numbers.clone().unwrap_or_default().into_iter().chain(1..=all);
                frames.map(move |frame| (Arc::clone(&row), frame))
            });
            let pictures: VecDeque<_> = pictures.take(PICTURES_MAX + 1).collect();
            if pictures.len() > PICTURES_MAX {
                return Err(Problem::bad("more than 100,000 pictures: ask for less at a time"));
            }
            let mut response = several(&shared, pictures, viewing, media_type, &base).await?;
            say(&mut response, &disregarded);
            put(&mut response, header::ETAG, &etag);
            put(&mut response, header::CACHE_CONTROL, "private, no-cache");
            Ok(if may_be_stale { stale(response) } else { response })
        }
    }
}

/// `…/thumbnail`
pub(crate) async fn thumbnail(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    Path(frames): Path<Frames>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    let asked = Asked::of(&parameters, true)?;
    let forms = [Form::Single(JPEG), Form::Single(PNG)];
    let Some(Form::Single(media_type)) = Accept::of(&headers, &parameters).choose(&forms, &[]) else {
        return Err(Problem::not_acceptable("image/jpeg or image/png"));
    };
    let shown = match frames.list.as_deref().map(numbers).transpose()?.as_deref() {
        None => Shown::Representative,
        Some([frame]) => Shown::Frame(*frame),
        Some(_) => return Err(Problem::bad("a thumbnail is of one frame: name one")),
    };
    let Listing { rows, may_be_stale } = listing(&shared, &target).await?;
    let is_instance = target.what() == "the instance";
    let row = if is_instance { rows.first() } else { representative(&shared, &rows) };
    let row =
        row.ok_or_else(|| Problem::new(StatusCode::NOT_ACCEPTABLE, "nothing of it has a picture: show a symbol"))?;
    let (viewing, disregarded) = asked.into_viewing(media_type);
    let mut response = one(&shared, &headers, row, shown, &viewing, disregarded).await?;
    if !is_instance {
        // Another image may be in the middle tomorrow.
        put(&mut response, header::CACHE_CONTROL, "private, no-cache");
    }
    Ok(if may_be_stale { stale(response) } else { response })
}

/// The image that stands for a series or a study.
fn representative<'a>(shared: &Shared, rows: &'a [InstanceRow]) -> Option<&'a InstanceRow> {
    let shown: Vec<&InstanceRow> = rows.iter().filter(|row| shared.archive.may_render(row)).collect();
    let is_derived = |row: &InstanceRow| DERIVED_CLASSES.contains(&row.sop_class.as_str());
    let series = &shown.iter().find(|row| !is_derived(row)).or(shown.first())?.series;
    let series: Vec<&InstanceRow> = shown.iter().copied().filter(|row| row.series == *series).collect();
    series.get(series.len() / 2).copied()
}

/// One picture of one frame: what every resource that shows one image answers. `disregarded` is what of the request is not
/// done.
pub(crate) async fn one(
    shared: &Shared,
    headers: &HeaderMap,
    row: &InstanceRow,
    shown: Shown,
    viewing: &Viewing,
    mut disregarded: Vec<&'static str>,
) -> Result<Response, Problem> {
    let etag = viewing.tag(row, shown);
    if let Some(mut response) = unchanged(headers, &etag) {
        put(&mut response, header::CACHE_CONTROL, OF_AN_INSTANCE);
        return Ok(response);
    }
    let picture = shared.archive.render(row, shown, viewing).await?;
    disregarded.extend(picture.disregarded);
    let mut response = Response::new(Body::from(picture.bytes));
    put(&mut response, header::CONTENT_TYPE, media_type(viewing));
    put(&mut response, header::ETAG, &etag);
    put(&mut response, header::CACHE_CONTROL, OF_AN_INSTANCE);
    put(&mut response, header::VARY, "accept");
    say(&mut response, &disregarded);
    Ok(response)
}

/// Content of a UID stays; a minute, in case that it is deleted or replaced.
const OF_AN_INSTANCE: &str = "private, max-age=60";

fn media_type(viewing: &Viewing) -> &'static str {
    match viewing.format {
        archive_service::render::Format::Jpeg { .. } => JPEG,
        archive_service::render::Format::Png => PNG,
    }
}

/// Pictures behind each other. The first is made before the head is sent, so that what fails has a status.
async fn several(
    shared: &Shared,
    mut pictures: VecDeque<(Arc<InstanceRow>, u32)>,
    viewing: Viewing,
    media_type: &'static str,
    base: &str,
) -> Result<Response, Problem> {
    let mut joiner = Joiner::new();
    let content_type = joiner.content_type(media_type);
    let (archive, base) = (shared.archive.clone(), base.to_owned());
    let part = async move |joiner: &mut Joiner, (row, frame): (Arc<InstanceRow>, u32)| {
        let picture = archive.render(&row, Shown::Frame(frame), &viewing).await?;
        let place = format!("{}/frames/{frame}/rendered", instance_url(&base, &row));
        Ok::<_, Problem>([joiner.part(media_type, &place), picture.bytes])
    };
    let first = match pictures.pop_front() {
        Some(first) => part(&mut joiner, first).await?,
        None => return Err(Problem::unknown("a picture")),
    };
    let state = (joiner, pictures, VecDeque::from(first), false, part);
    let body = stream::try_unfold(state, |(mut joiner, mut pictures, mut ready, ended, part)| async move {
        if ready.is_empty() && !ended {
            match pictures.pop_front() {
                Some(next) => {
                    let made = part(&mut joiner, next).await.map_err(|problem| {
                        tracing::warn!(why = %problem.what, "an answer was cut off");
                        problem.what
                    })?;
                    ready.extend(made);
                }
                None => return Ok(Some((joiner.end(), (joiner, pictures, ready, true, part)))),
            }
        }
        Ok::<_, String>(ready.pop_front().map(|bytes| (bytes, (joiner, pictures, ready, ended, part))))
    });
    let mut response = Response::new(Body::from_stream(body));
    put(&mut response, header::CONTENT_TYPE, &content_type);
    put(&mut response, header::VARY, "accept");
    Ok(response)
}

/// A document as an attachment: a page of this origin never shows it by itself.
async fn document(
    shared: &Shared,
    row: &InstanceRow,
    accept: &Accept,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let document = shared.archive.document(row).await?;
    accept
        .choose(&[Form::Single(document.media_type)], &[])
        .ok_or_else(|| Problem::not_acceptable(document.media_type))?;
    let etag = etag(std::slice::from_ref(row), "document");
    if let Some(response) = unchanged(headers, &etag) {
        return Ok(response);
    }
    let piece = match document.body {
        DocumentBody::Bytes(bytes) => Piece::Bytes(bytes),
        DocumentBody::Place(place) => Piece::Value(row.clone(), place, crate::value::Turn::Nothing),
    };
    let mut response = streamed(&shared.archive, VecDeque::from([piece]), document.media_type, &etag).await?;
    let name = format!("attachment; filename=\"{}.{}\"", row.instance, document.ending);
    put(&mut response, header::CONTENT_DISPOSITION, &name);
    Ok(response)
}

/// A video as it is stored: nothing here draws its frames.
async fn video(shared: &Shared, row: &InstanceRow, accept: &Accept, headers: &HeaderMap) -> Result<Response, Problem> {
    let media_type = transfer_syntax(&row.transfer_syntax).media_type;
    let form = accept.choose(&[Form::Single(media_type)], &[]);
    form.ok_or_else(|| {
        Problem::not_acceptable(&format!("{media_type}, for it is a video, of which no picture is made"))
    })?;
    let etag = etag(std::slice::from_ref(row), "video");
    if let Some(response) = unchanged(headers, &etag) {
        return Ok(response);
    }
    let map = shared.archive.frames(row).await?.ok_or_else(|| Problem::unknown("the video"))?;
    let pieces = (1..=map.frames()).flat_map(|frame| map.ranges(frame).unwrap_or_default());
    let pieces = pieces.map(|range| Piece::Value(row.clone(), range, crate::value::Turn::Nothing)).collect();
    streamed(&shared.archive, pieces, media_type, &etag).await
}

/// Says what of the request was not done (RFC 7234 §5.5, PS3.18 §8.3.5.1.1).
fn say(response: &mut Response, disregarded: &[&'static str]) {
    for what in disregarded {
        if let Ok(value) = HeaderValue::from_str(&format!("299 triptych \"{what}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

fn put(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

impl From<RenderError> for Problem {
    fn from(error: RenderError) -> Self {
        let status = match &error {
            RenderError::None(_) => StatusCode::NOT_ACCEPTABLE,
            RenderError::NoFrame { .. } => StatusCode::NOT_FOUND,
            RenderError::Bad(_) => StatusCode::BAD_REQUEST,
            RenderError::Busy | RenderError::Late(_) => StatusCode::SERVICE_UNAVAILABLE,
            RenderError::Frame { why, .. } => match why {
                CodecError::Missing | CodecError::Start { .. } => StatusCode::NOT_IMPLEMENTED,
                CodecError::Refused(_) | CodecError::Unsupported(_) => StatusCode::NOT_ACCEPTABLE,
                CodecError::Late(_) => StatusCode::SERVICE_UNAVAILABLE,
                CodecError::Lost(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            RenderError::Look(_) | RenderError::Read(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        match error {
            RenderError::Look(error) => error.into(),
            RenderError::Read(error) => error.into(),
            error => Self::new(status, error.to_string()),
        }
    }
}
