//! Answers that may be had in part (RFC 9110 §14), and may be kept (RFC 9111).
//!
//! - An instance never changes under its UID, unless a sender whose policy is to replace sends another: what was read from one
//!   that has no other contents may be used for a while without asking (`--cache-seconds`).
//! - Ranges are those of bytes, one at a time: several are answered with the whole (RFC 9110 §14.2 allows it), so that no
//!   request multiplies what it is answered.
//! - If-Range is compared strongly (§13.1.5): bytes of two contents are never joined.

use crate::{
    retrieve::{Piece, streamed, unchanged},
    router::Shared,
    status::Problem,
    value::Turn,
};
use archive_service::InstanceRow;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{collections::VecDeque, ops::Range};

/// The answer for one resource that is no multipart: whole, in part, or 304.
///
/// `etag` is a weak one; it becomes strong when the bytes are always the same.
pub(crate) async fn whole_or_part(
    shared: &Shared,
    headers: &HeaderMap,
    pieces: VecDeque<Piece>,
    (content_type, etag): (&str, &str),
) -> Result<Response, Problem> {
    let Some(length) = length(&pieces) else {
        return match unchanged(headers, etag) {
            Some(response) => Ok(response),
            None => streamed(&shared.archive, pieces, content_type, etag).await,
        };
    };
    let etag = etag.trim_start_matches("W/");
    if let Some(response) = unchanged(headers, etag) {
        return Ok(response);
    }
    let (part, pieces) = match wanted(headers, etag, length) {
        Wanted::All => (None, pieces),
        // A range need not be obeyed: half a word cannot be turned.
        Wanted::Part(range) => match cut(&pieces, &range) {
            Some(some) => (Some(range), some),
            None => (None, pieces),
        },
        Wanted::Nothing => {
            let what = format!("there are {length} bytes: ask for a range within them");
            let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, what).into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            return Ok(response);
        }
    };
    let mut response = streamed(&shared.archive, pieces, content_type, etag).await?;
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let range = part.clone().unwrap_or(0..length);
    response.headers_mut().insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if part.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {}-{}/{length}", range.start, range.end - 1));
    }
    Ok(response)
}

/// Lets a client keep what it got of `row`.
pub(crate) fn kept(shared: &Shared, row: &InstanceRow, mut response: Response) -> Response {
    let seconds = shared.settings.cache_for.as_secs();
    let status = response.status();
    // Of a UID with several contents, which one it answers may change.
    if seconds > 0 && row.versions == 0 && (status.is_success() || status == StatusCode::NOT_MODIFIED) {
        set(&mut response, header::CACHE_CONTROL, &format!("private, max-age={seconds}, immutable"));
    }
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What a Range header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// Everything: there is no range, or one that we need not obey (RFC 9110 §14.2).
    All,
    Part(Range<u64>),
    Nothing,
}

fn wanted(headers: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A date never matches: there is no Last-Modified. A weak tag never does.
    let same = |known: &str| known.trim() == etag && !etag.starts_with("W/");
    match text(header::RANGE) {
        Some(range) if !headers.contains_key(header::IF_RANGE) || text(header::IF_RANGE).is_some_and(same) => {
            byte_range(range, length)
        }
        _ => Wanted::All,
    }
}

fn byte_range(value: &str, length: u64) -> Wanted {
    let Some((first, last)) = value.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::All;
    };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, length),
        (Err(_), Ok(count)) if first.trim().is_empty() => (length.saturating_sub(count), length),
        _ => return Wanted::All,
    };
    if start < end { Wanted::Part(start..end) } else { Wanted::Nothing }
}

/// How many bytes the pieces become, if that is known before they are read.
fn length(pieces: &VecDeque<Piece>) -> Option<u64> {
    pieces.iter().map(piece_length).sum()
}

fn piece_length(piece: &Piece) -> Option<u64> {
    match piece {
        Piece::Bytes(bytes) => Some(bytes.len() as u64),
        Piece::Part(_, range) | Piece::Value(_, range, Turn::Nothing | Turn::Words { .. }) => {
            Some(range.end - range.start)
        }
        _ => None,
    }
}

/// The pieces of which bytes `wanted` are made; `None` when one of them cannot be cut there.
fn cut(pieces: &VecDeque<Piece>, wanted: &Range<u64>) -> Option<VecDeque<Piece>> {
    let (mut some, mut start) = (VecDeque::new(), 0);
    for piece in pieces {
        let length = piece_length(piece)?;
        let (from, to) = (wanted.start.clamp(start, start + length), wanted.end.clamp(start, start + length));
        let (from, to) = (from - start, to - start);
        start += length;
        if from == to {
            continue;
        }
        some.push_back(match piece {
            Piece::Bytes(bytes) => Piece::Bytes(bytes.slice(usize::try_from(from).ok()?..usize::try_from(to).ok()?)),
            Piece::Part(row, range) => Piece::Part(row.clone(), range.start + from..range.start + to),
            Piece::Value(row, range, turn) => {
                let word = if let Turn::Words { size, .. } = turn { *size as u64 } else { 1 };
                if !from.is_multiple_of(word) || !to.is_multiple_of(word) {
                    return None;
                }
                Piece::Value(row.clone(), range.start + from..range.start + to, turn.clone())
            }
            _ => return None,
        });
    }
    Some(some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        assert_eq!(byte_range("bytes=0-99", 1000), Wanted::Part(0..100));
        assert_eq!(byte_range("bytes=990-2000", 1000), Wanted::Part(990..1000));
        assert_eq!(byte_range("bytes=990-", 1000), Wanted::Part(990..1000));
        assert_eq!(byte_range("bytes=-10", 1000), Wanted::Part(990..1000));
        assert_eq!(byte_range("bytes=1000-", 1000), Wanted::Nothing);
        assert_eq!(byte_range("bytes=-0", 1000), Wanted::Nothing);
        for odd in ["bytes=5-1", "items=1-2", "bytes=1-2,4-5", "bytes=", "bytes=0-18446744073709551616"] {
            assert_eq!(byte_range(odd, 1000), Wanted::All, "{odd}");
        }
    }

    #[test]
    fn a_range_of_another_content_is_not_obeyed() {
        let with = |if_range: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
            if let Some(value) = if_range {
                headers.insert(header::IF_RANGE, value.parse().expect("a header"));
            }
            headers
        };
        let obeyed = |if_range| wanted(&with(if_range), "\"a\"", 10) == Wanted::Part(1..3);
        assert!(obeyed(None) && obeyed(Some("\"a\"")));
        for other in ["\"b\"", "W/\"a\"", "Thu, 26 Nov 2026 14:00:00 GMT", "*"] {
            assert!(!obeyed(Some(other)), "{other}");
        }
        assert_eq!(wanted(&with(Some("W/\"a\"")), "W/\"a\"", 10), Wanted::All, "weak tags never match here");
    }
}
