//! Values that were computed by hand from the formulas of the standard.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::coders::{
    encode,
    tests::{colour, grey},
};
use archive_codec_wire::{
    Failure,
    recipe::{Format, Function, Modality, Overlay, OverlaySource, Region, Table, Voi},
};
use proptest::prelude::*;

fn recipe() -> Recipe {
    Recipe {
        samples: Samples::Integers,
        word_bytes: 1,
        first_bit: 0,
        inverted: false,
        padding: None,
        modality: Modality::Linear { slope: 1.0, intercept: 0.0 },
        voi: Voi::Extent,
        palette: None,
        overlays: Vec::new(),
        aspect: 1.0,
        region: None,
        viewport: None,
        format: Format::Png,
        profile: Vec::new(),
    }
}

fn window(function: Function, centre: f64, width: f64) -> Voi {
    Voi::Window { function, centre, width }
}

/// Columns, rows and levels of the picture.
fn shown(image: &Image, recipe: &Recipe, stream: &[u8]) -> (u32, u32, Vec<u8>) {
    let (picture, ..) = render(Coding::Native, image, &recipe.encode(), stream).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().unwrap();
    let mut levels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut levels).unwrap();
    levels.truncate(info.buffer_size());
    (info.width, info.height, levels)
}

fn levels(image: &Image, recipe: &Recipe, stream: &[u8]) -> Vec<u8> {
    shown(image, recipe, stream).2
}

