//! What an acceptor answers to A-ASSOCIATE-RQ: pure functions on dicom-ul's PDUs.
//!
//! Each presentation context is answered alone (PS3.8 §9.3.3.2): 0 accepted, 1 the caller may not, 3 abstract syntax,
//! 4 transfer syntaxes.
//! Among the transfer syntaxes of one context the requestor's order counts, but that retired and implicit ones come last.

use archive_model::{
    AeTitle, EXPLICIT_BE, EXPLICIT_LE, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, IMPLICIT_LE, Uid,
    is_storage, may_be_storage, sop_class,
};
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason, AssociationRJSource, AssociationRQ,
    PresentationContextProposed, PresentationContextResult, PresentationContextResultReason, RequestorRoles,
    UserVariableItem,
};
use std::collections::{BTreeMap, BTreeSet};

/// DICOM's one application context (PS3.7 A.2.1).
pub const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Presentation contexts of a request, at most: their ids are the odd numbers of a byte.
pub const CONTEXTS_MAX: usize = 128;
/// Asynchronous operations window (PS3.7 D.3.3.3).
pub const ITEM_ASYNC_WINDOW: u8 = 0x53;
/// Operations at a time that a requestor is granted at most: enough to hide that a disk is waited for, and a bound on what
/// one association can have under way (unlimited windows made receivers run out of memory).
pub const OPERATIONS_MAX: u16 = 8;
/// User identity, the server's response (PS3.7 D.3.3.7.2).
const ITEM_USER_IDENTITY_RESPONSE: u8 = 0x59;
/// Storage Commitment Push Model (PS3.4 Annex J).
const COMMITMENT: &str = "1.2.840.10008.1.20.1";

/// What a context is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// C-ECHO.
    Echo,
    /// C-STORE to us.
    Store,
    /// C-FIND.
    Find,
    /// C-MOVE.
    Move,
    /// C-GET, and the contexts in which objects come back.
    Get,
    /// Storage commitment.
    Commit,
}

/// Whether whoever calls may do so at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It may.
    Yes,
    /// It may not (1, 1, 3).
    No,
    /// That is not known yet: it is to try again.
    NotYet,
}

/// A context that both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// SOP class.
    pub abstract_syntax: String,
    /// Transfer syntax.
    pub transfer_syntax: String,
    /// Whether we may send requests in it (the requestor takes the SCP role).
    pub we_request: bool,
    /// What was negotiated of its queries.
    pub extended: Extended,
}

/// Service-class-application-information of query and retrieve (PS3.4 tables C.5-1 to C.5-3), as both ends agreed on it.
///
/// ```text
///   byte       1           2          3      4         5             6             7
///   C-FIND     relational  date-time  fuzzy  timezone  multi-frame   empty value   multiple value
///   we do      yes         yes        yes    yes       no            yes           yes
///   C-MOVE,    relational  multi-frame
///   C-GET      yes         no
/// ```
///
/// An answer has as many bytes as the request; what a byte means that we do not know, we do not do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extended {
    /// Queries may skip unique keys of upper levels.
    pub relational: bool,
    /// Ranges of a date and of its time are one range.
    pub date_time: bool,
    /// Person names match by sound.
    pub fuzzy: bool,
    /// Dates and times are in the zone that the query names.
    pub timezone: bool,
    /// `""` asks for what has no value.
    pub empty_values: bool,
    /// Each of several values of a key must be found.
    pub all_values: bool,
}

impl Extended {
    /// What is done of what a requestor proposes for `class`.
    fn of(class: &str, proposed: &[u8]) -> Self {
        let asked = |byte: usize| proposed.get(byte - 1) == Some(&1);
        let find = |byte: usize| is_query(class) && asked(byte);
        Self {
            relational: (is_query(class) || is_move(class) || is_get(class)) && asked(1),
            date_time: find(2),
            fuzzy: find(3),
            timezone: find(4),
            empty_values: find(6),
            all_values: find(7),
        }
    }

