//! Storage commitment, push model, as provider (PS3.4 Annex J): N-ACTION is recorded and answered at once; the report comes
//! over the same association if that is still open when the result is there, else over a new one, on which we take the
//! provider's role by role selection (PS3.7 D.3.3.4).

use crate::{
    association::{Association, Deadlines, Ended, Received},
    command::{self, field},
    find,
    provider::Peer,
    scu::{Proposal, Requestor, ScuError},
    status::{self, Status},
};
use archive_model::{
    AeTitle, DataSet, EXPLICIT_LE, IMPLICIT_LE, VR,
    sop_class::{STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE},
    tags, transfer_syntax, write_data_set,
};
use archive_service::{
    Archive, BoxFuture, RemoteAe,
    commitment::{self, Asked, OpenCommitments, Report, Reporter, Requester},
};
use std::time::Duration;

/// Bytes of a request's data set, at most: about 35,000 instances.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Action Type ID: Request Storage Commitment (PS3.4 J.3.2).
const REQUEST: u16 = 1;

/// Records what an N-ACTION-RQ asks for; answers its status.
pub(crate) async fn ask(
    association: &mut Association,
    archive: &Archive,
    peer: &Peer,
    context: u8,
    request: &DataSet,
    data: bool,
    open: &mut OpenCommitments,
) -> Result<Status, Ended> {
    let asked_for = |tag| request.text(tag).unwrap_or_default().trim_matches([' ', '\0']).to_owned();
    let wrong = if asked_for(tags::REQUESTED_SOP_CLASS_UID) != STORAGE_COMMITMENT {
        let status = Status::new(status::NO_SUCH_CLASS, "the class is not that of the presentation context");
        Some(status.naming(tags::REQUESTED_SOP_CLASS_UID))
    } else if asked_for(tags::REQUESTED_SOP_INSTANCE_UID) != STORAGE_COMMITMENT_INSTANCE {
        let status = Status::new(status::NO_SUCH_INSTANCE, "not the well-known instance of storage commitment");
        Some(status.naming(tags::REQUESTED_SOP_INSTANCE_UID))
    } else if command::type_id(request, tags::ACTION_TYPE_ID) != Some(REQUEST) {
        Some(Status::new(status::NO_SUCH_ACTION, "the one action is 1").naming(tags::ACTION_TYPE_ID))
    } else if !data {
        let status =
            Status::new(status::INVALID_ARGUMENT, "there is no data set: (0008,1195) and (0008,1199) are missing");
        Some(status.naming(tags::TRANSACTION_UID))
    } else {
        None
    };
    if let Some(status) = wrong {
        if data {
            association.drain_data().await?;
        }
        return Ok(status);
    }
    let set = match find::data_set(association, context, REQUEST_BYTES_MAX).await? {
        Ok(set) => set,
        Err(status) if status.code == status::MISMATCH => {
            return Ok(Status { code: status::RESOURCE_LIMITATION, ..status });
        }
        Err(status) => return Ok(Status { code: status::PROCESSING_FAILURE, ..status }),
    };
    let parts =
        commitment::transaction_uid(&set).and_then(|transaction| Ok((transaction, commitment::references(&set)?)));
    let (transaction, wanted) = match parts {
        Ok(parts) => parts,
        Err(error) => return Ok(Status::from(&error)),
    };
    let requester = Requester::Application { ae_title: peer.calling.clone() };
    let instances = wanted.len();
    match archive.request_commitment(&transaction, wanted, requester).await {
        Ok(asked) => {
            tracing::info!(%transaction, instances, "storage commitment is asked for");
            open.add(asked);
            Ok(Status::new(status::SUCCESS, ""))
        }
        Err(error) => {
            tracing::info!(%transaction, %error, "a request for storage commitment was not recorded");
            Ok(Status::from(&error))
        }
    }
}

/// Sends a report over the association that asked; answers the number of its message.
pub(crate) async fn send_report(
    association: &mut Association,
    archive: &Archive,
    report: &Report,
) -> Result<u16, Ended> {
    let context = association.contexts.iter().find(|(_, own)| own.abstract_syntax == STORAGE_COMMITMENT);
    let Some((context, syntax)) = context.map(|(id, own)| (*id, own.transfer_syntax.clone())) else {
        return Err(Ended::Broken("a report without a context for it".into()));
    };
    send(association, context, &syntax, archive.ae_title(), report).await
}

