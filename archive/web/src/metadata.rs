//! Metadata of WADO-RS (PS3.18 §10.4.1.1.2): the stored headers, joined into an array; no pixel data is read.
//!
//! A stored header says `"BulkDataURI":"<offset>-<length>"` where a value was left in the body; here it becomes the
//! address under which that value can be fetched.

use crate::{
    accept::{Accept, Form},
    address::base,
    packed,
    qido::JSON_FORMS,
    query::{Target, parameters},
    retrieve::{etag, instance_url, listing, stale, unchanged},
    router::Shared,
    status::Problem,
};
use archive_service::{Freshness, Headers, Listing};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;

/// In JSON a quote inside of a text is escaped, so that these bytes are a key wherever they stand.
const BULK_KEY: &[u8] = b"\"BulkDataURI\":\"";

pub(crate) async fn get(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(Form::Single(media_type)) = Accept::of(&headers, &parameters(uri.query())?).choose(JSON_FORMS, &[]) else {
        return Err(Problem::not_acceptable("application/dicom+json"));
    };
    let base = base(&headers, &uri);
    let Listing { rows, may_be_stale } = listing(&shared, &target).await?;
    let etag = etag(&rows, &base);
    if let Some(response) = unchanged(&headers, &etag) {
        return Ok(response);
    }
    // The rows were just read under a read index.
    let found = shared.archive.headers(target.selection()?, Freshness::Local).await?;
    let body = stream::try_unfold((found, base, Position::Before), |(mut found, base, state)| async move {
        let piece = next(&mut found, &base, state).await.map_err(|problem| problem.what)?;
        Ok::<_, String>(piece.map(|(piece, state)| (piece, (found, base, state))))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers_out = response.headers_mut();
    headers_out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers_out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers_out.insert(header::ETAG, etag);
    }
    let response = packed::answer(&headers, response);
    Ok(if may_be_stale { stale(response) } else { response })
}

/// How far the array is written.
#[derive(Clone, Copy)]
enum Position {
    Before,
    Within,
    After,
}

async fn next(found: &mut Headers, base: &str, state: Position) -> Result<Option<(Bytes, Position)>, Problem> {
    let mut out = BytesMut::new();
    match state {
        Position::Before => out.put_u8(b'['),
        Position::Within => out.put_u8(b','),
        Position::After => return Ok(None),
    }
    match found.next().await.transpose()? {
        Some((row, header)) => {
            place(&header, &instance_url(base, &row), &mut out);
            Ok(Some((out.freeze(), Position::Within)))
        }
        None => {
            let end: &[u8] = if matches!(state, Position::Before) { b"[]" } else { b"]" };
            Ok(Some((Bytes::from_static(end), Position::After)))
        }
    }
}

/// Copies `header`, with places in the body made addresses below `instance`.
fn place(header: &[u8], instance: &str, out: &mut BytesMut) {
    out.reserve(header.len());
    let mut rest = header;
    while let Some(at) = find(rest, BULK_KEY) {
        let (before, after) = rest.split_at(at + BULK_KEY.len());
        out.put_slice(before);
        let length = after.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
        if after.get(length) == Some(&b'"') {
            out.put_slice(instance.as_bytes());
            out.put_slice(b"/bulkdata/");
        }
        rest = after;
    }
    out.put_slice(rest);
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_body_become_addresses_and_texts_stay() {
        let header = br#"{"7FE00010":{"vr":"OW","BulkDataURI":"340-524288"},"00104000":{"vr":"LT","Value":["\"BulkDataURI\":\"1-2\""]},"00080000":{"vr":"UR","BulkDataURI":"file:x"}}"#;
        let mut out = BytesMut::new();
        place(header, "http://h/i", &mut out);
        let expected = std::str::from_utf8(header).expect("text").replace("\"340-", "\"http://h/i/bulkdata/340-");
        assert_eq!(out, expected.as_bytes());
    }
}
