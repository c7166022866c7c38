//! The bulk values of an instance, a series or a study, all of them or those of pixel data (PS3.18 §10.4.1.1.4, §10.4.1.1.5).
//!
//! ```text
//!   …/bulkdata    each value that the metadata names by a BulkDataURI: one part under that URI
//!   …/pixeldata   of them, the pixel data
//!                 compressed: one part a frame, under …/frames/N
//! ```
//!
//! The parts of one instance are made when it is its turn (W-1): a study may have a million.

use crate::{
    accept::{Accept, Form},
    address::base,
    query::{Target, parameters},
    retrieve::{Piece, etag, instance_url, listing, stale, streamed, unchanged},
    router::Shared,
    status::Problem,
    value::{Turn, swapped_bytes, value_syntax},
};
use archive_model::{FrameMap, transfer_syntax};
use archive_service::{Archive, Freshness, InstanceRow, Listing, Selection};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use bytes::Bytes;
use serde_json::Value as Json;
use std::{collections::VecDeque, sync::Arc};

const BYTES: &str = "application/octet-stream";
/// Pixel Data, Float Pixel Data, Double Float Pixel Data.
const PIXELS: [&str; 3] = ["7FE00010", "7FE00008", "7FE00009"];

/// Which values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Pixels,
}

/// What the parts of one body have in common.
#[derive(Debug)]
pub(crate) struct Parts {
    which: Which,
    base: String,
    boundary: String,
}

pub(crate) async fn pixeldata(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    get(&shared, &target, Which::Pixels, &uri, &headers).await
}

pub(crate) async fn bulkdata(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    get(&shared, &target, Which::All, &uri, &headers).await
}

async fn get(
    shared: &Shared,
    target: &Target,
    which: Which,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let accept = Accept::of(headers, &parameters(uri.query())?);
    let Listing { rows, may_be_stale } = listing(shared, target).await?;
    let syntaxes: std::collections::BTreeSet<&str> = rows.iter().map(value_syntax).collect();
    let syntaxes: Vec<&str> = syntaxes.into_iter().collect();
    if accept.choose(&[Form::Multipart(BYTES)], &syntaxes).is_none() {
        let offered = format!("multipart/related; type=\"{BYTES}\"; transfer-syntax=* — here {}", syntaxes.join(", "));
        return Err(Problem::not_acceptable(&offered));
    }
    let base = base(headers, uri);
    let etag = etag(&rows, &format!("{which:?} {base}"));
    if let Some(response) = unchanged(headers, &etag) {
        return Ok(response);
    }
    let boundary = format!("triptych-{}", uuid::Uuid::new_v4().simple());
    let content_type = format!("multipart/related; type=\"{BYTES}\"; boundary={boundary}");
    let parts = Arc::new(Parts { which, base, boundary });
    // The first that has such a value decides whether there is anything.
    let mut rest = rows.into_iter();
    let mut pieces = VecDeque::new();
    for row in rest.by_ref() {
        let own = of_instance(&shared.archive, row, &parts, pieces.is_empty()).await?;
        if !own.is_empty() {
            pieces.extend(own);
            break;
        }
    }
    if pieces.is_empty() {
        let what = "there are no such values in it: its metadata says all that it has";
        return Err(Problem::new(StatusCode::NOT_FOUND, what));
    }
    pieces.extend(rest.map(|row| Piece::ValuesOf(row, Arc::clone(&parts))));
    pieces.push_back(Piece::Bytes(format!("\r\n--{}--\r\n", parts.boundary).into()));
    let response = streamed(&shared.archive, pieces, &content_type, &etag).await?;
    Ok(if may_be_stale { stale(response) } else { response })
}