    /// The answer to a proposal of `length_bytes`.
    fn answer(self, length_bytes: usize) -> Vec<u8> {
        let Self { relational, date_time, fuzzy, timezone, empty_values, all_values } = self;
        let bytes = [relational, date_time, fuzzy, timezone, false, empty_values, all_values].map(u8::from);
        bytes.into_iter().chain(std::iter::repeat(0)).take(length_bytes).collect()
    }
}

/// What the acceptor can do now.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// Our title.
    pub ae_title: AeTitle,
    /// Whether requests that are addressed to another title are taken too.
    pub any_called_title: bool,
    /// Associations beyond the limit are rejected for now.
    pub full: bool,
    /// Why stores cannot succeed now, if they cannot.
    pub no_stores: bool,
    /// This node is stopping.
    pub stopping: bool,
    /// Whether the caller may associate.
    pub admitted: Admitted,
    /// What the caller may not ask for: contexts that are for nothing else are refused.
    pub denied: BTreeSet<Service>,
    /// Whether storage classes that are not known here are refused.
    pub known_classes_only: bool,
}

impl Acceptor {
    /// One that takes everybody for everything.
    #[must_use]
    pub fn new(ae_title: AeTitle) -> Self {
        Self {
            ae_title,
            any_called_title: false,
            full: false,
            no_stores: false,
            stopping: false,
            admitted: Admitted::Yes,
            denied: BTreeSet::new(),
            known_classes_only: false,
        }
    }
}

/// An agreed association.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// The answer to send.
    pub answer: AssociationAC,
    /// Contexts by id.
    pub contexts: BTreeMap<u8, Context>,
    /// Calling AE title, as sent.
    pub calling: String,
    /// Called AE title, as sent.
    pub called: String,
    /// Longest PDU that the peer takes; 0 is no limit.
    pub pdu_bytes_max: u32,
    /// Operations that the requestor may have under way at the same time (PS3.7 D.3.3.3); 1 unless it asked for more.
    pub operations_max: u16,
}

/// The answer to a request.
///
/// # Errors
/// The rejection to send.
pub fn answer(request: &AssociationRQ, acceptor: &Acceptor, announced_bytes: u32) -> Result<Agreed, AssociationRJ> {
    use AssociationRJResult::{Permanent, Transient};
    if request.protocol_version & 1 == 0 {
        let reason = AssociationRJServiceProviderASCEReason::ProtocolVersionNotSupported;
        return Err(AssociationRJ { result: Permanent, source: AssociationRJSource::ServiceProviderASCE(reason) });
    }
    let user = |reason| AssociationRJ { result: Permanent, source: AssociationRJSource::ServiceUser(reason) };
    if request.application_context_name.trim_end_matches(['\0', ' ']) != APPLICATION_CONTEXT {
        return Err(user(AssociationRJServiceUserReason::ApplicationContextNameNotSupported));
    }
    let called = request.called_ae_title.trim_matches(['\0', ' ']);
    if !acceptor.any_called_title && called != acceptor.ae_title.as_str() {
        return Err(user(AssociationRJServiceUserReason::CalledAETitleNotRecognized));
    }
    if AeTitle::parse(&request.calling_ae_title).is_err() || acceptor.admitted == Admitted::No {
        return Err(user(AssociationRJServiceUserReason::CallingAETitleNotRecognized));
    }
    let later =
        |reason| AssociationRJ { result: Transient, source: AssociationRJSource::ServiceProviderPresentation(reason) };
    if acceptor.full {
        return Err(later(AssociationRJServiceProviderPresentationReason::LocalLimitExceeded));
    }
    let roles = roles(request);
    let only_stores = !request.presentation_contexts.is_empty()
        && request.presentation_contexts.iter().all(|context| {
            let class = trimmed(&context.abstract_syntax);
            may_be_storage(class) && !is_service(class) && !roles.get(class).is_some_and(|roles| roles.scp)
        });
    let not_yet = acceptor.admitted == Admitted::NotYet;
    if acceptor.stopping || not_yet || (acceptor.no_stores && only_stores) {
        return Err(later(AssociationRJServiceProviderPresentationReason::TemporaryCongestion));
    }
    Ok(agree(request, acceptor, &roles, announced_bytes))
}

