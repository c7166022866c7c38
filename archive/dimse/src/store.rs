//! C-STORE as provider (PS3.4 Annex B, PS3.7 §9.3.1): pieces go straight into the use case while they arrive.

use crate::{
    association::{self, Association, Ended},
    provider::Peer,
    server::Shared,
    status::{self, Status},
    window::Window,
};
use archive_model::{DataSet, Uid, tags};
use archive_service::{Ingest, Offer, Protocol, Source, StoreError};

/// How far an object came.
pub(crate) enum Received {
    /// It is here whole, and not durable yet.
    Whole(Box<Ingest>),
    /// It was refused.
    Refused(Status),
}

/// Receives one object, and answers meanwhile those before it that are ready. An `Err` ends the association, and leaves
/// nothing of the object.
pub(crate) async fn store(
    shared: &Shared,
    association: &mut Association,
    window: &mut Window,
    peer: &Peer,
    context: u8,
    request: &DataSet,
) -> Result<Received, Ended> {
    let Some(agreed) = association.contexts.get(&context) else {
        return Err(Ended::Broken("a context that was not agreed on".into()));
    };
    let syntax = agreed.transfer_syntax.clone();
    let class = match uid(request, tags::AFFECTED_SOP_CLASS_UID) {
        Ok(class) if agreed.abstract_syntax == class.as_str() => class,
        Ok(_) => {
            association.drain_data().await?;
            let status = Status::new(status::CLASS_NOT_SUPPORTED, "the class is not that of the presentation context");
            return Ok(Received::Refused(status.naming(tags::AFFECTED_SOP_CLASS_UID)));
        }
        Err(status) => {
            association.drain_data().await?;
            return Ok(Received::Refused(status));
        }
    };
    let instance = match uid(request, tags::AFFECTED_SOP_INSTANCE_UID) {
        Ok(instance) => instance,
        Err(status) => {
            association.drain_data().await?;
            return Ok(Received::Refused(status));
        }
    };
    let offer = Offer {
        sop_class: Some(class),
        instance: Some(instance),
        study: None,
        transfer_syntax: syntax,
        source: Source {
            protocol: Protocol::Dimse,
            calling_ae: peer.calling.clone(),
            called_ae: peer.called.clone(),
            peer: peer.address.clone(),
        },
    };
    receive(shared, association, window, offer).await.map(|received| {
        received.unwrap_or_else(|error| {
            tracing::info!(%error, "an object was refused");
            Received::Refused(Status::from(&error))
        })
    })
}

fn uid(request: &DataSet, tag: archive_model::Tag) -> Result<Uid, Status> {
    let text = request.text(tag).unwrap_or_default();
    Uid::parse(text).map_err(|error| Status::new(status::INVALID_INSTANCE, format!("{tag}: {error}")).naming(tag))
}

async fn receive(
    shared: &Shared,
    association: &mut Association,
    window: &mut Window,
    offer: Offer,
) -> Result<Result<Received, StoreError>, Ended> {
    let mut ingest = match shared.archive.store(offer).await {
        Ok(ingest) => ingest,
        Err(error) => {
            association.drain_data().await?;
            return Ok(Err(error));
        }
    };
    loop {
        let received = tokio::select! {
            biased;
            // A slow object keeps nobody from hearing of those before it.
            ready = window.ready() => {
                Window::answer(&shared.metrics, association, ready?).await?;
                continue;
            }
            received = association.next_request() => received?,
        };
        match received {
            association::Received::Data { bytes, last } => {
                if let Err(error) = ingest.push(bytes).await {
                    drop(ingest);
                    if !last {
                        association.drain_data().await?;
                    }
                    return Ok(Err(error));
                }
                if last {
                    return Ok(Ok(Received::Whole(Box::new(ingest))));
                }
            }
            association::Received::Command { .. } | association::Received::Released => {
                association.abort().await;
                return Err(Ended::Broken("the object did not come to its end".into()));
            }
        }
    }
}
