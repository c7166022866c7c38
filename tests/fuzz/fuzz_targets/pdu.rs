//! Any bytes, in any pieces: never a panic, the same frames however they are cut, and no more held than came.
#![no_main]
use archive_upper_layer::{
    frame::{self, Frame},
    message::Assembler,
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

/// The frames of `bytes` when they come `step` at a time, and whether they end in something that is none.
fn frames(bytes: &[u8], step: usize) -> (Vec<String>, bool) {
    let (mut buffer, mut found, mut assembler) = (BytesMut::new(), Vec::new(), Assembler::default());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::take(&mut buffer) {
                Ok(Some(frame)) => {
                    found.push(format!("{frame:?}"));
                    if let Frame::Data(pdvs) = frame {
                        for pdv in pdvs {
                            if assembler.push(pdv).is_err() {
                                return (found, true);
                            }
                        }
                    }
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        assert!(buffer.len() <= bytes.len());
    }
    (found, false)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = frames(bytes, bytes.len().max(1));
    let dripped = frames(bytes, 1);
    assert_eq!(whole, dripped);
});
