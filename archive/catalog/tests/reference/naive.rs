//! What the standard says of matching (PS3.4 C.2.2.2), written down once more, naively: no code of the server's matching
//! is used, dates are counted day by day, wildcards are tried in every way, and accents are a table.

use archive_model::{Tag, VR};
use std::collections::BTreeMap;

/// A data set, as plain as can be.
pub(crate) type Set = BTreeMap<Tag, (VR, Stored)>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Texts(Vec<String>),
    Numbers(Vec<i64>),
    Items(Vec<Set>),
}

/// What was negotiated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Agreed {
    pub(crate) date_time: bool,
    pub(crate) fuzzy: bool,
    pub(crate) empty: bool,
    pub(crate) all: bool,
    pub(crate) zone: Option<i64>,
}

pub(crate) fn texts(set: &Set, tag: Tag) -> Vec<String> {
    match set.get(&tag) {
        Some((_, Stored::Texts(texts))) => texts.clone(),
        Some((_, Stored::Numbers(numbers))) => numbers.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

/// Whether `set` has what all keys ask for.
pub(crate) fn matches(keys: &Set, set: &Set, agreed: Agreed) -> bool {
    let mut paired = Vec::new();
    if agreed.date_time {
        for (date, time) in DATES_AND_TIMES {
            let (date, time) = (Tag(date.0, date.1), Tag(time.0, time.1));
            let (days, times) = (texts(keys, date), texts(keys, time));
            if let ([day], [hour]) = (days.as_slice(), times.as_slice())
                && let (Some(day), Some(hour)) = (ends(day), ends(hour))
                && day.0.is_empty() == hour.0.is_empty()
                && day.1.is_empty() == hour.1.is_empty()
            {
                paired.extend([date, time]);
                if !moment_within(&texts(set, date), &texts(set, time), &day, &hour) {
                    return false;
                }
            }
        }
    }
    let others = keys.iter().filter(|(tag, _)| !paired.contains(tag));
    others.into_iter().all(|(tag, (vr, key))| one_matches(*vr, key, set.get(tag), agreed))
}

const DATES_AND_TIMES: [((u16, u16), (u16, u16)); 4] = [
    ((0x0008, 0x0020), (0x0008, 0x0030)),
    ((0x0008, 0x0021), (0x0008, 0x0031)),
    ((0x0008, 0x0023), (0x0008, 0x0033)),
    ((0x0010, 0x0030), (0x0010, 0x0032)),
];

/// The two ends of a text with a hyphen.
fn ends(text: &str) -> Option<(String, String)> {
    let at = text.find('-')?;
    let (from, to) = (text[..at].trim().to_owned(), text[at + 1..].trim().to_owned());
    if from.is_empty() && to.is_empty() { None } else { Some((from, to)) }
}

/// Some day with its time lies between the two moments; one without a time lies there if any moment of it does.
fn moment_within(days: &[String], times: &[String], day: &(String, String), hour: &(String, String)) -> bool {
    let first = if day.0.is_empty() { 0 } else { micros(&day.0, &hour.0).expect("a key").0 };
    let last = if day.1.is_empty() { i64::MAX } else { micros(&day.1, &hour.1).expect("a key").1 };
    days.iter().enumerate().any(|(at, day)| {
        let time = times.get(at).filter(|time| clock(time).is_some());
        match time {
            Some(time) => micros(day, time).is_some_and(|(early, _)| first <= early && early <= last),
            None => micros(day, "").is_some_and(|(early, late)| first <= late && early <= last),
        }
    })
}

/// One key against one attribute.
fn one_matches(key_vr: VR, key: &Stored, stored: Option<&(VR, Stored)>, agreed: Agreed) -> bool {
    let nothing = match stored {
        None => true,
        Some((_, Stored::Texts(texts))) => texts.iter().all(|text| text.trim().is_empty()),
        Some((_, Stored::Numbers(numbers))) => numbers.is_empty(),
        Some((_, Stored::Items(items))) => items.is_empty(),
    };
    match key {
        Stored::Items(items) => {
            let Some(item) = items.first() else { return true };
            if item.values().all(|(vr, key)| universal(*vr, key, agreed)) {
                return true;
            }
            match stored {
                Some((_, Stored::Items(stored))) => stored.iter().any(|stored| matches(item, stored, agreed)),
                _ => false,
            }
        }
        // Without a value it is universal, whatever its VR.
        Stored::Numbers(wanted) if wanted.is_empty() => true,
        Stored::Numbers(wanted) => match stored {
            Some((_, Stored::Numbers(numbers))) => numbers.iter().any(|number| wanted.contains(number)),
            _ => false,
        },
        Stored::Texts(wanted) => {
            let wanted: Vec<&str> = wanted.iter().map(|text| text.trim_end()).filter(|text| !text.is_empty()).collect();
            if wanted.is_empty() {
                return true;
            }
            let stars = |text: &&str| text.chars().all(|char| char == '*');
            let vr = stored.map_or(VR::UN, |(vr, _)| *vr);
            let any = |wanted: &str| match stored {
                Some((_, Stored::Texts(texts))) => texts.iter().any(|text| text_matches(vr, wanted, text, agreed)),
                Some((_, Stored::Numbers(numbers))) => {
                    wanted.trim().parse::<i64>().is_ok_and(|wanted| numbers.contains(&wanted))
                }
                _ => false,
            };
            if agreed.empty && wanted.iter().all(|text| *text == "\"\"") {
                return nothing;
            }
            if agreed.all && wanted.len() > 1 && is_list(key_vr) {
                let each = |wanted: &&str| if agreed.empty && *wanted == "\"\"" { nothing } else { any(wanted) };
                return wanted.iter().filter(|text| !stars(text)).all(each);
            }
            if wanted.iter().any(stars) {
                return true;
            }
            wanted.iter().any(|wanted| any(wanted))
        }
    }
}

fn is_list(vr: VR) -> bool {
    [VR::AE, VR::AS, VR::AT, VR::CS, VR::LO, VR::PN, VR::SH, VR::UC].contains(&vr)
}

fn universal(vr: VR, key: &Stored, agreed: Agreed) -> bool {
    match key {
        Stored::Texts(texts) => {
            let texts: Vec<&str> = texts.iter().map(|text| text.trim_end()).filter(|text| !text.is_empty()).collect();
            let each = agreed.all && texts.len() > 1 && is_list(vr);
            let star = |text: &&str| text.chars().all(|char| char == '*');
            texts.is_empty() || texts.iter().all(star) || (!each && texts.iter().any(star))
        }
        Stored::Numbers(numbers) => numbers.is_empty(),
        Stored::Items(items) => {
            items.first().is_none_or(|item| item.values().all(|(vr, key)| universal(*vr, key, agreed)))
        }
    }
}

fn text_matches(vr: VR, wanted: &str, text: &str, agreed: Agreed) -> bool {
    let wild = wanted.contains('*') || wanted.contains('?');
    match vr {
        VR::PN => name_matches(wanted, text) || (agreed.fuzzy && sounds_like(wanted, text)),
        VR::DA => match ends(wanted) {
            None => day(wanted).is_some() && day(wanted) == day(text),
            Some((from, to)) => day(text).is_some_and(|own| {
                (from.is_empty() || day(&from).is_some_and(|from| from <= own))
                    && (to.is_empty() || day(&to).is_some_and(|to| own <= to))
            }),
        },
        VR::TM => {
            let (from, to) = ends(wanted).unwrap_or((wanted.to_owned(), wanted.to_owned()));
            clock(text).is_some_and(|(own, _)| {
                (from.is_empty() || clock(&from).is_some_and(|(from, _)| from <= own))
                    && (to.is_empty() || clock(&to).is_some_and(|(_, to)| own <= to))
            })
        }
        VR::DT => {
            let (from, to) = match ends(wanted) {
                Some(ends) if !wanted.contains("-0") => ends,
                _ => (wanted.to_owned(), wanted.to_owned()),
            };
            let Some((own, _, offset)) = date_time(text) else { return false };
            let seen = |theirs: Option<i64>| match (theirs.or(agreed.zone), offset) {
                (Some(theirs), Some(offset)) => own + (theirs - offset) * 60_000_000,
                _ => own,
            };
            (from.is_empty() || date_time(&from).is_some_and(|(from, _, zone)| from <= seen(zone)))
                && (to.is_empty() || date_time(&to).is_some_and(|(_, to, zone)| seen(zone) <= to))
        }
        VR::IS | VR::DS => {
            let number = |text: &str| text.trim().parse::<f64>().ok();
            number(wanted).is_some() && number(wanted) == number(text)
        }
        VR::UI => wanted.trim() == text.trim(),
        VR::LT | VR::ST | VR::UT if wild => like(wanted, text.trim_end()),
        VR::LT | VR::ST | VR::UT => wanted == text.trim_end(),
        _ if wild => like(wanted.trim(), text.trim()),
        _ => wanted.trim() == text.trim(),
    }
}

/// Every way is tried.
fn like(pattern: &str, text: &str) -> bool {
    fn all(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|skip| all(rest, &text[skip..])),
            ['?', rest @ ..] => !text.is_empty() && all(rest, &text[1..]),
            [char, rest @ ..] => text.first() == Some(char) && all(rest, &text[1..]),
        }
    }
    all(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

/// Without case, accents and width.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for char in text.trim().chars() {
        let char = char.to_lowercase().next().expect("a letter");
        plain.push(match char {
            'ä' | 'å' | 'á' | 'à' => 'a',
            'é' | 'è' | 'ë' => 'e',
            'ö' | 'ó' => 'o',
            'ü' => 'u',
            'ñ' => 'n',
            'ż' => 'z',
            'й' => 'и',
            'だ' => 'た',
            'ど' => 'と',
            'ａ'..='ｚ' => char::from(b'a' + u8::try_from(u32::from(char) - u32::from('ａ')).expect("26 of them")),
            other => other,
        });
    }
    plain
}

