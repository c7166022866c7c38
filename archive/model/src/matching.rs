//! Attribute matching of PS3.4 C.2.2.2 as pure functions: what a key means, and whether a value matches it.
//!
//! | key | means |
//! |---|---|
//! | zero length, or only `*` | universal (C.2.2.2.3) |
//! | `""` | empty value (C.2.2.2.7) |
//! | `a\b` of UI | list of UIDs (C.2.2.2.2) |
//! | `a*`, `?b` of AE CS LO LT PN SH ST UC UR UT | wildcard (C.2.2.2.4) |
//! | `a-b`, `-b`, `a-` of DA TM DT | range, inclusive (C.2.2.2.5) |
//! | one item of SQ | sequence (C.2.2.2.6) |
//! | anything else | single value (C.2.2.2.1): case matters, except in PN, where accents do not either |
//!
//! Several values, in a key as in what is stored, match if any does (C.2.2.2.8).

use crate::{
    DataSet, Element, Tag, VR, Value,
    text::{PersonName, fold, fold_person_name, normalise},
};

/// Depth of sequence keys that is followed.
const DEPTH_MAX: usize = 8;

/// What a key asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Everything, also what has no value.
    Universal,
    /// What has no value.
    Empty,
    /// Any of these values, exactly.
    AnyOf(Vec<String>),
    /// Any of these person names, folded.
    Names(Vec<String>),
    /// Any of these texts with `*` and `?`.
    Wildcard(Vec<String>),
    /// Any of these person names with `*` and `?`, folded.
    NameWildcard(Vec<String>),
    /// Within any of these: from the first to the second, in normal form, both included; an open end is empty.
    Range(Moment, Vec<(String, String)>),
    /// Any of these numbers.
    Numbers(Vec<f64>),
    /// Some item matches all of these.
    Item(Vec<(Tag, Pattern)>),
}

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

/// A key that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tag} {why}")]
pub struct BadPattern {
    /// The attribute.
    pub tag: Tag,
    /// What is wrong and what would be right; never the value.
    pub why: &'static str,
}

impl Pattern {
    /// The meaning of a key.
    ///
    /// # Errors
    /// For a range that is none, or a sequence that is too deep.
    pub fn of(key: &Element) -> Result<Self, BadPattern> {
        Self::of_depth(key, 0)
    }

    fn of_depth(key: &Element, depth: usize) -> Result<Self, BadPattern> {
        match &key.value {
            Value::Empty => Ok(Self::Universal),
            Value::Text(values) => Self::of_texts(key.tag, key.vr, values),
            Value::Integers(values) => Ok(Self::Numbers(values.iter().map(|value| *value as f64).collect())),
            Value::Floats(values) => Ok(Self::Numbers(values.clone())),
            Value::Items(items) => {
                if depth >= DEPTH_MAX {
                    return Err(BadPattern { tag: key.tag, why: "is nested too deep: at most 8 levels are matched" });
                }
                let Some(item) = items.first() else { return Ok(Self::Universal) };
                let keys = item.iter().map(|key| Ok((key.tag, Self::of_depth(key, depth + 1)?)));
                let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
                let all = keys.iter().all(|(_, pattern)| *pattern == Self::Universal);
                Ok(if all { Self::Universal } else { Self::Item(keys) })
            }
            Value::Tags(_) | Value::Bytes(_) | Value::Bulk { .. } => Ok(Self::Universal),
        }
    }

    /// The meaning of a key given as text (QIDO, C-FIND).
    ///
    /// # Errors
    /// For a range that is none.
    pub fn of_texts(tag: Tag, vr: VR, values: &[String]) -> Result<Self, BadPattern> {
        let values = values.iter().map(|value| value.trim_end_matches([' ', '\0']));
        let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
        if values.is_empty() || values.iter().any(|value| value.bytes().all(|byte| byte == b'*')) {
            return Ok(Self::Universal);
        }
        if values.iter().all(|value| *value == "\"\"") {
            return Ok(Self::Empty);
        }
        Ok(match vr {
            VR::UI => Self::AnyOf(values.iter().map(|value| value.trim().to_owned()).collect()),
            VR::DA | VR::TM | VR::DT => {
                let kind = match vr {
                    VR::DA => Moment::Date,
                    VR::TM => Moment::Time,
                    _ => Moment::DateTime,
                };
                let ranges =
                    values.iter().map(|value| range(kind, value)).collect::<Option<_>>().ok_or(BadPattern {
                        tag,
                        why: "is no date or time and no range of them, such as 20200101-20201231",
                    })?;
                Self::Range(kind, ranges)
            }
            VR::PN if values.iter().any(|value| value.contains(['*', '?'])) => {
                Self::NameWildcard(values.iter().map(|value| fold_pattern(value)).collect())
            }
            VR::PN => Self::Names(values.iter().map(|value| whole_name(&fold_person_name(value))).collect()),
            VR::IS | VR::DS | VR::US | VR::SS | VR::UL | VR::SL | VR::SV | VR::UV | VR::FL | VR::FD => {
                let numbers = values.iter().map(|value| value.trim().parse()).collect::<Result<_, _>>();
                Self::Numbers(numbers.map_err(|_| BadPattern { tag, why: "is not a number" })?)
            }
            VR::AE | VR::CS | VR::LO | VR::LT | VR::SH | VR::ST | VR::UC | VR::UR | VR::UT
                if values.iter().any(|value| value.contains(['*', '?'])) =>
            {
                Self::Wildcard(values.iter().map(|value| comparable(vr, value)).collect())
            }
            _ => Self::AnyOf(values.iter().map(|value| comparable(vr, value)).collect()),
        })
    }

