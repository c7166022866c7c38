//! Instance Availability Notification as user (PS3.4 Annex R): one N-CREATE over an association of its own.

use crate::{
    association::{Deadlines, Ended, Received},
    command::{self, field},
    scu::{Proposal, Requestor, ScuError},
    status,
};
use archive_model::{
    AeTitle, EXPLICIT_LE, IMPLICIT_LE, sop_class::AVAILABILITY_NOTIFICATION, tags, transfer_syntax, write_data_set,
};
use archive_service::{
    BoxFuture, RemoteAe,
    availability::{Notification, Notifier},
};
use std::time::Duration;

/// Sends notifications over new associations.
#[derive(Debug, Clone)]
pub struct AvailabilityNotifier {
    ae_title: AeTitle,
}

impl AvailabilityNotifier {
    /// One that calls as `ae_title`.
    #[must_use]
    pub fn new(ae_title: AeTitle) -> Self {
        Self { ae_title }
    }

    async fn over_a_new_association(&self, to: &RemoteAe, notification: &Notification) -> Result<(), ScuError> {
        let within = Duration::from_secs(30);
        let deadlines = Deadlines { artim: Duration::from_secs(10), progress: within, idle: within };
        let proposal = Proposal::new(AVAILABILITY_NOTIFICATION, &[EXPLICIT_LE, IMPLICIT_LE]);
        let mut requestor = Requestor::connect(&to.address, &self.ae_title, &to.title, &[proposal], deadlines).await?;
        let sent = send(&mut requestor, notification).await;
        match &sent {
            Ok(()) | Err(ScuError::Status { .. } | ScuError::NotAccepted { .. }) => requestor.release().await,
            Err(_) => requestor.abort().await,
        }
        sent
    }
}

async fn send(requestor: &mut Requestor, notification: &Notification) -> Result<(), ScuError> {
    let found = requestor.syntaxes_of(AVAILABILITY_NOTIFICATION).next().map(|(id, syntax)| (id, syntax.to_owned()));
    let Some((context, syntax)) = found else {
        return Err(ScuError::NotAccepted { what: "Instance Availability Notification".into() });
    };
    let id = requestor.association.message_id();
    let request = command::create_request(id, AVAILABILITY_NOTIFICATION, &notification.instance);
    let bytes = write_data_set(&notification.data_set, transfer_syntax(&syntax).encoding);
    requestor.association.send(context, &request, Some(&bytes)).await?;
    match requestor.association.next().await? {
        Received::Command { set, data, .. }
            if command::command_field(&set) == Some(field::N_CREATE_RQ | field::RESPONSE)
                && command::responded_id(&set) == Some(id) =>
        {
            if data {
                requestor.association.drain_data().await?;
            }
            match command::status_code(&set) {
                // Told before, and the answer was lost: it is the same notification.
                Some(status::SUCCESS | status::DUPLICATE_INSTANCE) => Ok(()),
                status => {
                    let comment = set.text(tags::ERROR_COMMENT).unwrap_or("no comment").to_owned();
                    Err(ScuError::Status { status: status.unwrap_or(status::PROCESSING_FAILURE), comment })
                }
            }
        }
        Received::Command { .. } | Received::Data { .. } | Received::Released => {
            Err(Ended::Broken("the answer to a notification was expected".into()).into())
        }
    }
}

impl Notifier for AvailabilityNotifier {
    fn notify<'a>(&'a self, to: &'a RemoteAe, notification: &'a Notification) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.over_a_new_association(to, notification).await.map_err(|error| error.to_string()) })
    }
}
