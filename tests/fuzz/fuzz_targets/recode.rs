//! Any bytes from one plain encoding to another: the same however they are cut; and what is written in big endian and back again
//! is what was written at once.
#![no_main]
use archive_model::{DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Limits, Recoder};
use libfuzzer_sys::fuzz_target;

fn recode(data: &[u8], from: &str, to: &str, step: usize) -> Option<Vec<u8>> {
    let mut recoder = Recoder::new(from, to, &Limits::default()).expect("plain encodings");
    let mut out = Vec::new();
    for piece in data.chunks(step.max(1)) {
        recoder.push(piece, &mut out).ok()?;
    }
    recoder.finish(&mut out).ok()?;
    Some(out)
}

fuzz_target!(|bytes: &[u8]| {
    let [which, step, data @ ..] = bytes else { return };
    let from = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE][usize::from(*which % 4)];
    // Bombs are stopped by who pushes small pieces (archive/service/src/convert.rs).
    let step = usize::from(*step).max(1);
    for to in [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE] {
        assert_eq!(recode(data, from, to, 2048), recode(data, from, to, step));
    }
    if from == EXPLICIT_LE
        && let (Some(little), Some(big)) =
            (recode(data, from, EXPLICIT_LE, 2048), recode(data, from, EXPLICIT_BE, 2048))
    {
        assert_eq!(recode(&big, EXPLICIT_BE, EXPLICIT_LE, 2048), Some(little));
    }
});