    /// Whether an attribute matches; `None` is one that is absent.
    #[must_use]
    pub fn matches(&self, element: Option<&Element>) -> bool {
        if *self == Self::Universal {
            return true;
        }
        let value = element.map_or(&Value::Empty, |element| &element.value);
        let vr = element.map_or(VR::UN, |element| element.vr);
        match (self, value) {
            (Self::Empty, Value::Empty) => true,
            (Self::Empty, Value::Text(values)) => values.iter().all(|value| value.trim().is_empty()),
            (Self::Empty, Value::Items(items)) => items.is_empty(),
            (Self::Item(keys), Value::Items(items)) => items.iter().any(|item| all_match(keys, item)),
            (Self::Numbers(wanted), Value::Integers(values)) => {
                values.iter().any(|value| wanted.contains(&(*value as f64)))
            }
            (Self::Numbers(wanted), Value::Floats(values)) => values.iter().any(|value| wanted.contains(value)),
            (pattern, Value::Text(values)) => values.iter().any(|value| pattern.matches_text(vr, value)),
            _ => false,
        }
    }

    /// Whether one stored text matches.
    #[must_use]
    pub fn matches_text(&self, vr: VR, text: &str) -> bool {
        match self {
            Self::Universal => true,
            Self::Empty => text.trim().is_empty(),
            Self::AnyOf(values) => values.contains(&comparable(vr, text)),
            Self::Names(names) => {
                let own = fold_person_name(text);
                names.iter().any(|name| *name == whole_name(&own) || own.groups().any(|group| group == name))
            }
            Self::Wildcard(patterns) => {
                let own = comparable(vr, text);
                patterns.iter().any(|pattern| wildcard(pattern, &own))
            }
            Self::NameWildcard(patterns) => {
                let own = fold_person_name(text);
                let hit = |pattern: &str| {
                    own.groups().any(|group| wildcard(pattern, group)) || wildcard(pattern, &whole_name(&own))
                };
                patterns.iter().any(|pattern| hit(pattern))
            }
            Self::Range(kind, ranges) => normal(*kind, text)
                .is_some_and(|(earliest, _)| ranges.iter().any(|(from, to)| in_range(&earliest, from, to))),
            Self::Numbers(wanted) => text.trim().parse::<f64>().is_ok_and(|value| wanted.contains(&value)),
            Self::Item(_) => false,
        }
    }
}

/// Whether a data set matches all keys.
fn all_match(keys: &[(Tag, Pattern)], item: &DataSet) -> bool {
    keys.iter().all(|(tag, pattern)| pattern.matches(item.get(*tag)))
}

/// A text as it is compared without wildcards.
#[must_use]
pub fn comparable(vr: VR, text: &str) -> String {
    match vr {
        VR::UI => text.trim_matches([' ', '\0']).to_owned(),
        // Outer spaces are padding in these (PS3.5 §6.2).
        VR::AE | VR::CS | VR::SH | VR::LO | VR::IS | VR::DS | VR::AS => normalise(text).trim().to_owned(),
        _ => normalise(text),
    }
}

/// The groups of a folded name as one text.
#[must_use]
pub fn whole_name(name: &PersonName) -> String {
    let mut text = name.alphabetic.clone();
    for group in [&name.ideographic, &name.phonetic] {
        text.push('=');
        text.push_str(group);
    }
    text.trim_end_matches('=').to_owned()
}

fn fold_pattern(text: &str) -> String {
    // `^` at the end asks for nothing: DOE^ finds what DOE finds.
    fold(text).trim_end_matches(['^', '=']).to_owned()
}

