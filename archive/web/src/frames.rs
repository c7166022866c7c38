//! Frames and bulk values: ranges of the data set (PS3.18 §10.4.1.1.3, §10.4.1.1.5). Who demands frames in Explicit VR Little
//! Endian has compressed ones decoded.

use crate::{
    accept::{Accept, Form},
    address::base,
    multipart::Joiner,
    query::{Target, parameters},
    range::{kept, whole_or_part},
    retrieve::{Piece, etag, instance_url, listing, streamed, unchanged},
    router::Shared,
    status::Problem,
    value::{Place, Turn, is_remade, value_syntax, word_bytes},
};
use archive_model::{EXPLICIT_LE, can_decode, transfer_syntax};
use archive_service::InstanceRow;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde::Deserialize;
use std::{collections::VecDeque, ops::Range, sync::Arc};

const BYTES: &str = "application/octet-stream";
/// Frames of one request; a viewer asks for one, or for some.
const FRAMES_MAX: usize = 10_000;
/// Pieces of the body that the frames of one answer lie in: a frame may have a million fragments.
const PIECES_MAX: usize = 200_000;

/// The last step of a path.
#[derive(Debug, Deserialize)]
pub(crate) struct Last {
    #[serde(default)]
    list: String,
    #[serde(default)]
    place: String,
}

pub(crate) async fn frames(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    Path(last): Path<Last>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    let numbers = numbers(&last.list)?;
    let row = one(&shared, &target).await?;
    let syntax = transfer_syntax(&row.transfer_syntax);
    let mut forms = vec![Form::Multipart(BYTES)];
    if syntax.media_type != BYTES {
        forms.push(Form::Multipart(syntax.media_type));
    }
    if numbers.len() == 1 {
        forms.extend([Form::Single(BYTES), Form::Single(syntax.media_type)]);
    }
    let accept = Accept::of(&headers, &parameters);
    let Some(form) = accept.choose(&forms, &[value_syntax(&row)]) else {
        forms.retain(|form| matches!(form, Form::Multipart(BYTES) | Form::Single(BYTES)));
        let form = accept.choose(&forms, &[EXPLICIT_LE]).filter(|_| can_decode(&row.transfer_syntax, EXPLICIT_LE));
        let form = form.ok_or_else(|| {
            Problem::not_acceptable(&format!(
                "multipart/related; type=\"{}\"; transfer-syntax={}; or, but for videos, type=\"{BYTES}\"; \
                 transfer-syntax={EXPLICIT_LE}",
                syntax.media_type,
                value_syntax(&row)
            ))
        })?;
        return decoded(&shared, row, &numbers, form, (&headers, &uri)).await;
    };
    if syntax.deflated && !numbers.is_sorted() {
        let what =
            "frames of an instance that is stored deflated are inflated in order: ask for them in ascending order";
        return Err(Problem::bad(what));
    }
    let ranges = ranges(&shared, &row, &numbers).await?;
    let etag = |form: &str| etag(std::slice::from_ref(&row), &format!("{form} {}", uri.path()));
    let url = instance_url(&base(&headers, &uri), &row);
    let named = |kind: &str| format!("{kind}; transfer-syntax={}", value_syntax(&row));
    let mut pieces = VecDeque::new();
    let response = match form {
        Form::Single(kind) => {
            pieces.extend(ranges.into_iter().flatten().map(|(range, turn)| Piece::Value(row.clone(), range, turn)));
            whole_or_part(&shared, &headers, pieces, (&named(kind), &etag(kind))).await?
        }
        Form::Multipart(kind) => {
            let etag = etag("parts");
            if let Some(response) = unchanged(&headers, &etag) {
                return Ok(kept(&shared, &row, response));
            }
            let mut joiner = Joiner::new();
            for (number, ranges) in numbers.iter().zip(ranges) {
                pieces.push_back(Piece::Bytes(joiner.part(&named(kind), &format!("{url}/frames/{number}"))));
                pieces.extend(ranges.into_iter().map(|(range, turn)| Piece::Value(row.clone(), range, turn)));
            }
            pieces.push_back(Piece::Bytes(joiner.end()));
            streamed(&shared.archive, pieces, &joiner.content_type(kind), &etag).await?
        }
    };
    Ok(kept(&shared, &row, response))
}

/// Frames in Explicit VR Little Endian that are stored in a compressed syntax.
async fn decoded(
    shared: &Shared,
    row: InstanceRow,
    numbers: &[u32],
    form: Form,
    (headers, uri): (&HeaderMap, &Uri),
) -> Result<Response, Problem> {
    ranges(shared, &row, numbers).await?;
    let etag = etag(std::slice::from_ref(&row), &format!("{} {EXPLICIT_LE}", uri.path()));
    if let Some(response) = unchanged(headers, &etag) {
        return Ok(kept(shared, &row, response));
    }
    let url = instance_url(&base(headers, uri), &row);
    let frames = Arc::new(shared.archive.native_frames(&row).await?);
    let named = format!("{BYTES}; transfer-syntax={EXPLICIT_LE}");
    let mut pieces = VecDeque::new();
    let content_type = match form {
        Form::Single(_) => {
            pieces.extend(numbers.iter().map(|number| Piece::Frame(Arc::clone(&frames), *number)));
            named
        }
        Form::Multipart(kind) => {
            let mut joiner = Joiner::new();
            for number in numbers {
                pieces.push_back(Piece::Bytes(joiner.part(&named, &format!("{url}/frames/{number}"))));
                pieces.push_back(Piece::Frame(Arc::clone(&frames), *number));
            }
            pieces.push_back(Piece::Bytes(joiner.end()));
            joiner.content_type(kind)
        }
    };
    let response = streamed(&shared.archive, pieces, &content_type, &etag).await?;
    Ok(kept(shared, &row, response))
}

