//! QIDO-RS (PS3.18 §8.3.4, §10.6): query parameters become a C-FIND identifier; answers stream as DICOM JSON.
//!
//! ```text
//!   PatientName=DOE*&00081030=&includefield=StudyTime&limit=10&offset=20
//!   └ key ─────────┘ └ key ──┘ └ wanted, not matched ┘ └ page ─────────┘
//! ```
//!
//! What C-FIND negotiates a web client asks for, or has:
//!
//! | | |
//! |---|---|
//! | combined date and time | always: ranges of one form of a date and of its time are one range |
//! | `fuzzymatching=true` | person names by words and sounds too |
//! | `emptyvaluematching=true` | `""` asks for what has no value |
//! | `multiplevaluematching=true` | each of several values must be found |
//! | `TimezoneOffsetFromUTC=+0100` | dates and times of the query and of the answer are in that zone |

use crate::{
    accept::{Accept, Form},
    address::base,
    gzip,
    query::{Target, parameters},
    router::Shared,
    status::Problem,
};
use archive_model::{
    DataSet, Element, Tag, Uid, VR, Value,
    json::{key_tag, no_bulk, tag_key, to_json},
    matching::{Meaning, offset_minutes, patterns},
    tags,
};
use archive_service::{Find, Freshness, Include, Level, Matches};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use futures::stream;

/// How deep `Sequence.Attribute` may go; the index looks eight levels deep.
const PATH_MAX: usize = 8;
/// Answers that are gathered before the first is sent, so that what is short comes with its warning.
const GATHERED_BYTES: usize = 1 << 20;
/// Bytes of one piece of a longer answer.
const PIECE_BYTES: usize = 64 << 10;

pub(crate) const JSON_FORMS: &[Form] = &[Form::Single("application/dicom+json"), Form::Single("application/json")];

pub(crate) async fn studies(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    search(&shared, Level::Study, &target, &uri, &headers).await
}

pub(crate) async fn series(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    search(&shared, Level::Series, &target, &uri, &headers).await
}

pub(crate) async fn instances(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    search(&shared, Level::Instance, &target, &uri, &headers).await
}