/// Whether `text` matches `pattern`, where `*` is any run of characters and `?` any one. Linear in both, but for the
/// product of their lengths in the worst case: there is no backtracking over more than the last `*`.
#[must_use]
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|char| *char == '*')
}

/// The literal text in front of the first wildcard: what an index can look for.
#[must_use]
pub fn wildcard_prefix(pattern: &str) -> &str {
    pattern.find(['*', '?']).map_or(pattern, |at| &pattern[..at])
}

fn in_range(value: &str, from: &str, to: &str) -> bool {
    (from.is_empty() || value >= from) && (to.is_empty() || value <= to)
}

/// A key of DA, TM or DT as (earliest, latest) in normal form.
fn range(kind: Moment, text: &str) -> Option<(String, String)> {
    let text = text.trim();
    // A `-` in DT may also open an offset (`20200101120000-0500`): then it is followed by four digits and stands
    // behind at least a year. It is read as a range only if the whole is no single value.
    if let Some(single) = normal(kind, text) {
        return Some(single);
    }
    let (from, to) = split_range(kind, text)?;
    let from = if from.is_empty() { String::new() } else { normal(kind, from)?.0 };
    let to = if to.is_empty() { String::new() } else { normal(kind, to)?.1 };
    (!(from.is_empty() && to.is_empty())).then_some((from, to))
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
            let text = match text.rfind(['+', '-']) {
                Some(at) if at >= 4 && is_offset(&text[at + 1..]) => &text[..at],
                _ => text,
            };
            let (date, rest) = text.split_at_checked(8.min(text.len()))?;
            if !all_digits(date) || ![4, 6, 8].contains(&date.len()) {
                return None;
            }
            let (early, late) = match date.len() {
                4 => (format!("{date}0101"), format!("{date}1231")),
                6 => (format!("{date}01"), format!("{date}31")),
                _ => (date.to_owned(), date.to_owned()),
            };
            let (from, to) = if rest.is_empty() { ("000000000000".into(), "235960999999".into()) } else { time(rest)? };
            Some((early + &from, late + &to))
        }
    }
}

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
    let late = format!("{whole}{}", &"235960"[whole.len()..]);
    let late = match whole.len() {
        2 => format!("{whole}5960"),
        4 => format!("{whole}60"),
        _ => late,
    };
    Some((early, format!("{late}{fraction:9<6}")))
}

