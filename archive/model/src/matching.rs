//! Attribute matching of PS3.4 C.2.2.2 as pure functions: what a key means, and whether a value matches it.
//!
//! | key | means |
//! |---|---|
//! | zero length, or only `*` | universal (C.2.2.2.3) |
//! | `""`, if [`Meaning::empty_values`] | empty value (C.2.2.2.7) |
//! | `a\b` of UI | list of UIDs (C.2.2.2.2) |
//! | `a*`, `?b` of AE CS LO LT PN SH ST UC UR UT | wildcard (C.2.2.2.4) |
//! | `a-b`, `-b`, `a-` of DA TM DT | range, inclusive (C.2.2.2.5); of DT by their offsets where both say one |
//! | `a-b` of DA with `c-d` of its TM, if [`Meaning::combined_date_time`] | one range (C.2.2.2.5.4) |
//! | one item of SQ | sequence (C.2.2.2.6) |
//! | PN, if [`Meaning::fuzzy_names`] | also by words and sounds (C.2.2.2.1.1, [`Sounds`]) |
//! | anything else | single value (C.2.2.2.1): case matters, except in PN, where accents do not either |
//!
//! What is stored matches if any of its values does (C.2.2.3). A key of several values asks for one of them, which the
//! standard leaves open; or for each of them (C.2.2.2.8), if [`Meaning::all_values`] and its VR has such lists.
//!
//! A private attribute may come without its VR, as UN: then a key is read as what is stored is.

mod fuzzy;
mod moment;

use crate::{
    DataSet, Element, Tag, VR, Value, charset,
    scanner::{is_text, number_bytes},
    text::{PersonName, fold, fold_person_name, normalise},
};
pub use fuzzy::{Sounds, sound};
use moment::{BIRTH, DAY_END, MIDNIGHT, PAIRS, backwards, form, in_range, in_span, range, span};
pub use moment::{
    Bound, Moment, Span, date_plus, move_zone, normal, normal_date, normal_time, offset_minutes, offset_text,
};

/// Depth of sequence keys that is followed.
const DEPTH_MAX: usize = 8;

/// How keys are read: what an association negotiated (PS3.4 C.5.1.1), or a web client asked for (PS3.18 §8.3.4). The
/// default is what holds without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meaning {
    /// Ranges of one form of a date and of its time are one range.
    pub combined_date_time: bool,
    /// Person names also match by words and sounds.
    pub fuzzy_names: bool,
    /// `""` asks for what has no value; otherwise it is two quotation marks.
    pub empty_values: bool,
    /// Each value of a key must be found; otherwise one is enough.
    pub all_values: bool,
    /// The zone in which dates and times of keys are meant, and answers given: minutes east of UTC.
    pub zone_minutes: Option<i32>,
}

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
    /// Any of these person names by their sounds, or what the pattern says.
    Fuzzy(Vec<Sounds>, Box<Pattern>),
    /// Within any of these: from the first to the second, in normal form, both included; an open end is empty.
    Range(Moment, Vec<(String, String)>),
    /// Within any of these ranges of DT.
    Spans(Vec<Span>),
    /// A date and its time within a range: both ends are date and time in normal form.
    Combined {
        /// The time that belongs to the date.
        time: Tag,
        /// The first moment, or empty.
        from: String,
        /// The last moment, or empty.
        to: String,
    },
    /// Any of these numbers.
    Numbers(Vec<f64>),
    /// Any of these tags.
    Tags(Vec<Tag>),
    /// Some item matches all of these.
    Item(Vec<(Tag, Pattern)>),
    /// Each of these.
    All(Vec<Pattern>),
    /// A key whose VR is not known: read like what it is compared with.
    Unread(Vec<u8>, Meaning),
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

/// The meanings of all keys of a data set; what is universal is left out.
///
/// # Errors
/// For a range that is none, a number that is none, or a sequence that is too deep.
pub fn patterns(keys: &DataSet, meaning: &Meaning) -> Result<Vec<(Tag, Pattern)>, BadPattern> {
    patterns_of_depth(keys, meaning, 0)
}