async fn search(
    shared: &Shared,
    level: Level,
    target: &Target,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters(uri.query())?;
    let Some(Form::Single(media_type)) = Accept::of(headers, &parameters).choose(JSON_FORMS, &[]) else {
        return Err(Problem::not_acceptable("application/dicom+json"));
    };
    let mut asked = Asked::of(level, &parameters)?;
    for (tag, uid) in [(tags::STUDY_INSTANCE_UID, target.study()?), (tags::SERIES_INSTANCE_UID, target.series()?)] {
        if let Some(uid) = uid {
            asked.within(tag, &uid)?;
        }
    }
    // A limit of ours is one the client must be told of; its own it knows.
    let max = shared.settings.query_rows_max;
    let ours = asked.limit.is_none_or(|limit| limit > max);
    let limit = asked.limit.unwrap_or(max).min(max);
    asked.find.limit = Some(limit + u64::from(ours));
    let matches = shared.archive.find(asked.find, Freshness::ReadIndex).await?;
    let mut rows = Rows { matches, level, base: base(headers, uri), sent: 0, limit, more: false, ended: false };

    let mut first = BytesMut::new();
    while first.len() < GATHERED_BYTES && rows.append(&mut first).await? {}
    let mut warnings = Vec::new();
    // Of an answer that is longer than what is gathered, the end is not known yet: better a warning too many.
    if rows.more || (ours && !rows.ended) {
        warnings.push("there may be more results: ask for them with limit and offset");
    }
    let unsupported = rows.matches.unsupported().iter().map(|tag| tag_key(*tag)).collect::<Vec<_>>().join(", ");
    let unsupported = format!("not known to the index, neither matched nor returned: {unsupported}");
    if !unsupported.ends_with(": ") {
        warnings.push(&unsupported);
    }
    let mut response = Response::new(Body::empty());
    for warning in warnings {
        if let Ok(value) = HeaderValue::from_str(&format!("299 triptych \"{warning}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    let body = if rows.ended {
        Body::from(first.freeze())
    } else {
        let rest = stream::try_unfold(rows, |mut rows| async move {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            while piece.len() < PIECE_BYTES && rows.append(&mut piece).await.map_err(|problem| problem.what)? {}
            Ok::<_, String>((!piece.is_empty()).then(|| (piece.freeze(), rows)))
        });
        Body::from_stream(futures::StreamExt::chain(stream::once(async { Ok::<Bytes, String>(first.freeze()) }), rest))
    };
    *response.body_mut() = body;
    Ok(gzip::answer(headers, response))
}

/// Answers on their way out.
struct Rows {
    matches: Matches,
    level: Level,
    base: String,
    sent: u64,
    limit: u64,
    /// There was one more than the limit.
    more: bool,
    ended: bool,
}

impl Rows {
    /// Writes the next answer, or the end; false after the end.
    async fn append(&mut self, out: &mut BytesMut) -> Result<bool, Problem> {
        if self.ended {
            return Ok(false);
        }
        let next = self.matches.next().await.transpose()?;
        self.more = next.is_some() && self.sent == self.limit;
        match next.filter(|_| !self.more) {
            Some(mut row) => {
                out.put_u8(if self.sent == 0 { b'[' } else { b',' });
                if let Some(url) = retrieve_url(&self.base, self.level, &row) {
                    row.put_text(tags::RETRIEVE_URL, VR::UR, url);
                }
                // What cannot be read now says so already.
                if row.get(tags::INSTANCE_AVAILABILITY).is_none() {
                    row.put_text(tags::INSTANCE_AVAILABILITY, VR::CS, "ONLINE");
                }
                out.put_slice(&to_json(&row, &no_bulk));
                self.sent += 1;
            }
            None => {
                out.put_slice(if self.sent == 0 { b"[]" } else { b"]" });
                self.ended = true;
            }
        }
        Ok(true)
    }
}

/// Where a row can be retrieved (PS3.18 table 10.6.3-3).
pub(crate) fn retrieve_url(base: &str, level: Level, row: &DataSet) -> Option<String> {
    let mut url = format!("{base}/studies/{}", row.text(tags::STUDY_INSTANCE_UID)?);
    if level >= Level::Series {
        url += &format!("/series/{}", row.text(tags::SERIES_INSTANCE_UID)?);
    }
    if level >= Level::Instance {
        url += &format!("/instances/{}", row.text(tags::SOP_INSTANCE_UID)?);
    }
    Some(url)
}

/// What a client asks for.
struct Asked {
    find: Find,
    limit: Option<u64>,
}

impl Asked {
    fn of(level: Level, parameters: &[(String, String)]) -> Result<Self, Problem> {
        let meaning = Meaning { combined_date_time: true, ..Meaning::default() };
        let find = Find { level, keys: DataSet::new(), include: Include::Default, limit: None, offset: 0, meaning };
        let mut asked = Self { find, limit: None };
        let mut wanted = Vec::new();
        for (name, value) in parameters {
            match name.to_ascii_lowercase().as_str() {
                "accept" | "charset" => {}
                "limit" => asked.limit = Some(number("limit", value)?),
                "offset" => asked.find.offset = number("offset", value)?,
                "fuzzymatching" => asked.find.meaning.fuzzy_names = truth("fuzzymatching", value)?,
                "emptyvaluematching" => asked.find.meaning.empty_values = truth("emptyvaluematching", value)?,
                "multiplevaluematching" => asked.find.meaning.all_values = truth("multiplevaluematching", value)?,
                "timezoneoffsetfromutc" | "00080201" if !value.is_empty() => {
                    // The `+` of an offset that was not percent-encoded is a space by now.
                    let zone = offset_minutes(&value.replace(' ', "+"));
                    let bad = || Problem::bad("TimezoneOffsetFromUTC is no offset such as +0100, in a URL %2B0100");
                    asked.find.meaning.zone_minutes = Some(zone.ok_or_else(bad)?);
                }
                "includefield" => wanted.extend(value.split(',').map(str::trim).map(str::to_owned)),
                _ => put_key(&mut asked.find.keys, &path(name)?, value)?,
            }
        }
        for field in wanted.iter().filter(|field| !field.is_empty()) {
            if field.eq_ignore_ascii_case("all") {
                asked.find.include = Include::All;
                continue;
            }
            let path = path(field)?;
            // An attribute of items is returned with its sequence.
            if let Some(&(tag, vr)) = path.first().filter(|(tag, _)| asked.find.keys.get(*tag).is_none()) {
                asked.find.keys.put(Element { tag, vr, value: Value::Empty });
            }
        }
        patterns(&asked.find.keys, &asked.find.meaning)
            .map_err(|error| Problem::bad(format!("{error}: correct the query parameter")))?;
        Ok(asked)
    }

    /// Only what is within the study or series of the path.
    fn within(&mut self, tag: Tag, uid: &Uid) -> Result<(), Problem> {
        let asked = self.find.keys.texts(tag);
        if !asked.is_empty() && !asked.iter().any(|asked| asked == uid.as_str() || asked == "*") {
            return Err(Problem::bad(format!("{} names another UID than the path: leave it out", tag_key(tag))));
        }
        self.find.keys.put_text(tag, VR::UI, uid.as_str());
        Ok(())
    }
}

fn number(name: &str, value: &str) -> Result<u64, Problem> {
    // Offsets and limits are added up further below: what no archive reaches is refused here.
    let number = value.trim().parse::<u64>().ok().filter(|number| *number <= u64::from(u32::MAX));
    number.ok_or_else(|| Problem::bad(format!("{name} is no whole number from 0 to {}: correct it", u32::MAX)))
}

fn truth(name: &str, value: &str) -> Result<bool, Problem> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err(Problem::bad(format!("{name} is true or false"))),
    }
}

