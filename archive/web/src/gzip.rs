//! Answers in gzip for clients that take it: metadata and lists shrink to a tenth.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, TryStreamExt, stream};
use std::io::Write;

/// Compresses a body as it is sent, if the request takes gzip.
pub(crate) fn answer(request: &HeaderMap, mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if !takes_gzip(request) {
        return response;
    }
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|body| {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let pieces = body.into_data_stream().map(|piece| piece.map(Some)).chain(stream::once(async { Ok(None) }));
        let packed = pieces.scan(Some(encoder), |encoder, piece| {
            let packed = match (encoder.as_mut(), piece) {
                (Some(open), Ok(Some(piece))) => pack(open, &piece),
                // The end of the body writes the checksum.
                (Some(_), Ok(None)) => {
                    encoder.take().map_or_else(|| Ok(Vec::new()), GzEncoder::finish).map_err(|error| error.to_string())
                }
                (_, Err(error)) => Err(error.to_string()),
                (None, Ok(_)) => Ok(Vec::new()),
            };
            async move { Some(packed.map(Bytes::from)) }
        });
        Body::from_stream(packed.try_filter(|piece| std::future::ready(!piece.is_empty())))
    })
}

fn pack(encoder: &mut GzEncoder<Vec<u8>>, piece: &[u8]) -> Result<Vec<u8>, String> {
    encoder.write_all(piece).map_err(|error| error.to_string())?;
    Ok(std::mem::take(encoder.get_mut()))
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let (coding, rest) = item.split_once(';').unwrap_or((item, ""));
        let excluded = rest.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        coding.trim().eq_ignore_ascii_case("gzip") && !excluded
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Read;

    #[tokio::test]
    async fn what_is_packed_in_pieces_unpacks_to_the_whole() {
        let mut request = HeaderMap::new();
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br, gzip;q=0.5"));
        let pieces = (0..50).map(|number| Ok::<_, String>(Bytes::from(format!("{number},").repeat(100))));
        let whole: Vec<u8> = (0..50).flat_map(|number| format!("{number},").repeat(100).into_bytes()).collect();
        let response = answer(&request, Response::new(Body::from_stream(stream::iter(pieces))));
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        let packed = response.into_body().collect().await.expect("a body").to_bytes();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
        assert!(unpacked == whole && packed.len() < whole.len() / 5);
    }

    #[test]
    fn a_client_that_excludes_gzip_gets_none() {
        let mut request = HeaderMap::new();
        assert!(!takes_gzip(&request));
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0, br"));
        assert!(!takes_gzip(&request));
    }
}
