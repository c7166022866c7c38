//! What an index says of a key: which texts an image must have, so that rows without it need no look into headers.
//!
//! ```text
//!   few owners (10,000 at most)   a condition of the statement: t.id IN (…), from whatever level to whatever other
//!   many                          no condition: rows come in their order, and those without are passed over by a look at the index
//!   both                          of the images below a row only those are looked into that have it (`witness.rs`)
//! ```

use super::{
    Extra, ExtraIndex,
    rows::has,
    values::{Kind, UNTOLD, kind, number},
};
use crate::{
    Level,
    error::{CatalogError, Step},
    schema::SERIES_SHIFT,
};
use archive_model::{
    VR,
    charset::split,
    matching::{Meaning, Moment, Pattern, wildcard_prefix},
    text::capped,
};
use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value as Sql};
use std::collections::BTreeSet;

/// Owners that are a condition of a statement, at most: SQLite makes a list of them for each page.
const OWNERS_MAX: i64 = 10_000;
/// Ranges of texts that one key may ask for; with more it is looked for without the index.
const RANGES_MAX: usize = 16;

/// The texts that satisfy a key.
#[derive(Debug, Clone, Default, PartialEq)]
struct Texts {
    any_of: BTreeSet<String>,
    /// From the first to the second, both included.
    ranges: Vec<(String, String)>,
}

impl Texts {
    fn and(mut self, other: Self) -> Self {
        self.any_of.extend(other.any_of);
        self.ranges.extend(other.ranges);
        self
    }

    fn admit(&self, text: &str) -> bool {
        self.any_of.contains(text) || self.ranges.iter().any(|(from, to)| from.as_str() <= text && text <= to.as_str())
    }
}

/// A condition that holds for the owner of every image which matches a key.
#[derive(Debug, Clone)]
pub(crate) struct Narrowing {
    idx: i64,
    level: Level,
    texts: Texts,
}

/// What a complete index says of a pattern; nothing if it cannot narrow by it. `zone` says that dates and times are moved before
/// they are compared.
pub(crate) fn narrowings(extra: &Extra, pattern: &Pattern, zone: bool) -> Vec<Narrowing> {
    let Extra { id, index, .. } = extra;
    if zone && matches!(kind(index.vr), Kind::Date | Kind::Time) {
        return Vec::new();
    }
    let one = |texts| Narrowing { idx: *id, level: index.level, texts };
    match pattern {
        // Each of them must match: each may narrow.
        Pattern::All(each) => each.iter().filter_map(|pattern| texts_of(index, pattern)).map(one).collect(),
        pattern => texts_of(index, pattern).map(one).into_iter().collect(),
    }
}

/// The texts of all values that match; `None` where that cannot be said.
fn texts_of(index: &ExtraIndex, pattern: &Pattern) -> Option<Texts> {
    let mut texts = match pattern {
        Pattern::Unread(key, meaning) => texts_of_unread(index, key, meaning)?,
        pattern => texts_of_kind(kind(index.vr), pattern)?,
    };
    texts.any_of.insert(UNTOLD.to_owned());
    (texts.ranges.len() <= RANGES_MAX).then_some(texts)
}

fn texts_of_kind(kind: Kind, pattern: &Pattern) -> Option<Texts> {
    let any_of = |texts: Vec<String>| Texts { any_of: texts.into_iter().collect(), ranges: Vec::new() };
    let ranges = |ranges: Vec<(String, String)>| Texts { any_of: BTreeSet::new(), ranges };
    match (kind, pattern) {
        (Kind::Text, Pattern::AnyOf(values)) => {
            Some(any_of(values.iter().map(|value| format!("t{}", capped(value))).collect()))
        }
        (Kind::Text, Pattern::Wildcard(patterns)) => Some(ranges(prefixes("t", patterns)?)),
        (Kind::Name, Pattern::Names(names)) => Some(any_of(names.iter().map(|name| format!("p{name}")).collect())),
        (Kind::Name, Pattern::NameWildcard(patterns)) => Some(ranges(prefixes("p", patterns)?)),
        (Kind::Date, Pattern::Range(Moment::Date, wanted)) => Some(ranges(between("d", wanted))),
        (Kind::Time, Pattern::Range(Moment::Time, wanted)) => Some(ranges(between("m", wanted))),
        (Kind::Number, Pattern::Numbers(wanted)) => {
            Some(any_of(wanted.iter().filter_map(|wanted| number(*wanted)).collect()))
        }
        _ => None,
    }
}

/// What begins as each of the patterns does; `None` if one of them may begin with anything.
fn prefixes(space: &str, patterns: &[String]) -> Option<Vec<(String, String)>> {
    let each = patterns.iter().map(|pattern| {
        let prefix = Some(wildcard_prefix(pattern)).filter(|prefix| !prefix.is_empty())?;
        let prefix = format!("{space}{}", capped(prefix));
        Some((prefix.clone(), format!("{prefix}\u{10ffff}")))
    });
    each.collect()
}

fn between(space: &str, wanted: &[(String, String)]) -> Vec<(String, String)> {
    let end = |to: &str| if to.is_empty() { format!("{space}\u{10ffff}") } else { format!("{space}{to}") };
    wanted.iter().map(|(from, to)| (format!("{space}{from}"), end(to))).collect()
}

