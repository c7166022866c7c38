//! The user side: what C-MOVE's sub-operations and the command line need.

use crate::{
    association::{Association, Deadlines, Ended, Received},
    command::{self, field},
};
use archive_model::{
    AeTitle, DataSet, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Limits, read_data_set, transfer_syntax,
    write_data_set,
};
use archive_upper_layer::{
    End, Event,
    frame::{Frame, PDU_BYTES_MAX},
    negotiate::{APPLICATION_CONTEXT, Context, Extended, ITEM_ASYNC_WINDOW},
    pdu::{
        AssociationRQ, Pdu, PresentationContextProposed, PresentationContextResultReason, RequestorRoles,
        UserVariableItem,
    },
};
use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};
use tokio::{net::TcpStream, time::timeout};

pub use archive_upper_layer::negotiate::CONTEXTS_MAX;

/// One presentation context to propose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposal {
    /// SOP class.
    pub class: String,
    /// Transfer syntaxes, in order of preference.
    pub syntaxes: Vec<String>,
    /// Whether we offer to be the provider: to receive objects by C-GET.
    pub provider: bool,
}

impl Proposal {
    /// A class that we use.
    #[must_use]
    pub fn new(class: &str, syntaxes: &[&str]) -> Self {
        let syntaxes = syntaxes.iter().map(|syntax| (*syntax).to_owned()).collect();
        Self { class: class.to_owned(), syntaxes, provider: false }
    }
}

/// Why there is no association, or an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// Nobody listens there.
    #[error("no connection to {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why not.
        why: String,
    },
    /// The peer said no.
    #[error("the association was rejected ({result}): {reason}")]
    Rejected {
        /// For good, or for now.
        result: &'static str,
        /// Its reason.
        reason: String,
    },
    /// No context for what was asked.
    #[error("the peer does not accept {what}")]
    NotAccepted {
        /// Class and transfer syntax.
        what: String,
    },
    /// The association ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The peer answered with a failure.
    #[error("the peer answered status {status:04X}: {comment}")]
    Status {
        /// Its status.
        status: u16,
        /// Its comment.
        comment: String,
    },
}

/// An answer to C-FIND, or an object of C-GET.
#[derive(Debug)]
pub enum GetEvent {
    /// An object begins: its class, instance and transfer syntax.
    Begin {
        /// SOP class.
        class: String,
        /// SOP instance.
        instance: String,
        /// Transfer syntax of its bytes.
        syntax: String,
    },
    /// Bytes of its data set.
    Piece(Bytes),
    /// It is complete.
    End,
    /// How many sub-operations remain and have failed.
    Progress {
        /// Still to come, if the peer said so.
        remaining: Option<u64>,
        /// Failed so far.
        failed: u64,
    },
}

/// An association that we asked for.
pub struct Requestor {
    pub(crate) association: Association,
    /// Operations that the peer has agreed to have under way at a time.
    pub(crate) operations_max: u16,
}

impl Requestor {
    /// Connects and negotiates; contexts that the peer refuses are left out.
    ///
    /// # Errors
    /// Unreachable, or rejected.
    pub async fn connect(
        address: &str,
        calling: &AeTitle,
        called: &AeTitle,
        proposals: &[Proposal],
        deadlines: Deadlines,
    ) -> Result<Self, ScuError> {
        Self::ask(address, request(calling, called, proposals), proposals, deadlines).await
    }