fn agree(
    request: &AssociationRQ,
    acceptor: &Acceptor,
    roles: &BTreeMap<String, RequestorRoles>,
    announced_bytes: u32,
) -> Agreed {
    let mut contexts = BTreeMap::new();
    let mut results = Vec::new();
    let mut seen = BTreeSet::new();
    let extended = extended(request);
    for proposed in request.presentation_contexts.iter().take(CONTEXTS_MAX) {
        let (reason, syntax) = if proposed.id.is_multiple_of(2) || !seen.insert(proposed.id) {
            (PresentationContextResultReason::NoReason, None)
        } else {
            choose(proposed, acceptor, roles)
        };
        let class = trimmed(&proposed.abstract_syntax);
        if let Some(syntax) = &syntax {
            let context = Context {
                abstract_syntax: class.to_owned(),
                transfer_syntax: syntax.clone(),
                we_request: roles.get(class).is_some_and(|roles| roles.scp),
                extended: extended.get(class).copied().unwrap_or_default(),
            };
            contexts.insert(proposed.id, context);
        }
        // A refused context carries a transfer syntax too, which is not significant (PS3.8 §9.3.3.2).
        let transfer_syntax = syntax.unwrap_or_else(|| IMPLICIT_LE.into());
        results.push(PresentationContextResult { id: proposed.id, reason, transfer_syntax });
    }
    let answer = AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title.clone(),
        called_ae_title: request.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: results,
        user_variables: user_items(request, &contexts, announced_bytes),
    };
    let pdu_bytes_max = request
        .user_variables
        .iter()
        .find_map(|item| match item {
            UserVariableItem::MaxLength(length) => Some(*length),
            _ => None,
        })
        .unwrap_or(16 << 10); // absent: what every implementation takes
    Agreed {
        answer,
        contexts,
        calling: request.calling_ae_title.trim_matches(['\0', ' ']).to_owned(),
        called: request.called_ae_title.trim_matches(['\0', ' ']).to_owned(),
        pdu_bytes_max,
        operations_max: operations_max(request).unwrap_or(1),
    }
}

fn roles(request: &AssociationRQ) -> BTreeMap<String, RequestorRoles> {
    let items = request.user_variables.iter().filter_map(|item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(class, roles) => {
            Some((trimmed(class).to_owned(), RequestorRoles { scu: roles.scu, scp: roles.scp }))
        }
        _ => None,
    });
    items.collect()
}

/// What is agreed on for each class; where a requestor proposes twice, the first stands.
fn extended(request: &AssociationRQ) -> BTreeMap<&str, Extended> {
    let mut extended = BTreeMap::new();
    for item in &request.user_variables {
        if let UserVariableItem::SopClassExtendedNegotiationSubItem(class, bytes) = item {
            let class = trimmed(class);
            extended.entry(class).or_insert_with(|| Extended::of(class, bytes));
        }
    }
    extended
}

/// Operations at a time that the requestor may invoke: as many as it asks for, up to our bound; 0 asks for any number.
fn operations_max(request: &AssociationRQ) -> Option<u16> {
    request.user_variables.iter().find_map(|item| match item {
        UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, window) => {
            match window.first_chunk().map(|two| u16::from_be_bytes(*two)) {
                Some(0) => Some(OPERATIONS_MAX),
                Some(asked) => Some(asked.min(OPERATIONS_MAX)),
                None => None,
            }
        }
        _ => None,
    })
}

