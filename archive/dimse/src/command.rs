//! Command sets (PS3.7 §9.3, Annex E): what a request says, and responses to it.

use crate::status::Status;
use archive_model::{DataSet, Element, VR, Value, tags};

/// Command fields (PS3.7 Annex E.1).
pub(crate) mod field {
    pub(crate) const STORE_RQ: u16 = 0x0001;
    pub(crate) const GET_RQ: u16 = 0x0010;
    pub(crate) const FIND_RQ: u16 = 0x0020;
    pub(crate) const MOVE_RQ: u16 = 0x0021;
    pub(crate) const ECHO_RQ: u16 = 0x0030;
    pub(crate) const EVENT_REPORT_RQ: u16 = 0x0100;
    pub(crate) const N_GET_RQ: u16 = 0x0110;
    pub(crate) const N_SET_RQ: u16 = 0x0120;
    pub(crate) const ACTION_RQ: u16 = 0x0130;
    pub(crate) const N_CREATE_RQ: u16 = 0x0140;
    pub(crate) const CANCEL_RQ: u16 = 0x0FFF;
    /// Set in every response.
    pub(crate) const RESPONSE: u16 = 0x8000;
}

/// Command Data Set Type when no data set follows.
const NO_DATA_SET: i128 = 0x0101;

fn number(set: &DataSet, tag: archive_model::Tag) -> Option<u16> {
    set.integer(tag).and_then(|value| u16::try_from(value).ok())
}

pub(crate) fn command_field(set: &DataSet) -> Option<u16> {
    number(set, tags::COMMAND_FIELD)
}

pub(crate) fn message_id(set: &DataSet) -> u16 {
    number(set, tags::MESSAGE_ID).unwrap_or(0)
}

/// Event Type ID or Action Type ID.
pub(crate) fn type_id(set: &DataSet, tag: archive_model::Tag) -> Option<u16> {
    number(set, tag)
}

pub(crate) fn responded_id(set: &DataSet) -> Option<u16> {
    number(set, tags::MESSAGE_ID_BEING_RESPONDED_TO)
}

pub(crate) fn status_code(set: &DataSet) -> Option<u16> {
    number(set, tags::STATUS)
}

/// Whether a data set follows. Absent is read as none: waiting for one that does not come helps nobody.
pub(crate) fn has_data(set: &DataSet) -> bool {
    set.integer(tags::COMMAND_DATA_SET_TYPE).is_some_and(|kind| kind != NO_DATA_SET)
}

fn put_number(set: &mut DataSet, tag: archive_model::Tag, value: u16) {
    set.put(Element { tag, vr: VR::US, value: Value::Integers(vec![i128::from(value)]) });
}

fn put_uid(set: &mut DataSet, tag: archive_model::Tag, uid: &str) {
    set.put_text(tag, VR::UI, uid);
}

/// Counts of sub-operations (PS3.4 C.4.2.1.6–.9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) remaining: u16,
    pub(crate) completed: u16,
    pub(crate) failed: u16,
    pub(crate) warning: u16,
}

/// The response to `request`, with or without a data set behind it.
pub(crate) fn response(request: &DataSet, status: &Status, data: bool) -> DataSet {
    let mut set = DataSet::new();
    let field = command_field(request).unwrap_or(0) | field::RESPONSE;
    put_number(&mut set, tags::COMMAND_FIELD, field);
    put_number(&mut set, tags::MESSAGE_ID_BEING_RESPONDED_TO, message_id(request));
    put_number(&mut set, tags::COMMAND_DATA_SET_TYPE, if data { 0x0001 } else { 0x0101 });
    put_number(&mut set, tags::STATUS, status.code);
    for tag in [tags::AFFECTED_SOP_CLASS_UID, tags::AFFECTED_SOP_INSTANCE_UID] {
        if let Some(uid) = request.text(tag) {
            put_uid(&mut set, tag, uid);
        }
    }
    if !status.comment.is_empty() {
        set.put_text(tags::ERROR_COMMENT, VR::LO, status.comment.clone());
    }
    if let Some(tag) = status.offending {
        set.put(Element { tag: tags::OFFENDING_ELEMENT, vr: VR::AT, value: Value::Tags(vec![tag]) });
    }
    set
}

/// Adds the counts; how many remain only while the operation goes on or was cancelled (PS3.4 C.4.2.1.6).
pub(crate) fn put_counts(set: &mut DataSet, counts: Counts, remaining: bool) {
    if remaining {
        put_number(set, tags::NUMBER_OF_REMAINING_SUBOPERATIONS, counts.remaining);
    }
    put_number(set, tags::NUMBER_OF_COMPLETED_SUBOPERATIONS, counts.completed);
    put_number(set, tags::NUMBER_OF_FAILED_SUBOPERATIONS, counts.failed);
    put_number(set, tags::NUMBER_OF_WARNING_SUBOPERATIONS, counts.warning);
}

fn request(kind: u16, id: u16, class: &str, data: bool) -> DataSet {
    let mut set = DataSet::new();
    put_uid(&mut set, tags::AFFECTED_SOP_CLASS_UID, class);
    put_number(&mut set, tags::COMMAND_FIELD, kind);
    put_number(&mut set, tags::MESSAGE_ID, id);
    put_number(&mut set, tags::COMMAND_DATA_SET_TYPE, if data { 0x0001 } else { 0x0101 });
    set
}

