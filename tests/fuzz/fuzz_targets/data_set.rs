//! The pre-validator: any bytes in any pieces and any encoding, with the same verdict; what it accepts has a header that can be
//! written, and a frame map that lies within the data set.
#![no_main]
use archive_model::{
    Encoding, Limits, Scanner, TRANSFER_SYNTAXES,
    json::{from_json, no_bulk, to_json},
    write_data_set,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [which, step, data @ ..] = bytes else { return };
    let syntax = &TRANSFER_SYNTAXES[usize::from(*which) % TRANSFER_SYNTAXES.len()];
    let scan = |step: usize| {
        let mut scanner = Scanner::new(syntax, &Limits::default());
        for piece in data.chunks(step.max(1)) {
            if scanner.push(piece).is_err() {
                return None;
            }
        }
        scanner.finish().ok()
    };
    let (whole, dripped) = (scan(data.len()), scan(usize::from(*step)));
    assert_eq!(whole.is_some(), dripped.is_some());
    let Some((whole, dripped)) = whole.zip(dripped) else { return };
    // As bytes: a value that is no number is not even equal to itself.
    let written = |header| write_data_set(header, Encoding::ExplicitLe);
    assert_eq!(written(&whole.header), written(&dripped.header));
    assert_eq!(whole.length_bytes, data.len() as u64);
    let json = to_json(&whole.header, &no_bulk);
    from_json(&json, &Limits::default()).expect("its JSON is read");
});
