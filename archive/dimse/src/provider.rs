//! One accepted association: negotiated, then one request after the other until it ends.

use crate::{
    association::{Association, Ended, Received},
    command::{self, field},
    commitment, find,
    metrics::Metrics,
    performed, retrieve,
    server::{Place, Shared},
    status::{self, Status},
    store,
    window::{self, Window},
    worklist,
};
use archive_model::{DataSet, sop_class};
use archive_service::{
    Archive,
    commitment::OpenCommitments,
    peers::{NotAdmitted, Peer as Entry, Right, UnknownClasses},
};
use archive_upper_layer::{
    End, Event,
    frame::{Frame, PDU_BYTES_MAX},
    negotiate::{self, Acceptor, Admitted, Service, is_commitment, is_get, is_move, is_query},
    pdu::{Pdu, PresentationContextResultReason},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};
use tokio::{net::TcpStream, time::timeout};

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) calling: String,
    pub(crate) called: String,
    pub(crate) address: String,
    /// The same without its port.
    pub(crate) from: IpAddr,
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr, mut place: Place) {
    let address = from.to_string();
    let mut association = match Association::over(stream, End::Acceptor, shared.settings.deadlines) {
        Ok(association) => association,
        Err(error) => return tracing::info!(%error, address, "a connection was lost at once"),
    };
    // No stop waits for a peer that has not said yet what it wants.
    let accepted = tokio::select! {
        biased;
        accepted = accept(&shared, &mut association, from, &mut place) => accepted,
        () = shared.deadline.cancelled() => return,
    };
    let how = match accepted {
        Ok(None) => "rejected",
        Ok(Some(peer)) => {
            tracing::info!(
                calling_ae = peer.calling,
                address,
                contexts = association.contexts.len(),
                "association accepted"
            );
            let end = requests(&shared, &mut association, &peer).await;
            match &end {
                Ok(()) => {
                    tracing::info!(calling_ae = peer.calling, "association released");
                    "released"
                }
                Err(error) => {
                    tracing::info!(calling_ae = peer.calling, %error, "association ended");
                    ended(error)
                }
            }
        }
        Err(error) => {
            tracing::info!(address, %error, "no association");
            ended(&error)
        }
    };
    shared.metrics.ended.with_label_values(&[how]).inc();
    association.close().await;
}

fn ended(error: &Ended) -> &'static str {
    match error {
        Ended::Aborted => "aborted",
        Ended::Lost(_) => "lost",
        Ended::Broken(_) => "protocol",
        Ended::Silent(_) => "silent",
    }
}