    /// The same, asking to have up to `ahead` operations under way at a time (PS3.7 D.3.3.3).
    pub(crate) async fn connect_ahead(
        address: &str,
        calling: &AeTitle,
        called: &AeTitle,
        proposals: &[Proposal],
        deadlines: Deadlines,
        ahead: u16,
    ) -> Result<Self, ScuError> {
        let mut request = request(calling, called, proposals);
        if ahead > 1 {
            let [high, low] = ahead.to_be_bytes();
            // The peer asks for nothing: it performs, and we invoke.
            request.user_variables.push(UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, vec![high, low, 0, 1]));
        }
        Self::ask(address, request, proposals, deadlines).await
    }

    /// Connects with a request that is made already.
    pub(crate) async fn ask(
        address: &str,
        request: AssociationRQ,
        proposals: &[Proposal],
        deadlines: Deadlines,
    ) -> Result<Self, ScuError> {
        let asked_for = operations(&request.user_variables);
        let unreachable = |why: String| ScuError::Unreachable { address: address.to_owned(), why };
        let stream = match timeout(deadlines.artim.min(Duration::from_secs(10)), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("it did not answer in time".into())),
        };
        let mut association =
            Association::over(stream, End::Requestor, deadlines).map_err(|error| unreachable(error.to_string()))?;
        association.event(Event::AssociateRequest);
        association.event(Event::TransportConfirm);
        association.write_pdu(&Pdu::AssociationRQ(request)).await?;
        let first = match timeout(deadlines.artim, association.frame()).await {
            Ok(first) => first?,
            Err(_) => {
                association.abort().await;
                return Err(Ended::Silent(deadlines.artim).into());
            }
        };
        match first {
            Frame::Other(Pdu::AssociationAC(answer)) => {
                association.event(Event::AssociateAcPdu);
                association.pdu_bytes_max = answer
                    .user_variables
                    .iter()
                    .find_map(|item| match item {
                        UserVariableItem::MaxLength(length) => Some(*length),
                        _ => None,
                    })
                    .unwrap_or(16 << 10);
                association.contexts = agreed(proposals, &answer.presentation_contexts);
                let operations_max = match (asked_for, operations(&answer.user_variables)) {
                    (Some(asked), Some(0)) => asked, // as many as one likes
                    (Some(asked), Some(granted)) => granted.min(asked),
                    // Who does not answer grants none but the usual one.
                    (_, None) | (None, Some(_)) => 1,
                };
                Ok(Self { association, operations_max })
            }
            Frame::Other(Pdu::AssociationRJ(rejection)) => {
                association.event(Event::AssociateRjPdu);
                let result = match rejection.result {
                    archive_upper_layer::pdu::AssociationRJResult::Permanent => "for good",
                    archive_upper_layer::pdu::AssociationRJResult::Transient => "for now",
                };
                Err(ScuError::Rejected { result, reason: format!("{:?}", rejection.source) })
            }
            Frame::Other(Pdu::AbortRQ { .. }) => {
                association.event(Event::AbortPdu);
                Err(Ended::Aborted.into())
            }
            frame @ (Frame::Data(_) | Frame::Other(_)) => Err(association.out_of_place(&frame).await.into()),
        }
    }

    /// The context in which objects of `class` go in `syntax`.
    #[must_use]
    pub fn context(&self, class: &str, syntax: &str) -> Option<u8> {
        self.association
            .contexts
            .iter()
            .find(|(_, context)| context.abstract_syntax == class && context.transfer_syntax == syntax)
            .map(|(id, _)| *id)
    }

    /// All accepted transfer syntaxes of `class`.
    pub fn syntaxes_of<'a>(&'a self, class: &'a str) -> impl Iterator<Item = (u8, &'a str)> {
        self.association
            .contexts
            .iter()
            .filter(move |(_, context)| context.abstract_syntax == class)
            .map(|(id, context)| (*id, context.transfer_syntax.as_str()))
    }

    fn any(&self, class: &str) -> Result<u8, ScuError> {
        let found = self.syntaxes_of(class).next().map(|(id, _)| id);
        found.ok_or_else(|| ScuError::NotAccepted { what: class.to_owned() })
    }

    /// C-ECHO.
    ///
    /// # Errors
    /// When the peer does not answer with success.
    pub async fn echo(&mut self) -> Result<(), ScuError> {
        let context = self.any(archive_model::sop_class::VERIFICATION)?;
        let id = self.association.message_id();
        self.association.send(context, &command::echo_request(id), None).await?;
        self.answer().await.and_then(|set| success(&set))
    }

    /// Begins C-STORE in an agreed context.
    ///
    /// # Errors
    /// When the association ends.
    pub async fn store_begin(
        &mut self,
        context: u8,
        class: &str,
        instance: &str,
        originator: Option<(&str, u16)>,
    ) -> Result<(), ScuError> {
        let id = self.association.message_id();
        let set = command::store_request(id, class, instance, originator);
        Ok(self.association.send_begin(context, &set).await?)
    }

    /// The next bytes of the object.
    ///
    /// # Errors
    /// When the association ends.
    pub async fn store_piece(&mut self, context: u8, piece: &[u8], last: bool) -> Result<(), ScuError> {
        Ok(self.association.send_piece(context, piece, last).await?)
    }

    /// The answer to an object: to which message, if it says so, and the status.
    pub(crate) async fn store_answer(&mut self) -> Result<(Option<u16>, u16), ScuError> {
        let set = self.answer().await?;
        if command::command_field(&set) != Some(field::STORE_RQ | field::RESPONSE) {
            return Err(unexpected());
        }
        Ok((command::responded_id(&set), command::status_code(&set).unwrap_or(0x0110)))
    }

    /// The status and comment of the object that was sent.
    ///
    /// # Errors
    /// When the association ends.
    pub async fn store_end(&mut self) -> Result<(u16, String), ScuError> {
        let set = self.answer().await?;
        if command::command_field(&set) != Some(field::STORE_RQ | field::RESPONSE) {
            return Err(unexpected());
        }
        let comment = set.text(archive_model::tags::ERROR_COMMENT).unwrap_or_default().to_owned();
        Ok((command::status_code(&set).unwrap_or(0x0110), comment))
    }

    /// C-FIND: `each` takes every answer.
    ///
    /// # Errors
    /// When the peer ends with a failure.
    pub async fn find(
        &mut self,
        class: &str,
        identifier: &DataSet,
        mut each: impl FnMut(DataSet),
    ) -> Result<(), ScuError> {
        let context = self.any(class)?;
        let id = self.association.message_id();
        let bytes = self.identifier(context, identifier);
        self.association.send(context, &command::query_request(field::FIND_RQ, id, class), Some(&bytes)).await?;
        loop {
            match self.association.next().await? {
                Received::Command { set, data, .. } => {
                    if data {
                        let answer = self.data_set(context).await?;
                        if command::status_code(&set).is_some_and(pending) {
                            each(answer);
                        }
                    }
                    if !command::status_code(&set).is_some_and(pending) {
                        return success(&set);
                    }
                }
                Received::Data { .. } | Received::Released => return Err(unexpected()),
            }
        }
    }

    /// C-GET: `each` takes the objects piece by piece and answers the status of each at its end.
    ///
    /// # Errors
    /// When the peer ends with a failure, or objects failed.
    pub async fn get(
        &mut self,
        class: &str,
        identifier: &DataSet,
        mut each: impl AsyncFnMut(GetEvent) -> u16,
    ) -> Result<(), ScuError> {
        let context = self.any(class)?;
        let id = self.association.message_id();
        let bytes = self.identifier(context, identifier);
        self.association.send(context, &command::query_request(field::GET_RQ, id, class), Some(&bytes)).await?;
        loop {
            match self.association.next().await? {
                Received::Command { context, set, data }
                    if command::command_field(&set) == Some(field::STORE_RQ) && data =>
                {
                    self.receive(context, &set, &mut each).await?;
                }
                Received::Command { set, data, .. } => {
                    if data {
                        self.association.drain_data().await?;
                    }
                    let number = |tag| set.integer(tag).and_then(|value| u64::try_from(value).ok());
                    let remaining = number(archive_model::tags::NUMBER_OF_REMAINING_SUBOPERATIONS);
                    let failed = number(archive_model::tags::NUMBER_OF_FAILED_SUBOPERATIONS).unwrap_or(0);
                    each(GetEvent::Progress { remaining, failed }).await;
                    if !command::status_code(&set).is_some_and(pending) {
                        return success(&set);
                    }
                }
                Received::Data { .. } | Received::Released => return Err(unexpected()),
            }
        }
    }

    /// C-MOVE to `destination`: `each` takes what remains and what has failed, after every response.
    ///
    /// # Errors
    /// When the peer ends with a failure, or objects failed.
    pub async fn move_to(
        &mut self,
        class: &str,
        identifier: &DataSet,
        destination: &AeTitle,
        mut each: impl FnMut(Option<u64>, u64),
    ) -> Result<(), ScuError> {
        let context = self.any(class)?;
        let id = self.association.message_id();
        let bytes = self.identifier(context, identifier);
        self.association.send(context, &command::move_request(id, class, destination), Some(&bytes)).await?;
        loop {
            match self.association.next().await? {
                Received::Command { set, data, .. } => {
                    if data {
                        self.association.drain_data().await?;
                    }
                    let number = |tag| set.integer(tag).and_then(|value| u64::try_from(value).ok());
                    each(
                        number(archive_model::tags::NUMBER_OF_REMAINING_SUBOPERATIONS),
                        number(archive_model::tags::NUMBER_OF_FAILED_SUBOPERATIONS).unwrap_or(0),
                    );
                    if !command::status_code(&set).is_some_and(pending) {
                        return success(&set);
                    }
                }
                Received::Data { .. } | Received::Released => return Err(unexpected()),
            }
        }
    }

    async fn receive(
        &mut self,
        context: u8,
        set: &DataSet,
        each: &mut impl AsyncFnMut(GetEvent) -> u16,
    ) -> Result<(), ScuError> {
        let text = |tag| set.text(tag).unwrap_or_default().to_owned();
        let syntax = self.association.contexts.get(&context).map(|own| own.transfer_syntax.clone()).unwrap_or_default();
        each(GetEvent::Begin {
            class: text(archive_model::tags::AFFECTED_SOP_CLASS_UID),
            instance: text(archive_model::tags::AFFECTED_SOP_INSTANCE_UID),
            syntax,
        })
        .await;
        loop {
            match self.association.next().await? {
                Received::Data { bytes, last } => {
                    each(GetEvent::Piece(bytes)).await;
                    if last {
                        break;
                    }
                }
                Received::Command { .. } | Received::Released => return Err(unexpected()),
            }
        }
        let status = each(GetEvent::End).await;
        let response = command::response(set, &crate::status::Status::new(status, ""), false);
        Ok(self.association.send(context, &response, None).await?)
    }

    /// Releases in order. A peer that does not answer within ARTIM is hung up on.
    pub async fn release(mut self) {
        self.association.event(Event::ReleaseRequest);
        let within = self.association.deadlines().artim;
        let released = async {
            self.association.write_pdu(&Pdu::ReleaseRQ).await?;
            loop {
                if let Received::Released = self.association.next().await? {
                    return Ok::<_, Ended>(());
                }
            }
        };
        match timeout(within, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the association did not end in order"),
            Err(_) => {
                tracing::info!(?within, "a release was not answered");
                self.association.abort().await;
            }
        }
        self.association.close().await;
    }

    /// Ends the association at once.
    pub async fn abort(mut self) {
        self.association.abort().await;
        self.association.close().await;
    }

    async fn answer(&mut self) -> Result<DataSet, ScuError> {
        match self.association.next().await? {
            Received::Command { set, data: false, .. } => Ok(set),
            Received::Command { .. } | Received::Data { .. } | Received::Released => Err(unexpected()),
        }
    }

    fn identifier(&self, context: u8, identifier: &DataSet) -> Vec<u8> {
        let syntax = self.association.contexts.get(&context).map(|context| context.transfer_syntax.as_str());
        write_data_set(identifier, transfer_syntax(syntax.unwrap_or_default()).encoding)
    }

    async fn data_set(&mut self, context: u8) -> Result<DataSet, ScuError> {
        let bytes = self.association.small_data(16 << 20).await?.unwrap_or_default();
        let syntax = self.association.contexts.get(&context).map(|own| own.transfer_syntax.clone()).unwrap_or_default();
        read_data_set(&bytes, &transfer_syntax(&syntax), &Limits::default())
            .map_err(|error| Ended::Broken(error.to_string()).into())
    }
}

