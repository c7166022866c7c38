//! Metadata of WADO-RS (PS3.18 §10.4.1.1.2): the stored headers, joined into an array; no pixel data is read.
//!
//! A stored header says `"BulkDataURI":"<offset>-<length>"` where a value was left in the body; here it becomes the
//! address under which that value can be fetched. As XML each instance is a part of its own (PS3.18 §8.7.3.5).

use crate::{
    accept::{Accept, Form},
    address::base,
    multipart::Joiner,
    packed,
    qido::{FORMS, OFFERED, XML},
    query::{Target, parameters},
    retrieve::{etag, instance_url, listing, stale, unchanged},
    router::Shared,
    status::Problem,
};
use archive_model::{
    Limits, Value,
    json::{JsonError, from_json},
    xml::to_xml,
};
use archive_service::{Freshness, Headers, Listing};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;

/// Headers up to this size are made into XML on the async threads: 64 KiB take about 1 ms.
const XML_BYTES_INLINE: usize = 64 << 10;

/// In JSON a quote inside of a text is escaped, so that these bytes are a key wherever they stand.
const BULK_KEY: &[u8] = b"\"BulkDataURI\":\"";

pub(crate) async fn get(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let form = Accept::of(&headers, &parameters(uri.query())?).choose(FORMS, &[]);
    let form = form.ok_or_else(|| Problem::not_acceptable(OFFERED))?;
    let base = base(&headers, &uri);
    let Listing { rows, may_be_stale } = listing(&shared, &target).await?;
    let etag = etag(&rows, &format!("{base} {form:?}"));
    if let Some(response) = unchanged(&headers, &etag) {
        return Ok(response);
    }
    // The rows were just read under a read index.
    let found = shared.archive.headers(target.selection()?, Freshness::Local).await?;
    let (content_type, joiner) = match form {
        Form::Single(kind) => (kind.to_owned(), None),
        Form::Multipart(kind) => {
            let joiner = Joiner::new();
            (joiner.content_type(kind), Some(joiner))
        }
    };
    let writing = Writing { found, base, joiner, limits: shared.archive.limits().clone(), position: Position::Before };
    let body = stream::try_unfold(writing, |mut writing| async move {
        let piece = writing.next().await.map_err(|problem| problem.what)?;
        Ok::<_, String>(piece.map(|piece| (piece, writing)))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers_out = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        headers_out.insert(header::CONTENT_TYPE, value);
    }
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

/// Headers on their way out.
struct Writing {
    found: Headers,
    base: String,
    /// Each is a part of XML.
    joiner: Option<Joiner>,
    limits: Limits,
    position: Position,
}

impl Writing {
    /// The next header, or the end; `None` after it.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut out = BytesMut::new();
        let before = match self.position {
            Position::Before => true,
            Position::Within => false,
            Position::After => return Ok(None),
        };
        match (self.found.next().await.transpose()?, &mut self.joiner) {
            (Some((row, header)), joiner) => {
                self.position = Position::Within;
                let url = instance_url(&self.base, &row);
                match joiner {
                    Some(joiner) => {
                        out.put_slice(&joiner.part(XML, &format!("{url}/metadata")));
                        out.put_slice(&xml(header, url, self.limits.clone()).await?);
                    }
                    None => {
                        out.put_u8(if before { b'[' } else { b',' });
                        place(&header, &url, &mut out);
                    }
                }
            }
            (None, joiner) => {
                self.position = Position::After;
                match joiner {
                    Some(joiner) => out.put_slice(&joiner.end()),
                    None => out.put_slice(if before { b"[]" } else { b"]" }),
                }
            }
        }
        Ok(Some(out.freeze()))
    }
}

/// A stored header as XML.
async fn xml(header: Bytes, url: String, limits: Limits) -> Result<Vec<u8>, Problem> {
    let damaged =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a stored header cannot be read: ask another node");
    let large = header.len() > XML_BYTES_INLINE;
    let make = move || -> Result<Vec<u8>, JsonError> {
        let set = from_json(&header, &limits)?;
        Ok(to_xml(&set, &|_, element| match element.value {
            Value::Bulk { offset, length } => Some(format!("{url}/bulkdata/{offset}-{length}")),
            _ => None,
        }))
    };
    if !large {
        return make().map_err(damaged);
    }
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this node is stopping: ask another"))?
        .map_err(damaged)
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
