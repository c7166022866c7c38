//! What is read of an instance for its picture, and how many are made at a time. The worker is of shell.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{CodecSettings, Freshness, Offer, Protocol, Selection, ServiceSettings, Source as Sender, testing};
use archive_codec_wire::recipe::{Modality, Overlay, OverlaySource, Recipe, Samples, Table, Voi};
use archive_model::{
    DEFLATED_LE, DataSet, EXPLICIT_BE, EXPLICIT_LE, Element, Encoding, IMPLICIT_LE, Tag, VR, Value, tags,
    write_data_set,
};
use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

/// Answers seven bytes to each request, and writes a line for it beside itself.
const PAINTER: &str = r#"while true; do head -c 24 >/dev/null; r=$(head -c 4 | od -An -tu4); s=$(head -c 4 | od -An -tu4)
head -c $((r+s)) >/dev/null; echo asked >> $(dirname "$0")/asked; printf 'TA\002\000\002\000\000\000\007\000\000\000PICTURE'; done"#;

fn settings(folder: &Path, script: &str) -> ServiceSettings {
    let program = folder.join("worker");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let codec = CodecSettings { program: Some(program), workers: 1, ..CodecSettings::default() };
    ServiceSettings { codec, ..ServiceSettings::default() }
}

fn viewing() -> Viewing {
    Viewing {
        format: Format::Png,
        viewport: None,
        region: None,
        window: None,
        overlays: true,
        profile: true,
        keep: false,
    }
}

fn put(set: &mut DataSet, tag: Tag, vr: VR, numbers: &[i128]) {
    set.put(Element { tag, vr, value: Value::Integers(numbers.to_vec()) });
}

fn put_texts(set: &mut DataSet, tag: Tag, texts: &[&str]) {
    set.put(Element { tag, vr: VR::DS, value: Value::Text(texts.iter().map(|text| (*text).to_owned()).collect()) });
}

fn put_items(set: &mut DataSet, tag: Tag, items: Vec<DataSet>) {
    set.put(Element { tag, vr: VR::SQ, value: Value::Items(items) });
}

/// Two frames of 2 rows and 3 columns, 12 of 16 bits.
fn attributes() -> DataSet {
    let mut set = DataSet::new();
    for (tag, uid) in [
        (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.7"),
        (tags::SOP_INSTANCE_UID, "1.2.3.1"),
        (tags::STUDY_INSTANCE_UID, "1.2.3"),
        (tags::SERIES_INSTANCE_UID, "1.2.3.9"),
    ] {
        set.put_text(tag, VR::UI, uid);
    }
    set.put_text(tags::NUMBER_OF_FRAMES, VR::IS, "2");
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    for (tag, number) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, 2),
        (tags::COLUMNS, 3),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 12),
        (tags::HIGH_BIT, 11),
        (tags::PIXEL_REPRESENTATION, 1),
    ] {
        put(&mut set, tag, VR::US, &[number]);
    }
    let pixels: Vec<u8> = (0..24).collect();
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(pixels.into()) });
    set
}

async fn stored(archive: &Archive, syntax: &str, body: Vec<u8>) -> InstanceRow {
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

/// The recipe of a frame, and its stored bytes.
async fn read(
    archive: &Archive,
    row: &InstanceRow,
    frame: u32,
    viewing: &Viewing,
) -> Result<(Recipe, Vec<u8>), RenderError> {
    let map = archive.frames(row).await?.unwrap();
    let mut source = Source::open(archive, row, map).await?;
    let image = source.image()?;
    source.fetch_tables(frame, viewing).await?;
    let (recipe, _) = recipe::recipe(&source, &image, frame, viewing)?;
    Ok((recipe, source.read_frame(&image, frame).await?))
}

async fn recipe_of(set: &DataSet, frame: u32) -> Result<Recipe, RenderError> {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), PAINTER));
    let row = stored(&archive, EXPLICIT_LE, write_data_set(set, Encoding::ExplicitLe)).await;
    read(&archive, &row, frame, &viewing()).await.map(|(recipe, _)| recipe)
}

fn lut(first: i128, bits: i128, entries: &[i128]) -> DataSet {
    let mut item = DataSet::new();
    put(&mut item, tags::LUT_DESCRIPTOR, VR::SS, &[entries.len() as i128, first, bits]);
    put(&mut item, tags::LUT_DATA, VR::US, entries);
    item
}

