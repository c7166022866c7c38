//! Instances decoded by a worker of shell, which echoes each frame of six bytes and calls it RGB.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    CodecError, CodecSettings, Converting, Freshness, Offer, Protocol, Selection, ServiceSettings, Source as Sender,
    testing,
};
use archive_model::{
    EXPLICIT_BE, EXPLICIT_LE, Element, Encoding, IMPLICIT_LE, Limits, VR, Value, read_data_set, write_data_set,
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const NATIVE: &str = "1.2.840.10008.1.2.1.98";
const RLE: &str = "1.2.840.10008.1.2.5";
const ECHO: &str =
    r"while true; do head -c 32 >/dev/null; printf 'TA\002\000\004\000\000\000\006\000\000\000'; head -c 6; done";

fn settings(folder: &Path, script: Option<&str>) -> ServiceSettings {
    let program = script.map(|script| {
        let program = folder.join("worker");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    });
    ServiceSettings { codec: CodecSettings { program, ..CodecSettings::default() }, ..ServiceSettings::default() }
}

/// Attributes of 1 row, 2 columns, 3 samples of 8 bits.
fn attributes(frames: u32) -> DataSet {
    let mut set = DataSet::new();
    for (tag, uid) in [
        (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.7"),
        (tags::SOP_INSTANCE_UID, "1.2.3.1"),
        (tags::STUDY_INSTANCE_UID, "1.2.3"),
        (tags::SERIES_INSTANCE_UID, "1.2.3.9"),
    ] {
        set.put_text(tag, VR::UI, uid);
    }
    set.put_text(tags::NUMBER_OF_FRAMES, VR::IS, frames.to_string());
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "YBR_FULL");
    set.put_text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01");
    for (tag, number) in [
        (tags::SAMPLES_PER_PIXEL, 3),
        (tags::ROWS, 1),
        (tags::COLUMNS, 2),
        (tags::BITS_ALLOCATED, 8),
        (tags::BITS_STORED, 8),
        (tags::HIGH_BIT, 7),
        (tags::PIXEL_REPRESENTATION, 0),
        (tags::PLANAR_CONFIGURATION, 1),
    ] {
        set.put(Element { tag, vr: VR::US, value: Value::Integers(vec![number]) });
    }
    set
}

/// As it is sent: elements, fragments (an item each), and an element behind them.
fn bytes(set: &DataSet, fragments: &[&[u8]]) -> Vec<u8> {
    let mut out = write_data_set(set, Encoding::ExplicitLe);
    out.extend(b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0");
    for fragment in fragments {
        out.extend(b"\xFE\xFF\0\xE0");
        out.extend((fragment.len() as u32).to_le_bytes());
        out.extend_from_slice(fragment);
    }
    out.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0\xFC\xFF\xFC\xFFOB\0\0\x02\0\0\0\0\0");
    out
}

async fn stored(archive: &Archive, body: Vec<u8>) -> InstanceRow {
    stored_in(archive, NATIVE, body).await
}

async fn stored_in(archive: &Archive, syntax: &str, body: Vec<u8>) -> InstanceRow {
    let source =
        Sender { protocol: Protocol::Dimse, calling_ae: String::new(), called_ae: String::new(), peer: String::new() };
    let offer = Offer { sop_class: None, instance: None, study: None, transfer_syntax: syntax.into(), source };
    let mut ingest = archive.store(offer).await.unwrap();
    ingest.push(body.into()).await.unwrap();
    ingest.finish().await.unwrap();
    let studies = vec![archive_model::Uid::parse("1.2.3").unwrap()];
    let selection = Selection { studies, ..Selection::default() };
    archive.instances(selection, Freshness::Local).await.unwrap().swap_remove(0)
}

async fn whole(mut converting: Converting) -> Result<Vec<u8>, ConvertError> {
    let length_bytes = converting.length_bytes();
    let mut bytes = Vec::new();
    while let Some(piece) = converting.next().await {
        bytes.extend_from_slice(&piece?);
    }
    assert_eq!(bytes.len() as u64, length_bytes, "another length than was said");
    Ok(bytes)
}

#[tokio::test]
async fn frames_of_any_fragments_become_native_with_the_attributes_that_follow() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), Some(ECHO)));
    let row = stored(&archive, bytes(&attributes(2), &[b"abcdef", b"ghijkl"])).await;
    let mut expected = attributes(2);
    expected.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB");
    expected.put(Element { tag: tags::PLANAR_CONFIGURATION, vr: VR::US, value: Value::Integers(vec![0]) });
    expected.put(Element { tag: tags::PIXEL_DATA, vr: VR::OB, value: Value::Bytes(b"abcdefghijkl"[..].into()) });
    let padding = archive_model::Tag(0xFFFC, 0xFFFC);
    expected.put(Element { tag: padding, vr: VR::OB, value: Value::Bytes(b"\0\0"[..].into()) });
    for (to, encoding) in
        [(EXPLICIT_LE, Encoding::ExplicitLe), (IMPLICIT_LE, Encoding::ImplicitLe), (EXPLICIT_BE, Encoding::ExplicitBe)]
    {
        let got = whole(archive.convert(&row, to).await.unwrap()).await.unwrap();
        if encoding == Encoding::ImplicitLe {
            // OW from the dictionary: compared as bytes.
            assert!(got.windows(20).any(|bytes| bytes == b"\xE0\x7F\x10\0\x0C\0\0\0abcdefghijkl"));
            continue;
        }
        // Trailing padding is no attribute: a reader leaves it out, and the bytes below have it.
        let attributes: DataSet = expected.iter().filter(|element| element.tag != padding).cloned().collect();
        assert_eq!(read_data_set(&got, &transfer_syntax(to), &Limits::default()).unwrap(), attributes);
        assert!(got == write_data_set(&expected, encoding), "{to}");
    }
}