fn patterns_of_depth(keys: &DataSet, meaning: &Meaning, depth: usize) -> Result<Vec<(Tag, Pattern)>, BadPattern> {
    let found = keys.iter().map(|key| Ok((key.tag, Pattern::of_depth(key, meaning, depth)?)));
    let mut found: Vec<(Tag, Pattern)> = found.collect::<Result<_, _>>()?;
    found.retain(|(_, pattern)| *pattern != Pattern::Universal);
    if meaning.combined_date_time {
        for (date, time) in PAIRS.iter().chain([&BIRTH]) {
            if let Some(both) = combined(keys, &found, *date, *time) {
                found.retain(|(tag, _)| tag != date && tag != time);
                found.push((*date, both));
            }
        }
    }
    // From 22 o'clock to 2 is a range of moments with its dates, and none without.
    for (tag, pattern) in &found {
        if let Pattern::Range(kind, ranges) = pattern
            && let Some(why) = ranges.iter().find_map(|range| backwards(*kind, range))
        {
            return Err(BadPattern { tag: *tag, why });
        }
    }
    Ok(found)
}

/// A date and a time as one range, if both are ranges of one form.
fn combined(keys: &DataSet, found: &[(Tag, Pattern)], date: Tag, time: Tag) -> Option<Pattern> {
    let one = |tag: Tag| {
        let ([text], Some((_, Pattern::Range(_, ranges)))) =
            (keys.texts(tag), found.iter().find(|(own, _)| *own == tag))
        else {
            return None;
        };
        Some((form(text)?, ranges.first()?))
    };
    let ((form, (first_day, last_day)), (time_form, (begin, end))) = (one(date)?, one(time)?);
    let both = |day: &str, time: &str| if day.is_empty() { String::new() } else { format!("{day}{time}") };
    (form == time_form).then(|| Pattern::Combined { time, from: both(first_day, begin), to: both(last_day, end) })
}

/// Whether a data set matches all keys.
#[must_use]
pub fn all_match(keys: &[(Tag, Pattern)], set: &DataSet) -> bool {
    keys.iter().all(|(tag, pattern)| match pattern {
        Pattern::Combined { time, from, to } => {
            let times = set.texts(*time);
            set.texts(*tag).iter().enumerate().any(|(at, date)| {
                let Some(date) = normal_date(date) else { return false };
                // Without a time it is some moment of the day.
                let (early, late) = match times.get(at).and_then(|time| normal_time(time)) {
                    Some(time) => (format!("{date}{time}"), format!("{date}{time}")),
                    None => (format!("{date}{MIDNIGHT}"), format!("{date}{DAY_END}")),
                };
                (from.is_empty() || late >= *from) && (to.is_empty() || early <= *to)
            })
        }
        pattern => pattern.matches(set.get(*tag)),
    })
}

/// The items that match the one item of a key, each with the attributes that the key names (C.2.2.2.6); all of it for
/// a key that names none.
#[must_use]
pub fn matching_items(key: &[DataSet], stored: &[DataSet], meaning: &Meaning) -> Vec<DataSet> {
    items_of_depth(key, stored, meaning, 0)
}

fn items_of_depth(key: &[DataSet], stored: &[DataSet], meaning: &Meaning, depth: usize) -> Vec<DataSet> {
    let Some(item) = key.first().filter(|item| !item.is_empty() && depth < DEPTH_MAX) else { return stored.to_vec() };
    let Ok(patterns) = patterns_of_depth(item, meaning, depth + 1) else { return stored.to_vec() };
    let reduced = |stored: &DataSet| -> DataSet {
        let each = item.iter().map(|key| match (&key.value, stored.get(key.tag)) {
            (_, None) => Element { tag: key.tag, vr: key.vr, value: Value::Empty },
            (Value::Items(keys), Some(Element { value: Value::Items(items), .. })) => {
                let items = items_of_depth(keys, items, meaning, depth + 1);
                Element { tag: key.tag, vr: VR::SQ, value: Value::Items(items) }
            }
            (_, Some(element)) => element.clone(),
        });
        each.collect()
    };
    stored.iter().filter(|item| all_match(&patterns, item)).map(reduced).collect()
}

impl Pattern {
    /// The meaning of a key alone; [`patterns`] also sees what keys say together.
    ///
    /// # Errors
    /// For a range that is none, a number that is none, or a sequence that is too deep.
    pub fn of(key: &Element, meaning: &Meaning) -> Result<Self, BadPattern> {
        Self::of_depth(key, meaning, 0)
    }