fn pending(status: u16) -> bool {
    status & 0xFF00 == 0xFF00
}

fn unexpected() -> ScuError {
    Ended::Broken("another message was expected".into()).into()
}

fn success(set: &DataSet) -> Result<(), ScuError> {
    let status = command::status_code(set).unwrap_or(0x0110);
    if status == 0 {
        return Ok(());
    }
    let comment = set.text(archive_model::tags::ERROR_COMMENT).unwrap_or("no comment").to_owned();
    Err(ScuError::Status { status, comment })
}

pub(crate) fn request(calling: &AeTitle, called: &AeTitle, proposals: &[Proposal]) -> AssociationRQ {
    let mut user_variables = vec![
        UserVariableItem::MaxLength(PDU_BYTES_MAX),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.into()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.into()),
    ];
    let mut named = std::collections::BTreeSet::new();
    for proposal in proposals.iter().filter(|proposal| proposal.provider) {
        if named.insert(&proposal.class) {
            let roles = RequestorRoles { scu: false, scp: true };
            user_variables.push(UserVariableItem::ScuScpRoleSelectionSubItem(proposal.class.clone(), roles));
        }
    }
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: calling.as_str().into(),
        called_ae_title: called.as_str().into(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: proposals
            .iter()
            .take(CONTEXTS_MAX)
            .enumerate()
            .map(|(number, proposal)| PresentationContextProposed {
                id: (number * 2 + 1) as u8,
                abstract_syntax: proposal.class.clone(),
                transfer_syntaxes: proposal.syntaxes.clone(),
            })
            .collect(),
        user_variables,
    }
}

/// Operations that may be invoked, as an asynchronous operations window says it.
fn operations(items: &[UserVariableItem]) -> Option<u16> {
    items.iter().find_map(|item| match item {
        UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, window) => {
            window.first_chunk::<2>().map(|invoked| u16::from_be_bytes(*invoked))
        }
        _ => None,
    })
}

fn agreed(
    proposals: &[Proposal],
    results: &[archive_upper_layer::pdu::PresentationContextResult],
) -> BTreeMap<u8, Context> {
    results
        .iter()
        .filter(|result| result.reason == PresentationContextResultReason::Acceptance)
        .filter_map(|result| {
            let proposal = proposals.get(usize::from(result.id) / 2)?;
            let context = Context {
                abstract_syntax: proposal.class.clone(),
                transfer_syntax: result.transfer_syntax.trim_end_matches(['\0', ' ']).to_owned(),
                we_request: !proposal.provider,
                extended: Extended::default(),
            };
            Some((result.id, context))
        })
        .collect()
}
