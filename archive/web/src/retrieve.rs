//! WADO-RS: studies, series and instances as they were received (PS3.18 §10.4).
//!
//! A part is a file: the meta group written anew, then the stored bytes of the data set, streamed piece by piece. Two
//! encodings may not leave on the web (PS3.18 §8.7.3): they are recoded to Explicit VR Little Endian on their way. An
//! extension gives them all the same, to who asks for it by name: `?as=received`. With it, `&version=N` is another content
//! that is kept under the UID of an instance (`versions.rs`). Who demands Explicit VR Little Endian has compressed images
//! decoded; who demands RLE, JPEG-LS or HTJ2K has plain ones compressed, without loss.

use crate::{
    accept::{Accept, Form},
    address::base,
    multipart::Joiner,
    pixeldata,
    query::{Target, parameters},
    range::{kept, whole_or_part},
    router::Shared,
    status::Problem,
    value::{Inflating, Turn},
    zip::{self, ZIP},
};
use archive_model::{COMPRESSED, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, transfer_syntax, write_file_meta};
use archive_service::{Archive, Converting, Freshness, InstanceRow, Listing, NativeFrames, Reading};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use bytes::Bytes;
use futures::stream;
use std::{
    collections::{BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::Arc,
};

const DICOM: &str = "application/dicom";

pub(crate) async fn get(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    let received = as_received(&parameters)?;
    let Listing { rows, may_be_stale } = match version(&parameters, received)? {
        None => listing(&shared, &target).await?,
        Some(number) => Listing { rows: vec![row_of_version(&shared, &target, number).await?], may_be_stale: false },
    };
    let stored = |row: &InstanceRow| if received { row.transfer_syntax.clone() } else { on_the_web(row).to_owned() };
    // Second choices, for who demands them: all that can be Explicit VR Little Endian is that, decoded if need be; or all that
    // can be compressed is.
    let second = |target: &str, row: &InstanceRow| {
        let as_it_is = target == row.transfer_syntax || !shared.archive.may_convert(row, target);
        if as_it_is { on_the_web(row).to_owned() } else { target.to_owned() }
    };
    let mut targets: Vec<String> = rows.iter().map(stored).collect();
    // A file alone only where there can be only one.
    let forms: &[Form] = match target.what() {
        "the instance" => &[Form::Multipart(DICOM), Form::Single(DICOM), Form::Single(ZIP)],
        _ => &[Form::Multipart(DICOM), Form::Single(ZIP)],
    };
    let accept = Accept::of(&headers, &parameters);
    let mut form = accept.choose(forms, &distinct(&targets));
    for target in std::iter::once(EXPLICIT_LE).chain(COMPRESSED).filter(|_| !received) {
        if form.is_none() {
            let others: Vec<String> = rows.iter().map(|row| second(target, row)).collect();
            form = accept.choose(forms, &distinct(&others));
            if form.is_some() {
                targets = others;
            }
        }
    }
    let form = form.ok_or_else(|| not_acceptable(&distinct(&targets)))?;
    if form == Form::Single(ZIP) {
        if received {
            return Err(Problem::bad(
                "a ZIP file has what the web has: leave as=received out, or accept multipart/related",
            ));
        }
        let etag = etag(&rows, &format!("zip {}", distinct(&targets).join(" ")));
        if let Some(response) = unchanged(&headers, &etag) {
            return Ok(response);
        }
        let syntaxes = rows.iter().map(|row| row.instance.to_string()).zip(targets).collect();
        let response = zip::answer(&shared, &target, syntaxes, &etag).await?;
        return Ok(if may_be_stale { stale(response) } else { response });
    }
    if let (Form::Single(_), [row], [target]) = (form, rows.as_slice(), targets.as_slice()) {
        let response = file(&shared, &headers, row, target).await?;
        return Ok(if received { response } else { kept(&shared, row, response) });
    }
    let etag = etag(&rows, &distinct(&targets).join(" "));
    let alone = rows.first().filter(|_| target.what() == "the instance" && !received).cloned();
    let keep = |response| match &alone {
        Some(row) => kept(&shared, row, response),
        None => response,
    };
    if let Some(response) = unchanged(&headers, &etag) {
        return Ok(keep(response));
    }
    let base = base(&headers, &uri);
    let mut joiner = Joiner::new();
    let mut pieces = VecDeque::new();
    for (row, target) in rows.into_iter().zip(targets) {
        let part_type = format!("{DICOM}; transfer-syntax={target}");
        pieces.push_back(Piece::Bytes(joiner.part(&part_type, &instance_url(&base, &row))));
        pieces.push_back(Piece::Meta(row.clone(), target.clone()));
        let all = 0..row.length_bytes;
        pieces.push_back(if target == row.transfer_syntax {
            Piece::Part(row, all)
        } else {
            Piece::Convert(row, target)
        });
    }
    let content_type = joiner.content_type(DICOM);
    pieces.push_back(Piece::Bytes(joiner.end()));
    let response = streamed(&shared.archive, pieces, &content_type, &etag).await?;
    Ok(if may_be_stale { stale(response) } else { keep(response) })
}

/// An instance alone, as a file.
pub(crate) async fn file(
    shared: &Shared,
    headers: &HeaderMap,
    row: &InstanceRow,
    target: &str,
) -> Result<Response, Problem> {
    let etag = etag(std::slice::from_ref(row), &format!("file {target}"));
    let body = if target == row.transfer_syntax {
        Piece::Part(row.clone(), 0..row.length_bytes)
    } else {
        Piece::Convert(row.clone(), target.to_owned())
    };
    let pieces = VecDeque::from([Piece::Bytes(meta(&shared.archive, row, target)), body]);
    let content_type = format!("{DICOM}; transfer-syntax={target}");
    whole_or_part(shared, headers, pieces, (&content_type, &etag)).await
}

/// What stands before the data set in a file of this transfer syntax.
fn meta(archive: &Archive, row: &InstanceRow, syntax: &str) -> Bytes {
    write_file_meta(row.sop_class.as_str(), row.instance.as_str(), syntax, Some(archive.ae_title())).into()
}

/// Says that there may be more than is answered (RFC 7234 §5.5.1).
pub(crate) fn stale(mut response: Response) -> Response {
    let warning = HeaderValue::from_static("110 - \"no majority of nodes is up: there may be more instances\"");
    response.headers_mut().insert(header::WARNING, warning);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the stored bytes are wanted whatever encoding they are in: an extension, for tools that compare bytes.
fn as_received(parameters: &[(String, String)]) -> Result<bool, Problem> {
    match parameters.iter().find(|(name, _)| name == "as").map(|(_, value)| value.as_str()) {
        None => Ok(false),
        Some("received") => Ok(true),
        Some(_) => {
            Err(Problem::bad("the parameter `as` has one value: as=received, for the bytes as they were stored"))
        }
    }
}

/// The number of a version, if one is asked for: 0 is what the UID answers.
fn version(parameters: &[(String, String)], received: bool) -> Result<Option<u32>, Problem> {
    let Some((_, text)) = parameters.iter().find(|(name, _)| name == "version") else { return Ok(None) };
    let number = text.parse().map_err(|_| Problem::bad("`version` is a number of /api/versions?study=UID"))?;
    if !received {
        return Err(Problem::bad("a version is had as it was received only: add as=received"));
    }
    Ok((number > 0).then_some(number))
}

async fn row_of_version(shared: &Shared, target: &Target, number: u32) -> Result<InstanceRow, Problem> {
    let selection = target.selection()?;
    let ([study], [series], [instance]) =
        (selection.studies.as_slice(), selection.series.as_slice(), selection.instances.as_slice())
    else {
        return Err(Problem::bad("a version is one of an instance: name its study, series and UID"));
    };
    let found = shared.archive.versions(study.clone(), Some((instance.clone(), number)), 10).await?;
    let found = found.into_iter().map(|version| version.row).find(|row| row.series == *series);
    found.ok_or_else(|| Problem::unknown("this version"))
}

/// The transfer syntax in which an instance leaves on the web: the stored one, but for the two that may not
/// (PS3.18 §8.7.3).
pub(crate) fn on_the_web(row: &InstanceRow) -> &str {
    match row.transfer_syntax.as_str() {
        IMPLICIT_LE | EXPLICIT_BE => EXPLICIT_LE,
        stored => stored,
    }
}

fn distinct(syntaxes: &[String]) -> Vec<&str> {
    let distinct: BTreeSet<&str> = syntaxes.iter().map(String::as_str).collect();
    distinct.into_iter().collect()
}

/// The instances of a path, or 404.
pub(crate) async fn listing(shared: &Shared, target: &Target) -> Result<Listing, Problem> {
    let listing = shared.archive.listing(target.selection()?, Freshness::ReadIndex).await?;
    if listing.rows.is_empty() { Err(Problem::unknown(target.what())) } else { Ok(listing) }
}

pub(crate) fn not_acceptable(syntaxes: &[&str]) -> Problem {
    let stored = syntaxes.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    Problem::not_acceptable(&format!(
        "multipart/related; type=\"application/dicom\"; transfer-syntax=* — which here is {stored}; or, but for videos, transfer-syntax={EXPLICIT_LE}"
    ))
}

pub(crate) fn instance_url(base: &str, row: &InstanceRow) -> String {
    format!("{base}/studies/{}/series/{}/instances/{}", row.study, row.series, row.instance)
}

/// Changes when any of the contents does, or `form` in which they are answered.
pub(crate) fn etag(rows: &[InstanceRow], form: &str) -> String {
    let mut hasher = DefaultHasher::new();
    for row in rows {
        row.digest.hash(&mut hasher);
    }
    form.hash(&mut hasher);
    // Weak: boundaries differ, and gzip may be on top.
    format!("W/\"{:016x}-{}\"", hasher.finish(), rows.len())
}

/// 304 when the client has it already.
pub(crate) fn unchanged(headers: &HeaderMap, etag: &str) -> Option<Response> {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let bare = etag.trim_start_matches("W/");
    let same = |known: &str| known.trim() == "*" || known.trim().trim_start_matches("W/") == bare;
    if !known.flat_map(|value| value.split(',')).any(same) {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::ETAG, HeaderValue::from_str(etag).ok()?);
    Some(response)
}

/// Something of a body that is sent.
pub(crate) enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// What stands before the data set in a file of this transfer syntax.
    Meta(InstanceRow, String),
    /// An instance in another transfer syntax than the stored one.
    Convert(InstanceRow, String),
    /// An instance that is being converted.
    Converting(Box<Converting>),
    /// A frame that is decoded.
    Frame(Arc<NativeFrames>, u32),
    /// A part of an instance's stored bytes.
    Part(InstanceRow, Range<u64>),
    /// A part of its data set, as the web has it.
    Value(InstanceRow, Range<u64>, Turn),
    /// A part that is being read.
    Reading(Box<Reading>, Turn),
    /// A part that is being inflated.
    Inflated(Range<u64>, Turn),
    /// The bulk values of an instance, as parts.
    ValuesOf(InstanceRow, Arc<pixeldata::Parts>),
    /// The frames of one, as parts.
    FramesOf(Box<pixeldata::FramesOf>, Arc<pixeldata::Parts>),
}

/// A body of `pieces`. The first is read before the head is sent, so that what cannot be read is an error with a status.
pub(crate) async fn streamed(
    archive: &Archive,
    pieces: VecDeque<Piece>,
    content_type: &str,
    etag: &str,
) -> Result<Response, Problem> {
    let mut state = Source::new(archive.clone(), pieces);
    let mut ahead = Vec::new();
    while let Some((bytes, read)) = next(&mut state).await? {
        ahead.push(Ok::<Bytes, Problem>(bytes));
        if read {
            break;
        }
    }
    let rest =
        stream::try_unfold(
            state,
            |mut state| async move { Ok(next(&mut state).await?.map(|(bytes, _)| (bytes, state))) },
        );
    let body = futures::StreamExt::chain(stream::iter(ahead), rest);
    let body = Body::from_stream(futures::TryStreamExt::map_err(body, |problem: Problem| {
        tracing::warn!(why = %problem.what, "an answer was cut off");
        problem.what
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [(header::CONTENT_TYPE, content_type), (header::ETAG, etag)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// What a body is made from.
pub(crate) struct Source {
    archive: Archive,
    pieces: VecDeque<Piece>,
    /// The deflated instance whose parts are being sent.
    inflating: Option<Inflating>,
}

impl Source {
    pub(crate) fn new(archive: Archive, pieces: VecDeque<Piece>) -> Self {
        Self { archive, pieces, inflating: None }
    }
}

/// The next bytes, and whether they are of an instance.
pub(crate) async fn next(source: &mut Source) -> Result<Option<(Bytes, bool)>, Problem> {
    let Source { archive, pieces, inflating } = source;
    while let Some(piece) = pieces.pop_front() {
        match piece {
            Piece::Bytes(bytes) => return Ok(Some((bytes, false))),
            Piece::Meta(row, syntax) => return Ok(Some((meta(archive, &row, &syntax), false))),
            Piece::Convert(row, target) => {
                let converting = archive.convert(&row, &target).await?;
                pieces.push_front(Piece::Converting(Box::new(converting)));
            }
            Piece::Converting(mut converting) => {
                if let Some(bytes) = converting.next().await.transpose()? {
                    pieces.push_front(Piece::Converting(converting));
                    return Ok(Some((bytes, true)));
                }
            }
            Piece::Frame(frames, number) => return Ok(Some((frames.frame(number).await?, true))),
            Piece::Part(row, range) => {
                pieces.push_front(Piece::Reading(Box::new(archive.read(&row, range)), Turn::Nothing));
            }
            Piece::Value(row, range, turn) if transfer_syntax(&row.transfer_syntax).deflated => {
                inflating.get_or_insert_with(|| Inflating::new(archive.read(&row, 0..row.length_bytes)));
                pieces.push_front(Piece::Inflated(range, turn));
            }
            Piece::Value(row, range, turn) => {
                pieces.push_front(Piece::Reading(Box::new(archive.read(&row, range)), turn));
            }
            Piece::ValuesOf(row, parts) => {
                *inflating = None;
                let mut own = pixeldata::of_instance(archive, row, &parts, false).await?;
                while let Some(last) = own.pop_back() {
                    pieces.push_front(last);
                }
            }
            Piece::FramesOf(mut frames, parts) => {
                if let Some(mut own) = frames.next(&parts) {
                    pieces.push_front(Piece::FramesOf(frames, parts));
                    while let Some(last) = own.pop_back() {
                        pieces.push_front(last);
                    }
                }
            }
            Piece::Inflated(mut range, mut turn) => {
                let Some(inflating) = inflating.as_mut() else { continue };
                if let Some(bytes) = inflating.next(&mut range).await? {
                    let bytes = turn.push(bytes);
                    pieces.push_front(Piece::Inflated(range, turn));
                    return Ok(Some((bytes, true)));
                }
                pieces.push_front(Piece::Bytes(turn.finish()));
            }
            Piece::Reading(mut reading, mut turn) => {
                if let Some(bytes) = reading.next().await.transpose()? {
                    let bytes = turn.push(bytes);
                    pieces.push_front(Piece::Reading(reading, turn));
                    return Ok(Some((bytes, true)));
                }
                pieces.push_front(Piece::Bytes(turn.finish()));
            }
        }
    }
    Ok(None)
}