    fn of_depth(key: &Element, meaning: &Meaning, depth: usize) -> Result<Self, BadPattern> {
        match &key.value {
            Value::Empty => Ok(Self::Universal),
            Value::Text(values) => Self::of_texts(key.tag, key.vr, values, meaning),
            Value::Integers(values) => Ok(Self::Numbers(values.iter().map(|value| *value as f64).collect())),
            Value::Floats(values) => Ok(Self::Numbers(values.clone())),
            Value::Items(items) => {
                if depth >= DEPTH_MAX {
                    return Err(BadPattern { tag: key.tag, why: "is nested too deep: at most 8 levels are matched" });
                }
                let Some(item) = items.first() else { return Ok(Self::Universal) };
                let keys = patterns_of_depth(item, meaning, depth + 1)?;
                Ok(if keys.is_empty() { Self::Universal } else { Self::Item(keys) })
            }
            Value::Tags(tags) => Ok(Self::Tags(tags.clone())),
            Value::Bytes(bytes) if key.vr == VR::UN => Ok(Self::unread(bytes, meaning)),
            Value::Bytes(_) | Value::Bulk { .. } => Ok(Self::Universal),
        }
    }

    fn unread(bytes: &[u8], meaning: &Meaning) -> Self {
        let values = bytes.split(|byte| *byte == b'\\').map(|value| value.trim_ascii_end());
        let values: Vec<&[u8]> = values.filter(|value| !value.is_empty() && *value != b"\0").collect();
        let mut stars = values.iter().map(|value| value.iter().all(|byte| *byte == b'*'));
        let all = if meaning.all_values { stars.all(|all| all) } else { values.is_empty() || stars.any(|all| all) };
        if all { Self::Universal } else { Self::Unread(bytes.to_vec(), *meaning) }
    }

    /// The meaning of a key given as text (QIDO, C-FIND).
    ///
    /// # Errors
    /// For a range that is none, or a number that is none.
    pub fn of_texts(tag: Tag, vr: VR, values: &[String], meaning: &Meaning) -> Result<Self, BadPattern> {
        let values = values.iter().map(|value| value.trim_end_matches([' ', '\0']));
        let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
        let all = |value: &&str| value.bytes().all(|byte| byte == b'*');
        let lists = matches!(vr, VR::AE | VR::AS | VR::AT | VR::CS | VR::LO | VR::PN | VR::SH | VR::UC);
        if meaning.all_values && lists && values.len() > 1 {
            let each = values.iter().filter(|value| !all(value));
            let each = each.map(|value| Self::of_values(tag, vr, &[*value], meaning)).collect::<Result<Vec<_>, _>>()?;
            return Ok(if each.is_empty() { Self::Universal } else { Self::All(each) });
        }
        if values.is_empty() || values.iter().any(all) {
            return Ok(Self::Universal);
        }
        Self::of_values(tag, vr, &values, meaning)
    }

    /// The meaning of values of which none is universal; there is at least one.
    fn of_values(tag: Tag, vr: VR, values: &[&str], meaning: &Meaning) -> Result<Self, BadPattern> {
        if meaning.empty_values && values.iter().all(|value| *value == "\"\"") {
            return Ok(Self::Empty);
        }
        let wild = values.iter().any(|value| value.contains(['*', '?']));
        let bad = |why| BadPattern { tag, why };
        Ok(match vr {
            VR::UI => Self::AnyOf(values.iter().map(|value| value.trim().to_owned()).collect()),
            VR::DA | VR::TM => {
                let kind = if vr == VR::DA { Moment::Date } else { Moment::Time };
                let ranges = values.iter().map(|value| range(kind, value)).collect::<Result<_, _>>();
                Self::Range(kind, ranges.map_err(bad)?) // those that end before they begin: see `patterns`
            }
            VR::DT => {
                let spans = values.iter().map(|value| span(value, meaning.zone_minutes)).collect::<Option<_>>();
                Self::Spans(spans.ok_or(bad("is no date with time and no range of them, such as 2020010110-2021"))?)
            }
            VR::PN => {
                let literal = if wild {
                    Self::NameWildcard(values.iter().map(|value| fold_pattern(value)).collect())
                } else {
                    Self::Names(values.iter().map(|value| whole_name(&fold_person_name(value))).collect())
                };
                if meaning.fuzzy_names {
                    Self::Fuzzy(values.iter().map(|value| Sounds::of(value)).collect(), Box::new(literal))
                } else {
                    literal
                }
            }
            VR::IS | VR::DS | VR::US | VR::SS | VR::UL | VR::SL | VR::SV | VR::UV | VR::FL | VR::FD => {
                let numbers = values.iter().map(|value| value.trim().parse()).collect::<Result<_, _>>();
                Self::Numbers(numbers.map_err(|_| bad("is not a number"))?)
            }
            VR::AT => {
                let tags = values.iter().map(|value| crate::json::key_tag(value)).collect::<Option<_>>();
                Self::Tags(tags.ok_or(bad("is no tag of eight hexadecimal digits, such as 00181063"))?)
            }
            VR::AE | VR::CS | VR::LO | VR::LT | VR::SH | VR::ST | VR::UC | VR::UR | VR::UT if wild => {
                Self::Wildcard(values.iter().map(|value| comparable(vr, value)).collect())
            }
            VR::UN => Self::unread(values.join("\\").as_bytes(), meaning),
            _ => Self::AnyOf(values.iter().map(|value| comparable(vr, value)).collect()),
        })
    }

