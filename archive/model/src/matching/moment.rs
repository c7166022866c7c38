//! Dates, times, and both together, as they are compared (PS3.4 C.2.2.2.1.3, C.2.2.2.5): in normal form, which sorts as
//! text.
//!
//! ```text
//!   DA 20200102                 TM 101500.5          DT 202001021015+0100
//!   └ YYYYMMDD ┘                └ 101500500000 ┘     └ 20200102101500000000, 60 minutes east of UTC ┘
//! ```

use crate::{DataSet, Tag, VR, Value};

/// What kind of moment a range is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// DA: `YYYYMMDD`.
    Date,
    /// TM: `HHMMSSFFFFFF`.
    Time,
    /// DT: `YYYYMMDDHHMMSSFFFFFF`, without its offset.
    DateTime,
}

/// A date and the time that belongs to it. Where an object says in which zone its times are (0008,0201), these move
/// together.
pub(crate) const PAIRS: &[(Tag, Tag)] = &[
    (Tag(0x0008, 0x0012), Tag(0x0008, 0x0013)), // Instance Creation
    (Tag(0x0008, 0x0020), Tag(0x0008, 0x0030)), // Study
    (Tag(0x0008, 0x0021), Tag(0x0008, 0x0031)), // Series
    (Tag(0x0008, 0x0022), Tag(0x0008, 0x0032)), // Acquisition
    (Tag(0x0008, 0x0023), Tag(0x0008, 0x0033)), // Content
    (Tag(0x0018, 0x1012), Tag(0x0018, 0x1014)), // Secondary Capture
    (Tag(0x0038, 0x0020), Tag(0x0038, 0x0021)), // Admitting
    (Tag(0x0040, 0x0002), Tag(0x0040, 0x0003)), // Scheduled Procedure Step Start
    (Tag(0x0040, 0x0004), Tag(0x0040, 0x0005)), // Scheduled Procedure Step End
    (Tag(0x0040, 0x0244), Tag(0x0040, 0x0245)), // Performed Procedure Step Start
    (Tag(0x0040, 0x0250), Tag(0x0040, 0x0251)), // Performed Procedure Step End
    (Tag(0x0040, 0x2004), Tag(0x0040, 0x2005)), // Issue of Imaging Service Request
    (Tag(0x0070, 0x0082), Tag(0x0070, 0x0083)), // Presentation Creation
    (Tag(0x3006, 0x0008), Tag(0x3006, 0x0009)), // Structure Set
    (Tag(0x3008, 0x0250), Tag(0x3008, 0x0251)), // Treatment
    (Tag(0x300A, 0x0006), Tag(0x300A, 0x0007)), // RT Plan
];

/// A pair too, but of the place where someone was born: no zone of an image moves it.
pub(crate) const BIRTH: (Tag, Tag) = (Tag(0x0010, 0x0030), Tag(0x0010, 0x0032));

/// Which ends a range has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `a-b`.
    Both,
    /// `a-`.
    From,
    /// `-b`.
    To,
}

/// The form of a key of DA or TM that is a range.
pub(crate) fn form(text: &str) -> Option<Form> {
    let (from, to) = text.trim().split_once('-')?;
    Some(match (from.trim().is_empty(), to.trim().is_empty()) {
        (false, false) => Form::Both,
        (false, true) => Form::From,
        (true, false) => Form::To,
        (true, true) => return None,
    })
}

/// One end of a range of DT: the moment in normal form, and its offset from UTC in minutes if it says one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub(crate) moment: String,
    pub(crate) offset: Option<i32>,
}

/// A range of DT; an open end is `None`.
pub type Span = (Option<Bound>, Option<Bound>);

/// A key of DT as a range. What names no offset is in the zone of the query, if that has one.
pub(crate) fn span(text: &str, zone: Option<i32>) -> Option<Span> {
    let text = text.trim();
    let bound = |text: &str, late: bool| {
        let (early, latest) = normal(Moment::DateTime, text)?;
        let moment = if late { latest } else { early };
        Some(Bound { moment, offset: split_offset(text).1.or(zone) })
    };
    // A `-` may also open an offset (`20200101120000-0500`): then it is followed by four digits and stands behind at
    // least a year. It is read as a range only if the whole is no single value.
    if normal(Moment::DateTime, text).is_some() {
        return Some((bound(text, false), bound(text, true)));
    }
    let (from, to) = split_range(Moment::DateTime, text)?;
    let from = if from.is_empty() { None } else { Some(bound(from, false)?) };
    let to = if to.is_empty() { None } else { Some(bound(to, true)?) };
    (from.is_some() || to.is_some()).then_some((from, to))
}

