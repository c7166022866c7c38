//! C-FIND as provider (PS3.4 C.4.1): answers as they are found, until the last or a C-CANCEL.

use crate::{
    association::{Association, Ended, Received},
    command::{self, field},
    status::{self, Status},
};
use archive_model::{
    DataSet, Element, Limits, Tag, VR, Value,
    matching::{Meaning, offset_minutes},
    read_data_set, sop_class, tags, transfer_syntax, write_data_set,
};
use archive_service::{
    Archive, Find, Freshness, Include, Level, coerce,
    peers::{Hierarchy, Peer as Entry},
};
use archive_upper_layer::negotiate::Extended;

/// Bytes of an identifier, at most.
pub(crate) const IDENTIFIER_BYTES_MAX: usize = 1 << 20;

/// Whether patients stand above studies in the model of a SOP class (PS3.4 C.6).
fn is_patient_root(class: &str) -> bool {
    let patient = [
        sop_class::PATIENT_ROOT_FIND,
        sop_class::PATIENT_ROOT_MOVE,
        sop_class::PATIENT_ROOT_GET,
        sop_class::PATIENT_STUDY_ONLY_FIND,
        sop_class::PATIENT_STUDY_ONLY_MOVE,
        sop_class::PATIENT_STUDY_ONLY_GET,
    ];
    patient.contains(&class)
}

/// The level of an identifier (0008,0052). One that is missing is guessed for a requestor that may leave it out.
pub(crate) fn level(class: &str, identifier: &DataSet, hierarchy: Hierarchy) -> Result<Level, Status> {
    let text = identifier.text(tags::QUERY_RETRIEVE_LEVEL).unwrap_or_default().trim();
    let level = match text {
        "PATIENT" => Level::Patient,
        "STUDY" => Level::Study,
        "SERIES" => Level::Series,
        "IMAGE" => Level::Instance,
        "" if hierarchy == Hierarchy::Lenient => lowest(class, identifier),
        "" => return Err(Status::new(status::MISMATCH, "(0008,0052) is missing").naming(tags::QUERY_RETRIEVE_LEVEL)),
        _ => {
            let status = Status::new(status::MISMATCH, "(0008,0052) is not PATIENT, STUDY, SERIES or IMAGE");
            return Err(status.naming(tags::QUERY_RETRIEVE_LEVEL));
        }
    };
    let only_studies =
        [sop_class::PATIENT_STUDY_ONLY_FIND, sop_class::PATIENT_STUDY_ONLY_MOVE, sop_class::PATIENT_STUDY_ONLY_GET]
            .contains(&class);
    if (!is_patient_root(class) && level == Level::Patient) || (only_studies && level > Level::Study) {
        let status = Status::new(status::MISMATCH, "the information model has no such level (0008,0052)");
        return Err(status.naming(tags::QUERY_RETRIEVE_LEVEL));
    }
    Ok(level)
}

/// The lowest level whose unique key is asked for.
fn lowest(class: &str, identifier: &DataSet) -> Level {
    let has = |tag| identifier.get(tag).is_some();
    if has(tags::SOP_INSTANCE_UID) {
        Level::Instance
    } else if has(tags::SERIES_INSTANCE_UID) {
        Level::Series
    } else if has(tags::STUDY_INSTANCE_UID) || !is_patient_root(class) {
        Level::Study
    } else {
        Level::Patient
    }
}

/// The unique keys above `level` (PS3.4 C.4.1.3.1.1). The patient's is not insisted on: many requestors leave it out,
/// and a Study Instance UID needs no patient to be unique.
pub(crate) fn keys_above(level: Level) -> &'static [Tag] {
    match level {
        Level::Patient | Level::Study => &[],
        Level::Series => &[tags::STUDY_INSTANCE_UID],
        Level::Instance => &[tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID],
    }
}

/// Reads the identifier of a request.
pub(crate) async fn identifier(association: &mut Association, context: u8) -> Result<Result<DataSet, Status>, Ended> {
    data_set(association, context, IDENTIFIER_BYTES_MAX).await
}

/// Reads the data set of a request that has at most `bytes_max`.
pub(crate) async fn data_set(
    association: &mut Association,
    context: u8,
    bytes_max: usize,
) -> Result<Result<DataSet, Status>, Ended> {
    let syntax = association.contexts.get(&context).map(|context| context.transfer_syntax.clone()).unwrap_or_default();
    let Some(bytes) = association.small_data(bytes_max).await? else {
        return Ok(Err(Status::new(status::MISMATCH, format!("the data set exceeds {} MiB", bytes_max >> 20))));
    };
    Ok(read_data_set(&bytes, &transfer_syntax(&syntax), &Limits::default()).map_err(|error| {
        let status = Status::new(status::CANNOT_UNDERSTAND, error.comment());
        error.place().tag.map_or(status.clone(), |tag| status.naming(tag))
    }))
}

/// How the keys of an identifier are read: as was negotiated, and in the zone that it names.
fn meaning(extended: Extended, identifier: &DataSet) -> Result<Meaning, Status> {
    let zone = identifier.text(tags::TIMEZONE_OFFSET_FROM_UTC).map(str::trim).filter(|zone| !zone.is_empty());
    let zone_minutes = match zone.filter(|_| extended.timezone) {
        Some(zone) => Some(offset_minutes(zone).ok_or_else(|| {
            let status = Status::new(status::MISMATCH, "(0008,0201) is no offset such as +0100");
            status.naming(tags::TIMEZONE_OFFSET_FROM_UTC)
        })?),
        None => None,
    };
    Ok(Meaning {
        combined_date_time: extended.date_time,
        fuzzy_names: extended.fuzzy,
        empty_values: extended.empty_values,
        all_values: extended.all_values,
        zone_minutes,
    })
}