/// Answers A-ASSOCIATE-RQ; `None` when it was rejected.
async fn accept(
    shared: &Shared,
    association: &mut Association,
    from: SocketAddr,
    place: &mut Place,
) -> Result<Option<Peer>, Ended> {
    association.event(Event::TransportIndication);
    let artim = association.deadlines().artim;
    // ARTIM is for the whole request, however it trickles (PS3.8 §9.1.5).
    let first = match timeout(artim, association.frame()).await {
        Ok(first) => first?,
        Err(_) => {
            association.event(Event::ArtimExpired);
            return Err(Ended::Silent(artim));
        }
    };
    let request = match first {
        Frame::Other(Pdu::AssociationRQ(request)) => request,
        Frame::Other(Pdu::AbortRQ { .. }) => {
            association.event(Event::AbortPdu);
            return Err(Ended::Aborted);
        }
        frame @ (Frame::Data(_) | Frame::Other(_)) => return Err(association.out_of_place(&frame).await),
    };
    association.event(Event::AssociateRqPdu);
    let caller = shared.archive.peers().caller(request.calling_ae_title.trim_matches(['\0', ' ']), from.ip());
    // Who may not come takes no place.
    let full = caller.as_ref().is_ok_and(|entry| !place.establish(entry));
    let denied =
        |entry: &Arc<Entry>| Right::ALL.into_iter().filter(|right| !entry.may(*right)).map(service_of).collect();
    let acceptor = Acceptor {
        ae_title: shared.archive.ae_title().clone(),
        any_called_title: !shared.settings.check_called_ae,
        full,
        no_stores: shared.archive.admits().is_err(),
        stopping: shared.stopping.is_cancelled(),
        admitted: match &caller {
            Ok(_) => Admitted::Yes,
            Err(NotAdmitted::NotYet) => Admitted::NotYet,
            Err(NotAdmitted::Title | NotAdmitted::Address) => Admitted::No,
        },
        denied: caller.as_ref().map(denied).unwrap_or_default(),
        known_classes_only: caller.as_ref().is_ok_and(|entry| entry.unknown_classes == UnknownClasses::Refuse),
    };
    let address = from.to_string();
    match negotiate::answer(&request, &acceptor, PDU_BYTES_MAX) {
        Ok(agreed) => {
            association.event(Event::AssociateAccept);
            association.contexts = agreed.contexts;
            association.pdu_bytes_max = agreed.pdu_bytes_max;
            association.operations_max = agreed.operations_max;
            let refused = agreed
                .answer
                .presentation_contexts
                .iter()
                .filter(|context| context.reason != PresentationContextResultReason::Acceptance)
                .count();
            if refused > 0 {
                tracing::debug!(address, refused, "presentation contexts refused");
            }
            association.write_pdu(&Pdu::AssociationAC(agreed.answer)).await?;
            shared.metrics.accepted.inc();
            Ok(Some(Peer { calling: agreed.calling, called: agreed.called, address, from: from.ip() }))
        }
        Err(rejection) => {
            association.event(Event::AssociateReject);
            let reason = match &caller {
                Err(why) => why.to_string(),
                Ok(_) => format!("{:?}", rejection.source),
            };
            tracing::info!(address, calling_ae = request.calling_ae_title.trim(), reason, "association rejected");
            let label = if full {
                "limit"
            } else if matches!(caller, Err(NotAdmitted::Title | NotAdmitted::Address)) {
                "caller"
            } else if caller.is_err() || acceptor.stopping || acceptor.no_stores {
                "congestion"
            } else {
                "request"
            };
            shared.metrics.rejected.with_label_values(&[label]).inc();
            association.write_pdu(&Pdu::AssociationRJ(rejection)).await?;
            Ok(None)
        }
    }
}

async fn requests(shared: &Shared, association: &mut Association, peer: &Peer) -> Result<(), Ended> {
    let mut window = Window::of(association);
    let ended = serve_requests(shared, association, peer, &mut window).await;
    tokio::select! {
        biased;
        () = window.settle() => {}
        () = shared.deadline.cancelled() => {}
    }
    ended
}

async fn serve_requests(
    shared: &Shared,
    association: &mut Association,
    peer: &Peer,
    window: &mut Window,
) -> Result<(), Ended> {
    // Dropped with the association: what it has not reported is then reported over another one.
    let mut open = OpenCommitments::new(&shared.archive);
    let mut awaited = None;
    loop {
        // Between two messages a stopping node hangs up; a running one ends well.
        let received = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => {
                within_the_stop(shared, association, async |association| {
                    window.answer_all(&shared.metrics, association).await
                }).await?;
                association.abort().await;
                return Ok(());
            }
            ready = window.ready() => {
                Window::answer(&shared.metrics, association, ready?).await?;
                continue;
            }
            received = association.next_request() => received?,
            (asked, report) = open.next(), if awaited.is_none() => {
                let id = commitment::send_report(association, &shared.archive, &report).await?;
                awaited = Some((id, asked));
                continue;
            }
        };
        let received = match commitment::answered(received, &mut awaited) {
            Ok((asked, taken, data)) => {
                if data {
                    association.drain_data().await?;
                }
                open.sent(&asked, taken).await;
                continue;
            }
            Err(received) => received,
        };
        match received {
            Received::Released => return Ok(()),
            Received::Data { .. } => {
                association.abort().await;
                return Err(Ended::Broken("a data set without its command".into()));
            }
            Received::Command { context, set, data } => {
                within_the_stop(shared, association, async |association| {
                    request(shared, association, peer, (context, set, data), window, &mut open).await
                })
                .await?;
            }
        }
    }
}

