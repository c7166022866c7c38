//! The indexed attributes of an instance, sorted by the level they belong to, and as columns have them.

use crate::{
    InstanceHead,
    find::Level,
    keys::KEYS,
    row::{Attrs, number_of, tag_of},
};
use archive_model::{Tag, VR, matching::comparable, tags, text::capped};

/// The indexed attributes of an instance, by level.
pub(crate) struct Levels {
    pub(crate) patient: Attrs,
    pub(crate) study: Attrs,
    pub(crate) series: Attrs,
    pub(crate) instance: Attrs,
}

impl Levels {
    pub(crate) fn of(head: &InstanceHead) -> Self {
        let mut levels = Self { patient: Vec::new(), study: Vec::new(), series: Vec::new(), instance: Vec::new() };
        for (number, values) in &head.keys {
            let tag = tag_of(*number);
            let Some(key) = KEYS.iter().find(|key| key.tag == tag) else { continue };
            let own = match key.level {
                Level::Patient => &mut levels.patient,
                Level::Study => &mut levels.study,
                Level::Series => &mut levels.series,
                Level::Instance => &mut levels.instance,
            };
            own.push((*number, values.clone()));
        }
        levels
    }

    pub(crate) fn values(&self, tag: Tag) -> &[String] {
        let number = number_of(tag);
        [&self.patient, &self.study, &self.series, &self.instance]
            .into_iter()
            .flatten()
            .find(|(own, _)| *own == number)
            .map_or(&[], |(_, values)| values)
    }

    pub(crate) fn first(&self, tag: Tag) -> &str {
        self.values(tag).first().map_or("", String::as_str)
    }

    /// The value of a text column: NULL when several values must be looked at.
    pub(crate) fn column(&self, tag: Tag, vr: VR) -> Option<String> {
        match self.values(tag) {
            [] => Some(String::new()),
            [one] => Some(capped(&comparable(vr, one))),
            _ => None,
        }
    }

    /// Whether an attribute has several values whose column has room for the first only.
    pub(crate) fn several(&self) -> bool {
        [tags::PATIENT_NAME, tags::PATIENT_BIRTH_DATE, tags::STUDY_DATE].iter().any(|tag| self.values(*tag).len() > 1)
    }

    pub(crate) fn number(&self, tag: Tag) -> Option<i64> {
        self.first(tag).trim().parse().ok()
    }
}

/// The modalities of a study, `\` between them, sorted.
pub(crate) fn with_modalities(known: &str, more: &[String]) -> String {
    let more = more.iter().map(|modality| modality.trim());
    let mut all: Vec<&str> = known.split('\\').chain(more).filter(|modality| !modality.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    all.join("\\")
}
