//! Queries of a peer with rules: it asks for what it is shown (CO-5).
//!
//! A key of an attribute that a rule changes is not the index's to match. Where the stored values behind a shown one are known
//! (`prefix`, `suffix`, `map` of a whole text without wildcards) the index narrows by those; elsewhere it does not narrow by
//! that key at all. In both cases every answer is coerced first and then matched with the key as it was asked, by
//! `archive_model::matching`: so narrowing may let too much through, never too little.

use crate::{
    QueryError,
    coerce::in_turn,
    peers::{Action, Attribute, Rule, When},
};
use archive_catalog::CatalogError;
use archive_model::{
    DataSet, Element, Tag, VR, Value,
    matching::{Meaning, Pattern, all_match, patterns},
    names, tags,
};

/// Stored values behind one shown, at most: beyond that the index does not narrow.
const STORED_MAX: usize = 64;

/// The rules for answers that concern `tag`, in their order. Private attributes in answers stand where the query has them,
/// without the creator that a rule names: those rules are for objects.
fn of_tag(rules: &[Rule], tag: Tag) -> Vec<&Rule> {
    let concerns = |rule: &&Rule| rule.is_for(When::Find) && *rule.attribute() == Attribute::Standard(tag);
    rules.iter().filter(concerns).collect()
}

/// Makes of an answer what its peer is shown. What it asked for stays in it: what is removed has no value.
pub fn shown(answer: &mut DataSet, rules: &[Rule]) {
    for rule in rules.iter().filter(|rule| rule.is_for(When::Find)) {
        let Attribute::Standard(tag) = *rule.attribute() else { continue };
        let Some(element) = answer.get(tag) else { continue };
        let vr = if element.vr == VR::UN { names::vr_of(tag) } else { element.vr };
        let before = match &element.value {
            Value::Empty => String::new(),
            Value::Text(texts) => texts.join("\\"),
            // It can be cleared and removed: what a rule makes of it is empty.
            Value::Integers(_)
            | Value::Floats(_)
            | Value::Tags(_)
            | Value::Bytes(_)
            | Value::Bulk { .. }
            | Value::Items(_) => match rule.action() {
                Action::Clear | Action::Remove | Action::Set(_) => "\u{0}".into(),
                Action::Map(_) | Action::Prefix(_) | Action::Suffix(_) => continue,
            },
        };
        let after = rule.applied(vr, Some(before.clone())).unwrap_or_default();
        if after == before {
            continue;
        }
        let value = match after {
            after if after.is_empty() => Value::Empty,
            after if archive_model::charset::is_single(vr) => Value::Text(vec![after]),
            after => Value::Text(after.split('\\').map(str::to_owned).collect()),
        };
        answer.put(Element { tag, vr, value });
    }
}

/// A query of a peer with rules.
#[derive(Debug)]
pub struct Asked {
    /// What the index is asked.
    pub keys: DataSet,
    /// Keys that answers are matched with when they are coerced.
    shown: Vec<(Tag, Pattern)>,
}

impl Asked {
    /// The query with `keys`.
    ///
    /// # Errors
    /// A key that means nothing.
    pub fn of(keys: DataSet, rules: &[Rule], meaning: &Meaning) -> Result<Self, QueryError> {
        let ruled = |key: &Element| !of_tag(rules, key.tag).is_empty();
        let is_moment = |key: &Element| matches!(key.vr, VR::DA | VR::TM);
        // A date and its time may be one range: both are matched with what is shown, or neither.
        let moments = keys.iter().any(|key| ruled(key) && is_moment(key)) && meaning.combined_date_time;
        let own: DataSet = keys.iter().filter(|key| ruled(key) || moments && is_moment(key)).cloned().collect();
        let shown = patterns(&own, meaning).map_err(|bad| QueryError::Failed(CatalogError::BadKey(bad)))?;
        let mut asked = keys;
        for key in &own {
            let value = match stored(key, &of_tag(rules, key.tag)) {
                Stored::These(values) if !values.is_empty() && !meaning.all_values => Value::Text(values),
                Stored::These(_) | Stored::Any => Value::Empty,
            };
            asked.put(Element { value, ..key.clone() });
        }
        Ok(Self { keys: asked, shown })
    }

    /// Whether a coerced answer is one.
    #[must_use]
    pub fn matches(&self, answer: &DataSet) -> bool {
        all_match(&self.shown, answer)
    }
}

/// What may be stored behind a shown value.
#[derive(Debug, PartialEq, Eq)]
enum Stored {
    Any,
    These(Vec<String>),
}

/// What may be stored where `key` is shown: perhaps more, never less.
fn stored(key: &Element, rules: &[&Rule]) -> Stored {
    let literal = |value: &&String| !value.contains(['*', '?', '\\']) && !value.trim().is_empty() && *value != "\"\"";
    let exact = matches!(key.vr, VR::AE | VR::CS | VR::LO | VR::SH | VR::UC);
    match &key.value {
        Value::Text(values) if exact && values.len() == 1 && values.iter().all(|value| literal(&value)) => {
            before(values[0].trim(), rules)
        }
        _ => Stored::Any,
    }
}

/// The values that `rules` may make `shown` of, and some more.
fn before(shown: &str, rules: &[&Rule]) -> Stored {
    let mut values = vec![shown.to_owned()];
    for rule in rules.iter().rev() {
        let mut earlier: Vec<String> = Vec::new();
        for value in values {
            match rule.action() {
                Action::Set(text) if *text == value => return Stored::Any,
                Action::Set(_) | Action::Clear | Action::Remove => {}
                Action::Map(pairs) => {
                    earlier.extend(pairs.iter().filter(|(_, to)| *to == value).map(|(from, _)| from.clone()));
                    // What the rule does not know stays; and of several values one may be this.
                    earlier.push(value);
                }
                Action::Prefix(text) => earlier.extend(value.strip_prefix(text.as_str()).map(str::to_owned)),
                Action::Suffix(text) => earlier.extend(value.strip_suffix(text.as_str()).map(str::to_owned)),
            }
        }
        // An empty value, a list or a wildcard is no key that the index matches letter by letter.
        if earlier.len() > STORED_MAX || earlier.iter().any(|text| text.is_empty() || text.contains(['*', '?', '\\'])) {
            return Stored::Any;
        }
        values = earlier;
    }
    Stored::These(values)
}

/// The patients that a Patient ID of a retrieval names.
#[derive(Debug, PartialEq, Eq)]
pub enum Patients {
    /// These, by their stored ids; perhaps none.
    These(Vec<String>),
    /// It cannot be told: a rule shows the same of all of them.
    Untold,
}

/// The patients whose id is shown as `id`.
#[must_use]
pub fn patients(id: &str, rules: &[Rule]) -> Patients {
    let rules = of_tag(rules, tags::PATIENT_ID);
    let applied = |stored: &str| in_turn(&rules, VR::LO, Some(stored.to_owned()));
    match before(id.trim(), &rules) {
        Stored::Any => Patients::Untold,
        Stored::These(mut ids) => {
            ids.sort_unstable();
            ids.dedup();
            ids.retain(|stored| applied(stored).as_deref() == Some(id.trim()));
            Patients::These(ids)
        }
    }
}