/// Does it, unless the time of a stopping node is over before.
async fn within_the_stop(
    shared: &Shared,
    association: &mut Association,
    work: impl AsyncFnOnce(&mut Association) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let done = tokio::select! {
        biased;
        done = work(association) => Some(done),
        () = shared.deadline.cancelled() => None,
    };
    match done {
        Some(done) => done,
        None => {
            association.abort().await;
            Err(Ended::Broken("cut off by the stop of this node".into()))
        }
    }
}

/// Serves one request; an object that came whole is answered by the window.
async fn request(
    shared: &Shared,
    association: &mut Association,
    peer: &Peer,
    (context, set, data): (u8, DataSet, bool),
    window: &mut Window,
    open: &mut OpenCommitments,
) -> Result<(), Ended> {
    let since = Instant::now();
    // Again for every request: the rules may have changed since the association was accepted.
    let right = asked(association, context, &set, data);
    let allowed = right.map(|right| (right, allowed(&shared.archive, peer, right)));
    if matches!(allowed, Some((Right::Store, Ok(_)))) && command::command_field(&set) == Some(field::STORE_RQ) {
        let status = match store::store(shared, association, window, peer, context, &set).await? {
            store::Received::Whole(ingest) => {
                let request = window::Request { context, set, since };
                return window.finish(&shared.metrics, association, request, *ingest).await;
            }
            store::Received::Refused(status) => status,
        };
        return Window::answer(&shared.metrics, association, (window::Request { context, set, since }, status)).await;
    }
    // What came before is answered before: a query, or a commitment, knows it.
    window.answer_all(&shared.metrics, association).await?;
    let service = operate(shared, association, peer, (context, &set, data), allowed, open).await?;
    shared.metrics.operation_seconds.with_label_values(&[service]).observe(since.elapsed().as_secs_f64());
    Ok(())
}

/// What a request needs to be allowed, if it is one that the context is for.
fn asked(association: &Association, context: u8, set: &DataSet, data: bool) -> Option<Right> {
    let class = association.contexts.get(&context)?.abstract_syntax.as_str();
    match (command::command_field(set)?, data) {
        (field::ECHO_RQ, false) => Some(Right::Echo),
        (field::STORE_RQ, true) if !negotiate::is_service(class) => Some(Right::Store),
        (field::FIND_RQ, true) if is_query(class) || class == sop_class::MODALITY_WORKLIST_FIND => Some(Right::Find),
        (field::N_GET_RQ, _) if negotiate::performs_steps(class, true) => Some(Right::Find),
        // Who stores images says what it has done for them.
        (field::N_CREATE_RQ | field::N_SET_RQ, _) if negotiate::performs_steps(class, false) => Some(Right::Store),
        (field::GET_RQ, true) if is_get(class) => Some(Right::Get),
        (field::MOVE_RQ, true) if is_move(class) => Some(Right::Move),
        (field::ACTION_RQ, _) if is_commitment(class) => Some(Right::Commit),
        _ => None,
    }
}

