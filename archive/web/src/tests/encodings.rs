//! What may leave in which transfer syntax.

use super::*;
use archive_model::{DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Limits, Recoder, transfer_syntax};

const ONE: &str = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4";
const ANY: &str = "application/dicom; transfer-syntax=*";

fn implicit(explicit: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut recoder = Recoder::new(EXPLICIT_LE, IMPLICIT_LE, &Limits::default()).unwrap();
    recoder.push(explicit, &mut out).unwrap();
    recoder.finish(&mut out).unwrap();
    out
}

/// The sample with 16-bit pixels, in big endian.
pub(super) fn big(pixels: &[u8]) -> Vec<u8> {
    let mut explicit = data_set("1.2.3", "1.2.3.4", "DOE^JANE", 0);
    explicit.truncate(explicit.len() - 12);
    explicit.extend(element(0x7FE0, 0x0010, "OW", pixels));
    let set = archive_model::read_data_set(&explicit, &transfer_syntax(EXPLICIT_LE), &Limits::default()).unwrap();
    archive_model::write_data_set(&set, archive_model::Encoding::ExplicitBe)
}

/// A sample of three frames up to its pixel data.
pub(super) fn without_pixels(study: &str, instance: &str) -> Vec<u8> {
    let mut data = data_set(study, instance, "DOE^JANE", 3);
    data.truncate(data.len() - 3 * 4096 - 12);
    data
}

/// The same bytes with another UID of the same length.
pub(super) fn renamed(mut data: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let at = data.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
    data[at..at + to.len()].copy_from_slice(to.as_bytes());
    data
}

fn in_file(syntax: &str, data: &[u8]) -> Vec<u8> {
    [&write_file_meta(CLASS, "1.2.3.4", syntax, None), data].concat()
}

#[tokio::test]
async fn implicit_and_big_endian_never_leave_but_for_who_asks_for_what_was_received() {
    let explicit = data_set("1.2.3", "1.2.3.4", "DOE^JANE", 3);
    for (syntax, data) in [(IMPLICIT_LE, implicit(&explicit)), (EXPLICIT_BE, big(&[1; 8]))] {
        let face = Face::new();
        assert_eq!(face.store("/dicom-web/studies", &[in_file(syntax, &data)]).await.status, StatusCode::OK);
        for accept in
            ["*/*", ANY, "application/dicom", "multipart/related; type=\"application/dicom\"; transfer-syntax=*"]
        {
            for path in ["/dicom-web/studies/1.2.3", ONE] {
                if path != ONE && accept.starts_with("application") {
                    continue;
                }
                let answer = face.get(path, &[("accept", accept)]).await;
                assert_eq!(answer.status, StatusCode::OK, "{accept}");
                let body = String::from_utf8_lossy(&answer.body);
                let head = format!("{:?} {body}", answer.headers[header::CONTENT_TYPE]);
                assert!(head.contains(&format!("transfer-syntax={EXPLICIT_LE}")), "{accept}");
                assert!(!head.contains(&format!("transfer-syntax={syntax}\r")), "{accept}");
            }
        }
        let single = face.get(ONE, &[("accept", ANY)]).await;
        if syntax == IMPLICIT_LE {
            // Without VRs, pixel data is OW (PS3.5 §A.1).
            let mut expected = explicit.clone();
            let at = expected.windows(6).position(|bytes| bytes == b"\xE0\x7F\x10\0OB").unwrap();
            expected[at + 5] = b'W';
            assert!(single.body.ends_with(&expected));
        }
        let refused = face.get(ONE, &[("accept", &*format!("application/dicom; transfer-syntax={syntax}"))]).await;
        assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
        let received = face.get(&format!("{ONE}?as=received"), &[("accept", ANY)]).await;
        assert!(received.body.ends_with(&data));
        assert_eq!(received.headers[header::CONTENT_TYPE], format!("application/dicom; transfer-syntax={syntax}"));
    }
}