/// The parts of an instance.
pub(crate) async fn of_instance(
    archive: &Archive,
    row: InstanceRow,
    parts: &Arc<Parts>,
    first: bool,
) -> Result<VecDeque<Piece>, Problem> {
    let url = instance_url(&parts.base, &row);
    let mut begun = !first;
    let mut pieces = VecDeque::new();
    for Bulk { tag, vr, offset, length } in bulk_values(archive, &row).await? {
        if parts.which == Which::Pixels && !PIXELS.contains(&&*tag) {
            continue;
        }
        let first = !std::mem::replace(&mut begun, true);
        if tag == PIXELS[0] && transfer_syntax(&row.transfer_syntax).encapsulated {
            if let Some(map) = archive.frames(&row).await? {
                pieces.push_back(Piece::FramesOf(
                    Box::new(FramesOf { row: row.clone(), map, next: 1, first }),
                    Arc::clone(parts),
                ));
            }
            continue;
        }
        pieces.push_back(Piece::Bytes(parts.head(&row, &format!("{url}/bulkdata/{offset}-{length}"), first)));
        let turn = Turn::words(swapped_bytes(&row, &vr));
        pieces.push_back(Piece::Value(row.clone(), offset..offset.saturating_add(length), turn));
    }
    Ok(pieces)
}

/// The frames of a compressed instance, one part each.
pub(crate) struct FramesOf {
    row: InstanceRow,
    map: FrameMap,
    next: u32,
    /// The next part is the first of the body.
    first: bool,
}

impl FramesOf {
    /// What the next part is made from; `None` after the last.
    pub(crate) fn next(&mut self, parts: &Parts) -> Option<VecDeque<Piece>> {
        let number = self.next;
        self.next = number.checked_add(1)?;
        let ranges = self.map.ranges(number).filter(|_| number <= self.map.frames())?;
        let url = format!("{}/frames/{number}", instance_url(&parts.base, &self.row));
        let mut pieces = VecDeque::from([Piece::Bytes(parts.head(&self.row, &url, std::mem::take(&mut self.first)))]);
        pieces.extend(ranges.into_iter().map(|range| Piece::Value(self.row.clone(), range, Turn::Nothing)));
        Some(pieces)
    }
}

impl Parts {
    fn head(&self, row: &InstanceRow, location: &str, first: bool) -> Bytes {
        let line = if first { "" } else { "\r\n" };
        let (boundary, syntax) = (&self.boundary, value_syntax(row));
        format!(
            "{line}--{boundary}\r\nContent-Type: {BYTES}; transfer-syntax={syntax}\r\nContent-Location: {location}\r\n\r\n"
        )
        .into()
    }
}

/// A value that was left in the body.
struct Bulk {
    tag: String,
    vr: String,
    offset: u64,
    length: u64,
}

/// In ascending order of their places, as a deflated body is read.
async fn bulk_values(archive: &Archive, row: &InstanceRow) -> Result<Vec<Bulk>, Problem> {
    let selection = Selection {
        patient: None,
        studies: vec![row.study.clone()],
        series: vec![row.series.clone()],
        instances: vec![row.instance.clone()],
    };
    let mut headers = archive.headers(selection, Freshness::Local).await?;
    let Some((_, header)) = headers.next().await.transpose()? else { return Ok(Vec::new()) };
    let Ok(header) = serde_json::from_slice::<Json>(&header) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    gather(&header, &mut found);
    found.sort_unstable_by_key(|bulk| bulk.offset);
    Ok(found)
}

fn gather(set: &Json, found: &mut Vec<Bulk>) {
    // Depth is limited by serde_json, which has read this.
    for (tag, element) in set.as_object().into_iter().flatten() {
        let place = element["BulkDataURI"].as_str().and_then(|place| place.split_once('-'));
        if let Some((Ok(offset), Ok(length))) = place.map(|(offset, length)| (offset.parse(), length.parse())) {
            let vr = element["vr"].as_str().unwrap_or_default().to_owned();
            found.push(Bulk { tag: tag.clone(), vr, offset, length });
        }
        element["Value"].as_array().into_iter().flatten().for_each(|item| gather(item, found));
    }
}