/// Serves a request that is no object; answers the name of its service.
async fn operate(
    shared: &Shared,
    association: &mut Association,
    peer: &Peer,
    (context, set, data): (u8, &DataSet, bool),
    allowed: Option<(Right, Result<Arc<Entry>, Status>)>,
    open: &mut OpenCommitments,
) -> Result<&'static str, Ended> {
    let class = association.contexts.get(&context).map(|context| context.abstract_syntax.clone()).unwrap_or_default();
    let archive = &shared.archive;
    let is_worklist = class == sop_class::MODALITY_WORKLIST_FIND;
    let (service, status) = match (allowed, command::command_field(set)) {
        (Some((right, Err(status))), _) => {
            if data {
                association.drain_data().await?;
            }
            if right == Right::Commit {
                let response = command::action_response(set, &status);
                send_response(&shared.metrics, association, context, &response, right.name(), &status).await?;
                return Ok(right.name());
            }
            (right.name(), status)
        }
        (Some((_, Ok(_))), Some(field::N_CREATE_RQ | field::N_SET_RQ | field::N_GET_RQ)) => {
            let (service, status) = performed::perform(association, archive, context, set, data).await?;
            shared.metrics.responses.with_label_values(&[service, &format!("{:04x}", status.code)]).inc();
            return Ok(service);
        }
        (Some((Right::Find, Ok(_))), _) if is_worklist => {
            ("worklist", worklist::find(association, archive, context, set).await?)
        }
        (Some((Right::Echo, Ok(_))), _) => ("echo", Status::new(status::SUCCESS, "")),
        (Some((Right::Find, Ok(entry))), _) => ("find", find::find(association, archive, context, set, &entry).await?),
        (Some((Right::Get, Ok(entry))), _) => {
            retrieve::get(shared, association, context, set, &entry).await?;
            return Ok("get");
        }
        (Some((Right::Move, Ok(entry))), _) => {
            retrieve::move_to(shared, association, peer, context, set, &entry).await?;
            return Ok("move");
        }
        (Some((Right::Commit, Ok(_))), _) => {
            let status = commitment::ask(association, archive, peer, context, set, data, open).await?;
            let response = command::action_response(set, &status);
            send_response(&shared.metrics, association, context, &response, "commit", &status).await?;
            return Ok("commit");
        }
        // A cancel for an operation that is over already (PS3.7 §9.3.2.3).
        (None, Some(field::CANCEL_RQ)) => return Ok("cancel"),
        (None, Some(kind)) if kind & field::RESPONSE == 0 => {
            if data {
                association.drain_data().await?;
            }
            ("other", Status::new(status::UNRECOGNISED_OPERATION, "the service is not supported in this context"))
        }
        _ => {
            association.abort().await;
            return Err(Ended::Broken("a response to no request, or a command without its field".into()));
        }
    };
    respond(&shared.metrics, association, context, set, service, &status).await?;
    Ok(service)
}

/// The rules for the caller, if they allow this.
fn allowed(archive: &Archive, peer: &Peer, right: Right) -> Result<Arc<Entry>, Status> {
    match archive.peers().caller(&peer.calling, peer.from) {
        Ok(entry) if entry.may(right) => Ok(entry),
        Ok(_) | Err(NotAdmitted::Title | NotAdmitted::Address) => {
            tracing::warn!(calling_ae = peer.calling, right = right.name(), "a request was refused: not authorised");
            Err(Status::new(status::NOT_AUTHORISED, format!("{} is not allowed to this caller", right.name())))
        }
        Err(why @ NotAdmitted::NotYet) => Err(Status::new(status::OUT_OF_RESOURCES, why.to_string())),
    }
}

fn service_of(right: Right) -> Service {
    match right {
        Right::Echo => Service::Echo,
        Right::Store => Service::Store,
        Right::Find => Service::Find,
        Right::Move => Service::Move,
        Right::Get => Service::Get,
        Right::Commit => Service::Commit,
    }
}

/// Sends the final response of an operation that has no counts.
async fn respond(
    metrics: &Metrics,
    association: &mut Association,
    context: u8,
    request: &DataSet,
    service: &str,
    status: &Status,
) -> Result<(), Ended> {
    send_response(metrics, association, context, &command::response(request, status, false), service, status).await
}

async fn send_response(
    metrics: &Metrics,
    association: &mut Association,
    context: u8,
    response: &DataSet,
    service: &str,
    status: &Status,
) -> Result<(), Ended> {
    let started = Instant::now();
    association.send(context, response, None).await?;
    metrics.answer_seconds.observe(started.elapsed().as_secs_f64());
    metrics.responses.with_label_values(&[service, &format!("{:04x}", status.code)]).inc();
    Ok(())
}