/// Items are answered only where they were sent.
fn user_items(
    request: &AssociationRQ,
    contexts: &BTreeMap<u8, Context>,
    announced_bytes: u32,
) -> Vec<UserVariableItem> {
    let mut items = vec![
        UserVariableItem::MaxLength(announced_bytes),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.into()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.into()),
    ];
    let accepted = |class: &str| contexts.values().any(|context| context.abstract_syntax == trimmed(class));
    for item in &request.user_variables {
        match item {
            UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, _) => {
                let [high, low] = operations_max(request).unwrap_or(1).to_be_bytes();
                // What we ask of the requestor, the sub-operations of C-GET and reports, we ask one at a time.
                items.push(UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, vec![high, low, 0, 1]));
            }
            UserVariableItem::ScuScpRoleSelectionSubItem(class, roles) if accepted(class) => {
                let roles = RequestorRoles { scu: roles.scu, scp: roles.scp };
                items.push(UserVariableItem::ScuScpRoleSelectionSubItem(class.clone(), roles));
            }
            UserVariableItem::SopClassExtendedNegotiationSubItem(class, bytes)
                if accepted(class) && is_service(trimmed(class)) =>
            {
                let agreed = extended(request).get(trimmed(class)).copied().unwrap_or_default();
                let answered = agreed.answer(bytes.len());
                items.push(UserVariableItem::SopClassExtendedNegotiationSubItem(class.clone(), answered));
            }
            UserVariableItem::UserIdentityItem(identity) if identity.positive_response_requested() => {
                items.push(UserVariableItem::Unknown(ITEM_USER_IDENTITY_RESPONSE, vec![0, 0]));
            }
            _ => {}
        }
    }
    items
}

fn trimmed(uid: &str) -> &str {
    uid.trim_matches(['\0', ' '])
}

/// Verification, query, retrieve and storage commitment.
#[must_use]
pub fn is_service(class: &str) -> bool {
    class == sop_class::VERIFICATION
        || class == sop_class::MODALITY_WORKLIST_FIND
        || performs_steps(class, false)
        || performs_steps(class, true)
        || is_query(class)
        || is_move(class)
        || is_get(class)
        || is_commitment(class)
}

/// Storage commitment.
#[must_use]
pub fn is_commitment(class: &str) -> bool {
    class == sop_class::STORAGE_COMMITMENT
}

/// Modality performed procedure steps: whether `class` makes and changes them, or (`reads`) has them read.
#[must_use]
pub fn performs_steps(class: &str, reads: bool) -> bool {
    if reads {
        class == sop_class::MODALITY_PERFORMED_STEP_RETRIEVE
    } else {
        class == sop_class::MODALITY_PERFORMED_STEP
    }
}

/// C-FIND.
#[must_use]
pub fn is_query(class: &str) -> bool {
    [sop_class::PATIENT_ROOT_FIND, sop_class::STUDY_ROOT_FIND, sop_class::PATIENT_STUDY_ONLY_FIND].contains(&class)
}

/// C-MOVE.
#[must_use]
pub fn is_move(class: &str) -> bool {
    [sop_class::PATIENT_ROOT_MOVE, sop_class::STUDY_ROOT_MOVE, sop_class::PATIENT_STUDY_ONLY_MOVE].contains(&class)
}

/// C-GET.
#[must_use]
pub fn is_get(class: &str) -> bool {
    [sop_class::PATIENT_ROOT_GET, sop_class::STUDY_ROOT_GET, sop_class::PATIENT_STUDY_ONLY_GET].contains(&class)
}

