//! The pool against workers of shell scripts, which do what a decoder must never do.
#![allow(clippy::unwrap_used)]

use super::*;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn image() -> Image {
    Image {
        rows: 2,
        columns: 3,
        samples: 1,
        allocated: 8,
        stored: 8,
        high: 7,
        signed: false,
        photometric: Photometric::Monochrome2,
        planar: false,
    }
}

/// A codec whose worker is this script; it may write a line a start into `$1` of the test.
fn codec(folder: &Path, script: &str, deadline: Duration) -> (Codec, PathBuf) {
    let (program, starts) = (folder.join("worker"), folder.join("starts"));
    fs::write(&program, format!("#!/bin/sh\necho started >> {}\n{script}\n", starts.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let settings =
        CodecSettings { program: Some(program), workers: 1, frame_deadline: deadline, ..CodecSettings::default() };
    (Codec::new(settings, Metrics::new(&prometheus::Registry::new())), starts)
}

fn starts(file: &Path) -> usize {
    fs::read_to_string(file).unwrap().lines().count()
}

/// Reads a request of 32 bytes and a stream of 4, and answers the six samples ABCDEF.
const GOOD: &str = r"head -c 36 >/dev/null; printf 'TA\002\000\002\000\000\000\006\000\000\000ABCDEF'";
const LONG: Duration = Duration::from_secs(60);

async fn ask(codec: &Codec) -> Result<Frame, CodecError> {
    codec.decode(Coding::Rle, image(), &[1, 2, 3, 4]).await
}

#[tokio::test]
async fn a_worker_is_kept_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let (codec, log) = codec(folder.path(), &format!("while true; do {GOOD}; done"), LONG);
    for _ in 0..3 {
        let frame = ask(&codec).await.unwrap();
        assert_eq!(
            (&frame.bytes[..], frame.photometric, frame.planar),
            (&b"ABCDEF"[..], Photometric::Monochrome2, false)
        );
    }
    assert_eq!(starts(&log), 1);
}

#[tokio::test]
async fn a_worker_that_ends_fails_one_frame_and_the_next_one_has_another() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "if [ $(wc -l < {}/starts) = 1 ]; then head -c 36 >/dev/null; exit 1; fi; {GOOD}",
        folder.path().display()
    );
    let (codec, log) = codec(folder.path(), &script, LONG);
    assert!(matches!(ask(&codec).await, Err(CodecError::Lost(_))));
    assert_eq!(ask(&codec).await.map(|frame| frame.bytes), Ok(b"ABCDEF".to_vec()));
    assert_eq!(starts(&log), 2);
}

#[tokio::test]
async fn a_worker_that_died_while_it_was_idle_costs_no_frame() {
    let folder = tempfile::tempdir().unwrap();
    let (codec, log) = codec(folder.path(), GOOD, LONG);
    assert!(ask(&codec).await.is_ok());
    // It has ended behind its answer: wait for that, then ask.
    let mut worker = codec.inner.idle.lock().pop().unwrap();
    worker.ended().await;
    codec.inner.idle.lock().push(worker);
    assert!(ask(&codec).await.is_ok());
    assert_eq!(starts(&log), 2);
}

#[tokio::test]
async fn silence_and_nonsense_end_a_worker() {
    for (script, late) in [
        ("exec sleep 1000", true),
        ("yes", false),
        // An answer that promises another length than the frame has.
        (r"head -c 36 >/dev/null; printf 'TA\002\000\002\000\000\000\007\000\000\000ABCDEFG'; exec sleep 1000", false),
        (r"head -c 36 >/dev/null; printf 'TA\002\000\002\000\000\000\006\000\000\000ABC'", false),
        (r"head -c 36 >/dev/null; printf 'TA\001\000\002\000\000\000\006\000\000\000ABCDEF'; exec sleep 1000", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (codec, log) = codec(folder.path(), script, if late { Duration::from_millis(300) } else { LONG });
        for times in 1..=2 {
            match ask(&codec).await {
                Err(CodecError::Late(_)) => assert!(late, "{script}"),
                Err(CodecError::Lost(_)) => assert!(!late, "{script}"),
                other => panic!("{script}: {:?}", other.map(|frame| frame.bytes)),
            }
            assert_eq!(starts(&log), times);
        }
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_keeps_the_worker() {
    let folder = tempfile::tempdir().unwrap();
    let script = r"while true; do head -c 36 >/dev/null; printf 'TA\002\002\000\000\000\000\003\000\000\000why'; done";
    let (codec, log) = codec(folder.path(), script, LONG);
    for _ in 0..2 {
        assert_eq!(ask(&codec).await.map(|frame| frame.bytes), Err(CodecError::Unsupported("why".into())));
    }
    assert_eq!(starts(&log), 1);
}

#[tokio::test]
async fn without_a_program_it_is_said_what_to_install() {
    let without = Codec::new(CodecSettings::default(), Metrics::new(&prometheus::Registry::new()));
    let missing = ask(&without).await.map(|frame| frame.bytes).unwrap_err();
    assert!(missing.to_string().contains("triptych-codec") && missing.to_string().contains("--codec"));
    let settings = CodecSettings { program: Some("/nowhere/triptych-codec".into()), ..CodecSettings::default() };
    let nowhere = Codec::new(settings, Metrics::new(&prometheus::Registry::new()));
    assert!(matches!(ask(&nowhere).await, Err(CodecError::Start { .. })));
}
