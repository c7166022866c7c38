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
fn big(pixels: &[u8]) -> Vec<u8> {
    let explicit = [&data_set("1.2.3", "1.2.3.4", "DOE^JANE", 0)[..], &element(0x7FE0, 0x0010, "OW", pixels)].concat();
    let set = archive_model::read_data_set(&explicit, &transfer_syntax(EXPLICIT_LE), &Limits::default()).unwrap();
    archive_model::write_data_set(&set, archive_model::Encoding::ExplicitBe)
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
    let stored = face.get(ONE, &[("accept", ANY)]).await;
    assert!(stored.body.ends_with(&deflated));
    let plain = face.get(ONE, &[("accept", &*format!("application/dicom; transfer-syntax={EXPLICIT_LE}"))]).await;
    assert_eq!(plain.headers[header::CONTENT_TYPE], format!("application/dicom; transfer-syntax={EXPLICIT_LE}"));
    assert!(plain.body.ends_with(&explicit));
}