async fn send(
    association: &mut Association,
    context: u8,
    syntax: &str,
    retrieve_ae: &AeTitle,
    report: &Report,
) -> Result<u16, Ended> {
    let mut set = report.data_set(retrieve_ae.as_str());
    set.put_text(tags::TRANSACTION_UID, VR::UI, report.transaction.clone());
    let id = association.message_id();
    let event = report.event_type();
    let request = command::event_report_request(id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, event);
    let bytes = write_data_set(&set, transfer_syntax(syntax).encoding);
    association.send(context, &request, Some(&bytes)).await?;
    Ok(id)
}

/// Whether this is the answer to the report that waits for one: whose, whether it was a success, and whether a data set
/// follows. Everything else comes back.
pub(crate) fn answered(
    received: Received,
    awaited: &mut Option<(u16, Asked)>,
) -> Result<(Asked, bool, bool), Received> {
    if let Received::Command { set, data, .. } = &received
        && command::command_field(set) == Some(field::EVENT_REPORT_RQ | field::RESPONSE)
        && let Some((id, asked)) = awaited.take_if(|(id, _)| command::responded_id(set) == Some(*id))
    {
        let status = command::status_code(set);
        if status != Some(status::SUCCESS) {
            tracing::info!(id, status = format!("{:04x}", status.unwrap_or(0)), "a report was not taken");
        }
        return Ok((asked, status == Some(status::SUCCESS), *data));
    }
    Err(received)
}

/// Sends reports over new associations.
#[derive(Debug, Clone)]
pub struct CommitmentReporter {
    ae_title: AeTitle,
}

impl CommitmentReporter {
    /// One that calls as `ae_title`, which is also where the instances may be retrieved.
    #[must_use]
    pub fn new(ae_title: AeTitle) -> Self {
        Self { ae_title }
    }

    async fn over_a_new_association(&self, to: &RemoteAe, report: &Report) -> Result<(), ScuError> {
        let within = Duration::from_secs(30);
        let deadlines = Deadlines { artim: Duration::from_secs(10), progress: within, idle: within };
        let proposal = Proposal { provider: true, ..Proposal::new(STORAGE_COMMITMENT, &[EXPLICIT_LE, IMPLICIT_LE]) };
        let mut requestor = Requestor::connect(&to.address, &self.ae_title, &to.title, &[proposal], deadlines).await?;
        let sent = self.send(&mut requestor, report).await;
        match &sent {
            Ok(()) | Err(ScuError::Status { .. } | ScuError::NotAccepted { .. }) => requestor.release().await,
            Err(_) => requestor.abort().await,
        }
        sent
    }

    async fn send(&self, requestor: &mut Requestor, report: &Report) -> Result<(), ScuError> {
        let found = requestor.syntaxes_of(STORAGE_COMMITMENT).next().map(|(id, syntax)| (id, syntax.to_owned()));
        let Some((context, syntax)) = found else {
            return Err(ScuError::NotAccepted { what: "storage commitment with us as its provider".into() });
        };
        let id = send(&mut requestor.association, context, &syntax, &self.ae_title, report).await?;
        match requestor.association.next().await? {
            Received::Command { set, data, .. }
                if command::command_field(&set) == Some(field::EVENT_REPORT_RQ | field::RESPONSE)
                    && command::responded_id(&set) == Some(id) =>
            {
                if data {
                    requestor.association.drain_data().await?;
                }
                match command::status_code(&set) {
                    Some(status::SUCCESS) => Ok(()),
                    status => {
                        let comment = set.text(tags::ERROR_COMMENT).unwrap_or("no comment").to_owned();
                        Err(ScuError::Status { status: status.unwrap_or(status::PROCESSING_FAILURE), comment })
                    }
                }
            }
            Received::Command { .. } | Received::Data { .. } | Received::Released => {
                Err(Ended::Broken("the answer to a report was expected".into()).into())
            }
        }
    }
}

impl Reporter for CommitmentReporter {
    fn report<'a>(&'a self, to: &'a RemoteAe, report: &'a Report) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.over_a_new_association(to, report).await.map_err(|error| error.to_string()) })
    }
}