fn groups(name: &str) -> Vec<String> {
    let group = |group: &str| {
        let parts: Vec<String> = plain(group).split('^').map(|part| part.trim().to_owned()).collect();
        parts.join("^").trim_end_matches('^').to_owned()
    };
    name.split('=').map(group).collect()
}

fn name_matches(wanted: &str, name: &str) -> bool {
    let own = groups(name);
    let whole = own.join("=").trim_end_matches('=').to_owned();
    if wanted.contains('*') || wanted.contains('?') {
        let wanted = plain(wanted);
        let wanted = wanted.trim_end_matches(['^', '=']);
        return like(wanted, &whole) || own.iter().any(|group| !group.is_empty() && like(wanted, group));
    }
    let wanted = groups(wanted).join("=").trim_end_matches('=').to_owned();
    wanted == whole || own.iter().any(|group| !group.is_empty() && *group == wanted)
}

/// The words of `wanted`'s groups, all of one group within one group of the name: as its beginning, by a wildcard or by
/// sound.
fn sounds_like(wanted: &str, name: &str) -> bool {
    let words = |group: &str| -> Vec<String> {
        let spaced: String = plain(group).chars().map(|c| if "^,.- ".contains(c) { ' ' } else { c }).collect();
        spaced.replace('\'', "").split_whitespace().map(str::to_owned).collect()
    };
    let own: Vec<Vec<String>> = name.split('=').map(words).collect();
    wanted.split('=').map(words).filter(|wanted| !wanted.is_empty()).any(|wanted| {
        own.iter().any(|own| {
            wanted.iter().all(|wanted| {
                own.iter().any(|own| {
                    if wanted.contains('*') || wanted.contains('?') {
                        return like(wanted, own);
                    }
                    let sound = soundex(wanted);
                    own.starts_with(wanted.as_str()) || (sound.is_some() && sound == soundex(own))
                })
            })
        })
    })
}