/// What a context of this class serves: one of them is enough to be allowed.
fn services_of(class: &str, roles: Option<&RequestorRoles>) -> &'static [Service] {
    match class {
        sop_class::VERIFICATION => &[Service::Echo],
        COMMITMENT => &[Service::Commit],
        sop_class::MODALITY_WORKLIST_FIND | sop_class::MODALITY_PERFORMED_STEP_RETRIEVE => &[Service::Find],
        // Who stores images says what it has done for them.
        sop_class::MODALITY_PERFORMED_STEP => &[Service::Store],
        _ if is_query(class) => &[Service::Find],
        _ if is_move(class) => &[Service::Move],
        _ if is_get(class) => &[Service::Get],
        // Who takes the role of the provider receives what he gets (PS3.7 D.3.3.4).
        _ => match roles {
            Some(RequestorRoles { scu: false, scp: true }) => &[Service::Get],
            Some(RequestorRoles { scu: true, scp: true }) => &[Service::Store, Service::Get],
            Some(RequestorRoles { scp: false, .. }) | None => &[Service::Store],
        },
    }
}

fn choose(
    proposed: &PresentationContextProposed,
    acceptor: &Acceptor,
    roles: &BTreeMap<String, RequestorRoles>,
) -> (PresentationContextResultReason, Option<String>) {
    let class = trimmed(&proposed.abstract_syntax);
    if acceptor.known_classes_only && !is_service(class) && !is_storage(class) {
        return (PresentationContextResultReason::AbstractSyntaxNotSupported, None);
    }
    let syntaxes = proposed.transfer_syntaxes.iter().map(|syntax| trimmed(syntax));
    let chosen = if is_service(class) {
        let rank = |syntax: &str| [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE].iter().position(|known| *known == syntax);
        syntaxes.filter_map(|syntax| Some((rank(syntax)?, syntax))).min().map(|(_, syntax)| syntax)
    } else if may_be_storage(class) {
        let last = |syntax: &str| u8::from(syntax == IMPLICIT_LE) + 2 * u8::from(syntax == EXPLICIT_BE);
        syntaxes.filter(|syntax| Uid::parse(syntax).is_ok()).min_by_key(|syntax| last(syntax))
    } else {
        return (PresentationContextResultReason::AbstractSyntaxNotSupported, None);
    };
    let denied = services_of(class, roles.get(class)).iter().all(|service| acceptor.denied.contains(service));
    match chosen {
        Some(_) if denied => (PresentationContextResultReason::UserRejection, None),
        Some(syntax) => (PresentationContextResultReason::Acceptance, Some(syntax.to_owned())),
        None => (PresentationContextResultReason::TransferSyntaxesNotSupported, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const JPEG: &str = "1.2.840.10008.1.2.4.70";

    fn acceptor() -> Acceptor {
        Acceptor::new(AeTitle::parse("TRIPTYCH").expect("a title"))
    }

    fn request(contexts: &[(u8, &str, &[&str])]) -> AssociationRQ {
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "CT1             ".into(),
            called_ae_title: "TRIPTYCH        ".into(),
            application_context_name: APPLICATION_CONTEXT.into(),
            presentation_contexts: contexts
                .iter()
                .map(|(id, class, syntaxes)| PresentationContextProposed {
                    id: *id,
                    abstract_syntax: (*class).into(),
                    transfer_syntaxes: syntaxes.iter().map(|syntax| (*syntax).into()).collect(),
                })
                .collect(),
            user_variables: vec![UserVariableItem::MaxLength(16_384)],
        }
    }

    fn reasons(contexts: &[(u8, &str, &[&str])]) -> Vec<(u8, String)> {
        let agreed = answer(&request(contexts), &acceptor(), 1).expect("accepted");
        agreed
            .answer
            .presentation_contexts
            .iter()
            .map(|result| (result.reason.clone() as u8, result.transfer_syntax.clone()))
            .collect()
    }

    #[test]
    fn each_context_is_answered_alone() {
        let results = reasons(&[
            (1, CT, &[IMPLICIT_LE, JPEG, EXPLICIT_LE]),
            (3, CT, &[EXPLICIT_BE, IMPLICIT_LE]),
            (5, sop_class::VERIFICATION, &[JPEG]),
            (7, "1.2.840.10008.5.1.4.34.6.1", &[IMPLICIT_LE]),
            (9, "1.3.46.670589.5.0.1", &["1.2.840.113619.5.2"]),
            (11, sop_class::STUDY_ROOT_FIND, &[IMPLICIT_LE, EXPLICIT_LE]),
        ]);
        let numbers: Vec<u8> = results.iter().map(|(reason, _)| *reason).collect();
        assert_eq!(numbers, [0, 0, 4, 3, 0, 0]);
        let syntaxes = [&results[0].1, &results[1].1, &results[4].1, &results[5].1];
        assert_eq!(syntaxes, [JPEG, IMPLICIT_LE, "1.2.840.113619.5.2", EXPLICIT_LE]);
    }

    #[test]
    fn no_acceptable_context_is_still_an_acceptance() {
        assert_eq!(reasons(&[(1, "1.2.840.10008.5.1.4.34.6.1", &[IMPLICIT_LE])]).len(), 1);
        assert!(reasons(&[]).is_empty());
    }

    #[test]
    fn even_repeated_and_countless_context_ids_harm_nobody() {
        let mut contexts: Vec<(u8, &str, &[&str])> = (0..=u8::MAX).map(|id| (id, CT, &[IMPLICIT_LE][..])).collect();
        contexts.push((1, CT, &[JPEG]));
        let agreed = answer(&request(&contexts), &acceptor(), 1).expect("accepted");
        assert!(agreed.contexts.keys().all(|id| id % 2 == 1) && agreed.contexts.len() <= CONTEXTS_MAX);
        let twice = answer(&request(&[(1, CT, &[JPEG]), (1, CT, &[IMPLICIT_LE])]), &acceptor(), 1).expect("accepted");
        assert_eq!(twice.contexts[&1].transfer_syntax, JPEG, "the first stands");
    }

    #[test]
    fn rejections_say_whether_to_try_again() {
        let stored = request(&[(1, CT, &[IMPLICIT_LE])]);
        let code = |request: &AssociationRQ, acceptor: &Acceptor| {
            let rejection = answer(request, acceptor, 1).expect_err("rejected");
            crate::frame::encode(&rejection.into()).expect("encodes")[7..10].to_vec()
        };
        let other = AssociationRQ { called_ae_title: "OTHER".into(), ..request(&[]) };
        assert_eq!(code(&other, &acceptor()), [1, 1, 7]);
        let lower = AssociationRQ { called_ae_title: "triptych".into(), ..request(&[]) };
        assert_eq!(code(&lower, &acceptor()), [1, 1, 7]);
        let any = Acceptor { any_called_title: true, ..acceptor() };
        assert!(answer(&other, &any, 1).is_ok());
        let nobody = AssociationRQ { calling_ae_title: "                ".into(), ..request(&[]) };
        assert_eq!(code(&nobody, &acceptor()), [1, 1, 3]);
        assert_eq!(code(&stored, &Acceptor { admitted: Admitted::No, ..acceptor() }), [1, 1, 3]);
        assert_eq!(code(&stored, &Acceptor { admitted: Admitted::NotYet, ..acceptor() }), [2, 3, 1]);
        assert_eq!(code(&stored, &Acceptor { full: true, ..acceptor() }), [2, 3, 2]);
        assert_eq!(code(&stored, &Acceptor { no_stores: true, ..acceptor() }), [2, 3, 1]);
        assert_eq!(code(&stored, &Acceptor { stopping: true, ..acceptor() }), [2, 3, 1]);
        let find = request(&[(1, CT, &[IMPLICIT_LE]), (3, sop_class::STUDY_ROOT_FIND, &[IMPLICIT_LE])]);
        assert!(
            answer(&find, &Acceptor { no_stores: true, ..acceptor() }, 1).is_ok(),
            "reads go on without a majority"
        );
    }

    #[test]
    fn what_the_caller_may_not_do_is_refused_context_by_context() {
        let mut request = request(&[
            (1, sop_class::VERIFICATION, &[IMPLICIT_LE]),
            (3, CT, &[IMPLICIT_LE]),
            (5, sop_class::STUDY_ROOT_FIND, &[IMPLICIT_LE]),
            (7, sop_class::PATIENT_ROOT_MOVE, &[IMPLICIT_LE]),
            (9, sop_class::STUDY_ROOT_GET, &[IMPLICIT_LE]),
            (11, "1.2.840.10008.5.1.4.1.1.4", &[IMPLICIT_LE]),
            (13, "1.2.840.10008.5.1.4.1.1.7", &[IMPLICIT_LE]),
            (15, "1.2.840.10008.1.20.1", &[IMPLICIT_LE]),
        ]);
        let role = |class: &str, scu| {
            let roles = RequestorRoles { scu, scp: true };
            UserVariableItem::ScuScpRoleSelectionSubItem(class.into(), roles)
        };
        // MR is only received; secondary captures are sent and received.
        request.user_variables.push(role("1.2.840.10008.5.1.4.1.1.4", false));
        request.user_variables.push(role("1.2.840.10008.5.1.4.1.1.7", true));
        let reasons = |denied: &[Service]| -> Vec<u8> {
            let acceptor = Acceptor { denied: denied.iter().copied().collect(), ..acceptor() };
            let agreed = answer(&request, &acceptor, 1).expect("accepted").answer.presentation_contexts;
            agreed.iter().map(|result| result.reason.clone() as u8).collect()
        };
        assert_eq!(reasons(&[]), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reasons(&[Service::Echo]), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reasons(&[Service::Store]), [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reasons(&[Service::Find]), [0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(reasons(&[Service::Move]), [0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(reasons(&[Service::Get]), [0, 0, 0, 0, 1, 1, 0, 0]);
        assert_eq!(reasons(&[Service::Commit]), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(reasons(&[Service::Store, Service::Get]), [0, 1, 0, 0, 1, 1, 1, 0]);
    }

    #[test]
    fn classes_that_are_not_known_are_refused_where_that_is_wanted() {
        let request = request(&[
            (1, CT, &[IMPLICIT_LE]),
            (3, "1.3.46.670589.5.0.1", &[IMPLICIT_LE]),
            (5, sop_class::STUDY_ROOT_FIND, &[IMPLICIT_LE]),
        ]);
        let acceptor = Acceptor { known_classes_only: true, ..acceptor() };
        let agreed = answer(&request, &acceptor, 1).expect("accepted").answer.presentation_contexts;
        assert_eq!(agreed.iter().map(|result| result.reason.clone() as u8).collect::<Vec<_>>(), [0, 3, 0]);
    }

    #[test]
    fn roles_windows_and_extensions_are_answered_only_where_asked() {
        let mut request = request(&[(1, CT, &[EXPLICIT_LE]), (3, sop_class::STUDY_ROOT_FIND, &[EXPLICIT_LE])]);
        assert_eq!(answer(&request, &acceptor(), 1).expect("accepted").answer.user_variables.len(), 3);
        request.user_variables.extend([
            UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, vec![0, 0, 0, 0]),
            UserVariableItem::ScuScpRoleSelectionSubItem(CT.into(), RequestorRoles { scu: false, scp: true }),
            UserVariableItem::SopClassExtendedNegotiationSubItem(sop_class::STUDY_ROOT_FIND.into(), vec![1, 0, 1]),
        ]);
        let agreed = answer(&request, &acceptor(), 1).expect("accepted");
        assert!(agreed.contexts[&1].we_request);
        let negotiated = Extended { relational: true, fuzzy: true, ..Extended::default() };
        assert_eq!((agreed.contexts[&1].extended, agreed.contexts[&3].extended), (Extended::default(), negotiated));
        assert!(agreed.answer.user_variables.contains(&UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, vec![0, 8, 0, 1])));
        assert_eq!(agreed.operations_max, 8);
        let find =
            UserVariableItem::SopClassExtendedNegotiationSubItem(sop_class::STUDY_ROOT_FIND.into(), vec![1, 0, 1]);
        assert!(agreed.answer.user_variables.contains(&find));
    }

    #[test]
    fn a_requestor_is_granted_the_operations_it_asks_for_up_to_eight() {
        let granted = |window: Option<Vec<u8>>| {
            let mut request = request(&[(1, CT, &[EXPLICIT_LE])]);
            request.user_variables.extend(window.map(|window| UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, window)));
            let agreed = answer(&request, &acceptor(), 1).expect("accepted");
            let item = agreed.answer.user_variables.iter().find_map(|item| match item {
                UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, window) => Some(window.clone()),
                _ => None,
            });
            (agreed.operations_max, item)
        };
        assert_eq!(granted(None), (1, None), "one at a time, and nothing said of it");
        assert_eq!(granted(Some(vec![0, 1, 0, 1])), (1, Some(vec![0, 1, 0, 1])));
        assert_eq!(granted(Some(vec![0, 3, 0, 0])), (3, Some(vec![0, 3, 0, 1])));
        assert_eq!(granted(Some(vec![1, 0, 1, 0])), (8, Some(vec![0, 8, 0, 1])));
        assert_eq!(granted(Some(vec![0, 0, 0, 0])), (8, Some(vec![0, 8, 0, 1])), "any number");
        assert_eq!(granted(Some(vec![7])), (1, Some(vec![0, 1, 0, 1])), "no window at all");
    }

    /// Byte by byte: what is proposed and done is agreed on, and nothing else (PS3.4 C.5.1.1).
    #[test]
    fn extensions_are_answered_byte_by_byte() {
        let answered = |class: &str, proposed: &[u8]| {
            let mut request = request(&[(1, class, &[EXPLICIT_LE])]);
            let item = UserVariableItem::SopClassExtendedNegotiationSubItem(class.into(), proposed.to_vec());
            request.user_variables.push(item);
            let agreed = answer(&request, &acceptor(), 1).expect("accepted");
            let bytes = agreed.answer.user_variables.iter().find_map(|item| match item {
                UserVariableItem::SopClassExtendedNegotiationSubItem(_, bytes) => Some(bytes.clone()),
                _ => None,
            });
            (bytes, agreed.contexts[&1].extended)
        };
        let all = Extended {
            relational: true,
            date_time: true,
            fuzzy: true,
            timezone: true,
            empty_values: true,
            all_values: true,
        };
        for class in [sop_class::STUDY_ROOT_FIND, sop_class::PATIENT_ROOT_FIND, sop_class::PATIENT_STUDY_ONLY_FIND] {
            assert_eq!(answered(class, &[1; 9]), (Some(vec![1, 1, 1, 1, 0, 1, 1, 0, 0]), all));
            for byte in 0..7 {
                let mut proposed = [0; 7];
                proposed[byte] = 1;
                let mut done = proposed;
                done[4] = 0;
                assert_eq!(answered(class, &proposed).0, Some(done.to_vec()));
            }
            assert_eq!(answered(class, &[2, 255]), (Some(vec![0, 0]), Extended::default()), "no value of the standard");
            assert_eq!(answered(class, &[]).0, Some(Vec::new()));
        }
        let relational = Extended { relational: true, ..Extended::default() };
        for class in [sop_class::STUDY_ROOT_MOVE, sop_class::STUDY_ROOT_GET] {
            assert_eq!(answered(class, &[1, 1, 1]), (Some(vec![1, 0, 0]), relational));
        }
        assert_eq!(answered(CT, &[2, 0, 0, 0, 1]).0, None, "not ours to say");
    }
}
