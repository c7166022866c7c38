//! Answers in zstd or gzip for clients that take it: metadata and lists shrink to a tenth.
//!
//! Of the codings that a request takes (RFC 9110 §12.5.3) the one with the greatest q is used; of equals zstd, which costs
//! a third of the time of gzip.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, TryStreamExt, stream};
use std::io::{self, Write};

/// Fast, and a window of 512 KiB: what an encoder holds is bounded by it.
const ZSTD_LEVEL: i32 = 1;

/// A coding of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// The name in Content-Encoding.
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
        })
    }

    /// What is ready once `piece` is in.
    fn pack(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                std::mem::take(encoder.get_mut())
            }
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                std::mem::take(encoder.get_mut())
            }
        })
    }

    /// The rest, and the checksum.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Compresses a body as it is sent, if the request takes a coding.
pub(crate) fn answer(request: &HeaderMap, mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    let Some((coding, encoder)) = coding(request).and_then(|coding| Some((coding, Encoder::new(coding).ok()?))) else {
        return response;
    };
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|body| {
        let pieces = body.into_data_stream().map(|piece| piece.map(Some)).chain(stream::once(async { Ok(None) }));
        let packed = pieces.scan(Some(encoder), |encoder, piece| {
            let packed = match (encoder.as_mut(), piece) {
                (Some(open), Ok(Some(piece))) => open.pack(&piece).map_err(|error| error.to_string()),
                // The end of the body writes the checksum.
                (Some(_), Ok(None)) => {
                    encoder.take().map_or_else(|| Ok(Vec::new()), Encoder::finish).map_err(|error| error.to_string())
                }
                (_, Err(error)) => Err(error.to_string()),
                (None, Ok(_)) => Ok(Vec::new()),
            };
            async move { Some(packed.map(Bytes::from)) }
        });
        Body::from_stream(packed.try_filter(|piece| std::future::ready(!piece.is_empty())))
    })
}

/// The coding that the request likes best.
fn coding(request: &HeaderMap) -> Option<Coding> {
    let (mut zstd, mut gzip, mut any) = (None, None, None);
    let values = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in values.flat_map(|value| value.split(',')) {
        let (name, rest) = item.split_once(';').unwrap_or((item, ""));
        let q = rest.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(1.0));
        match name.trim().to_ascii_lowercase().as_str() {
            "zstd" => zstd = Some(q),
            "gzip" | "x-gzip" => gzip = Some(q),
            "*" => any = Some(q),
            _ => {}
        }
    }
    // `*` is what was not named; a client that names nothing but it may know gzip only.
    let (zstd, gzip) = (zstd.unwrap_or(0.0), gzip.or(any).unwrap_or(0.0));
    match zstd.max(gzip) {
        best if best <= 0.0 => None,
        best if zstd >= best => Some(Coding::Zstd),
        _ => Some(Coding::Gzip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Read;

    fn accepting(value: &'static str) -> HeaderMap {
        [(header::ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[tokio::test]
    async fn what_is_packed_in_pieces_unpacks_to_the_whole() {
        let whole: Vec<u8> = (0..50).flat_map(|number| format!("{number},").repeat(100).into_bytes()).collect();
        for coding in ["gzip", "zstd"] {
            let pieces = (0..50).map(|number| Ok::<_, String>(Bytes::from(format!("{number},").repeat(100))));
            let response = answer(&accepting(coding), Response::new(Body::from_stream(stream::iter(pieces))));
            assert_eq!(response.headers()[header::CONTENT_ENCODING], coding);
            let packed = response.into_body().collect().await.expect("a body").to_bytes();
            let mut unpacked = Vec::new();
            match coding {
                "gzip" => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip"),
                _ => zstd::stream::read::Decoder::new(&packed[..])
                    .and_then(|mut d| d.read_to_end(&mut unpacked))
                    .expect("zstd"),
            };
            assert!(unpacked == whole && packed.len() < whole.len() / 5, "{coding}");
        }
    }

    /// A body that is cut off must not look complete.
    #[tokio::test]
    async fn an_error_in_the_body_is_one_in_the_packed_body() {
        let pieces = [Ok(Bytes::from_static(b"begin")), Err("cut off".to_owned())];
        let response = answer(&accepting("zstd"), Response::new(Body::from_stream(stream::iter(pieces))));
        assert!(response.into_body().collect().await.is_err());
    }

    #[test]
    fn the_coding_is_what_the_client_likes_best() {
        for (value, expected) in [
            ("", None),
            ("identity", None),
            ("br, deflate", None),
            ("gzip;q=0, br", None),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("br, gzip;q=0.5", Some(Coding::Gzip)),
            ("zstd;q=0.5, gzip", Some(Coding::Gzip)),
            ("ZSTD", Some(Coding::Zstd)),
            ("*", Some(Coding::Gzip)),
            ("zstd;q=0, *", Some(Coding::Gzip)),
            ("gzip;q=0, *", None),
        ] {
            assert_eq!(coding(&accepting(value)), expected, "{value}");
        }
        assert_eq!(coding(&HeaderMap::new()), None);
    }
}
