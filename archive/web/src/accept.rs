//! What a client wants to have: Accept headers and the `accept` query parameter (PS3.18 §8.3.3, §8.7; RFC 9110 §12.5.1).
//!
//! ```text
//!   Accept: multipart/related; type="application/dicom"; transfer-syntax=*; q=0.9, application/dicom
//!           └ kind ─────────┘  └ root ───────────────┘   └ syntax ──────┘  └ q ┘
//! ```
//!
//! Of the forms that a resource has, the one with the greatest q is chosen; of equals the one that was named most
//! precisely; of equals the first. For each form the most precise range decides, as RFC 9110 says.

use axum::http::{HeaderMap, header::ACCEPT};

/// Ranges that one request may name; browsers send eight.
const RANGES_MAX: usize = 64;

/// A form in which a resource can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// multipart/related with parts of this type.
    Multipart(&'static str),
    /// The resource itself, of this type.
    Single(&'static str),
}

/// One media range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    kind: String,
    root: Option<String>,
    syntax: Option<String>,
    /// Thousandths.
    q: u16,
}

/// What a request accepts. Empty: it did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accept {
    /// From the `accept` query parameter: asked first.
    query: Vec<Range>,
    /// From the headers.
    headers: Vec<Range>,
}

/// How well a form is liked: q, then how precisely it was named.
type Liking = (u16, u8);

impl Accept {
    /// Of a request. Ranges that cannot be read are disregarded: other ranges may still be usable.
    pub(crate) fn of(headers: &HeaderMap, query: &[(String, String)]) -> Self {
        let mut accept = Self::default();
        for (name, value) in query {
            if name == "accept" {
                ranges(value, &mut accept.query);
            }
        }
        for value in headers.get_all(ACCEPT) {
            ranges(&String::from_utf8_lossy(value.as_bytes()), &mut accept.headers);
        }
        accept
    }

    /// The best of `forms` for data in `syntaxes`; `None` is 406.
    ///
    /// A form is usable when each of the syntaxes is acceptable in it.
    pub(crate) fn choose(&self, forms: &[Form], syntaxes: &[&str]) -> Option<Form> {
        if self.query.is_empty() && self.headers.is_empty() {
            return forms.first().copied();
        }
        let best = |ranges: &[Range]| {
            let liked = forms.iter().filter_map(|form| Some((liking(ranges, *form, syntaxes)?, *form)));
            // Of equals the first, which max_by_key would not give.
            liked.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, form)| form)
        };
        best(&self.query).or_else(|| best(&self.headers))
    }
}

fn liking(ranges: &[Range], form: Form, syntaxes: &[&str]) -> Option<Liking> {
    let one = |syntax: Option<&str>| {
        let matching = ranges.iter().filter_map(|range| Some((range.precision(form, syntax)?, range.q)));
        let (precision, q) = matching.reduce(|best, other| if other.0 > best.0 { other } else { best })?;
        (q > 0).then_some((q, precision))
    };
    if syntaxes.is_empty() {
        return one(None);
    }
    syntaxes.iter().map(|syntax| one(Some(syntax))).min().flatten()
}

impl Range {
    /// How precisely this range names `form` with data in `syntax`; `None` when it does not.
    fn precision(&self, form: Form, syntax: Option<&str>) -> Option<u8> {
        let (kind, root) = match form {
            Form::Multipart(root) => ("multipart/related", Some(root)),
            Form::Single(kind) => (kind, None),
        };
        let named = kind_precision(&self.kind, kind)?;
        let rooted = match (&self.root, root) {
            (Some(wanted), Some(root)) => kind_precision(wanted, root)?,
            _ => 0,
        };
        let coded = match (self.syntax.as_deref(), syntax) {
            (None | Some("*"), _) | (Some(_), None) => 0,
            (Some(wanted), Some(syntax)) if wanted == syntax => 1,
            (Some(_), Some(_)) => return None,
        };
        Some(named * 9 + rooted * 3 + coded)
    }
}

/// 0 for `*/*`, 1 for `type/*`, 2 for the type itself.
fn kind_precision(range: &str, kind: &str) -> Option<u8> {
    if range == kind {
        return Some(2);
    }
    if range == "*/*" || range == "*" {
        return Some(0);
    }
    let family = range.strip_suffix("/*")?;
    (kind.split('/').next() == Some(family)).then_some(1)
}

fn ranges(text: &str, ranges: &mut Vec<Range>) {
    for item in split(text, ',') {
        if ranges.len() == RANGES_MAX {
            return;
        }
        let mut fields = split(item, ';').into_iter();
        let kind = fields.next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind.is_empty() {
            continue;
        }
        let mut range = Range { kind, root: None, syntax: None, q: 1000 };
        for field in fields {
            let Some((name, value)) = field.split_once('=') else { continue };
            let value = unquote(value);
            match name.trim().to_ascii_lowercase().as_str() {
                "type" => range.root = Some(value.to_ascii_lowercase()),
                "transfer-syntax" => range.syntax = Some(value),
                "q" => range.q = thousandths(&value),
                _ => {}
            }
        }
        ranges.push(range);
    }
}

