//! Keys of any text against values of any text: never a panic, in linear time, and a value without wildcards that is its own
//! key matches.
#![no_main]
use archive_model::{
    Tag, VR,
    matching::{Meaning, Pattern},
};
use libfuzzer_sys::fuzz_target;

const VRS: [VR; 12] = [VR::AE, VR::CS, VR::DA, VR::DT, VR::IS, VR::LO, VR::LT, VR::PN, VR::SH, VR::TM, VR::UC, VR::UI];

fuzz_target!(|input: (u8, String, String)| {
    let (which, key, value) = input;
    let vr = VRS[usize::from(which) % VRS.len()];
    let of = |text: &str| Pattern::of_texts(Tag(0x0010, 0x0010), vr, &[text.to_owned()], &Meaning::default());
    if let Ok(pattern) = of(&key) {
        let _ = pattern.matches_text(vr, &value);
    }
    let plain = !value.contains(['*', '?', '\\', '"', '\0']) && !value.trim_matches([' ', '\0']).is_empty();
    if plain && matches!(vr, VR::LO | VR::SH | VR::CS) {
        assert!(of(&value).is_ok_and(|pattern| pattern.matches_text(vr, &value)), "{value:?}");
    }
});