fn words(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_ct_is_rescaled_and_windowed() {
    // HU = stored - 1024; centre 40, width 400: black up to -160, white from 239, between ((HU - 39.5) / 399 + 0.5) × 255.
    let recipe = Recipe {
        modality: Modality::Linear { slope: 1.0, intercept: -1024.0 },
        voi: window(Function::Linear, 40.0, 400.0),
        ..recipe()
    };
    let stored = words(&[0, 864, 1024, 1064, 1263, 4000]);
    let found = levels(&grey(2, 3, 16, 12, false), &recipe, &stored);
    // HU -1024, -160, 0: 102.26; 40: 127.82; 239, 2976.
    assert_eq!(found, [0, 0, 102, 128, 255, 255]);
}

#[test]
fn without_a_window_the_extent_is_shown_and_padding_is_black_and_counts_not() {
    let image = grey(1, 6, 16, 16, true);
    let stored = words(&[-2000, -1990, -100, 0, 100, -1995]);
    let with = Recipe { padding: Some((-2000.0, -1990.0)), ..recipe() };
    assert_eq!(levels(&image, &with, &stored), [0, 0, 0, 128, 255, 0]);
    // Inverted, padding stays black.
    assert_eq!(levels(&image, &Recipe { inverted: true, ..with }, &stored), [0, 0, 255, 128, 0, 0]);
    assert_eq!(levels(&image, &recipe(), &stored), [0, 1, 231, 243, 255, 1]);
    // One value only, and nothing but padding.
    assert_eq!(levels(&grey(1, 2, 8, 8, false), &recipe(), &[7, 7]), [0, 0]);
    assert_eq!(levels(&grey(1, 2, 8, 8, false), &Recipe { padding: Some((7.0, 7.0)), ..recipe() }, &[7, 7]), [0, 0]);
}

#[test]
fn bits_stored_are_taken_from_below_high_bit_and_the_sign_is_theirs() {
    // 10 of 16 bits, the highest is bit 11: what is above and below is none of the value.
    let image = Image { high: 11, ..grey(1, 4, 16, 10, true) };
    let stored: Vec<u8> =
        [0b1111_1000_0000_0011_u16, 0b0000_0000_0000_0011, 0b0000_0111_1111_1111, 0b0101_1111_1111_1100]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
    // -512, 0, 511, -1 of 1023 steps.
    assert_eq!(levels(&image, &recipe(), &stored), [0, 128, 255, 127]);
    assert_eq!(levels(&Image { signed: false, ..image }, &recipe(), &stored), [128, 0, 127, 255]);
}

#[test]
fn a_modality_table_is_followed_by_a_voi_table() {
    let table = |first, bits, entries: &[u16]| Table { first, bits, entries: entries.to_vec() };
    let recipe = Recipe {
        modality: Modality::Table(table(2, 16, &[100, 200, 300])),
        voi: Voi::Table(table(200, 10, &[0, 1023])),
        ..recipe()
    };
    // 0 and 2 become 100, hence the first entry; 3 becomes 200, the first too; 4 and 9 become 300, beyond the last.
    assert_eq!(levels(&grey(1, 5, 8, 8, false), &recipe, &[0, 2, 3, 4, 9]), [0, 0, 0, 255, 255]);
    let half = Recipe { voi: Voi::Table(table(0, 12, &[0, 2048, 4095])), ..self::recipe() };
    assert_eq!(levels(&grey(1, 3, 8, 8, false), &half, &[0, 1, 2]), [0, 128, 255]);
}

#[test]
fn a_palette_gives_three_levels() {
    let table = |entries: &[u16]| Table { first: 5, bits: 16, entries: entries.to_vec() };
    let palette = [table(&[0, 0xFFFF]), table(&[0x8000, 0]), table(&[0x1234, 0x00FF])];
    let image = Image { photometric: Photometric::Palette, ..grey(1, 3, 8, 8, false) };
    let recipe = Recipe { palette: Some(Box::new(palette)), ..recipe() };
    assert_eq!(levels(&image, &recipe, &[0, 5, 6]), [0, 128, 18, 0, 128, 18, 255, 0, 1]);
    let without = render(Coding::Native, &image, &self::recipe().encode(), &[0; 3]).unwrap_err();
    assert_eq!(without.failure, Failure::Refused);
}

#[test]
fn colours_come_from_planes_halves_and_other_depths() {
    let planar = Image { planar: true, ..colour(1, 2) };
    assert_eq!(levels(&planar, &recipe(), &[1, 2, 3, 4, 5, 6]), [1, 3, 5, 2, 4, 6]);
    // Red in YBR_FULL is 76, 85, 255.
    let ybr = Image { photometric: Photometric::YbrFull, ..colour(1, 2) };
    assert_eq!(levels(&ybr, &recipe(), &[76, 85, 255, 90, 128, 128]), [254, 0, 0, 90, 90, 90]);
    // Two pixels in four bytes.
    let halved = Image { photometric: Photometric::YbrFull422, ..colour(1, 2) };
    assert_eq!(levels(&halved, &recipe(), &[76, 90, 128, 128]), [76, 76, 76, 90, 90, 90]);
    let deep = Image { allocated: 16, stored: 12, high: 11, ..colour(1, 1) };
    assert_eq!(levels(&deep, &recipe(), &words(&[0, 2048, 4095])), [0, 128, 255]);
}

#[test]
fn single_bits_begin_anywhere_and_are_black_and_white() {
    let image = grey(2, 3, 1, 1, false);
    let recipe = Recipe { first_bit: 6, ..recipe() };
    // Bits 6 to 11 of these bytes, the lowest first: 1 0, 1 1 0 1.
    assert_eq!(levels(&image, &recipe, &[0b0111_1111, 0b0000_1011]), [255, 0, 255, 255, 0, 255]);
    // All alike is not all black.
    assert_eq!(levels(&grey(1, 2, 1, 1, false), &self::recipe(), &[3]), [255, 255]);
}

#[test]
fn wide_samples_and_floating_point_numbers_are_shown() {
    let image = grey(1, 3, 32, 32, false);
    let stored: Vec<u8> = [0_u32, 0x8000_0000, 0xFFFF_FFFF].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(levels(&image, &recipe(), &stored), [0, 128, 255]);
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let recipe = Recipe { samples: Samples::Floats, ..recipe() };
    let image = grey(1, 5, 32, 32, false);
    let stored = floats(&[-1.0, 0.0, 1.0, f32::NAN, f32::INFINITY]);
    assert_eq!(levels(&image, &recipe, &stored), [0, 128, 255, 0, 0]);
    let doubles: Vec<u8> = [-1.0_f64, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(levels(&grey(1, 2, 64, 64, false), &recipe, &doubles), [0, 255]);
}

#[test]
fn words_of_big_endian_are_turned() {
    let recipe = Recipe { word_bytes: 2, voi: window(Function::LinearExact, 127.5, 255.0), ..recipe() };
    assert_eq!(levels(&grey(1, 2, 16, 8, false), &recipe, &[0, 10, 0, 200]), [10, 200]);
    // Samples of 8 bits stand in words too.
    assert_eq!(levels(&grey(1, 4, 8, 8, false), &recipe, &[2, 1, 4, 3]), [1, 2, 3, 4]);
}

#[test]
fn overlays_are_white_where_they_lie_over_the_image() {
    let overlay = |source| Overlay { rows: 2, columns: 2, top: -1, left: 2, source };
    let recipe = |source| Recipe { overlays: vec![overlay(source)], ..recipe() };
    let voi = |recipe| Recipe { voi: window(Function::LinearExact, 127.5, 255.0), ..recipe };
    // Its second row, 1 0, is over the last column of the first row; the rest is outside.
    let found = levels(&grey(2, 3, 8, 8, false), &voi(recipe(OverlaySource::Bits(vec![0b0111]))), &[1, 2, 3, 4, 5, 6]);
    assert_eq!(found, [1, 2, 255, 4, 5, 6]);
    let embedded = voi(recipe(OverlaySource::Embedded(12)));
    let found = levels(&grey(1, 3, 16, 8, false), &embedded, &words(&[1, 2, 0x1003]));
    assert_eq!(found, [1, 2, 255]);
    // In colour all three.
    let found = levels(&colour(1, 3), &recipe(OverlaySource::Bits(vec![0b0111])), &[1; 9]);
    assert_eq!(found, [1, 1, 1, 1, 1, 1, 255, 255, 255]);
}

#[test]
fn a_picture_fits_into_its_viewport_undistorted() {
    let image = grey(2, 4, 8, 8, false);
    let recipe = Recipe { voi: window(Function::LinearExact, 127.5, 255.0), ..recipe() };
    let stored = [10, 20, 30, 40, 50, 60, 70, 80];
    let with = |viewport, region| Recipe { viewport, region, ..recipe.clone() };
    let (columns, rows, _) = shown(&image, &with(Some((100, 10)), None), &stored);
    assert_eq!((columns, rows), (20, 10));
    // Half the size: the triangle over a pixel of the picture covers samples -0.5 … 3.5; all within are weighted.
    let (columns, rows, found) = shown(&image, &with(Some((2, 2)), None), &stored);
    assert_eq!((columns, rows, found.len()), (2, 1, 2));
    assert!(found[0] < found[1] && (30..50).contains(&found[0]) && (45..65).contains(&found[1]));
    // A region of whole samples is cut out; negative extents mirror it.
    let region = |width, height| Some(Region { x: 1.0, y: 0.0, width, height });
    assert_eq!(levels(&image, &with(None, region(2.0, 2.0)), &stored), [20, 30, 60, 70]);
    assert_eq!(levels(&image, &with(None, region(-2.0, 2.0)), &stored), [30, 20, 70, 60]);
    assert_eq!(levels(&image, &with(None, region(2.0, -2.0)), &stored), [60, 70, 20, 30]);
    // Twice the size: between two samples it is three quarters of the nearer one.
    let twice = levels(&grey(1, 2, 8, 8, false), &with(Some((4, 2)), None), &[0, 100]);
    assert_eq!(twice[..4], [0, 25, 75, 100]);
}

#[test]
fn pixels_that_are_not_square_become_so() {
    let image = grey(2, 2, 8, 8, false);
    let sized = |aspect| {
        let (columns, rows, _) = shown(&image, &Recipe { aspect, ..recipe() }, &[1, 2, 3, 4]);
        (columns, rows)
    };
    assert_eq!((sized(2.0), sized(0.5), sized(1.0)), ((2, 4), (4, 2), (2, 2)));
    // Nonsense is disregarded.
    assert_eq!((sized(0.0), sized(1e6)), ((2, 2), (2, 2)));
}

#[test]
fn what_cannot_be_a_picture_is_refused_before_anything_is_allocated() {
    let refused = |image: &Image, recipe: &Recipe| render(Coding::Native, image, &recipe.encode(), &[1; 4]).is_err();
    let image = grey(2, 2, 8, 8, false);
    assert!(!refused(&image, &recipe()));
    assert!(refused(&Image { rows: 65_535, columns: 65_535, ..image }, &recipe()));
    assert!(refused(&Image { rows: 3, ..image }, &recipe()));
    assert!(refused(&image, &Recipe { viewport: Some((u32::MAX, u32::MAX)), ..recipe() }));
    assert!(refused(&image, &Recipe { region: Some(Region { x: 1.0, y: 0.0, width: 2.0, height: 1.0 }), ..recipe() }));
    assert!(refused(&image, &Recipe { region: Some(Region { x: 0.0, y: 0.0, width: 0.0, height: 1.0 }), ..recipe() }));
    assert!(refused(&image, &Recipe { samples: Samples::Floats, ..recipe() }));
    assert!(render(Coding::Native, &image, b"", &[1; 4]).is_err());
}

#[test]
fn a_coded_frame_gives_the_picture_of_its_native_one() {
    let image = grey(20, 30, 16, 12, true);
    let stored: Vec<u8> = (0..600_i16).flat_map(|at| (at * 3 - 900).to_le_bytes()).collect();
    let recipe = Recipe { voi: window(Function::Linear, 0.0, 1200.0), ..recipe() }.encode();
    let native = render(Coding::Native, &image, &recipe, &stored).unwrap();
    for coding in [Coding::Rle, Coding::JpegLs, Coding::Htj2k] {
        let (coded, ..) = encode(coding, &image, &stored).unwrap();
        assert_eq!(render(coding, &image, &recipe, &coded).unwrap(), native);
    }
}

#[test]
fn a_profile_goes_with_colours_in_both_formats() {
    let profile: Vec<u8> = (0..=255).collect();
    let with = |format| Recipe { profile: profile.clone(), format, ..recipe() }.encode();
    let image = colour(8, 8);
    let (picture, ..) = render(Coding::Native, &image, &with(Format::Png), &[9; 192]).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().unwrap();
    assert_eq!(reader.info().icc_profile.as_deref(), Some(&profile[..]));
    let (picture, ..) = render(Coding::Native, &image, &with(Format::Jpeg { quality: 90 }), &[9; 192]).unwrap();
    assert!(picture.windows(profile.len()).any(|window| window == profile));
    // The picture of a grey image has none.
    let (picture, ..) = render(Coding::Native, &grey(8, 8, 8, 8, false), &with(Format::Png), &[9; 64]).unwrap();
    assert!(!picture.windows(4).any(|window| window == b"iCCP"));
}

proptest! {
    #[test]
    fn no_frame_and_no_recipe_bring_more_than_a_refusal(
        (rows, columns) in (0_u32..20, 0_u32..20),
        (allocated, stored, high) in (prop::sample::select(vec![1_u8, 8, 16, 24, 32, 64]), 0_u8..66, 0_u8..66),
        (signed, planar, three) in (any::<bool>(), any::<bool>(), any::<bool>()),
        photometric in 1_u8..=10,
        (centre, width) in (-1e300_f64..1e300, -1e3_f64..1e300),
        (aspect, viewport) in (-1e9_f64..1e9, prop::option::of((0_u32..500, 0_u32..500))),
        region in prop::option::of((-1.0_f64..20.0, -1.0_f64..20.0, -20.0_f64..20.0, -20.0_f64..20.0)),
        (first_bit, word) in (0_u8..8, prop::sample::select(vec![1_u8, 2, 4, 8])),
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
    ) {
        let image = Image {
            rows, columns, samples: if three { 3 } else { 1 }, allocated, stored, high, signed,
            photometric: Photometric::of_byte(photometric).unwrap(), planar,
        };
        let region = region.map(|(x, y, width, height)| Region { x, y, width, height });
        let recipe = Recipe {
            word_bytes: word, first_bit, aspect, viewport, region,
            voi: window(Function::Linear, centre, width),
            overlays: vec![Overlay { rows: u32::MAX, columns: u32::MAX, top: -5, left: i32::MIN, source: OverlaySource::Bits(vec![1; 9]) }],
            ..recipe()
        };
        let _ = render(Coding::Native, &image, &recipe.encode(), &bytes);
    }
}