/// `HHMM` of an offset from UTC: -1200 to +1400 (PS3.5 §6.2), so that `2020-2021` is two years.
fn is_offset(text: &str) -> bool {
    text.len() == 4 && all_digits(text) && &text[..2] <= "14" && &text[2..] < "60"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags;
    use proptest::prelude::*;

    fn hit(vr: VR, key: &str, value: &str) -> bool {
        let pattern = Pattern::of_texts(tags::PATIENT_NAME, vr, &[key.to_owned()]).expect("a good key");
        let value = if value.is_empty() { Value::Empty } else { Value::Text(vec![value.to_owned()]) };
        pattern.matches(Some(&Element { tag: tags::PATIENT_NAME, vr, value }))
    }

    #[test]
    fn a_key_without_value_matches_everything_and_a_quoted_one_only_what_is_empty() {
        for key in ["", "*", "**", " "] {
            assert!(hit(VR::LO, key, "") && hit(VR::LO, key, "x"), "{key:?}");
        }
        assert!(hit(VR::LO, "\"\"", "") && !hit(VR::LO, "\"\"", "x"));
    }

    #[test]
    fn single_values_match_exactly_but_for_padding() {
        assert!(hit(VR::LO, "HEAD ", "HEAD") && !hit(VR::LO, "head", "HEAD") && !hit(VR::LO, "HEAD", ""));
        assert!(hit(VR::IS, "7", " 07 ") && !hit(VR::IS, "7", "70"));
    }

    #[test]
    fn names_match_without_case_and_accents_in_any_group() {
        assert!(hit(VR::PN, "muller^jorg", "Müller^Jörg"));
        assert!(hit(VR::PN, "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう"));
        assert!(hit(VR::PN, "YAMADA^*", "Yamada^Tarou=山田^太郎"));
        assert!(hit(VR::PN, "DOE^", "Doe") && !hit(VR::PN, "DOE", "Doe^Jane"));
    }

    #[test]
    fn wildcards_in_keys_work_and_in_values_are_ordinary() {
        assert!(hit(VR::LO, "a?c*", "abcdef") && !hit(VR::LO, "a?c", "abcd"));
        assert!(hit(VR::LO, "a%b_*", "a%b_x") && !hit(VR::LO, "a%b_*", "axbyx"));
        assert!(hit(VR::LO, "*\\d", "c\\d") && !hit(VR::LO, "x", "*"));
    }

    #[test]
    fn ranges_include_their_ends_and_know_partial_precision() {
        assert!(hit(VR::DA, "20200101-20200131", "20200131") && !hit(VR::DA, "20200101-20200131", "20200201"));
        assert!(hit(VR::DA, "-20200131", "19990101") && hit(VR::DA, "20200131-", "2020.02.01"));
        assert!(hit(VR::TM, "10", "105959.999") && !hit(VR::TM, "10", "110000") && hit(VR::TM, "0900-10", "1030"));
        assert!(hit(VR::DT, "2020-2021", "20211231235959+0100") && hit(VR::DT, "20200101120000-0500", "202001011200"));
        assert!(!hit(VR::DA, "20200101", "yesterday") && !hit(VR::DA, "20200101-", ""));
        for bad in ["2020", "20200101-2020", "x", "-"] {
            assert!(Pattern::of_texts(tags::STUDY_DATE, VR::DA, &[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_value_of_a_key_and_any_stored_value_is_enough() {
        let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let hit = |vr, key: &[&str], stored: &[&str]| {
            let pattern = Pattern::of_texts(tags::IMAGE_TYPE, vr, &texts(key)).expect("a good key");
            pattern.matches(Some(&Element { tag: tags::IMAGE_TYPE, vr, value: Value::Text(texts(stored)) }))
        };
        assert!(hit(VR::CS, &["A*", "B"], &["B"]) && hit(VR::CS, &["A", "B*"], &["X", "BC"]));
        assert!(!hit(VR::CS, &["A*", "B"], &["BC"]));
        assert!(hit(VR::DA, &["20200101", "20210101-"], &["19990101", "20220101"]));
        assert!(!hit(VR::DA, &["20200101", "20210101-"], &["20200102"]));
        assert!(hit(VR::PN, &["Doe^*", "Roe^Jane"], &["ROE^JANE"]) && hit(VR::PN, &["Roe"], &["Doe", "Roe"]));
        assert!(hit(VR::IS, &["1", "", "2"], &["2"]) && hit(VR::LO, &["x", "*"], &["y"]));
        // Outer spaces are padding, with wildcards as without.
        assert!(hit(VR::LO, &[" HE*"], &["HEAD "]) && hit(VR::LO, &["HE*"], &[" HEAD"]));
    }

    #[test]
    fn a_list_of_uids_matches_each_of_them() {
        let uids = ["1.2.3".to_owned(), "4.5 ".to_owned()];
        let pattern = Pattern::of_texts(tags::STUDY_INSTANCE_UID, VR::UI, &uids).expect("good");
        assert!(pattern.matches_text(VR::UI, "4.5\0") && !pattern.matches_text(VR::UI, "4.5.6"));
    }

    #[test]
    fn a_sequence_matches_if_one_item_matches_all_its_keys() {
        let item = |code: &str, meaning: &str| {
            let mut item = DataSet::new();
            item.put_text(tags::CODE_VALUE, VR::SH, code);
            item.put_text(tags::CODE_MEANING, VR::LO, meaning);
            item
        };
        let sequence = |items| Element { tag: tags::PROCEDURE_CODE_SEQUENCE, vr: VR::SQ, value: Value::Items(items) };
        let stored = sequence(vec![item("A", "one"), item("B", "two")]);
        let key = |code, meaning| Pattern::of(&sequence(vec![item(code, meaning)])).expect("good");
        assert!(key("B", "t*").matches(Some(&stored)) && !key("A", "t*").matches(Some(&stored)));
        assert!(key("", "").matches(None));
    }

    /// Tries every way, in exponential time.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some((char, rest)) => {
                text.split_first().is_some_and(|(first, text)| (*char == '?' || char == first) && naive(rest, text))
            }
        }
    }

    proptest! {
        #[test]
        fn the_wildcard_matcher_agrees_with_the_naive_one(pattern in "[ab*?]{0,7}", text in "[ab]{0,7}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(wildcard(&pattern, &text), naive(&p, &t));
        }

        #[test]
        fn no_key_panics(key in ".{0,30}", value in ".{0,30}") {
            for vr in [VR::DA, VR::TM, VR::DT, VR::PN, VR::LO, VR::IS, VR::UI] {
                if let Ok(pattern) = Pattern::of_texts(tags::STUDY_DATE, vr, std::slice::from_ref(&key)) {
                    let _ = pattern.matches_text(vr, &value);
                }
            }
        }
    }
}