/// Where the frames lie, and what is to be done to their bytes.
async fn ranges(shared: &Shared, row: &InstanceRow, numbers: &[u32]) -> Result<Vec<Vec<(Range<u64>, Turn)>>, Problem> {
    let map = shared.archive.frames(row).await?;
    let map =
        map.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the instance has no frames: retrieve it whole"))?;
    let words = if is_remade(row) { word_bytes(shared, row, &Place::Pixels).await?.unwrap_or(1) } else { 1 };
    let begin = map.bits(1).map_or(0, |(range, ..)| range.start);
    let mut found = Vec::with_capacity(numbers.len());
    let mut left = PIECES_MAX;
    for number in numbers {
        if *number > map.frames() {
            let what = format!("the instance has {} frames, counted from 1: ask for one of them", map.frames());
            return Err(Problem::new(StatusCode::NOT_FOUND, what));
        }
        let ranges = match map.bits(*number) {
            Some((range, shift, bits)) => {
                let turn = Turn::bits(shift, bits);
                let whole = |bytes: u64| bytes.is_multiple_of(words as u64);
                if words > 1 && !(turn == Turn::Nothing && whole(range.start - begin) && whole(range.end - begin)) {
                    let what = "frames of this big endian instance do not begin on whole words: retrieve it whole";
                    return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, what));
                }
                vec![(range, if words > 1 { Turn::words(words) } else { turn })]
            }
            None => map.ranges(*number).into_iter().flatten().map(|range| (range, Turn::Nothing)).collect(),
        };
        left = left.checked_sub(ranges.len()).ok_or_else(|| {
            Problem::bad("these frames are in too many pieces: ask for fewer at a time, or for the instance")
        })?;
        found.push(ranges);
    }
    Ok(found)
}

/// `1,3,4`: counted from 1.
pub(crate) fn numbers(list: &str) -> Result<Vec<u32>, Problem> {
    let wrong = || Problem::bad("frames are a list such as 1,2,5, counted from 1, of at most 10000");
    let numbers: Vec<u32> = list
        .split(',')
        .take(FRAMES_MAX + 1)
        .map(|number| number.trim().parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    if numbers.len() > FRAMES_MAX {
        return Err(wrong());
    }
    if numbers.contains(&0) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "frames are counted from 1: there is no frame 0"));
    }
    Ok(numbers)
}

async fn one(shared: &Shared, target: &Target) -> Result<InstanceRow, Problem> {
    let mut rows = listing(shared, target).await?.rows;
    Ok(rows.swap_remove(0))
}

pub(crate) async fn bulk(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    Path(last): Path<Last>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    let wrong = || Problem::bad("a bulk value is named <offset>-<length>: take its BulkDataURI from the metadata");
    let (offset, length) = last.place.split_once('-').ok_or_else(wrong)?;
    let (offset, length): (u64, u64) = (offset.parse().map_err(|_| wrong())?, length.parse().map_err(|_| wrong())?);
    let row = one(&shared, &target).await?;
    let nowhere =
        || Problem::new(StatusCode::NOT_FOUND, "no bulk value lies there: take its BulkDataURI from the metadata");
    let end = offset.checked_add(length).ok_or_else(nowhere)?;
    let words = if is_remade(&row) {
        word_bytes(&shared, &row, &Place::At(format!("{offset}-{length}"))).await?.ok_or_else(nowhere)?
    } else if end <= row.length_bytes {
        1
    } else {
        return Err(nowhere());
    };
    let forms = [Form::Single(BYTES), Form::Multipart(BYTES)];
    let form = Accept::of(&headers, &parameters).choose(&forms, &[value_syntax(&row)]);
    let form = form.ok_or_else(|| Problem::not_acceptable(BYTES))?;
    let etag = |form: &str| etag(std::slice::from_ref(&row), &format!("{form} {}", uri.path()));
    let named = format!("{BYTES}; transfer-syntax={}", value_syntax(&row));
    let url = format!("{}/bulkdata/{offset}-{length}", instance_url(&base(&headers, &uri), &row));
    let value = Piece::Value(row.clone(), offset..end, Turn::words(words));
    let response = match form {
        Form::Multipart(kind) => {
            let etag = etag("parts");
            if let Some(response) = unchanged(&headers, &etag) {
                return Ok(kept(&shared, &row, response));
            }
            let mut joiner = Joiner::new();
            let pieces = [Piece::Bytes(joiner.part(&named, &url)), value, Piece::Bytes(joiner.end())];
            streamed(&shared.archive, pieces.into(), &joiner.content_type(kind), &etag).await?
        }
        Form::Single(_) => whole_or_part(&shared, &headers, [value].into(), (&named, &etag("single"))).await?,
    };
    Ok(kept(&shared, &row, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_from_one() {
        assert_eq!(numbers("1, 3"), Ok(vec![1, 3]));
        assert_eq!(numbers("0").map_err(|problem| problem.status), Err(StatusCode::NOT_FOUND));
        for wrong in ["", "a", "-1", "1,,2", "4294967296", &"1,".repeat(10_001)] {
            assert_eq!(numbers(wrong).map_err(|problem| problem.status), Err(StatusCode::BAD_REQUEST));
        }
    }
}