/// Whether a stored DT lies in a range. Where both say their offset they are compared as moments, else as written.
pub(crate) fn in_span(text: &str, (from, to): &Span) -> bool {
    let Some((early, _)) = normal(Moment::DateTime, text) else { return false };
    let own = split_offset(text.trim_matches([' ', '\0'])).1;
    let seen = |bound: &Bound| match (bound.offset, own) {
        (Some(wanted), Some(own)) if wanted != own => moved(&early, wanted - own).unwrap_or_else(|| early.clone()),
        _ => early.clone(),
    };
    from.as_ref().is_none_or(|from| seen(from) >= from.moment) && to.as_ref().is_none_or(|to| seen(to) <= to.moment)
}

pub(crate) fn in_range(value: &str, from: &str, to: &str) -> bool {
    (from.is_empty() || value >= from) && (to.is_empty() || value <= to)
}

/// Why a range that ends before it begins is none.
pub(crate) fn backwards(kind: Moment, (from, to): &(String, String)) -> Option<&'static str> {
    let backwards = !from.is_empty() && !to.is_empty() && from > to;
    backwards.then_some(match kind {
        Moment::Time => "is a range across midnight, which DICOM has not: ask for two ranges",
        Moment::Date | Moment::DateTime => "is a range that ends before it begins",
    })
}

/// A key of DA or TM as (earliest, latest) in normal form, or why it is none.
pub(crate) fn range(kind: Moment, text: &str) -> Result<(String, String), &'static str> {
    const NONE: &str = "is no date or time and no range of them, such as 20200101-20201231";
    let text = text.trim();
    if let Some(single) = normal(kind, text) {
        return Ok(single);
    }
    let (from, to) = split_range(kind, text).ok_or(NONE)?;
    let from = if from.is_empty() { String::new() } else { normal(kind, from).ok_or(NONE)?.0 };
    let to = if to.is_empty() { String::new() } else { normal(kind, to).ok_or(NONE)?.1 };
    if from.is_empty() && to.is_empty() { Err(NONE) } else { Ok((from, to)) }
}

fn split_range(kind: Moment, text: &str) -> Option<(&str, &str)> {
    text.match_indices('-').map(|(at, _)| (text[..at].trim(), text[at + 1..].trim())).find(|(from, to)| {
        let fits = |part: &str| part.is_empty() || normal(kind, part).is_some();
        fits(from) && fits(to)
    })
}

/// The earliest and the latest moment that a value means, in normal form; `None` if it is none.
///
/// `2020` of DT is the whole year; `10` of TM the whole hour; `2020.01.02` is the form of before 1993.
#[must_use]
pub fn normal(kind: Moment, text: &str) -> Option<(String, String)> {
    let text = text.trim_matches([' ', '\0']);
    match kind {
        Moment::Date => {
            let digits = dotted(text);
            (digits.len() == 8 && all_digits(&digits)).then(|| (digits.clone(), digits))
        }
        Moment::Time => time(text),
        Moment::DateTime => {
            let (text, _) = split_offset(text);
            let (date, rest) = text.split_at_checked(8.min(text.len()))?;
            if !all_digits(date) || ![4, 6, 8].contains(&date.len()) {
                return None;
            }
            let (early, late) = match date.len() {
                4 => (format!("{date}0101"), format!("{date}1231")),
                6 => (format!("{date}01"), format!("{date}31")),
                _ => (date.to_owned(), date.to_owned()),
            };
            let (from, to) = if rest.is_empty() { (MIDNIGHT.into(), DAY_END.into()) } else { time(rest)? };
            Some((early + &from, late + &to))
        }
    }
}

/// The first and the last time of a day in normal form; seconds go to 60.
pub(crate) const MIDNIGHT: &str = "000000000000";
pub(crate) const DAY_END: &str = "235960999999";

fn dotted(text: &str) -> String {
    match text.as_bytes() {
        [_, _, _, _, b'.', _, _, b'.', _, _] => text.replace('.', ""),
        _ => text.to_owned(),
    }
}