/// What a complete index says of a key that came without its VR: it is read by the VR of what it is compared with, which is that
/// of the index, or none either, and then it is text. `None` where that cannot be said.
fn texts_of_unread(index: &ExtraIndex, key: &[u8], meaning: &Meaning) -> Option<Texts> {
    // Numbers of fixed length may be meant by their bytes.
    if kind(index.vr) == Kind::Number && !matches!(index.vr, VR::IS | VR::DS) {
        return None;
    }
    let key = std::str::from_utf8(key).ok()?;
    let read = |vr: VR| Pattern::of_texts(index.tag(), vr, &split(key, vr), meaning);
    let as_text = texts_of_kind(Kind::Text, &read(VR::LO).ok()?)?;
    match read(index.vr) {
        Ok(own) => Some(as_text.and(texts_of_kind(kind(index.vr), &own)?)),
        // It is no value of the VR: nothing that has the VR matches.
        Err(_) => Some(as_text),
    }
}

impl Narrowing {
    /// Its owners: SQL, to be put between brackets, and values.
    fn owners(&self, column: &str) -> (String, Vec<Sql>) {
        let any_of: Vec<&str> = self.texts.any_of.iter().map(String::as_str).collect();
        let mut sql =
            format!("SELECT {column} FROM extra_row WHERE idx = ? AND value IN (SELECT value FROM json_each(?))");
        let mut values = vec![Sql::Integer(self.idx), Sql::Text(serde_json::Value::from(any_of).to_string())];
        for (from, to) in &self.texts.ranges {
            sql += &format!(" UNION ALL SELECT {column} FROM extra_row WHERE idx = ? AND value >= ? AND value <= ?");
            values.extend([Sql::Integer(self.idx), Sql::Text(from.clone()), Sql::Text(to.clone())]);
        }
        (sql, values)
    }

    /// Whether it is worth a condition: few owners have it.
    pub(crate) fn is_selective(&self, connection: &Connection) -> Result<bool, CatalogError> {
        let (sql, mut values) = self.owners("1");
        values.push(Sql::Integer(OWNERS_MAX + 1));
        let count: i64 = connection
            .prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 FROM ({sql}) LIMIT ?)"))
            .step("prepare an index")?
            .query_row(params_from_iter(values), |row| row.get(0))
            .step("look into an index")?;
        Ok(count <= OWNERS_MAX)
    }

    /// Adds the condition to a statement of `level`.
    pub(crate) fn narrow(&self, level: Level, conditions: &mut Vec<String>, values: &mut Vec<Sql>) {
        let series = format!("owner >> {SERIES_SHIFT}");
        let (column, is_series) = match (self.level, level) {
            (Level::Instance, Level::Patient | Level::Study | Level::Series) => (series.as_str(), true),
            (Level::Series, _) => ("owner", true),
            (Level::Patient | Level::Study, _) | (Level::Instance, Level::Instance) => ("owner", false),
        };
        let (owners, own) = self.owners(column);
        conditions.push(match (level, is_series) {
            (Level::Patient, false) => format!("p.id IN (SELECT patient FROM study WHERE id IN ({owners}))"),
            (Level::Patient, true) => format!(
                "p.id IN (SELECT s.patient FROM series x JOIN study s ON s.id = x.study WHERE x.id IN ({owners}))"
            ),
            (Level::Study, true) => format!("t.id IN (SELECT study FROM series WHERE id IN ({owners}))"),
            (Level::Series | Level::Instance, true) => format!("e.id IN ({owners})"),
            (Level::Instance, false) if self.level == Level::Instance => format!("i.id IN ({owners})"),
            (Level::Study | Level::Series | Level::Instance, false) => format!("t.id IN ({owners})"),
        });
        values.extend(own);
    }

    /// Whether what is below a row of `level` need not be looked into, as far as the owner is that row.
    pub(crate) fn excludes(&self, connection: &Connection, level: Level, row: i64) -> Result<bool, CatalogError> {
        let is_owner = match self.level {
            Level::Patient | Level::Study => level == Level::Study,
            own => level == own,
        };
        Ok(is_owner && !has(connection, (self.idx, row), |text| self.texts.admit(text))?)
    }
}

/// What stands above a row, itself included: study, series and instance, as far as it has them.
pub(crate) fn above(connection: &Connection, level: Level, row: i64) -> Result<Vec<(Level, i64)>, CatalogError> {
    let series = match level {
        Level::Patient => return Ok(Vec::new()),
        Level::Study => return Ok(vec![(Level::Study, row)]),
        Level::Series => row,
        Level::Instance => row >> SERIES_SHIFT,
    };
    let study: Option<i64> = connection
        .prepare_cached("SELECT study FROM series WHERE id = ?1")
        .step("prepare a series")?
        .query_row([series], |row| row.get(0))
        .optional()
        .step("look the study of a series up")?;
    let mut found: Vec<(Level, i64)> = study.map(|study| (Level::Study, study)).into_iter().collect();
    found.push((Level::Series, series));
    if level == Level::Instance {
        found.push((Level::Instance, row));
    }
    Ok(found)
}