/// Tags and VRs of `Keyword`, `GGGGEEEE`, or several of them with dots.
fn path(name: &str) -> Result<Vec<(Tag, VR)>, Problem> {
    let steps: Vec<&str> = name.split('.').collect();
    if steps.len() > PATH_MAX {
        return Err(Problem::bad("an attribute path has more than 8 steps: ask for a sequence above it"));
    }
    let unknown = || {
        let shown: String = name.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        Problem::bad(format!(
            "the query parameter {shown} is no attribute: use a keyword such as PatientName, a tag such as 00100010, \
             or limit, offset, includefield, fuzzymatching, emptyvaluematching, multiplevaluematching"
        ))
    };
    let step = |text: &&str| {
        let dictionary = StandardDataDictionary;
        match key_tag(text) {
            Some(tag) => Some((tag, dictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed()))),
            None => dictionary.by_name(text).map(|entry| (entry.tag(), entry.vr().relaxed())),
        }
    };
    let mut path: Vec<(Tag, VR)> = steps.iter().map(step).collect::<Option<_>>().ok_or_else(unknown)?;
    // No dictionary knows a private attribute: what has one below it is a sequence.
    if let Some((_, above)) = path.split_last_mut() {
        above.iter_mut().filter(|(tag, _)| tag.group() % 2 == 1).for_each(|(_, vr)| *vr = VR::SQ);
    }
    match path.split_last() {
        Some((_, above)) if above.iter().any(|(_, vr)| *vr != VR::SQ) => {
            Err(Problem::bad("an attribute path leads through what is no sequence: put a dot only behind a sequence"))
        }
        _ => Ok(path),
    }
}