#[tokio::test]
async fn a_frame_that_fails_is_known_before_the_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    // The second frame is refused.
    let script = r"head -c 38 >/dev/null; printf 'TA\002\000\004\000\000\000\006\000\000\000ABCDEF'; head -c 38 >/dev/null; printf 'TA\002\001\000\000\000\000\003\000\000\000why'; exec sleep 1000";
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), Some(script)));
    let row = stored(&archive, bytes(&attributes(2), &[b"abcdef", b"ghijkl"])).await;
    match archive.convert(&row, EXPLICIT_LE).await.map(|_| ()) {
        Err(ConvertError::Frame { frame: 2, why: CodecError::Refused(why) }) => assert_eq!(why, "why"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_without_a_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows_of_none = attributes(1);
    rows_of_none.remove(tags::ROWS);
    let cases = [
        (bytes(&attributes(3), &[b"abcdef", b"ghijkl"]), "Number of Frames"),
        (bytes(&rows_of_none, &[b"abcdef"]), "rows"),
        (bytes(&attributes(1), &[b"abcdef"]), "triptych-codec"),
    ];
    for (at, (body, says)) in cases.into_iter().enumerate() {
        let own = folder.path().join(at.to_string());
        fs::create_dir(&own).unwrap();
        let (archive, _log) = testing::archive(&own, settings(folder.path(), None));
        let row = stored(&archive, body).await;
        let error = archive.convert(&row, EXPLICIT_LE).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// The worker echoes frames that are to be encoded, too.
#[tokio::test]
async fn native_frames_are_encoded_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), Some(ECHO)));
    let mut set = attributes(2);
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(b"abcdefghijkl"[..].into()) });
    let row = stored_in(&archive, EXPLICIT_BE, write_data_set(&set, Encoding::ExplicitBe)).await;
    let coded = whole(archive.convert(&row, RLE).await.unwrap()).await.unwrap();
    // Words of OW, turned; planes that were apart are together.
    let items = b"\xFE\xFF\0\xE0\x08\0\0\0\0\0\0\0\x0E\0\0\0\xFE\xFF\0\xE0\x06\0\0\0abcdef\xFE\xFF\0\xE0\x06\0\0\0ghijkl\xFE\xFF\xDD\xE0\0\0\0\0";
    assert!(coded.ends_with(items));
    assert!(coded.windows(10).any(|bytes| bytes == b"\x28\0\x06\0US\x02\0\0\0"));
}

/// What real files do: Number of Frames is "1A", and there are fifteen; or padding follows, which is no frame.
#[tokio::test]
async fn pixels_behind_the_frames_that_are_told_are_not_left_out_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), Some(ECHO)));
    let mut set = attributes(1);
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OB, value: Value::Bytes(b"abcdef\0\0\0\0"[..].into()) });
    let row = stored_in(&archive, EXPLICIT_LE, write_data_set(&set, Encoding::ExplicitLe)).await;
    let coded = whole(archive.convert(&row, RLE).await.unwrap()).await.unwrap();
    assert!(coded.windows(6).any(|bytes| bytes == b"abcdef"));
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), Some(ECHO)));
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OB, value: Value::Bytes(b"abcdefghijkl"[..].into()) });
    let row = stored_in(&archive, EXPLICIT_LE, write_data_set(&set, Encoding::ExplicitLe)).await;
    let refused = archive.convert(&row, RLE).await.err();
    assert!(matches!(refused, Some(ConvertError::Image("its pixel data is longer than its frames"))), "{refused:?}");
}
