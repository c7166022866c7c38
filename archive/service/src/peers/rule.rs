//! A coercion rule: what a peer is shown in place of what is stored.
//!
//! ```text
//!   WHEN      ATTRIBUTE                    ACTION
//!   find      AccessionNumber              set TEXT        also where it was not there, unless it was not asked for
//!   retrieve  (0008,0050)                  clear           no value
//!   both      (0009,"ACME 1.0",01)         remove          not there
//!                                          map A=B,C=D     the whole value, letter by letter
//!                                          prefix TEXT     before each value that is not empty
//!                                          suffix TEXT     behind it
//!
//!   "both AccessionNumber prefix HOSP-"     as typed, in the registry, and in the list of peers
//! ```
//!
//! Rules of one peer apply in their order, each to what the one before made. What is written is ASCII, which every character
//! set has, and fits the VR, which is checked when the rule is set. A value that is stored and becomes longer than its VR
//! permits by what is put before or behind it goes out as long as it is: cut, it would be another.

pub use archive_model::Attribute;
use archive_model::{Tag, Uid, VR, charset::is_single, names, tags};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Characters of a rule, at most.
const CHARS_MAX: usize = 1024;

/// What an attribute is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Answers of queries.
    Find,
    /// Objects that are sent by C-MOVE and C-GET.
    Retrieve,
    /// Both.
    Both,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It has this value.
    Set(String),
    /// It has none.
    Clear,
    /// It is not there.
    Remove,
    /// Where the value is the first, it becomes the second.
    Map(Vec<(String, String)>),
    /// This stands before each value.
    Prefix(String),
    /// This stands behind each value.
    Suffix(String),
}

/// What a peer is shown in place of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    when: When,
    attribute: Attribute,
    action: Action,
}

impl Rule {
    /// Whether it is for `what`, which is not both.
    #[must_use]
    pub fn is_for(&self, what: When) -> bool {
        self.when == When::Both || self.when == what
    }

    /// The attribute.
    #[must_use]
    pub fn attribute(&self) -> &Attribute {
        &self.attribute
    }