/// Puts a key where `path` leads, making items on the way.
fn put_key(keys: &mut DataSet, path: &[(Tag, VR)], value: &str) -> Result<(), Problem> {
    let Some((&(tag, vr), rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        let element = Element { tag, vr, value: key_value(tag, vr, value)? };
        keys.put(element);
        return Ok(());
    }
    let mut item = keys.items(tag).first().cloned().unwrap_or_default();
    // At most PATH_MAX deep.
    put_key(&mut item, rest, value)?;
    keys.put(Element { tag, vr, value: Value::Items(vec![item]) });
    Ok(())
}

fn key_value(tag: Tag, vr: VR, value: &str) -> Result<Value, Problem> {
    if value.is_empty() {
        return Ok(Value::Empty);
    }
    match vr {
        VR::SQ => Err(Problem::bad(format!(
            "{} is a sequence: match one of its attributes, as in {}.00400009=…",
            tag_key(tag),
            tag_key(tag)
        ))),
        VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW => {
            Err(Problem::bad(format!("{} is binary: it can be retrieved, not matched", tag_key(tag))))
        }
        // UIDs may be a list with commas (PS3.18 §8.3.4.1).
        VR::UI => Ok(Value::Text(value.split([',', '\\']).map(|uid| uid.trim().to_owned()).collect())),
        VR::LT | VR::ST | VR::UT | VR::UR => Ok(Value::Text(vec![value.to_owned()])),
        _ => Ok(Value::Text(value.split('\\').map(str::to_owned).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn asked(query: &str) -> Result<Asked, Problem> {
        Asked::of(Level::Study, &parameters(Some(query))?)
    }

    #[test]
    fn keys_are_keywords_tags_and_paths() {
        let asked = asked("PatientName=DOE*&00100020=7&StudyInstanceUID=1.2,1.3&00400275.00400009=x").expect("a query");
        let keys = &asked.find.keys;
        assert_eq!(keys.text(tags::PATIENT_NAME), Some("DOE*"));
        assert_eq!(keys.text(tags::PATIENT_ID), Some("7"));
        assert_eq!(keys.texts(tags::STUDY_INSTANCE_UID).len(), 2);
        let items = keys.items(tags::REQUEST_ATTRIBUTES_SEQUENCE);
        assert_eq!(items[0].text(tags::SCHEDULED_PROCEDURE_STEP_ID), Some("x"));
    }

    #[test]
    fn fields_to_include_are_keys_without_value() {
        let asked = asked("includefield=StudyTime,00081030&includefield=all&PatientID=7&includefield=PatientID");
        let asked = asked.expect("a query");
        assert_eq!(asked.find.include, Include::All);
        assert_eq!(asked.find.keys.text(tags::PATIENT_ID), Some("7"));
        assert_eq!(asked.find.keys.len(), 3);
    }

    #[test]
    fn what_c_find_negotiates_is_asked_for() {
        let meaning = |query: &str| asked(query).expect("a query").find.meaning;
        let plain = Meaning { combined_date_time: true, ..Meaning::default() };
        assert_eq!(meaning("PatientID=7"), plain);
        assert_eq!(meaning("fuzzymatching=true"), Meaning { fuzzy_names: true, ..plain });
        assert_eq!(meaning("emptyvaluematching=true&fuzzymatching=false"), Meaning { empty_values: true, ..plain });
        assert_eq!(meaning("multiplevaluematching=true"), Meaning { all_values: true, ..plain });
        for query in ["TimezoneOffsetFromUTC=-0330", "00080201=-0330"] {
            assert_eq!(meaning(query), Meaning { zone_minutes: Some(-210), ..plain });
        }
        for query in ["TimezoneOffsetFromUTC=+0100", "TimezoneOffsetFromUTC=%2B0100"] {
            assert_eq!(meaning(query), Meaning { zone_minutes: Some(60), ..plain });
        }
        assert_eq!(meaning("includefield=TimezoneOffsetFromUTC"), plain);
        let night = asked("StudyDate=20200101-20200102&StudyTime=2200-0200");
        assert!(night.is_ok(), "one range of moments");
    }

    #[test]
    fn a_private_sequence_is_known_by_its_path() {
        let asked = asked("00111010.00111011=x").expect("a query");
        let items = asked.find.keys.items(Tag(0x0011, 0x1010));
        assert_eq!(items[0].text(Tag(0x0011, 0x1011)), Some("x"));
    }

    #[test]
    fn a_wrong_query_is_refused_with_what_to_do_and_without_its_values() {
        for query in [
            "Nonsense=SECRET",
            "limit=-1",
            "limit=SECRET",
            "offset=18446744073709551616",
            "fuzzymatching=SECRET",
            "emptyvaluematching=SECRET",
            "TimezoneOffsetFromUTC=SECRET",
            "StudyTime=2200-0200",
            "StudyDate=SECRET",
            "Rows=SECRET",
            "RequestAttributesSequence=SECRET",
            "PatientID.PatientName=SECRET",
            "a.b.c.d.e.f.g.h.i=SECRET",
            "PixelData=SECRET",
            "includefield=Nonsense",
        ] {
            let problem = asked(query).err().expect(query);
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{query}");
            assert!(!problem.what.contains("SECRET"), "{}", problem.what);
        }
    }
}
