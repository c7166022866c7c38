//! Person names that sound alike (PS3.4 C.2.2.2.1.1): what fuzzy matching adds to literal matching.
//!
//! A name is a set of words: case, accents, order and separators do not matter. A key matches a component group of a
//! name if each of its words is found among the words of that group: as the beginning of one, or by its sound.
//!
//! ```text
//!   key  MEIER^JO       meier ── M600 ═ M600 ── maier      name  Maier^Josef
//!                       jo ───── beginning of ─ josef
//! ```
//!
//! The sound is American Soundex, a letter and three digits, with a beginning that is written as it is heard first:
//!
//! | begins with | is taken for |   | letters | digit |
//! |---|---|---|---|---|
//! | `ph` `pf` `v` `w` | `f` | | b f p v, w before a vowel | 1 |
//! | `ch` `q` `c` (but before e, i, y) | `k` | | c g j k q s x z | 2 |
//! | `sch` `sh` `z` `x` `c` before e, i, y | `s` | | d t | 3 |
//! | `kn` `gn` | `n` | | l | 4 |
//! | `wr` `rh` | `r` | | m n | 5 |
//! | `j` `y` | `i` | | r | 6 |
//!
//! Letters beside each other with one digit count once, also with h or w between them; vowels part them. Words in other
//! scripts than the Latin one have no sound and match by their beginning alone.

use super::wildcard;
use crate::text::{fold, fold_person_name};

/// A key that is a person name, as words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sounds {
    /// The words of each component group that has some.
    groups: Vec<Vec<Word>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: String,
    /// Empty for what has no sound.
    code: String,
    wild: bool,
}

impl Word {
    fn matches(&self, word: &str, code: &str) -> bool {
        if self.wild {
            return wildcard(&self.text, word);
        }
        word.starts_with(&self.text) || (!code.is_empty() && self.code == code)
    }
}

impl Sounds {
    /// The words of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let groups = key.splitn(3, '=').map(|group| {
            let folded = fold(group);
            let word = |text: &str| {
                let wild = text.contains(['*', '?']);
                let code = if wild { String::new() } else { sound(text) };
                Word { text: text.to_owned(), code, wild }
            };
            words(&folded).iter().map(|text| word(text)).collect::<Vec<_>>()
        });
        Self { groups: groups.filter(|words| !words.is_empty()).collect() }
    }

    /// Whether a component group of `name` has all words of a component group of the key.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        fold_person_name(name).groups().any(|group| {
            let own: Vec<(String, String)> = words(group).into_iter().map(|word| (sound(&word), word)).collect();
            let has = |wanted: &Word| own.iter().any(|(code, word)| wanted.matches(word, code));
            self.groups.iter().any(|wanted| wanted.iter().all(has))
        })
    }
}

/// The words of a folded component group.
fn words(group: &str) -> Vec<String> {
    let parts =
        group.split(|char: char| matches!(char, '^' | ',' | '.' | '-' | '‐' | '·' | '・') || char.is_whitespace());
    let bare = |part: &str| part.chars().filter(|char| !matches!(char, '\'' | '’' | '`')).collect::<String>();
    parts.map(bare).filter(|word| !word.is_empty()).collect()
}

/// The sound of a folded word; empty if it is not written in Latin letters alone.
#[must_use]
pub fn sound(word: &str) -> String {
    let Some(letters) = letters(word) else { return String::new() };
    let letters = beginning(&letters);
    let Some(&first) = letters.first() else { return String::new() };
    let mut code = String::from(char::from(first.to_ascii_uppercase()));
    let mut last = digit(&letters, 0);
    for at in 1..letters.len() {
        let own = digit(&letters, at);
        if let Some(digit) = own
            && last != own
        {
            code.push(digit);
        }
        // h and w part nothing, vowels do.
        if own.is_some() || !matches!(letters[at], b'h' | b'w') {
            last = own;
        }
        if code.len() == 4 {
            return code;
        }
    }
    format!("{code:0<4}")
}

/// The letters a to z of a word, with what is a letter of its own elsewhere written as it is heard; `None` if there is
/// another script in it.
fn letters(word: &str) -> Option<Vec<u8>> {
    let mut letters = Vec::with_capacity(word.len());
    for char in word.chars() {
        match char {
            'a'..='z' => letters.push(u8::try_from(char).ok()?),
            'ß' => letters.extend(b"ss"),
            'ø' => letters.push(b'o'),
            'æ' => letters.extend(b"ae"),
            'œ' => letters.extend(b"oe"),
            'ł' => letters.push(b'l'),
            'đ' | 'ð' => letters.push(b'd'),
            'þ' => letters.push(b't'),
            'ı' => letters.push(b'i'),
            '0'..='9' => {}
            _ => return None,
        }
    }
    (!letters.is_empty()).then_some(letters)
}