#[tokio::test]
async fn what_nothing_is_said_of_is_shown_as_it_is() {
    let plain = recipe_of(&attributes(), 1).await.unwrap();
    assert_eq!(plain.modality, Modality::Linear { slope: 1.0, intercept: 0.0 });
    assert_eq!((plain.voi, plain.inverted, plain.padding, plain.aspect), (Voi::Extent, false, None, 1.0));
    assert_eq!((plain.samples, plain.word_bytes, plain.overlays.len()), (Samples::Integers, 1, 0));
}

#[tokio::test]
async fn the_first_window_that_is_one_is_taken() {
    let mut set = attributes();
    put_texts(&mut set, tags::WINDOW_CENTER, &["0", "x", "40", "50"]);
    put_texts(&mut set, tags::WINDOW_WIDTH, &["0", "100", "400 ", "1"]);
    let linear = Voi::Window { function: Function::Linear, centre: 40.0, width: 400.0 };
    assert_eq!(recipe_of(&set, 1).await.unwrap().voi, linear);
    set.put_text(tags::VOILUT_FUNCTION, VR::CS, "SIGMOID");
    let sigmoid = Voi::Window { function: Function::Sigmoid, centre: 40.0, width: 400.0 };
    assert_eq!(recipe_of(&set, 1).await.unwrap().voi, sigmoid);
    // A linear window of less than 1 has no meaning but as an exact one; one of nothing has none.
    set.remove(tags::VOILUT_FUNCTION);
    for (width, voi) in [
        ("0.5", Voi::Window { function: Function::LinearExact, centre: 1.0, width: 0.5 }),
        ("0", Voi::Extent),
        ("-3", Voi::Extent),
        ("1e999", Voi::Extent),
    ] {
        put_texts(&mut set, tags::WINDOW_CENTER, &["1"]);
        put_texts(&mut set, tags::WINDOW_WIDTH, &[width]);
        assert_eq!(recipe_of(&set, 1).await.unwrap().voi, voi);
    }
}

#[tokio::test]
async fn tables_come_before_windows_and_have_the_sign_of_their_input() {
    let mut set = attributes();
    put_texts(&mut set, tags::WINDOW_CENTER, &["40"]);
    put_texts(&mut set, tags::WINDOW_WIDTH, &["400"]);
    put_items(&mut set, tags::VOILUT_SEQUENCE, vec![lut(-3, 12, &[1, 2, 4095]), lut(0, 8, &[9])]);
    let table = |first, bits, entries: &[u16]| Table { first, bits, entries: entries.to_vec() };
    assert_eq!(recipe_of(&set, 1).await.unwrap().voi, Voi::Table(table(-3, 12, &[1, 2, 4095])));
    // What a modality table gives has no sign.
    put_items(&mut set, tags::MODALITY_LUT_SEQUENCE, vec![lut(-2, 16, &[7, 8])]);
    let both = recipe_of(&set, 1).await.unwrap();
    assert_eq!(both.modality, Modality::Table(table(-2, 16, &[7, 8])));
    assert_eq!(both.voi, Voi::Table(table(65_533, 12, &[1, 2, 4095])));
    // Angiography has its table for measuring.
    set.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.12.1");
    assert_eq!(recipe_of(&set, 1).await.unwrap().modality, Modality::Linear { slope: 1.0, intercept: 0.0 });
}

#[tokio::test]
async fn a_frame_has_the_values_of_its_own_functional_group() {
    let mut set = attributes();
    let group = |slope: &str, centre: &str| {
        let (mut transformation, mut window, mut group) = (DataSet::new(), DataSet::new(), DataSet::new());
        put_texts(&mut transformation, tags::RESCALE_SLOPE, &[slope]);
        put_texts(&mut transformation, tags::RESCALE_INTERCEPT, &["-7"]);
        put_texts(&mut window, tags::WINDOW_CENTER, &[centre]);
        put_texts(&mut window, tags::WINDOW_WIDTH, &["10"]);
        put_items(&mut group, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![transformation]);
        put_items(&mut group, tags::FRAME_VOILUT_SEQUENCE, vec![window]);
        group
    };
    put_items(&mut set, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![group("9", "9")]);
    put_items(&mut set, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![DataSet::new(), group("2.5", "3")]);
    put_texts(&mut set, tags::RESCALE_SLOPE, &["77"]);
    for (frame, slope, centre) in [(1, 9.0, 9.0), (2, 2.5, 3.0)] {
        let recipe = recipe_of(&set, frame).await.unwrap();
        assert_eq!(recipe.modality, Modality::Linear { slope, intercept: -7.0 });
        assert_eq!(recipe.voi, Voi::Window { function: Function::Linear, centre, width: 10.0 });
    }
}