/// The table of `matching/fuzzy.rs`, by replacing text.
fn soundex(word: &str) -> Option<String> {
    if word.is_empty() || !word.chars().all(|char| char.is_ascii_lowercase()) {
        return None;
    }
    let soft = |rest: &str| rest.starts_with(['e', 'i', 'y']);
    let rules = [
        ("ph", "f"),
        ("pf", "f"),
        ("sch", "s"),
        ("sh", "s"),
        ("kn", "n"),
        ("gn", "n"),
        ("wr", "r"),
        ("rh", "r"),
        ("v", "f"),
        ("w", "f"),
        ("ch", "k"),
        ("q", "k"),
        ("z", "s"),
        ("x", "s"),
        ("j", "i"),
        ("y", "i"),
    ];
    let mut heard = word.to_owned();
    if let Some((from, to)) = rules.iter().find(|(from, _)| word.starts_with(from)) {
        heard = word.replacen(from, to, 1);
    } else if let Some(rest) = word.strip_prefix('c') {
        heard = format!("{}{rest}", if soft(rest) { 's' } else { 'k' });
    }
    let letters: Vec<char> = heard.chars().collect();
    let class = |at: usize| match letters[at] {
        'b' | 'f' | 'p' | 'v' => 1,
        'c' | 'g' | 'j' | 'k' | 'q' | 's' | 'x' | 'z' => 2,
        'd' | 't' => 3,
        'l' => 4,
        'm' | 'n' => 5,
        'r' => 6,
        'w' if at + 1 < letters.len() && "aeiouy".contains(letters[at + 1]) => 1,
        'h' | 'w' => -1,
        _ => 0,
    };
    // h and a silent w are as if they were not there; then equal neighbours are one.
    let classes: Vec<i32> =
        (0..letters.len()).map(class).enumerate().filter(|(at, c)| *at == 0 || *c >= 0).map(|(_, c)| c).collect();
    let mut code = letters[0].to_uppercase().to_string();
    for at in 1..classes.len() {
        if classes[at] > 0 && classes[at] != classes[at - 1] {
            code += &classes[at].to_string();
        }
    }
    Some(format!("{code}000").chars().take(4).collect())
}