fn time(text: &str) -> Option<(String, String)> {
    let text = text.replace(':', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let complete = [2, 4, 6].contains(&whole.len()) && (fraction.is_empty() || whole.len() == 6);
    if !complete || fraction.len() > 6 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let early = format!("{whole:0<6}{fraction:0<6}");
    let late = match whole.len() {
        2 => format!("{whole}5960"),
        4 => format!("{whole}60"),
        _ => whole.to_owned(),
    };
    Some((early, format!("{late}{fraction:9<6}")))
}

/// A DT without its offset, and that in minutes. Offsets go from -1200 to +1400 (PS3.5 §6.2), so that `2020-2021` is two
/// years.
fn split_offset(text: &str) -> (&str, Option<i32>) {
    match text.rfind(['+', '-']) {
        Some(at) if at >= 4 => match offset_minutes(&text[at..]) {
            Some(minutes) => (&text[..at], Some(minutes)),
            None => (text, None),
        },
        _ => (text, None),
    }
}

/// Minutes east of UTC of an offset such as `+0130`: Timezone Offset From UTC (0008,0201), the end of a DT.
#[must_use]
pub fn offset_minutes(text: &str) -> Option<i32> {
    let text = text.trim_matches([' ', '\0']);
    let (sign, digits) = text.split_at_checked(1)?;
    if digits.len() != 4 || !all_digits(digits) || &digits[..2] > "14" || &digits[2..] >= "60" {
        return None;
    }
    let minutes = digits[..2].parse::<i32>().ok()? * 60 + digits[2..].parse::<i32>().ok()?;
    match sign {
        "+" => Some(minutes),
        "-" => Some(-minutes),
        _ => None,
    }
}

/// The same as text.
#[must_use]
pub fn offset_text(minutes: i32) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A stored date as it is indexed.
#[must_use]
pub fn normal_date(text: &str) -> Option<String> {
    normal(Moment::Date, text).map(|(early, _)| early)
}

/// A stored time as it is indexed.
#[must_use]
pub fn normal_time(text: &str) -> Option<String> {
    normal(Moment::Time, text).map(|(early, _)| early)
}

/// The date `days` after one in normal form, or before it.
#[must_use]
pub fn date_plus(date: &str, days: i64) -> Option<String> {
    from_days(to_days(date)? + days)
}

/// Days since 1970-01-01 of a date in normal form.
fn to_days(date: &str) -> Option<i64> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last: its own formula has no exceptions.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn from_days(days: i64) -> Option<String> {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (0..=9999).contains(&year).then(|| format!("{year:04}{month:02}{day:02}"))
}

/// A moment that begins with `YYYYMMDDHHMM`, `minutes` later.
fn moved(moment: &str, minutes: i32) -> Option<String> {
    let (date, rest) = moment.split_at_checked(8)?;
    let (time, rest) = rest.split_at_checked(4)?;
    let (days, time) = later(time, minutes)?;
    Some(date_plus(date, days)? + &time + rest)
}

/// `HHMM`, `minutes` later: by how many days that is another day, and the time.
fn later(time: &str, minutes: i32) -> Option<(i64, String)> {
    let of_day = time.get(..2)?.parse::<i64>().ok()? * 60 + time.get(2..4)?.parse::<i64>().ok()? + i64::from(minutes);
    let (days, of_day) = (of_day.div_euclid(1440), of_day.rem_euclid(1440));
    Some((days, format!("{:02}{:02}", of_day / 60, of_day % 60)))
}

/// A stored time, `minutes` later, as precise as it was; and by how many days that is another day.
fn later_time(text: &str, minutes: i32) -> Option<(i64, String)> {
    let text = text.trim_matches([' ', '\0']).replace(':', "");
    time(&text)?;
    let (whole, rest) = if text.len() >= 4 { text.split_at(4) } else { (text.as_str(), "") };
    let (days, moved) = later(&format!("{whole:0<4}"), minutes)?;
    // A whole hour stays one in zones that differ by whole hours.
    let keep = if whole.len() == 2 && minutes % 60 == 0 { 2 } else { 4 };
    Some((days, format!("{}{rest}", &moved[..keep])))
}

/// Writes the dates and times of `set`, and of its items, as clocks show them `minutes` further east. What was born
/// stays; so does what says its own offset, or is no moment.
pub fn move_zone(set: &mut DataSet, minutes: i32) {
    for (date, time) in PAIRS {
        let times = set.texts(*time).to_vec();
        if times.is_empty() {
            continue; // a day without a time is no moment
        }
        let mut dates = set.texts(*date).to_vec();
        let mut moved_times = Vec::with_capacity(times.len());
        for (at, text) in times.into_iter().enumerate() {
            let day = dates.get(at).and_then(|date| normal_date(date));
            match (later_time(&text, minutes), day) {
                (Some((days, moved)), Some(day)) => match date_plus(&day, days) {
                    Some(other) => {
                        dates[at] = other;
                        moved_times.push(moved);
                    }
                    None => moved_times.push(text),
                },
                (Some((_, moved)), None) => moved_times.push(moved),
                (None, _) => moved_times.push(text),
            }
        }
        for element in set.elements_mut() {
            if element.tag == *date && !dates.is_empty() {
                element.value = Value::Text(std::mem::take(&mut dates));
            } else if element.tag == *time {
                element.value = Value::Text(std::mem::take(&mut moved_times));
            }
        }
    }
    for element in set.elements_mut() {
        match &mut element.value {
            Value::Text(texts) if element.vr == VR::DT => {
                for text in texts.iter_mut().filter(|text| text.len() >= 10 && split_offset(text).1.is_none()) {
                    let Some((day, time)) = text.split_at_checked(8) else { continue };
                    let other = later_time(time, minutes).and_then(|(days, time)| Some(date_plus(day, days)? + &time));
                    if let Some(other) = other {
                        *text = other;
                    }
                }
            }
            // As deep as data sets are read, which is bounded.
            Value::Items(items) => items.iter_mut().for_each(|item| move_zone(item, minutes)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Element, tags};
    use proptest::prelude::*;

    #[test]
    fn days_are_counted_over_leap_years() {
        for (date, days, other) in [
            ("20240228", 1, "20240229"),
            ("20240229", 1, "20240301"),
            ("19000228", 1, "19000301"),
            ("20000228", 1, "20000229"),
            ("20231231", 1, "20240101"),
            ("20240101", -1, "20231231"),
        ] {
            assert_eq!(date_plus(date, days).as_deref(), Some(other));
        }
        assert_eq!((date_plus("20241301", 1), date_plus("99991231", 1)), (None, None));
    }

    #[test]
    fn offsets_are_read_and_written() {
        for (text, minutes) in [("+0100", 60), ("-0330", -210), ("+0000", 0), ("+1400 ", 840)] {
            assert_eq!(offset_minutes(text), Some(minutes));
            assert_eq!(offset_text(minutes), text.trim());
        }
        for bad in ["0100", "+100", "+1500", "+0060", "+01:00", "", "é0100"] {
            assert_eq!(offset_minutes(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_zone_moves_days_with_their_times_and_nobody_is_born_on_another_day() {
        let mut set = DataSet::new();
        set.put_text(tags::STUDY_DATE, VR::DA, "20240229");
        set.put_text(tags::STUDY_TIME, VR::TM, "233015.5");
        set.put_text(tags::SERIES_DATE, VR::DA, "20240101");
        set.put_text(tags::CONTENT_TIME, VR::TM, "23");
        set.put_text(tags::PATIENT_BIRTH_DATE, VR::DA, "19800101");
        set.put_text(tags::PATIENT_BIRTH_TIME, VR::TM, "2330");
        set.put_text(tags::ACQUISITION_DATE_TIME, VR::DT, "20231231233000");
        let mut item = DataSet::new();
        item.put_text(Tag(0x0040, 0xA120), VR::DT, "202312312330+0100");
        set.put(Element { tag: Tag(0x0040, 0xA730), vr: VR::SQ, value: Value::Items(vec![item.clone()]) });
        move_zone(&mut set, 60);
        let text = |tag| set.text(tag).unwrap_or_default();
        assert_eq!((text(tags::STUDY_DATE), text(tags::STUDY_TIME)), ("20240301", "003015.5"));
        assert_eq!((text(tags::SERIES_DATE), text(tags::CONTENT_TIME)), ("20240101", "00"));
        assert_eq!((text(tags::PATIENT_BIRTH_DATE), text(tags::PATIENT_BIRTH_TIME)), ("19800101", "2330"));
        assert_eq!(text(tags::ACQUISITION_DATE_TIME), "20240101003000");
        assert_eq!(set.items(Tag(0x0040, 0xA730)), [item]);
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same_moment(days in 0i64..60_000, of_day in 0i32..1440, minutes in -840i32..840) {
            let date = from_days(days).expect("a date");
            let moment = format!("{date}{:02}{:02}30000000", of_day / 60, of_day % 60);
            let there = moved(&moment, minutes).expect("a moment");
            prop_assert_eq!(moved(&there, -minutes), Some(moment));
            prop_assert_eq!(to_days(&date), Some(days));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}", minutes in -840i32..840) {
            let mut set = DataSet::new();
            set.put_text(tags::STUDY_DATE, VR::DA, text.clone());
            set.put_text(tags::STUDY_TIME, VR::TM, text.clone());
            set.put_text(tags::ACQUISITION_DATE_TIME, VR::DT, text.clone());
            move_zone(&mut set, minutes);
            let _ = (offset_minutes(&text), span(&text, None), date_plus(&text, 1), form(&text));
        }
    }
}