    /// What becomes of it.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What becomes of a value: `None` where the attribute is not there, empty where it has none, several values with `\`
    /// between them.
    #[must_use]
    pub fn applied(&self, vr: VR, value: Option<String>) -> Option<String> {
        let each = |value: String, change: &dyn Fn(&str) -> String| {
            if value.is_empty() {
                return value;
            }
            match is_single(vr) {
                true => change(&value),
                false => {
                    let one = |value: &str| if value.is_empty() { String::new() } else { change(value) };
                    value.split('\\').map(one).collect::<Vec<_>>().join("\\")
                }
            }
        };
        match &self.action {
            Action::Set(text) => Some(text.clone()),
            Action::Clear => value.map(|_| String::new()),
            Action::Remove => None,
            Action::Map(pairs) => value.map(|value| match pairs.iter().find(|(from, _)| *from == value.trim()) {
                Some((_, to)) => to.clone(),
                None => value,
            }),
            Action::Prefix(text) => value.map(|value| each(value, &|value| format!("{text}{value}"))),
            Action::Suffix(text) => value.map(|value| each(value, &|value| format!("{value}{text}"))),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.chars().count() > CHARS_MAX || text.chars().any(char::is_control) {
            return Err(format!("a coercion rule has at most {CHARS_MAX} characters, in one line"));
        }
        let bad = |why: &str| {
            format!(
                "`{text}` is no coercion rule: {why}; one is `find|retrieve|both ATTRIBUTE set TEXT|clear|remove|map A=B,C=D|prefix TEXT|suffix TEXT`"
            )
        };
        let (when, rest) = text.split_once(' ').ok_or_else(|| bad("it says too little"))?;
        let when = match when {
            "find" => When::Find,
            "retrieve" => When::Retrieve,
            "both" => When::Both,
            _ => return Err(bad("it begins with `find`, `retrieve` or `both`")),
        };
        let rest = rest.trim_start();
        // The creator of a private attribute may have spaces.
        let end = if rest.starts_with('(') {
            // Of a private attribute, behind the second quotation mark.
            let quotes: Vec<usize> = rest.match_indices('"').map(|(at, _)| at).take(2).collect();
            let private = quotes.first().zip(rest.find(')')).is_some_and(|(quote, bracket)| *quote < bracket);
            let from = quotes.get(1).copied().filter(|_| private).unwrap_or(0);
            rest[from..].find(") ").map(|at| from + at + 1)
        } else {
            rest.find(' ')
        };
        let (name, rest) = rest.split_at(end.ok_or_else(|| bad("it does not say what is done"))?);
        let attribute = name.parse::<Attribute>().map_err(|why| bad(&why))?;
        let rest = rest.trim_start();
        let (verb, value) = rest.split_once(' ').map_or((rest, None), |(verb, value)| (verb, Some(value.trim_start())));
        let some =
            || value.filter(|value| !value.is_empty()).map(str::to_owned).ok_or_else(|| bad("the text is missing"));
        let action = match verb {
            "set" => Action::Set(some()?),
            "prefix" => Action::Prefix(some()?),
            "suffix" => Action::Suffix(some()?),
            "clear" if value.is_none() => Action::Clear,
            "remove" if value.is_none() => Action::Remove,
            "clear" | "remove" => return Err(bad(&format!("`{verb}` takes no text"))),
            "map" => {
                let pair = |pair: &str| {
                    let (from, to) = pair.split_once('=')?;
                    Some((from.trim().to_owned(), to.trim().to_owned()))
                };
                let pairs: Option<Vec<_>> = some()?.split(',').map(pair).collect();
                Action::Map(pairs.ok_or_else(|| bad("`map` takes pairs such as A=B,C=D"))?)
            }
            _ => return Err(bad("it says `set`, `clear`, `remove`, `map`, `prefix` or `suffix` behind the attribute")),
        };
        if matches!(attribute, Attribute::Private { .. }) && when != When::Retrieve {
            return Err(bad("private attributes are changed in objects alone: say `retrieve`"));
        }
        check(&attribute, &action).map_err(|why| format!("`{text}`: {why}"))?;
        Ok(Self { when, attribute, action })
    }
}

/// Attributes that no rule touches, and why.
fn untouchable(tag: Tag) -> Option<&'static str> {
    const HIERARCHY: [Tag; 5] = [
        tags::STUDY_INSTANCE_UID,
        tags::SERIES_INSTANCE_UID,
        tags::SOP_INSTANCE_UID,
        tags::SOP_CLASS_UID,
        tags::SOP_CLASSES_IN_STUDY,
    ];
    const QUERY: [Tag; 4] =
        [tags::QUERY_RETRIEVE_LEVEL, tags::RETRIEVE_AE_TITLE, tags::INSTANCE_AVAILABILITY, tags::RETRIEVE_URL];
    const OF_PIXELS: [Tag; 13] = [
        tags::SAMPLES_PER_PIXEL,
        tags::PHOTOMETRIC_INTERPRETATION,
        tags::PLANAR_CONFIGURATION,
        tags::NUMBER_OF_FRAMES,
        tags::ROWS,
        tags::COLUMNS,
        tags::BITS_ALLOCATED,
        tags::BITS_STORED,
        tags::HIGH_BIT,
        tags::PIXEL_REPRESENTATION,
        tags::LOSSY_IMAGE_COMPRESSION,
        tags::LOSSY_IMAGE_COMPRESSION_RATIO,
        tags::LOSSY_IMAGE_COMPRESSION_METHOD,
    ];
    if tag.0 < 0x0008 {
        Some(
            "groups before 0008 say how an object is transmitted, its transfer syntax among that: no rule changes them",
        )
    } else if HIERARCHY.contains(&tag) {
        Some("the UIDs of study, series and object, and its class, are what it is found by: no rule changes them")
    } else if tag == tags::SPECIFIC_CHARACTER_SET {
        Some("all text of the object is read by its character set: no rule changes that")
    } else if QUERY.contains(&tag) {
        Some("it is part of the answer, not of what is stored: no rule changes it")
    } else if OF_PIXELS.contains(&tag) || (0x7FE0..=0x7FEF).contains(&tag.0) {
        Some("it is pixel data, or says how that is read: no rule changes it")
    } else if tag.0 > 0x7FE0 || tag.1 == 0 {
        Some("it is no attribute of an image: no rule changes it")
    } else if tag == tags::ORIGINAL_ATTRIBUTES_SEQUENCE {
        Some("it records what rules have changed: no rule changes it")
    } else {
        None
    }
}