/// Days since the year 1, counted.
fn day(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = if text.len() == 10 && &text[4..5] == "." { text.replace('.', "") } else { text.to_owned() };
    if digits.len() != 8 || !digits.chars().all(|char| char.is_ascii_digit()) {
        return None;
    }
    let (year, month, date): (i64, usize, i64) =
        (digits[..4].parse().ok()?, digits[4..6].parse().ok()?, digits[6..].parse().ok()?);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let years: i64 = (1..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    Some(years + months.iter().take(month - 1).sum::<i64>() + date)
}

fn date_of(mut days: i64) -> String {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut month) = (1, 0);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days <= length {
            break;
        }
        days -= length;
        year += 1;
    }
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days > months[month] {
        days -= months[month];
        month += 1;
    }
    format!("{year:04}{:02}{days:02}", month + 1)
}

/// Microseconds of the day: the first and the last that a time means.
fn clock(text: &str) -> Option<(i64, i64)> {
    let text = text.trim().replace(':', "");
    let (whole, fraction) = match text.find('.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text.as_str(), ""),
    };
    let digits = |text: &str| text.chars().all(|char| char.is_ascii_digit());
    if ![2, 4, 6].contains(&whole.len()) || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let part = |at: usize| whole.get(at..at + 2).map(|two| two.parse::<i64>().expect("digits"));
    let first = (part(0)? * 3600 + part(2).unwrap_or(0) * 60 + part(4).unwrap_or(0)) * 1_000_000
        + format!("{fraction:0<6}").parse::<i64>().expect("digits");
    let length = match whole.len() {
        2 => 3_600_000_000,
        4 => 60_000_000,
        _ => 10_i64.pow(6 - u32::try_from(fraction.len()).expect("six at most")),
    };
    Some((first, first + length - 1))
}