#[tokio::test]
async fn inversion_padding_and_pixels_sizes_are_told() {
    let mut set = attributes();
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    set.put_text(tags::PRESENTATION_LUT_SHAPE, VR::CS, "INVERSE");
    // Written without a sign, and the limit below the value.
    put(&mut set, tags::PIXEL_PADDING_VALUE, VR::US, &[65_534]);
    put(&mut set, tags::PIXEL_PADDING_RANGE_LIMIT, VR::US, &[65_530]);
    put_texts(&mut set, tags::PIXEL_SPACING, &["0.5", "0.25"]);
    let recipe = recipe_of(&set, 1).await.unwrap();
    assert_eq!((recipe.inverted, recipe.padding, recipe.aspect), (true, Some((-6.0, -2.0)), 2.0));
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    assert!(recipe_of(&set, 1).await.unwrap().inverted);
    set.remove(tags::PRESENTATION_LUT_SHAPE);
    put_texts(&mut set, tags::PIXEL_SPACING, &["0.7031", "0.703125"]);
    let recipe = recipe_of(&set, 1).await.unwrap();
    assert_eq!((recipe.inverted, recipe.aspect), (false, 1.0));
    // Of a palette nothing of it applies.
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR");
    assert_eq!(recipe_of(&set, 1).await.unwrap().padding, None);
}

#[tokio::test]
async fn a_frame_has_the_overlays_over_it() {
    let mut set = attributes();
    let overlay = |set: &mut DataSet, group: u16, kind: &str, bits: &[u8]| {
        put(set, Tag(group, 0x0010), VR::US, &[1]);
        put(set, Tag(group, 0x0011), VR::US, &[3]);
        set.put_text(Tag(group, 0x0040), VR::CS, kind);
        put(set, Tag(group, 0x0050), VR::SS, &[2, -1]);
        set.put(Element { tag: Tag(group, 0x3000), vr: VR::OW, value: Value::Bytes(bits.to_vec().into()) });
    };
    overlay(&mut set, 0x6000, "G", &[0b0101, 0]);
    overlay(&mut set, 0x6002, "R", &[7, 0]);
    // Two frames of it, the first over the second of the image; its bits follow without a gap.
    overlay(&mut set, 0x6004, "G", &[0b0011_0110, 0]);
    set.put_text(Tag(0x6004, 0x0015), VR::IS, "2");
    put(&mut set, Tag(0x6004, 0x0051), VR::US, &[2]);
    let expected =
        |bits: u8| Overlay { rows: 1, columns: 3, top: 1, left: -2, source: OverlaySource::Bits(vec![bits]) };
    assert_eq!(recipe_of(&set, 1).await.unwrap().overlays, [expected(0b0101)]);
    let second = recipe_of(&set, 2).await.unwrap().overlays;
    assert_eq!((second.len(), &second[0]), (2, &expected(0b0101)));
    assert!(matches!(&second[1].source, OverlaySource::Bits(bits) if bits[0] & 7 == 0b110));
}

#[tokio::test]
async fn every_encoding_gives_the_same_recipe_and_the_frame_as_it_is_stored() {
    let mut set = attributes();
    // So long that it is left in the body.
    let entries: Vec<u8> = (0..3000_u16).flat_map(u16::to_le_bytes).collect();
    let mut item = DataSet::new();
    put(&mut item, tags::LUT_DESCRIPTOR, VR::SS, &[3000, 0, 12]);
    item.put(Element { tag: tags::LUT_DATA, vr: VR::OW, value: Value::Bytes(entries.into()) });
    put_items(&mut set, tags::VOILUT_SEQUENCE, vec![item]);
    let mut found = Vec::new();
    for syntax in [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE] {
        let body = match syntax {
            IMPLICIT_LE => write_data_set(&set, Encoding::ImplicitLe),
            EXPLICIT_BE => write_data_set(&set, Encoding::ExplicitBe),
            DEFLATED_LE => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&write_data_set(&set, Encoding::ExplicitLe)).unwrap();
                encoder.finish().unwrap()
            }
            _ => write_data_set(&set, Encoding::ExplicitLe),
        };
        let folder = tempfile::tempdir().unwrap();
        let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), PAINTER));
        let row = stored(&archive, syntax, body).await;
        let (mut recipe, frame) = read(&archive, &row, 2, &viewing()).await.unwrap();
        let mut turned: Vec<u8> = frame;
        if recipe.word_bytes == 2 {
            turned.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        }
        assert_eq!((recipe.word_bytes == 2, turned), (syntax == EXPLICIT_BE, (12..24).collect()));
        recipe.word_bytes = 1;
        found.push(recipe);
    }
    assert!(matches!(&found[0].voi, Voi::Table(table) if table.entries[2999] == 2999 && table.entries.len() == 3000));
    assert!(found.iter().all(|recipe| *recipe == found[0]));
}