    /// Whether an attribute matches; `None` is one that is absent. [`Pattern::Combined`] asks for two, and is never
    /// matched by one: see [`all_match`].
    #[must_use]
    pub fn matches(&self, element: Option<&Element>) -> bool {
        if *self == Self::Universal {
            return true;
        }
        let value = element.map_or(&Value::Empty, |element| &element.value);
        let vr = element.map_or(VR::UN, |element| element.vr);
        match (self, value) {
            (Self::All(each), _) => each.iter().all(|pattern| pattern.matches(element)),
            (Self::Empty, Value::Empty) => true,
            (Self::Empty, Value::Text(values)) => values.iter().all(|value| value.trim().is_empty()),
            (Self::Empty, Value::Items(items)) => items.is_empty(),
            (Self::Unread(..), Value::Empty) => self.wants_nothing(),
            (Self::Unread(key, meaning), _) => element.is_some_and(|element| matches_unread(key, meaning, element)),
            (Self::Item(keys), Value::Items(items)) => items.iter().any(|item| all_match(keys, item)),
            (Self::Numbers(wanted), Value::Integers(values)) => {
                values.iter().any(|value| wanted.contains(&(*value as f64)))
            }
            (Self::Numbers(wanted), Value::Floats(values)) => values.iter().any(|value| wanted.contains(value)),
            (Self::Tags(wanted), Value::Tags(values)) => values.iter().any(|value| wanted.contains(value)),
            // A private attribute that came without its VR: text, if anything is.
            (pattern, Value::Bytes(bytes)) if vr == VR::UN => {
                let text = String::from_utf8_lossy(bytes);
                charset::split(&text, VR::LO).iter().any(|value| pattern.matches_text(VR::LO, value))
            }
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
            Self::Fuzzy(sounds, literal) => {
                literal.matches_text(vr, text) || sounds.iter().any(|sounds| sounds.matches(text))
            }
            Self::Range(kind, ranges) => normal(*kind, text)
                .is_some_and(|(earliest, _)| ranges.iter().any(|(from, to)| in_range(&earliest, from, to))),
            Self::Spans(spans) => spans.iter().any(|span| in_span(text, span)),
            Self::Numbers(wanted) => text.trim().parse::<f64>().is_ok_and(|value| wanted.contains(&value)),
            Self::All(each) => each.iter().all(|pattern| pattern.matches_text(vr, text)),
            Self::Combined { .. } | Self::Tags(_) | Self::Item(_) | Self::Unread(..) => false,
        }
    }

    /// Whether what is absent, or has no value, can match.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        match self {
            Self::Universal | Self::Empty => true,
            Self::Unread(key, meaning) => {
                let values = key.split(|byte| *byte == b'\\').map(<[u8]>::trim_ascii_end);
                let star = |value: &&[u8]| meaning.all_values && value.iter().all(|byte| *byte == b'*');
                meaning.empty_values && values.filter(|value| !star(value)).all(|value| value == b"\"\"")
            }
            Self::All(each) => each.iter().all(Self::wants_nothing),
            _ => false,
        }
    }
}

/// Whether an attribute matches a key whose VR is not known: the key is read with the VR of the attribute.
fn matches_unread(key: &[u8], meaning: &Meaning, element: &Element) -> bool {
    let texts = || -> Option<Pattern> {
        let vr = if element.vr == VR::UN { VR::LO } else { element.vr };
        let texts = charset::split(std::str::from_utf8(key).ok()?, vr);
        Pattern::of_texts(element.tag, vr, &texts, meaning).ok()
    };
    let as_text = texts().is_some_and(|pattern| pattern.matches(Some(element)));
    match &element.value {
        Value::Integers(values) if !is_text(element.vr) && !as_text => {
            // The bytes of the numbers themselves, little endian as identifiers almost always are.
            let size = number_bytes(element.vr);
            let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            let mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
            size > 0 && key.chunks_exact(size).any(|key| values.iter().any(|value| *value as u64 & mask == word(key)))
        }
        Value::Bytes(bytes) => as_text || *bytes == key,
        _ => as_text,
    }
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

#[cfg(test)]
mod tests;