/// A q outside of 0 to 1, or none at all, counts as 1: the sender meant to name the range.
fn thousandths(text: &str) -> u16 {
    let q = text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0);
    (q * 1000.0).round() as u16
}

/// Splits at `separator` outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if char == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(value: &str) -> String {
    let value = value.trim();
    match value.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest)) {
        None => value.to_owned(),
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
    }
}

/// The media type of a Content-Type, in lower case, and a parameter of it.
pub(crate) fn content_type(value: &str) -> (String, impl Fn(&str) -> Option<String>) {
    let mut fields = split(value, ';').into_iter();
    let kind = fields.next().unwrap_or_default().trim().to_ascii_lowercase();
    let parameters: Vec<(String, String)> = fields
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), unquote(value)))
        .collect();
    (kind, move |name| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPLICIT: &str = "1.2.840.10008.1.2.1";
    const JPEG: &str = "1.2.840.10008.1.2.4.50";
    const INSTANCE: &[Form] = &[Form::Multipart("application/dicom"), Form::Single("application/dicom")];
    const METADATA: &[Form] = &[Form::Single("application/dicom+json"), Form::Single("application/json")];

    fn accept(headers: &[&str], query: &[&str]) -> Accept {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(ACCEPT, header.parse().expect("a header"));
        }
        let query: Vec<_> = query.iter().map(|value| ("accept".to_owned(), (*value).to_owned())).collect();
        Accept::of(&map, &query)
    }

    fn check(headers: &[&str], forms: &[Form], syntax: &str, chosen: Option<usize>) {
        let accept = accept(headers, &[]);
        assert_eq!(accept.choose(forms, &[syntax]), chosen.map(|at| forms[at]), "{headers:?}");
    }

    #[test]
    fn a_missing_accept_is_the_default() {
        check(&[], INSTANCE, EXPLICIT, Some(0));
        check(&[""], INSTANCE, EXPLICIT, Some(0));
        check(&["*/*"], METADATA, EXPLICIT, Some(0));
    }

    #[test]
    fn the_type_may_be_quoted_or_bare_in_any_case() {
        for header in [
            r#"multipart/related; type="application/dicom""#,
            "multipart/related;type=application/dicom",
            "Multipart/Related; Type=Application/DICOM; transfer-syntax=*",
            "multipart/related",
            "multipart/*",
        ] {
            check(&[header], INSTANCE, JPEG, Some(0));
        }
        check(&["multipart/related; type=image/jpeg"], INSTANCE, JPEG, None);
    }

    #[test]
    fn the_greatest_q_wins_and_zero_excludes() {
        check(&["multipart/related; q=0.5, application/dicom; q=0.9"], INSTANCE, JPEG, Some(1));
        check(&["multipart/related; q=0, application/dicom; q=0"], INSTANCE, JPEG, None);
        check(&["*/*; q=0.1", "application/json"], METADATA, JPEG, Some(1));
        check(&["*/*, application/dicom+json; q=0"], METADATA, JPEG, Some(1));
    }

    #[test]
    fn several_headers_count_as_one() {
        check(&["text/html", "application/dicom"], INSTANCE, JPEG, Some(1));
    }

    #[test]
    fn the_precisely_named_form_is_preferred_to_a_wildcard() {
        check(&["application/dicom, */*"], INSTANCE, JPEG, Some(1));
    }

    #[test]
    fn another_transfer_syntax_than_the_stored_one_is_not_acceptable() {
        let header = format!(r#"multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}"#);
        check(&[&header], INSTANCE, EXPLICIT, Some(0));
        check(&[&header], INSTANCE, JPEG, None);
        check(&[&header, "multipart/related; transfer-syntax=*; q=0.1"], INSTANCE, JPEG, Some(0));
        assert_eq!(accept(&[&header], &[]).choose(INSTANCE, &[EXPLICIT, JPEG]), None);
    }

    #[test]
    fn the_query_parameter_is_asked_first_and_the_header_after_it() {
        let both = accept(&["application/json"], &["application/dicom+json"]);
        assert_eq!(both.choose(METADATA, &[]), Some(METADATA[0]));
        let useless = accept(&["application/json"], &["text/html"]);
        assert_eq!(useless.choose(METADATA, &[]), Some(METADATA[1]));
    }

    #[test]
    fn a_content_type_is_a_type_and_parameters() {
        let (kind, parameter) = content_type(r#"Multipart/Related; type="application/dicom"; boundary="a;b\"c""#);
        assert_eq!(kind, "multipart/related");
        assert_eq!(parameter("type").as_deref(), Some("application/dicom"));
        assert_eq!(parameter("boundary").as_deref(), Some("a;b\"c"));
        assert_eq!(parameter("charset"), None);
    }

    proptest! {
        #[test]
        fn no_header_breaks_it(text in ".{0,200}", syntax in "[0-9.]{0,20}") {
            let accept = Accept::of(&HeaderMap::new(), &[("accept".into(), text)]);
            let _ = accept.choose(INSTANCE, &[&syntax]);
        }
    }
}
