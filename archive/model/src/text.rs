//! Text as queries compare it: normalised, and person names folded in case and accents, group by group.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Characters of a text that enters an index, at most: what a stored value says beyond is kept, but not found by.
pub const INDEXED_CHARS_MAX: usize = 256;

/// A text as it is compared: NFKC, spaces at the end removed (PS3.5 §6.2: they are not significant).
#[must_use]
pub fn normalise(text: &str) -> String {
    if text.is_ascii() {
        return text.trim_end().to_owned();
    }
    text.nfkc().collect::<String>().trim_end().to_owned()
}

/// A text that is compared without case and accents.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.trim().to_ascii_lowercase();
    }
    let folded: String = text.nfkd().filter(|char| !is_combining_mark(*char)).flat_map(char::to_lowercase).collect();
    folded.nfkc().collect::<String>().trim().to_owned()
}

/// The three groups of a person name (PS3.5 §6.2.1), folded, components trimmed, empty ones at the end removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersonName {
    /// Alphabetic.
    pub alphabetic: String,
    /// Ideographic.
    pub ideographic: String,
    /// Phonetic.
    pub phonetic: String,
}

impl PersonName {
    /// The groups that say something.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        [&self.alphabetic, &self.ideographic, &self.phonetic]
            .into_iter()
            .map(String::as_str)
            .filter(|group| !group.is_empty())
    }
}

/// A person name as it is compared.
///
/// ```
/// let name = archive_model::text::fold_person_name("Müller^Jörg^^=ミュラー");
/// assert_eq!((name.alphabetic.as_str(), name.ideographic.as_str()), ("muller^jorg", "ミュラー"));
/// ```
#[must_use]
pub fn fold_person_name(name: &str) -> PersonName {
    let mut groups = name.splitn(3, '=').map(|group| {
        let folded = fold(group);
        let components: Vec<&str> = folded.split('^').map(str::trim).collect();
        let said = components.iter().rposition(|component| !component.is_empty()).map_or(0, |last| last + 1);
        capped(&components[..said].join("^"))
    });
    PersonName {
        alphabetic: groups.next().unwrap_or_default(),
        ideographic: groups.next().unwrap_or_default(),
        phonetic: groups.next().unwrap_or_default(),
    }
}

/// The front of a text that enters an index.
#[must_use]
pub fn capped(text: &str) -> String {
    if text.len() <= INDEXED_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(INDEXED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_at_the_end_and_compatibility_forms_do_not_matter() {
        assert_eq!(normalise("HEAD  "), "HEAD");
        assert_eq!(normalise("ﬁbula Ⅸ "), "fibula IX");
        assert_eq!(normalise(" HEAD"), " HEAD");
    }

    #[test]
    fn names_are_folded_in_case_accents_and_empty_components() {
        let name = fold_person_name("ÅNGSTRÖM ^ Anders^ ^^ = = ");
        assert_eq!(name, PersonName { alphabetic: "angstrom^anders".into(), ..PersonName::default() });
        assert_eq!(fold_person_name("Yamada^Tarou=山田^太郎=やまだ^たろう").groups().count(), 3);
        assert_eq!(fold_person_name("").groups().count(), 0);
    }

    #[test]
    fn what_enters_an_index_is_bounded() {
        assert_eq!(fold_person_name(&"é".repeat(10_000)).alphabetic.chars().count(), INDEXED_CHARS_MAX);
    }
}