/// pydicom's `SC_rgb_small_odd_big_endian.dcm`: a frame of 27 bytes in words of two.
#[tokio::test]
async fn frames_that_end_within_a_word_are_turned_before_they_are_cut() {
    let mut set = attributes();
    for (tag, number) in [(tags::ROWS, 1), (tags::BITS_ALLOCATED, 8), (tags::BITS_STORED, 8), (tags::HIGH_BIT, 7)] {
        put(&mut set, tag, VR::US, &[number]);
    }
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(b"abcdef"[..].into()) });
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), PAINTER));
    let row = stored(&archive, EXPLICIT_BE, write_data_set(&set, Encoding::ExplicitBe)).await;
    for (frame, expected) in [(1, b"abc"), (2, b"def")] {
        let (recipe, bytes) = read(&archive, &row, frame, &viewing()).await.unwrap();
        assert_eq!((recipe.word_bytes, &bytes[..]), (1, &expected[..]));
    }
}

#[tokio::test]
async fn what_has_no_picture_is_told_from_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), PAINTER));
    let row = stored(&archive, EXPLICIT_LE, write_data_set(&attributes(), Encoding::ExplicitLe)).await;
    let ask = async |shown, viewing: Viewing| archive.render(&row, shown, &viewing).await.map(|picture| picture.bytes);
    assert_eq!(ask(Shown::Frame(2), viewing()).await.unwrap(), "PICTURE");
    assert!(matches!(ask(Shown::Frame(3), viewing()).await, Err(RenderError::NoFrame { frames: 2 })));
    let region = |x| RegionAsked::Pixels { x: Some(x), y: None, width: Some(2.0), height: None };
    assert!(ask(Shown::Frame(1), Viewing { region: Some(region(1.0)), ..viewing() }).await.is_ok());
    let beyond = ask(Shown::Frame(1), Viewing { region: Some(region(1.5)), ..viewing() }).await;
    assert!(matches!(beyond, Err(RenderError::Bad(_))));
    let whole = RegionAsked::Fractions { left: 0.0, top: 0.0, right: 1.0, bottom: 1.0 };
    assert!(ask(Shown::Representative, Viewing { region: Some(whole), ..viewing() }).await.is_ok());
}

#[tokio::test]
async fn a_small_picture_is_made_once_and_a_line_that_is_full_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), PAINTER));
    let row = stored(&archive, EXPLICIT_LE, write_data_set(&attributes(), Encoding::ExplicitLe)).await;
    let keep = Viewing { keep: true, ..viewing() };
    for _ in 0..3 {
        assert_eq!(archive.render(&row, Shown::Representative, &keep).await.unwrap().bytes, "PICTURE");
    }
    let asked = || fs::read_to_string(folder.path().join("asked")).unwrap().lines().count();
    assert_eq!(asked(), 1);
    let _all = archive.renderings().places.try_acquire_many(RENDERINGS_MAX as u32).unwrap();
    let refused = archive.render(&row, Shown::Frame(1), &viewing()).await;
    assert!(matches!(refused, Err(RenderError::Busy)));
    // What is kept needs no place.
    assert!(archive.render(&row, Shown::Representative, &keep).await.is_ok());
    assert_eq!(asked(), 1);
    let other = keep.tag(&row, Shown::Frame(1));
    assert!(other != keep.tag(&row, Shown::Frame(2)) && other != viewing().tag(&row, Shown::Frame(1)));
}

#[tokio::test]
async fn who_stops_waiting_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo $$ > "$0.pid.new"; mv "$0.pid.new" "$0.pid"; exec sleep 1000"#;
    let (archive, _log) = testing::archive(folder.path(), settings(folder.path(), script));
    let row = stored(&archive, EXPLICIT_LE, write_data_set(&attributes(), Encoding::ExplicitLe)).await;
    let pid_file = folder.path().join("worker.pid");
    let begun = async {
        while !pid_file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let viewing = viewing();
    tokio::select! {
        _ = archive.render(&row, Shown::Frame(1), &viewing) => panic!("the worker answers never"),
        () = begun => {}
    }
    assert_eq!(archive.renderings().places.available_permits(), RENDERINGS_MAX);
    assert_eq!(archive.renderings().turns.available_permits(), 2);
    let worker = format!("/proc/{}", fs::read_to_string(pid_file).unwrap().trim());
    let gone = async {
        while fs::read_to_string(format!("{worker}/cmdline")).is_ok_and(|command| command.contains("sleep")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the worker was not ended");
}
