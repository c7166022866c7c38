//! Random images as real archives have them, badly filled in, and random questions about them.

use crate::naive::{Agreed, Set, Stored};
use archive_catalog::Level;
use archive_model::{Tag, VR};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// An attribute: where it belongs, and values that images have.
pub(crate) struct Attribute {
    pub(crate) tag: Tag,
    pub(crate) vr: VR,
    /// The level of the index; none for what only headers know.
    pub(crate) level: Option<Level>,
    values: &'static [&'static [&'static str]],
}

const fn at(tag: (u16, u16), vr: VR, level: Option<Level>, values: &'static [&'static [&'static str]]) -> Attribute {
    Attribute { tag: Tag(tag.0, tag.1), vr, level, values }
}

const NAMES: &[&[&str]] = &[
    &["Müller^Jörg"],
    &["MUELLER^Anna^^Dr."],
    &["Miller^Joerg"],
    &["Yamada^Tarou=山田^太郎=やまだ^たろう"],
    &["Hong^Gildong=洪^吉洞=홍^길동"],
    &["Ångström^Anders"],
    &["Иванов^Андрей"],
    &["O'Brien^Pat"],
    &["Doe^Jane"],
    &["DOE^JANE^^^"],
    &["Ｄｏｅ^Ｊａｎｅ"],
    &["Doe"],
    &["Meier-Schmidt^Jo"],
    &["Maier Schmitt^Josef"],
    &["=山田"],
    &["Żak^Wanda"],
    &["Zack^Vanda"],
    &["Nowak^Stefan"],
    &["Novak^Stephan"],
    &["Doe^Jane", "Roe^Jan"],
    &[],
    &[],
];
const DATES: &[&[&str]] = &[
    &["20200101"],
    &["20200102"],
    &["20191231"],
    &["20200229"],
    &["20210101"],
    &["2020.01.02"],
    &["soon"],
    &["20200101", "20220101"],
    &[],
];
const TIMES: &[&[&str]] =
    &[&["10"], &["1015"], &["101500.5"], &["235959.999999"], &["000000"], &["23"], &["10:15:00"], &["noon"], &[], &[]];
/// Texts with signs that mean something in a key, or in SQL.
const TEXTS: &[&[&str]] = &[
    &["HEAD"],
    &["Head "],
    &["HEAD NECK"],
    &["a%b_c"],
    &["axbyc"],
    &["50*60?"],
    &["50 60!"],
    &["\"\""],
    &["*"],
    &["Größe"],
    &["頭部"],
    &["It's"],
    &[],
];
const CODES: &[&[&str]] = &[&["A"], &["B"], &["AB"], &[]];

/// A sequence: its tag, the level it belongs to, and what its items have.
type Sequence = ((u16, u16), Option<Level>, &'static [Attribute]);

const SEQUENCES: &[Sequence] = &[
    (
        (0x0040, 0x0275),
        Some(Series),
        &[at((0x0040, 0x0009), VR::SH, None, CODES), at((0x0040, 0x0007), VR::LO, None, TEXTS)],
    ),
    (
        (0x0008, 0x1140),
        None,
        &[
            at((0x0008, 0x1155), VR::UI, None, &[&["1.7.1"], &["1.7.2"], &["1.7.3"]]),
            at((0x0008, 0x0100), VR::SH, None, CODES),
        ],
    ),
];

use Level::{Instance, Patient, Series, Study};

pub(crate) const ATTRIBUTES: &[Attribute] = &[
    at((0x0010, 0x0010), VR::PN, Some(Patient), NAMES),
    at((0x0010, 0x0020), VR::LO, Some(Patient), &[&["7"], &["70"], &["8"], &["A*"], &["AB"], &["9"], &[]]),
    at((0x0010, 0x0030), VR::DA, Some(Patient), DATES),
    at((0x0010, 0x0032), VR::TM, Some(Patient), TIMES),
    at((0x0010, 0x0040), VR::CS, Some(Patient), &[&["M"], &["F"], &[]]),
    at((0x0010, 0x1000), VR::LO, Some(Patient), &[&["X1", "X2"], &["X1"], &["x1"], &[]]),
    at((0x0008, 0x0020), VR::DA, Some(Study), DATES),
    at((0x0008, 0x0030), VR::TM, Some(Study), TIMES),
    at((0x0008, 0x0050), VR::SH, Some(Study), &[&["A1"], &["A2"], &["a1"], &["A1", "B"], &[]]),
    at((0x0008, 0x1030), VR::LO, Some(Study), TEXTS),
    at((0x0008, 0x0090), VR::PN, Some(Study), NAMES),
    at((0x0008, 0x0060), VR::CS, Some(Series), &[&["CT"], &["MR"], &["PT", "CT"], &[]]),
    at((0x0020, 0x0011), VR::IS, Some(Series), &[&["1"], &["2"], &[" 03"], &["-1"], &[]]),
    at((0x0008, 0x103E), VR::LO, Some(Series), TEXTS),
    at((0x0008, 0x0021), VR::DA, Some(Series), DATES),
    at((0x0008, 0x0031), VR::TM, Some(Series), TIMES),
    at((0x0020, 0x0013), VR::IS, Some(Instance), &[&["1"], &["2"], &["10"], &[]]),
    at((0x0008, 0x0023), VR::DA, Some(Instance), DATES),
    at((0x0008, 0x0033), VR::TM, Some(Instance), TIMES),
    at((0x0008, 0x0008), VR::CS, Some(Instance), &[&["ORIGINAL", "AXIAL"], &["DERIVED"], &["DERIVED", "MIP"], &[]]),
    at((0x0028, 0x0010), VR::US, Some(Instance), &[&["64"], &["512"]]),
    // Known to headers alone.
    at((0x0010, 0x2160), VR::SH, None, &[&["x"], &["X"], &["xy"], &[]]),
    at((0x0020, 0x4000), VR::LT, None, TEXTS),
    at((0x0018, 0x0060), VR::DS, None, &[&["120"], &["80.5"], &["+80.50"], &[]]),
    at((0x0008, 0x1048), VR::PN, None, NAMES),
    at(
        (0x0008, 0x002A),
        VR::DT,
        None,
        &[&["20200101103000"], &["202001011030+0100"], &["20191231233000-0300"], &["20200229"], &[]],
    ),
    at((0x0028, 0x1050), VR::DS, None, &[&["40", "300"], &["40"], &[]]),
    at((0x0008, 0x0201), VR::SH, Some(Instance), &[&["+0100"], &["-0330"], &["+0000"], &[]]),
];

/// Whose private attribute it is, and the attribute in its block: LO.
pub(crate) const CREATOR: &str = "ACME 1.0";
pub(crate) const PRIVATE_CREATOR: Tag = Tag(0x0011, 0x0010);
pub(crate) const PRIVATE: Tag = Tag(0x0011, 0x1001);

fn stored(vr: VR, values: &[&str]) -> Stored {
    if vr == VR::US {
        return Stored::Numbers(values.iter().map(|value| value.parse().expect("a number")).collect());
    }
    Stored::Texts(values.iter().map(|value| (*value).to_owned()).collect())
}

/// What an image has of `attributes`.
fn filled(chance: &mut ChaCha8Rng, attributes: &[Attribute]) -> Set {
    let mut set = Set::new();
    for attribute in attributes {
        let values = attribute.values.choose(chance).expect("some");
        // Nothing is said by an empty element or by none.
        if !values.is_empty() || chance.random() {
            set.insert(attribute.tag, (attribute.vr, stored(attribute.vr, values)));
        }
    }
    set
}

/// One image, of few studies and series.
pub(crate) fn image(chance: &mut ChaCha8Rng, number: usize) -> Set {
    let mut set = filled(chance, ATTRIBUTES);
    for (tag, _, attributes) in SEQUENCES {
        if chance.random_ratio(2, 3) {
            let items = (0..chance.random_range(0..3)).map(|_| filled(chance, attributes)).collect();
            set.insert(Tag(tag.0, tag.1), (VR::SQ, Stored::Items(items)));
        }
    }
    if chance.random() {
        let block = chance.random_range(0x10..0x12);
        set.insert(Tag(0x0011, block), (VR::LO, stored(VR::LO, &[CREATOR])));
        let value = TEXTS.choose(chance).expect("some");
        set.insert(Tag(0x0011, block << 8 | 1), (VR::LO, stored(VR::LO, value)));
    }
    let study = format!("1.{}", chance.random_range(0..12));
    let series = format!("{study}.{}", chance.random_range(0..3));
    let uid = |text: String| (VR::UI, Stored::Texts(vec![text]));
    set.insert(Tag(0x0020, 0x000D), uid(study));
    set.insert(Tag(0x0008, 0x0018), uid(format!("{series}.{number}")));
    set.insert(Tag(0x0020, 0x000E), uid(series));
    set.insert(Tag(0x0008, 0x0016), uid("1.2.840.10008.5.1.4.1.1.2".into()));
    set
}

/// A question: its level, its keys, and what was negotiated.
pub(crate) struct Question {
    pub(crate) level: Level,
    pub(crate) keys: Set,
    pub(crate) agreed: Agreed,
}

pub(crate) fn question(chance: &mut ChaCha8Rng) -> Question {
    let level = *[Patient, Study, Series, Instance].choose(chance).expect("some");
    let mut agreed = Agreed {
        date_time: chance.random(),
        fuzzy: chance.random_ratio(1, 3),
        empty: chance.random(),
        all: chance.random_ratio(1, 3),
        zone: None,
    };
    if chance.random_ratio(1, 4) {
        agreed.zone = [Some(60), Some(-480), Some(330), Some(0)].choose(chance).copied().flatten();
    }
    let mut keys = Set::new();
    let zone_key = Tag(0x0008, 0x0201);
    let usable = |own: Option<Level>| own.is_none_or(|own| own <= level);
    let known: Vec<&Attribute> =
        ATTRIBUTES.iter().filter(|known| usable(known.level) && known.tag != zone_key).collect();
    for _ in 0..chance.random_range(1..4) {
        let attribute = known.choose(chance).expect("some");
        keys.insert(attribute.tag, (attribute.vr, key(chance, attribute)));
    }
    // A date with its time, more often than chance would have it.
    if chance.random_ratio(1, 4) {
        for attribute in known.iter().filter(|known| matches!(known.tag, Tag(0x0008, 0x0020 | 0x0030))) {
            keys.insert(attribute.tag, (attribute.vr, key(chance, attribute)));
        }
    }
    for attribute in &known {
        if chance.random_ratio(1, 8) {
            keys.entry(attribute.tag).or_insert((attribute.vr, stored(attribute.vr, &[])));
        }
    }
    for (tag, _, attributes) in SEQUENCES.iter().filter(|(_, own, _)| usable(*own)) {
        if chance.random_ratio(1, 6) {
            let mut item = Set::new();
            for attribute in attributes.iter() {
                if chance.random() {
                    item.insert(attribute.tag, (attribute.vr, key(chance, attribute)));
                }
            }
            keys.insert(Tag(tag.0, tag.1), (VR::SQ, Stored::Items(vec![item])));
        }
    }
    if chance.random_ratio(1, 8) {
        keys.insert(PRIVATE_CREATOR, (VR::LO, stored(VR::LO, &[CREATOR])));
        let attribute = at((0x0011, 0x1001), VR::LO, None, TEXTS);
        keys.insert(PRIVATE, (VR::LO, key(chance, &attribute)));
    }
    for (tag, own) in [(Tag(0x0020, 0x000D), Study), (Tag(0x0020, 0x000E), Series), (Tag(0x0008, 0x0018), Instance)] {
        if own > level {
            continue;
        }
        let wanted: Vec<String> = match own {
            Study if chance.random_ratio(1, 4) => {
                (0..chance.random_range(1..4)).map(|_| format!("1.{}", chance.random_range(0..14))).collect()
            }
            _ => Vec::new(),
        };
        keys.insert(tag, (VR::UI, Stored::Texts(wanted)));
    }
    Question { level, keys, agreed }
}

/// A key of an attribute: mostly made from a value that images have.
fn key(chance: &mut ChaCha8Rng, attribute: &Attribute) -> Stored {
    let filled: Vec<&&[&str]> = attribute.values.iter().filter(|values| !values.is_empty()).collect();
    let some = |chance: &mut ChaCha8Rng| {
        let values = filled.choose(chance).expect("some");
        (*values.choose(chance).expect("some")).to_owned()
    };
    let value = some(chance);
    let text = match attribute.vr {
        VR::US => return Stored::Numbers(vec![value.parse().expect("a number")]),
        VR::IS | VR::DS => value,
        VR::UI => return Stored::Texts((0..chance.random_range(1..3)).map(|_| some(chance)).collect()),
        VR::DA => {
            let ends = ["20191231", "20200101", "20200102", "20200229", "20210101"];
            let (from, to) = ordered(chance, &ends);
            range(chance, &from, &to)
        }
        VR::TM => {
            let ends = ["00", "0959", "10", "1015", "101500.5", "102959", "23", "235959.999999"];
            let (from, to) = ordered(chance, &ends);
            range(chance, &from, &to)
        }
        VR::DT => {
            let ends =
                ["20191231", "20200101", "20200101093000+0000", "202001011030", "20200101103000+0100", "2020022912"];
            let (from, to) = ordered(chance, &ends);
            match chance.random_range(0..4) {
                0 => value,
                1 => format!("{from}-"),
                2 => format!("-{to}"),
                _ => format!("{from}-{to}"),
            }
        }
        _ => return words(chance, attribute.vr, value, &some),
    };
    Stored::Texts(vec![text])
}

/// Two of `ends`, in order.
fn ordered(chance: &mut ChaCha8Rng, ends: &[&str]) -> (String, String) {
    let (one, other) = (chance.random_range(0..ends.len()), chance.random_range(0..ends.len()));
    (ends[one.min(other)].to_owned(), ends[one.max(other)].to_owned())
}

fn range(chance: &mut ChaCha8Rng, from: &str, to: &str) -> String {
    match chance.random_range(0..5) {
        0 => from.to_owned(),
        1 => format!("{from}-"),
        2 => format!("-{to}"),
        _ => format!("{from}-{to}"),
    }
}

fn words(chance: &mut ChaCha8Rng, vr: VR, value: String, some: &dyn Fn(&mut ChaCha8Rng) -> String) -> Stored {
    let letters: Vec<char> = value.chars().collect();
    let cut = chance.random_range(0..=letters.len());
    let start: String = letters[..cut].iter().collect();
    let single = match chance.random_range(0..11) {
        0 => format!("{start}*"),
        1 => format!("*{}", letters[cut..].iter().collect::<String>()),
        2 => {
            let mut letters = letters.clone();
            let at = chance.random_range(0..letters.len());
            letters[at] = '?';
            letters.into_iter().collect()
        }
        3 => value.to_lowercase(),
        4 => value.to_uppercase(),
        5 => "\"\"".to_owned(),
        6 => "*".to_owned(),
        7 => start,
        8 if vr == VR::PN => {
            // A group, a component, or words in another order.
            let group = value.split('=').next().unwrap_or_default().to_owned();
            let mut parts: Vec<&str> = group.split('^').filter(|part| !part.is_empty()).collect();
            parts.reverse();
            parts.join(" ")
        }
        9 if !matches!(vr, VR::LT | VR::PN) => {
            return Stored::Texts(vec![value, some(chance)]);
        }
        _ => value,
    };
    Stored::Texts(vec![single])
}
