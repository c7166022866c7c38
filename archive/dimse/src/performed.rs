//! Modality performed procedure steps as provider (PS3.4 F.7, F.8): N-CREATE, N-SET, N-GET.

use crate::{
    association::{Association, Ended},
    command::{self, field},
    find::{identifier, in_words},
    status::{self, Status},
};
use archive_model::{DataSet, Element, Tag, Uid, VR, Value, sop_class, tags, transfer_syntax, write_data_set};
use archive_service::{Archive, DocumentError, PerformedSteps, RecordError, StepError};

/// Answers one request and sends the answer; what it was, and its status.
pub(crate) async fn perform(
    association: &mut Association,
    archive: &Archive,
    context: u8,
    request: &DataSet,
    data: bool,
) -> Result<(&'static str, Status), Ended> {
    let steps = archive.performed_steps();
    let mut answer = Answer { instance: instance_of(request), set: None };
    let (service, done) = match command::command_field(request) {
        Some(field::N_CREATE_RQ) => {
            let set = if data { identifier(association, context).await? } else { Ok(DataSet::new()) };
            ("create", create(&steps, &mut answer, set).await)
        }
        Some(field::N_SET_RQ) => {
            let set = if data { identifier(association, context).await? } else { Ok(DataSet::new()) };
            ("set", set_step(&steps, &answer, set).await)
        }
        _ => {
            if data {
                association.drain_data().await?;
            }
            ("get", get(&steps, request, &mut answer).await)
        }
    };
    let status = done.err().unwrap_or_else(|| Status::new(status::SUCCESS, ""));
    let mut response = command::response(request, &status, answer.set.is_some());
    response.put_text(tags::AFFECTED_SOP_CLASS_UID, VR::UI, sop_class::MODALITY_PERFORMED_STEP);
    if let Some(instance) = &answer.instance {
        response.put_text(tags::AFFECTED_SOP_INSTANCE_UID, VR::UI, instance);
    }
    if status.code == status::PROCESSING_FAILURE {
        // PS3.4 table F.7.2-2: what may no longer be updated has an Error ID of its own.
        response.put(Element { tag: tags::ERROR_ID, vr: VR::US, value: Value::Integers(vec![0xA710]) });
    }
    let syntax = association.contexts.get(&context).map(|own| own.transfer_syntax.clone()).unwrap_or_default();
    let encoding = transfer_syntax(&syntax).encoding;
    let bytes = answer.set.map(|mut set| {
        in_words(&mut set, &[]);
        write_data_set(&set, encoding)
    });
    association.send(context, &response, bytes.as_deref()).await?;
    Ok((service, status))
}

struct Answer {
    /// The step that the request was about, or that was made.
    instance: Option<String>,
    set: Option<DataSet>,
}

/// The instance that a request names: N-CREATE affects it, the others request it (PS3.7 §10.3).
fn instance_of(request: &DataSet) -> Option<String> {
    let text = |tag| request.text(tag).map(|text: &str| text.trim_matches([' ', '\0']).to_owned());
    text(tags::AFFECTED_SOP_INSTANCE_UID)
        .or_else(|| text(tags::REQUESTED_SOP_INSTANCE_UID))
        .filter(|text| !text.is_empty())
}

fn uid(answer: &Answer) -> Result<Uid, Status> {
    let text = answer.instance.as_deref().unwrap_or_default();
    Uid::parse(text).map_err(|error| Status::new(status::INVALID_INSTANCE, format!("SOP Instance UID: {error}")))
}

async fn create(steps: &PerformedSteps, answer: &mut Answer, set: Result<DataSet, Status>) -> Result<(), Status> {
    // Who names no instance leaves it to us (PS3.7 §10.1.5.1.4).
    answer.instance.get_or_insert_with(PerformedSteps::new_uid);
    steps.create(&uid(answer)?, set?).await.map_err(|error| refused(&error))
}

async fn set_step(steps: &PerformedSteps, answer: &Answer, set: Result<DataSet, Status>) -> Result<(), Status> {
    steps.set(&uid(answer)?, &set?).await.map_err(|error| refused(&error))
}

/// The attributes of (0000,1005), or all.
async fn get(steps: &PerformedSteps, request: &DataSet, answer: &mut Answer) -> Result<(), Status> {
    let found = steps.get(&uid(answer)?).await.map_err(|error| refused(&error.into()))?;
    let step = found.ok_or_else(|| refused(&StepError::Unknown))?;
    let asked: &[Tag] = match request.get(tags::ATTRIBUTE_IDENTIFIER_LIST).map(|element| &element.value) {
        Some(Value::Tags(tags)) => tags,
        _ => &[],
    };
    let wanted = |element: &&Element| asked.is_empty() || asked.contains(&element.tag);
    answer.set = Some(step.iter().filter(wanted).cloned().collect());
    Ok(())
}

fn refused(error: &StepError) -> Status {
    let said = error.to_string();
    match error {
        StepError::Duplicate => Status::new(status::DUPLICATE_INSTANCE, said),
        StepError::Unknown => Status::new(status::NO_SUCH_INSTANCE, said),
        StepError::Final => Status::new(status::PROCESSING_FAILURE, said),
        StepError::Missing(tag) => Status::new(status::MISSING_ATTRIBUTE, said).naming(*tag),
        StepError::Value { tag, .. } => Status::new(status::INVALID_ATTRIBUTE, said).naming(*tag),
        StepError::Document(DocumentError::Record(RecordError::Store(error))) => {
            Status { code: status::RESOURCE_LIMITATION, ..Status::from(error) }
        }
        StepError::Document(DocumentError::Record(RecordError::Query(error))) => {
            Status { code: status::RESOURCE_LIMITATION, ..Status::from(error) }
        }
        StepError::Document(_) => Status::new(status::RESOURCE_LIMITATION, said),
    }
}