fn check(attribute: &Attribute, action: &Action) -> Result<(), String> {
    let texts: Vec<&str> = match action {
        Action::Set(text) | Action::Prefix(text) | Action::Suffix(text) => vec![text],
        Action::Map(pairs) => pairs.iter().map(|(_, to)| to.as_str()).collect(),
        Action::Clear | Action::Remove => Vec::new(),
    };
    let vr = match attribute {
        Attribute::Private { group, .. } => {
            if !(0x0009..0x7FE0).contains(group) {
                return Err("private attributes of that group are not changed".into());
            }
            if !texts.is_empty() {
                return Err(
                    "private attributes are cleared or removed, and nothing else: what type they have is not known"
                        .into(),
                );
            }
            return Ok(());
        }
        Attribute::Standard(tag) => {
            if let Some(why) = untouchable(*tag) {
                return Err(why.into());
            }
            names::vr_of(*tag)
        }
    };
    use VR::{OB, OD, OF, OL, OV, OW, UN};
    if matches!(vr, OB | OD | OF | OL | OV | OW | UN) {
        return Err("it is bulk data, or is not in the dictionary: no rule changes it".into());
    }
    if texts.is_empty() {
        return Ok(());
    }
    if matches!(vr, VR::SQ | VR::AT | VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV | VR::FL | VR::FD) {
        return Err("it is no text: `clear` or `remove` it".into());
    }
    for text in texts {
        if !is_plain(text) {
            return Err(
                "what a rule writes is ASCII, without `\\` and control characters: every object can express that, \
                 whatever its character set"
                    .into(),
            );
        }
        let whole = matches!(action, Action::Set(_) | Action::Map(_));
        fits(vr, text, whole).map_err(|why| format!("its value representation is {vr:?}: {why}"))?;
    }
    Ok(())
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\')
}