/// Answers one C-FIND-RQ; the returned status is the final one, not yet sent.
pub(crate) async fn find(
    association: &mut Association,
    archive: &Archive,
    context: u8,
    request: &DataSet,
    entry: &Entry,
) -> Result<Status, Ended> {
    let hierarchy = entry.hierarchy;
    let identifier = match identifier(association, context).await? {
        Ok(identifier) => identifier,
        Err(status) => return Ok(status),
    };
    let Some(agreed) = association.contexts.get(&context).cloned() else {
        return Err(Ended::Broken("a context that was not agreed on".into()));
    };
    let level = match level(&agreed.abstract_syntax, &identifier, hierarchy) {
        Ok(level) => level,
        Err(status) => return Ok(status),
    };
    if !agreed.extended.relational
        && hierarchy == Hierarchy::Strict
        && let Some(missing) =
            keys_above(level).iter().find(|tag| identifier.text(**tag).unwrap_or_default().trim().is_empty())
    {
        let status = Status::new(status::MISMATCH, format!("{missing} of an upper level is needed"));
        return Ok(status.naming(*missing));
    }
    let meaning = match meaning(agreed.extended, &identifier) {
        Ok(meaning) => meaning,
        Err(status) => return Ok(status),
    };
    let words = identifier.texts(tags::SPECIFIC_CHARACTER_SET).to_vec();
    let mut asked = match coerce::Asked::of(identifier, &entry.coerce, &meaning) {
        Ok(asked) => asked,
        Err(error) => return Ok(Status::from(&error)),
    };
    let keys = std::mem::take(&mut asked.keys);
    let find = Find { level, keys, include: Include::Requested, limit: None, offset: 0, meaning };
    let encoding = transfer_syntax(&agreed.transfer_syntax).encoding;
    let mut matches = match archive.find(find, Freshness::ReadIndex).await {
        Ok(matches) => matches,
        Err(error) => return Ok(Status::from(&error)),
    };
    let unsupported = !matches.unsupported().is_empty();
    let code = if unsupported { status::PENDING_UNSUPPORTED_KEYS } else { status::PENDING };
    let pending = command::response(request, &Status::new(code, ""), true);
    loop {
        let answer = tokio::select! {
            biased;
            received = association.next() => {
                match cancel(received?, command::message_id(request)) {
                    Heard::Cancel => return Ok(Status::new(status::CANCEL, "")),
                    Heard::Nothing => continue,
                    Heard::Other(received) => {
                        association.hold(received).await?;
                        continue;
                    }
                }
            }
            answer = matches.next() => answer,
        };
        match answer {
            None => return Ok(Status::new(status::SUCCESS, "")),
            Some(Err(error)) => return Ok(Status::from(&error)),
            Some(Ok(mut answer)) => {
                coerce::shown(&mut answer, &entry.coerce);
                if !asked.matches(&answer) {
                    continue;
                }
                complete(&mut answer, level, archive.ae_title().as_str(), &words);
                let bytes = write_data_set(&answer, encoding);
                association.send(context, &pending, Some(&bytes)).await?;
            }
        }
    }
}

/// What every answer carries (PS3.4 C.4.1.1.3.2).
fn complete(answer: &mut DataSet, level: Level, ae_title: &str, words: &[String]) {
    let name = match level {
        Level::Patient => "PATIENT",
        Level::Study => "STUDY",
        Level::Series => "SERIES",
        Level::Instance => "IMAGE",
    };
    answer.put_text(tags::QUERY_RETRIEVE_LEVEL, VR::CS, name);
    answer.put_text(tags::RETRIEVE_AE_TITLE, VR::AE, ae_title);
    // What cannot be read now says so already.
    if answer.get(tags::INSTANCE_AVAILABILITY).is_none() {
        answer.put_text(tags::INSTANCE_AVAILABILITY, VR::CS, "ONLINE");
    }
    in_words(answer, words);
}

/// Says which character sets an answer is in: those of the requestor; what they lack, write_data_set writes in UTF-8, and
/// says so.
pub(crate) fn in_words(answer: &mut DataSet, words: &[String]) {
    answer.remove(tags::SPECIFIC_CHARACTER_SET);
    if is_ascii(answer) {
        return;
    }
    let words =
        if words.iter().all(|word| word.trim().is_empty()) { vec!["ISO_IR 192".into()] } else { words.to_vec() };
    answer.put(Element { tag: tags::SPECIFIC_CHARACTER_SET, vr: VR::CS, value: Value::Text(words) });
}

fn is_ascii(set: &DataSet) -> bool {
    set.iter().all(|element| match &element.value {
        Value::Text(values) => values.iter().all(|value| value.is_ascii()),
        // As deep as headers are read, which is bounded.
        Value::Items(items) => items.iter().all(is_ascii),
        _ => true,
    })
}

/// What a message that came during an operation means for it.
pub(crate) enum Heard {
    /// C-CANCEL for this operation.
    Cancel,
    /// Nothing: a cancel for one that is over.
    Nothing,
    /// Another request, or a piece of one.
    Other(Received),
}

pub(crate) fn cancel(received: Received, operation: u16) -> Heard {
    match received {
        Received::Command { ref set, data: false, .. } if command::command_field(set) == Some(field::CANCEL_RQ) => {
            if command::responded_id(set) == Some(operation) {
                Heard::Cancel
            } else {
                Heard::Nothing
            }
        }
        // The answer to a report of storage commitment that went out before this operation began: it goes out again.
        Received::Command { ref set, data: false, .. }
            if command::command_field(set) == Some(field::EVENT_REPORT_RQ | field::RESPONSE) =>
        {
            Heard::Nothing
        }
        other => Heard::Other(other),
    }
}