#[tokio::test]
async fn what_came_deflated_is_inflated_for_who_wants_it_so() {
    use std::io::Write;
    let explicit = data_set("1.2.3", "1.2.3.4", "DOE^JANE", 3);
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&explicit).unwrap();
    let deflated = encoder.finish().unwrap();
    let face = Face::new();
    face.store("/dicom-web/studies", &[in_file(DEFLATED_LE, &deflated)]).await;
    let two = face.get(&format!("{ONE}/frames/1,3"), &[]).await;
    assert_eq!(parts(&two), [vec![1; 4096], vec![3; 4096]], "{:?}", two.body);
    assert!(String::from_utf8_lossy(&two.body).contains(&format!("transfer-syntax={EXPLICIT_LE}")));
    assert_eq!(face.get(&format!("{ONE}/frames/3,1"), &[]).await.status, StatusCode::BAD_REQUEST);
    let metadata = face.get(&format!("{ONE}/metadata"), &[]).await.json();
    let bulk = metadata[0]["7FE00010"]["BulkDataURI"].as_str().unwrap().strip_prefix("http://h").unwrap().to_owned();
    assert_eq!(face.get(&bulk, &[]).await.body.len(), 3 * 4096);
    let part = face.get(&bulk, &[("range", "bytes=4095-4096")]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &[1, 2][..]));
    let nowhere = face.get(&format!("{ONE}/bulkdata/0-99"), &[]).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    let stored = face.get(ONE, &[("accept", ANY)]).await;
    assert!(stored.body.ends_with(&deflated));
    let plain = face.get(ONE, &[("accept", &*format!("application/dicom; transfer-syntax={EXPLICIT_LE}"))]).await;
    assert_eq!(plain.headers[header::CONTENT_TYPE], format!("application/dicom; transfer-syntax={EXPLICIT_LE}"));
    assert!(plain.body.ends_with(&explicit));
}

#[tokio::test]
async fn values_that_came_in_big_endian_are_served_in_little_endian() {
    let face = Face::new();
    let pixels: Vec<u8> = (0..8192_u16).flat_map(u16::to_le_bytes).collect();
    let mut data = big(&pixels);
    // 8 bits allocated would be frames of bytes: 16 make frames of words.
    let at = data.windows(8).position(|bytes| bytes == b"\0\x28\x01\0US\0\x02").unwrap();
    data[at + 9] = 16;
    let at = data.windows(8).position(|bytes| bytes == b"\0\x28\0\x08IS\0\x02").unwrap();
    data[at + 8] = b'2';
    assert_eq!(face.store("/dicom-web/studies", &[in_file(EXPLICIT_BE, &data)]).await.status, StatusCode::OK);
    let two = face.get(&format!("{ONE}/frames/2,1"), &[]).await;
    assert_eq!(two.status, StatusCode::OK, "{:?}", two.body);
    assert!(parts(&two) == [&pixels[8192..], &pixels[..8192]]);
    assert!(String::from_utf8_lossy(&two.body).contains(&format!("transfer-syntax={EXPLICIT_LE}")));
    let metadata = face.get(&format!("{ONE}/metadata"), &[]).await.json();
    let bulk = metadata[0]["7FE00010"]["BulkDataURI"].as_str().unwrap().strip_prefix("http://h").unwrap().to_owned();
    assert!(face.get(&bulk, &[]).await.body[..] == pixels[..]);
}

#[tokio::test]
async fn frames_of_bits_are_served_though_they_do_not_begin_on_a_byte() {
    // 3 frames of 9 bits: 27 bits in 4 bytes.
    let number = |value: u16| value.to_le_bytes();
    let frames = [0b1_0101_0101_u32, 0b0_1111_0000, 0b1_1000_0001];
    let packed = (frames[0] | frames[1] << 9 | frames[2] << 18).to_le_bytes();
    let mut data = data_set("1.2.3", "1.2.3.4", "DOE^JANE", 3);
    data.truncate(data.len() - 3 * 4096 - 12 - 30);
    data.extend(element(0x0028, 0x0010, "US", &number(3)));
    data.extend(element(0x0028, 0x0011, "US", &number(3)));
    data.extend(element(0x0028, 0x0100, "US", &number(1)));
    data.extend(element(0x7FE0, 0x0010, "OB", &packed));
    let face = Face::new();
    assert_eq!(face.store("/dicom-web/studies", &[in_file(EXPLICIT_LE, &data)]).await.status, StatusCode::OK);
    let all = face.get(&format!("{ONE}/frames/1,2,3"), &[]).await;
    assert_eq!(all.status, StatusCode::OK, "{:?}", all.body);
    let expected: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_le_bytes()[..2].to_vec()).collect();
    assert_eq!(parts(&all), expected);
}