fn is_vowel(letter: u8) -> bool {
    matches!(letter, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

/// A word whose beginning is written as it is heard.
fn beginning(letters: &[u8]) -> Vec<u8> {
    let (first, rest): (&[u8], &[u8]) = match letters {
        [b'p', b'h' | b'f', rest @ ..] => (b"f", rest),
        [b's', b'c', b'h', rest @ ..] | [b's', b'h', rest @ ..] => (b"s", rest),
        [b'k' | b'g', b'n', rest @ ..] => (b"n", rest),
        [b'w', b'r', rest @ ..] | [b'r', b'h', rest @ ..] => (b"r", rest),
        [b'v' | b'w', rest @ ..] => (b"f", rest),
        [b'c', b'h', rest @ ..] => (b"k", rest),
        [b'c', rest @ ..] if matches!(rest, [b'e' | b'i' | b'y', ..]) => (b"s", rest),
        [b'c' | b'q', rest @ ..] => (b"k", rest),
        [b'z' | b'x', rest @ ..] => (b"s", rest),
        [b'j' | b'y', rest @ ..] => (b"i", rest),
        all => (b"", all),
    };
    [first, rest].concat()
}

/// The digit of a letter; none for vowels, h, and w in front of a consonant.
fn digit(letters: &[u8], at: usize) -> Option<char> {
    Some(match letters[at] {
        b'b' | b'f' | b'p' | b'v' => '1',
        b'w' if letters.get(at + 1).is_some_and(|next| is_vowel(*next)) => '1',
        b'c' | b'g' | b'j' | b'k' | b'q' | b's' | b'x' | b'z' => '2',
        b'd' | b't' => '3',
        b'l' => '4',
        b'm' | b'n' => '5',
        b'r' => '6',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_that_sound_alike_have_one_code() {
        for alike in [
            &["meier", "maier", "mayer", "meyer"][..],
            &["muller", "mueller", "miller"],
            &["schmidt", "schmitt", "shmid"],
            &["filip", "philipp", "filipp"],
            &["catherine", "katherine", "katrin"],
            &["wladimir", "vladimir"],
            &["nowak", "novak"],
            &["vogel", "fogel"],
            &["jorg", "yorg"],
            &["zeiss", "ceis", "seiß"],
            &["swain", "swayne"],
            &["knut", "nut"],
        ] {
            let codes: Vec<String> = alike.iter().map(|word| sound(word)).collect();
            assert!(codes.iter().all(|code| *code == codes[0]), "{alike:?}: {codes:?}");
        }
        assert_eq!(
            (sound("robert"), sound("ashcraft"), sound("tymczak")),
            ("R163".into(), "A261".into(), "T522".into())
        );
        assert_ne!(sound("meier"), sound("muller"));
        assert_eq!((sound("山田"), sound("123"), sound("")), Default::default());
    }

    #[test]
    fn order_separators_and_beginnings_do_not_matter() {
        let hit = |key: &str, name: &str| Sounds::of(key).matches(name);
        assert!(hit("Smith^Mary", "Mary Smith") && hit("Smith^Mary", "SMITH-JONES, Mary"));
        assert!(hit("Maier^Jo", "Meyer^Josef") && !hit("Maier^Jo", "Meyer^Karl"));
        assert!(hit("o'brien", "OBrian^Pat") && hit("tarou", "Yamada^Tarou=山田^太郎"));
        assert!(hit("山", "Yamada^Tarou=山田^太郎") && !hit("田", "Yamada^Tarou=山田^太郎"));
        assert!(hit("*mann^h?ns", "Hans^Bergmann") && !hit("*mann", "Berg^Hans"));
        assert!(!hit("yamada^太郎", "Yamada^Tarou=山田^太郎"), "all words in one group");
        assert!(!hit("-", "Doe") && !hit("Doe", ""));
    }

    proptest! {
        #[test]
        fn what_begins_with_itself_matches_itself(name in "[A-Za-zäöüéß' ^-]{1,30}") {
            let key = Sounds::of(&name);
            prop_assert!(key.groups.is_empty() || key.matches(&name));
        }

        #[test]
        fn a_code_is_a_letter_and_three_digits(word in "[a-zß]{1,12}") {
            let code = sound(&word);
            prop_assert!(code.len() == 4 && code.as_bytes()[1..].iter().all(u8::is_ascii_digit), "{}", code);
        }
    }
}
