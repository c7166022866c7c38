//! One accepted association: negotiated, then one request after the other until it ends.

use crate::{
    association::{Association, Ended, Received},
    command::{self, field},
    find,
    metrics::Metrics,
    performed, retrieve,
    server::{Place, Shared},
    status::{self, Status},
    store, worklist,
};
use archive_model::{DataSet, sop_class};
use archive_upper_layer::{
    End, Event,
    frame::{Frame, PDU_BYTES_MAX},
    negotiate::{self, Acceptor, is_get, is_move, is_query},
    pdu::{Pdu, PresentationContextResultReason},
};
use std::{sync::Arc, time::Instant};
use tokio::{net::TcpStream, time::timeout};

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) calling: String,
    pub(crate) called: String,
    pub(crate) address: String,
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, address: String, mut place: Place) {
    let mut association = match Association::over(stream, End::Acceptor, shared.settings.deadlines) {
        Ok(association) => association,
        Err(error) => return tracing::info!(%error, address, "a connection was lost at once"),
    };
    // No stop waits for a peer that has not said yet what it wants.
    let accepted = tokio::select! {
        biased;
        accepted = accept(&shared, &mut association, &address, &mut place) => accepted,
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
    address: &str,
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
    let full = !place.establish();
    let acceptor = Acceptor {
        ae_title: shared.archive.ae_title().clone(),
        any_called_title: !shared.settings.check_called_ae,
        full,
        no_stores: shared.archive.admits().is_err(),
        stopping: shared.stopping.is_cancelled(),
    };
    match negotiate::answer(&request, &acceptor, PDU_BYTES_MAX) {
        Ok(agreed) => {
            association.event(Event::AssociateAccept);
            association.contexts = agreed.contexts;
            association.pdu_bytes_max = agreed.pdu_bytes_max;
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
            Ok(Some(Peer { calling: agreed.calling, called: agreed.called, address: address.to_owned() }))
        }
        Err(rejection) => {
            association.event(Event::AssociateReject);
            let reason = format!("{:?}", rejection.source);
            tracing::info!(address, calling_ae = request.calling_ae_title.trim(), reason, "association rejected");
            let label = if full {
                "limit"
            } else if acceptor.stopping || acceptor.no_stores {
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
    loop {
        // Between two messages a stopping node hangs up; a running one ends well.
        let received = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => {
                association.abort().await;
                return Ok(());
            }
            received = association.next() => received?,
        };
        match received {
            Received::Released => return Ok(()),
            Received::Data { .. } => {
                association.abort().await;
                return Err(Ended::Broken("a data set without its command".into()));
            }
            Received::Command { context, set, data } => {
                let started = Instant::now();
                let serve = request(shared, association, peer, context, &set, data);
                tokio::select! {
                    biased;
                    service = serve => {
                        let seconds = started.elapsed().as_secs_f64();
                        shared.metrics.operation_seconds.with_label_values(&[service?]).observe(seconds);
                    }
                    () = shared.deadline.cancelled() => {
                        association.abort().await;
                        return Err(Ended::Broken("cut off by the stop of this node".into()));
                    }
                }
            }
        }
    }
}

/// Serves one request; answers the name of its service.
async fn request(
    shared: &Shared,
    association: &mut Association,
    peer: &Peer,
    context: u8,
    set: &DataSet,
    data: bool,
) -> Result<&'static str, Ended> {
    let class = association.contexts.get(&context).map(|context| context.abstract_syntax.clone()).unwrap_or_default();
    let archive = &shared.archive;
    let (service, status) = match (command::command_field(set), data) {
        (Some(field::ECHO_RQ), false) => ("echo", Status::new(status::SUCCESS, "")),
        (Some(field::STORE_RQ), true) if !negotiate::is_service(&class) => {
            ("store", store::store(association, archive, peer, context, set).await?)
        }
        (Some(field::FIND_RQ), true) if is_query(&class) => {
            ("find", find::find(association, archive, context, set).await?)
        }
        (Some(field::FIND_RQ), true) if class == sop_class::MODALITY_WORKLIST_FIND => {
            ("worklist", worklist::find(association, archive, context, set).await?)
        }
        (Some(kind @ (field::N_CREATE_RQ | field::N_SET_RQ | field::N_GET_RQ)), _)
            if negotiate::performs_steps(&class, kind == field::N_GET_RQ) =>
        {
            let (service, status) = performed::perform(association, archive, context, set, data).await?;
            shared.metrics.responses.with_label_values(&[service, &format!("{:04x}", status.code)]).inc();
            return Ok(service);
        }
        (Some(field::GET_RQ), true) if is_get(&class) => {
            retrieve::get(shared, association, context, set).await?;
            return Ok("get");
        }
        (Some(field::MOVE_RQ), true) if is_move(&class) => {
            retrieve::move_to(shared, association, peer, context, set).await?;
            return Ok("move");
        }
        // A cancel for an operation that is over already (PS3.7 §9.3.2.3).
        (Some(field::CANCEL_RQ), _) => return Ok("cancel"),
        (Some(kind), _) if kind & field::RESPONSE == 0 => {
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

/// Sends the final response of an operation that has no counts.
async fn respond(
    metrics: &Metrics,
    association: &mut Association,
    context: u8,
    request: &DataSet,
    service: &str,
    status: &Status,
) -> Result<(), Ended> {
    let started = Instant::now();
    association.send(context, &command::response(request, status, false), None).await?;
    metrics.answer_seconds.observe(started.elapsed().as_secs_f64());
    metrics.responses.with_label_values(&[service, &format!("{:04x}", status.code)]).inc();
    Ok(())
}