/// The first and last microsecond of a day at a time, or of the whole day.
fn micros(date: &str, time: &str) -> Option<(i64, i64)> {
    let day = day(date)? * 86_400_000_000;
    let (first, last) = if time.is_empty() { (0, 86_399_999_999) } else { clock(time)? };
    Some((day + first, day + last))
}

/// The first and last microsecond of a DT as written, and its offset in minutes.
fn date_time(text: &str) -> Option<(i64, i64, Option<i64>)> {
    let text = text.trim();
    let (text, offset) = match text.len().checked_sub(5) {
        Some(at) if at >= 4 && ["+", "-"].contains(&&text[at..=at]) => {
            let minutes = text[at + 1..at + 3].parse::<i64>().ok()? * 60 + text[at + 3..].parse::<i64>().ok()?;
            (&text[..at], Some(if &text[at..=at] == "-" { -minutes } else { minutes }))
        }
        _ => (text, None),
    };
    if text.len() < 8 {
        return None;
    }
    let (first, last) = micros(&text[..8], &text[8..])?;
    Some((first, last, offset))
}

/// Every date with its time, every lone time, and every DT without an offset, `minutes` later. Births stay.
pub(crate) fn in_zone(set: &Set, minutes: i64) -> Set {
    let mut moved = set.clone();
    let later = |time: &str| {
        let (first, _) = clock(time)?;
        let minute = first.div_euclid(60_000_000) + minutes;
        let text = time.trim().replace(':', "");
        let rest = text.get(4..).unwrap_or_default().to_owned();
        let (hour, of_hour) = (minute.rem_euclid(1440) / 60, minute.rem_euclid(1440) % 60);
        let short = text.len() == 2 && minutes % 60 == 0;
        let time = if short { format!("{hour:02}") } else { format!("{hour:02}{of_hour:02}{rest}") };
        Some((minute.div_euclid(1440), time))
    };
    for (date, time) in DATES_AND_TIMES.iter().filter(|(date, _)| date.0 != 0x0010) {
        let (date, time) = (Tag(date.0, date.1), Tag(time.0, time.1));
        let (mut days, mut times) = (texts(set, date), texts(set, time));
        for at in 0..times.len() {
            if let Some((plus, time)) = later(&times[at]) {
                if let Some(day) = days.get(at).and_then(|text| day(text)) {
                    days[at] = date_of(day + plus);
                }
                times[at] = time;
            }
        }
        for (tag, texts) in [(date, days), (time, times)] {
            if let Some((_, stored)) = moved.get_mut(&tag) {
                *stored = Stored::Texts(texts);
            }
        }
    }
    for (vr, stored) in moved.values_mut() {
        match stored {
            Stored::Texts(texts) if *vr == VR::DT => {
                for text in
                    texts.iter_mut().filter(|text| text.len() >= 10 && date_time(text).is_some_and(|t| t.2.is_none()))
                {
                    let (date, time) = (text[..8].to_owned(), text[8..].to_owned());
                    if let (Some(day), Some((plus, time))) = (day(&date), later(&time)) {
                        *text = date_of(day + plus) + &time;
                    }
                }
            }
            Stored::Items(items) => items.iter_mut().for_each(|item| *item = in_zone(item, minutes)),
            Stored::Texts(_) | Stored::Numbers(_) => {}
        }
    }
    moved
}

/// The items that match, with the attributes that the key names.
pub(crate) fn items_asked_for(key: &[Set], stored: &[Set], agreed: Agreed) -> Vec<Set> {
    let Some(item) = key.first().filter(|item| !item.is_empty()) else { return stored.to_vec() };
    let asked = |stored: &Set| item.keys().filter_map(|tag| Some((*tag, stored.get(tag)?.clone()))).collect();
    stored.iter().filter(|stored| matches(item, stored, agreed)).map(asked).collect()
}