/// Whether `text` is a value of this VR, or where it is not the `whole` value, may be a part of one (PS3.5 table 6.2-1).
fn fits(vr: VR, text: &str, whole: bool) -> Result<(), String> {
    let chars_max = match vr {
        VR::AE | VR::CS | VR::DS | VR::SH | VR::TM => 16,
        VR::IS => 12,
        VR::LO | VR::UI => 64,
        VR::DA => 8,
        VR::DT => 26,
        VR::AS => 4,
        // Of each group of components.
        VR::PN => 64,
        _ => CHARS_MAX,
    };
    let longest = if vr == VR::PN { text.split('=').map(str::len).max().unwrap_or(0) } else { text.len() };
    if longest > chars_max {
        return Err(format!("at most {chars_max} characters"));
    }
    if text.is_empty() {
        return Ok(());
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let good = match vr {
        VR::CS => text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" _".contains(&byte)),
        VR::PN => text.split('=').count() <= 3 && text.split('=').all(|group| group.split('^').count() <= 5),
        VR::UR => !text.contains(' '),
        VR::DA | VR::TM | VR::DT | VR::AS | VR::IS | VR::DS | VR::UI if !whole => {
            return Err("`prefix` and `suffix` are for text: `set` or `map` it".into());
        }
        VR::UI => Uid::parse(text).is_ok(),
        VR::DA => text.len() == 8 && archive_model::matching::normal_date(text).is_some(),
        VR::TM => archive_model::matching::normal_time(text).is_some(),
        VR::DT => {
            text.len() >= 4
                && digits(&text[..4])
                && text.bytes().all(|byte| byte.is_ascii_digit() || b".+-".contains(&byte))
        }
        VR::AS => text.len() == 4 && digits(&text[..3]) && text.ends_with(['D', 'W', 'M', 'Y']),
        VR::IS => text.parse::<i32>().is_ok(),
        VR::DS => text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => true,
    };
    if good { Ok(()) } else { Err(format!("`{text}` is no value of it")) }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            When::Find => "find",
            When::Retrieve => "retrieve",
            When::Both => "both",
        };
        write!(f, "{when} {} ", self.attribute)?;
        match &self.action {
            Action::Set(text) => write!(f, "set {text}"),
            Action::Clear => f.write_str("clear"),
            Action::Remove => f.write_str("remove"),
            Action::Map(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(from, to)| format!("{from}={to}")).collect();
                write!(f, "map {}", pairs.join(","))
            }
            Action::Prefix(text) => write!(f, "prefix {text}"),
            Action::Suffix(text) => write!(f, "suffix {text}"),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|why| panic!("{why}"))
    }

    fn refused(text: &str) -> String {
        text.parse::<Rule>().expect_err(text)
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in [
            "find AccessionNumber set X 1",
            "retrieve PatientName clear",
            "both ReferencedStudySequence remove",
            "both PatientID map A=B,C=,=E",
            "both InstitutionName prefix Site: ",
            "retrieve (0009,\"ACME 1.0, (new) one\",01) remove",
            "both PatientComments set say \"A\" (\"B\") ",
            "retrieve (0018,9999) clear",
        ] {
            if text.contains("9999") {
                assert!(refused(text).contains("dictionary"));
            } else {
                assert_eq!(rule(text).to_string(), text.trim_end());
            }
        }
        assert_eq!(rule("  both  (0010,0020)   set  X "), rule("both PatientID set X"));
        assert_eq!(
            serde_json::to_string(&rule("find PatientID set X")).unwrap_or_default(),
            "\"find PatientID set X\""
        );
    }

    #[test]
    fn values_become_what_the_rule_says() {
        let become_ = |text: &str, value: Option<&str>| rule(text).applied(VR::LO, value.map(str::to_owned));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(become_("both PatientID set X", None), some("X"));
        assert_eq!(become_("both PatientID clear", None), None);
        assert_eq!(become_("both PatientID clear", Some("A")), some(""));
        assert_eq!(become_("both PatientID remove", Some("A")), None);
        let map = "both PatientID map A=B,B=C,=none";
        assert_eq!(
            [Some("A"), Some("B"), Some("a"), Some(""), None].map(|value| become_(map, value)),
            [some("B"), some("C"), some("a"), some("none"), None]
        );
        assert_eq!(become_("both PatientID prefix P-", Some("A\\\\B")), some("P-A\\\\P-B"));
        assert_eq!(become_("both PatientID suffix -S", Some("")), some(""));
        assert_eq!(rule("both ImageComments prefix P ").applied(VR::LT, some("a\\b")), some("Pa\\b"));
    }

    #[test]
    fn what_an_object_is_found_and_read_by_is_not_touched_and_the_sentence_says_why() {
        for (name, why) in [
            ("StudyInstanceUID", "found by"),
            ("SeriesInstanceUID", "found by"),
            ("SOPInstanceUID", "found by"),
            ("(0008,0016)", "found by"),
            ("TransferSyntaxUID", "transmitted"),
            ("(0002,0010)", "transmitted"),
            ("(0000,0002)", "transmitted"),
            ("PixelData", "pixel data"),
            ("(7FE0,0010)", "pixel data"),
            ("Rows", "how that is read"),
            ("PhotometricInterpretation", "how that is read"),
            ("SpecificCharacterSet", "character set"),
            ("QueryRetrieveLevel", "part of the answer"),
            ("OriginalAttributesSequence", "records"),
            ("DataSetTrailingPadding", "no attribute of an image"),
            ("(0010,0000)", "no attribute of an image"),
            ("RedPaletteColorLookupTableData", "bulk data"),
        ] {
            for action in ["remove", "clear", "set 1"] {
                let said = refused(&format!("both {name} {action}"));
                assert!(said.contains(why), "{name}: {said}");
            }
        }
    }

    #[test]
    fn what_is_written_fits_the_value_representation() {
        for good in [
            "both AccessionNumber set 1234567890123456",
            "both PatientBirthDate set 19700101",
            "both PatientSex map M=O",
            "both PatientAge set 042Y",
            "both InstanceNumber set -1",
            "both PatientWeight set 7.5",
            "both FrameOfReferenceUID set 1.2.3",
            "both PatientName set DOE^JOHN",
            "both StudyTime set 1200",
        ] {
            rule(good);
        }
        for (bad, why) in [
            ("both AccessionNumber set 12345678901234567", "16"),
            ("both PatientBirthDate set 1970", "DA"),
            ("both PatientSex map M=o", "CS"),
            ("both PatientAge set 42Y", "AS"),
            ("both InstanceNumber set one", "IS"),
            ("both PatientWeight set heavy", "DS"),
            ("both FrameOfReferenceUID set 1..2", "UI"),
            ("both PatientName set A^B^C^D^E^F", "PN"),
            ("both StudyDate prefix 2", "set` or `map"),
            ("both PatientName set Müller", "ASCII"),
            ("both PatientName set A\\B", "ASCII"),
            ("both SmallestImagePixelValue set 1", "no text"),
            ("both ReferencedStudySequence set 1", "no text"),
            ("both (0009,1001) remove", "creator"),
            ("retrieve (0009,\"ACME\",01) set X", "cleared or removed"),
            ("retrieve (0010,\"ACME\",01) clear", "odd group"),
            ("both (0009,\"ACME\",01) clear", "say `retrieve`"),
            ("always PatientID clear", "`find`"),
            ("both PatientID", "what is done"),
            ("both PatientID set", "missing"),
            ("both PatientID map A", "A=B"),
            ("both PatientID clear it", "no text"),
            ("both PatientIDs clear", "keyword"),
            ("both PatientID hide", "`set`"),
            ("both", "too little"),
        ] {
            let said = refused(bad);
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
