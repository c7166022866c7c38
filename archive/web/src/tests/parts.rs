//! Parts of values, what may be kept, and the bulk values of more than one instance.

use super::*;
use archive_model::{DEFLATED_LE, EXPLICIT_BE};

const ONE: &str = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4";

async fn stored() -> Face {
    let face = Face::new();
    let files = [file("1.2.3", "1.2.3.4"), file("1.2.3", "1.2.3.5")];
    assert_eq!(face.store("/dicom-web/studies", &files).await.status, StatusCode::OK);
    face
}

#[tokio::test]
async fn an_instance_a_frame_and_a_bulk_value_may_be_had_in_part() {
    let face = stored().await;
    let metadata = face.get(&format!("{ONE}/metadata"), &[]).await.json();
    let bulk = metadata[0]["7FE00010"]["BulkDataURI"].as_str().unwrap().strip_prefix("http://h").unwrap().to_owned();
    for (path, accept) in
        [(ONE, "application/dicom"), (&format!("{ONE}/frames/2"), "application/octet-stream"), (&bulk, "*/*")]
    {
        let whole = face.get(path, &[("accept", accept)]).await;
        assert_eq!(whole.headers[header::ACCEPT_RANGES], "bytes");
        let etag = whole.headers[header::ETAG].to_str().unwrap().to_owned();
        assert!(etag.starts_with('"'), "strong: {etag}");
        let length = whole.body.len();
        assert_eq!(whole.headers[header::CONTENT_LENGTH], length.to_string());
        // Across the end of the meta group, up to the end, and from behind.
        for (range, expected) in
            [("bytes=100-1000", 100..1001), ("bytes=4000-", 4000..length), ("bytes=-7", length - 7..length)]
        {
            for if_range in [None, Some(etag.as_str())] {
                let mut headers = vec![("accept", accept), ("range", range)];
                headers.extend(if_range.map(|etag| ("if-range", etag)));
                let part = face.get(path, &headers).await;
                assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{path} {range}");
                assert!(part.body == whole.body[expected.clone()], "{path} {range}");
                let named = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
                assert_eq!(part.headers[header::CONTENT_RANGE], named);
                assert_eq!(part.headers[header::CONTENT_LENGTH], expected.len().to_string());
            }
        }
        let other = face.get(path, &[("accept", accept), ("range", "bytes=0-1"), ("if-range", "\"another\"")]).await;
        assert_eq!(
            (other.status, other.body.len()),
            (StatusCode::OK, length),
            "bytes of two contents are never joined"
        );
        let beyond = face.get(path, &[("accept", accept), ("range", "bytes=999999-")]).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.headers[header::CONTENT_RANGE], format!("bytes */{length}"));
        let same = face.get(path, &[("accept", accept), ("if-none-match", &etag), ("range", "bytes=0-1")]).await;
        assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    let head = face.ask(Request::head(ONE).header("accept", "application/dicom").body(Body::empty()).unwrap()).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert!(head.headers[header::CONTENT_LENGTH].to_str().unwrap().parse::<usize>().unwrap() > 3 * 4096);
}

#[tokio::test]
async fn what_does_not_change_may_be_kept_and_what_grows_is_asked_for() {
    let face = stored().await;
    let control =
        async |path: &str| face.get(path, &[]).await.headers[header::CACHE_CONTROL].to_str().unwrap().to_owned();
    for path in [ONE.to_owned(), format!("{ONE}/frames/1")] {
        assert_eq!(control(&path).await, "private, max-age=3600, immutable", "{path}");
    }
    for path in [
        "/dicom-web/studies",
        "/dicom-web/studies/1.2.3",
        "/dicom-web/studies/1.2.3/metadata",
        &format!("{ONE}/metadata"),
    ] {
        assert_eq!(control(path).await, "private, no-cache", "{path}");
    }
    // Another content under the UID: which one it answers may change.
    let other =
        [write_file_meta(CLASS, "1.2.3.4", EXPLICIT, None), data_set("1.2.3", "1.2.3.4", "DOE^JANE", 2)].concat();
    assert_eq!(face.store("/dicom-web/studies", &[other]).await.status, StatusCode::ACCEPTED);
    assert_eq!(control(ONE).await, "private, no-cache");
    let never = Face::with(|settings| settings.cache_for = std::time::Duration::ZERO);
    never.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    let answer = never.get(ONE, &[]).await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "private, no-cache");
}

#[tokio::test]
async fn pixel_data_of_an_instance_a_series_and_a_study() {
    let face = stored().await;
    let pixels: Vec<u8> = (1..=3).flat_map(|frame| vec![frame; 4096]).collect();
    for (path, count) in [(ONE, 1), ("/dicom-web/studies/1.2.3/series/1.2.3.1", 2), ("/dicom-web/studies/1.2.3", 2)] {
        for what in ["pixeldata", "bulkdata"] {
            let answer = face.get(&format!("{path}/{what}"), &[]).await;
            assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
            assert!(parts(&answer) == vec![pixels.clone(); count], "{path}/{what}");
            assert!(
                String::from_utf8_lossy(&answer.body).contains(&format!("Content-Location: http://h{ONE}/bulkdata/"))
            );
        }
    }
    let refused = face.get(&format!("{ONE}/pixeldata"), &[("accept", "image/jpeg")]).await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(face.get("/dicom-web/studies/1.2.9/pixeldata", &[]).await.status, StatusCode::NOT_FOUND);
    let without = [write_file_meta(CLASS, "1.4.1", EXPLICIT, None), encodings::without_pixels("1.4", "1.4.1")].concat();
    face.store("/dicom-web/studies", &[without]).await;
    assert_eq!(face.get("/dicom-web/studies/1.4/pixeldata", &[]).await.status, StatusCode::NOT_FOUND, "there is none");
}

#[tokio::test]
async fn compressed_pixel_data_comes_frame_by_frame_and_other_encodings_as_the_web_has_them() {
    const RLE: &str = "1.2.840.10008.1.2.5";
    let item = |data: &[u8]| [&b"\xFE\xFF\0\xE0"[..], &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat();
    let mut data = encodings::without_pixels("1.2.3", "1.2.3.4");
    data.extend(b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF");
    data.extend([item(b""), item(b"first "), item(b"second"), item(b"third!")].concat());
    data.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    let words: Vec<u8> = (0..4096_u16).flat_map(u16::to_le_bytes).collect();
    let face = Face::new();
    let rle = [write_file_meta(CLASS, "1.2.3.4", RLE, None), data].concat();
    let big = encodings::big(&words);
    let big =
        [write_file_meta(CLASS, "1.2.3.5", EXPLICIT_BE, None), encodings::renamed(big, "1.2.3.4", "1.2.3.5")].concat();
    let deflated = {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&data_set("1.2.3", "1.2.3.6", "DOE^JANE", 1)).unwrap();
        [write_file_meta(CLASS, "1.2.3.6", DEFLATED_LE, None), encoder.finish().unwrap()].concat()
    };
    let answer = face.store("/dicom-web/studies", &[rle, big, deflated]).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let answer = face.get("/dicom-web/studies/1.2.3/pixeldata", &[]).await;
    let expected = [b"first ".to_vec(), b"second".to_vec(), b"third!".to_vec(), words, vec![1; 4096]];
    assert_eq!(parts(&answer), expected);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains(&format!("transfer-syntax={RLE}\r\nContent-Location: http://h{ONE}/frames/3\r\n")));
}