pub(crate) fn echo_request(id: u16) -> DataSet {
    request(field::ECHO_RQ, id, archive_model::sop_class::VERIFICATION, false)
}

/// C-STORE-RQ; `originator` is the AE and the message that asked for it by C-MOVE.
pub(crate) fn store_request(id: u16, class: &str, instance: &str, originator: Option<(&str, u16)>) -> DataSet {
    let mut set = request(field::STORE_RQ, id, class, true);
    put_number(&mut set, tags::PRIORITY, 0);
    put_uid(&mut set, tags::AFFECTED_SOP_INSTANCE_UID, instance);
    if let Some((title, message)) = originator {
        set.put_text(tags::MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, VR::AE, title);
        put_number(&mut set, tags::MOVE_ORIGINATOR_MESSAGE_ID, message);
    }
    set
}

/// C-FIND-RQ or C-GET-RQ.
pub(crate) fn query_request(kind: u16, id: u16, class: &str) -> DataSet {
    let mut set = request(kind, id, class, true);
    put_number(&mut set, tags::PRIORITY, 0);
    set
}

/// N-CREATE-RQ (PS3.7 §10.3.5), with a data set behind it.
pub(crate) fn create_request(id: u16, class: &str, instance: &str) -> DataSet {
    let mut set = request(field::N_CREATE_RQ, id, class, true);
    put_uid(&mut set, tags::AFFECTED_SOP_INSTANCE_UID, instance);
    set
}

/// N-EVENT-REPORT-RQ (PS3.7 §10.3.1), with a data set behind it.
pub(crate) fn event_report_request(id: u16, class: &str, instance: &str, event_type: u16) -> DataSet {
    let mut set = request(field::EVENT_REPORT_RQ, id, class, true);
    put_uid(&mut set, tags::AFFECTED_SOP_INSTANCE_UID, instance);
    put_number(&mut set, tags::EVENT_TYPE_ID, event_type);
    set
}

/// N-ACTION-RSP (PS3.7 §10.3.5): it names as affected what the request asked for.
pub(crate) fn action_response(request: &DataSet, status: &Status) -> DataSet {
    let mut set = response(request, status, false);
    for (requested, affected) in [
        (tags::REQUESTED_SOP_CLASS_UID, tags::AFFECTED_SOP_CLASS_UID),
        (tags::REQUESTED_SOP_INSTANCE_UID, tags::AFFECTED_SOP_INSTANCE_UID),
    ] {
        if let Some(uid) = request.text(requested) {
            put_uid(&mut set, affected, uid);
        }
    }
    if let Some(kind) = number(request, tags::ACTION_TYPE_ID) {
        put_number(&mut set, tags::ACTION_TYPE_ID, kind);
    }
    set
}

/// N-ACTION-RQ, with a data set behind it.
#[cfg(test)]
pub(crate) fn action_request(id: u16, class: &str, instance: &str, kind: u16) -> DataSet {
    let mut set = DataSet::new();
    put_uid(&mut set, tags::REQUESTED_SOP_CLASS_UID, class);
    put_number(&mut set, tags::COMMAND_FIELD, field::ACTION_RQ);
    put_number(&mut set, tags::MESSAGE_ID, id);
    put_number(&mut set, tags::COMMAND_DATA_SET_TYPE, 0x0001);
    put_uid(&mut set, tags::REQUESTED_SOP_INSTANCE_UID, instance);
    put_number(&mut set, tags::ACTION_TYPE_ID, kind);
    set
}

/// C-CANCEL-RQ for the request `id`.
#[cfg(test)]
pub(crate) fn cancel_request(id: u16) -> DataSet {
    let mut set = DataSet::new();
    put_number(&mut set, tags::COMMAND_FIELD, field::CANCEL_RQ);
    put_number(&mut set, tags::MESSAGE_ID_BEING_RESPONDED_TO, id);
    put_number(&mut set, tags::COMMAND_DATA_SET_TYPE, 0x0101);
    set
}

pub(crate) fn move_request(id: u16, class: &str, destination: &archive_model::AeTitle) -> DataSet {
    let mut set = query_request(field::MOVE_RQ, id, class);
    set.put_text(tags::MOVE_DESTINATION, VR::AE, destination.as_str());
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive_model::write_command_set;

    #[test]
    fn a_response_names_what_it_answers() {
        let request = store_request(7, "1.2", "3.4", None);
        let set = response(&request, &Status::new(0xA900, "why").naming(tags::PATIENT_ID), false);
        assert_eq!((command_field(&set), responded_id(&set), status_code(&set)), (Some(0x8001), Some(7), Some(0xA900)));
        assert_eq!(set.text(tags::AFFECTED_SOP_INSTANCE_UID), Some("3.4"));
        assert!(has_data(&request) && !has_data(&set));
    }

    #[test]
    fn the_bytes_of_an_echo_request_are_those_of_the_standard() {
        let bytes = write_command_set(&echo_request(1));
        let group_length = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        assert_eq!(group_length as usize, bytes.len() - 12);
        assert_eq!(bytes[..8], [0, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(bytes[12..20], [0, 0, 2, 0, 18, 0, 0, 0]);
        assert_eq!(&bytes[20..38], b"1.2.840.10008.1.1\0");
    }
}
