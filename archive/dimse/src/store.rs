//! C-STORE as provider (PS3.4 Annex B, PS3.7 §9.3.1): pieces go straight into the use case while they arrive.

use crate::{
    association::{Association, Ended, Received},
    provider::Peer,
    status::{self, Status},
};
use archive_model::{DataSet, Uid, tags};
use archive_service::{Archive, Offer, Protocol, Source, StoreError};

/// Receives one object; answers its status. An `Err` ends the association, and leaves nothing of the object.
pub(crate) async fn store(
    association: &mut Association,
    archive: &Archive,
    peer: &Peer,
    context: u8,
    request: &DataSet,
) -> Result<Status, Ended> {
    let Some(agreed) = association.contexts.get(&context) else {
        return Err(Ended::Broken("a context that was not agreed on".into()));
    };
    let syntax = agreed.transfer_syntax.clone();
    let class = match uid(request, tags::AFFECTED_SOP_CLASS_UID) {
        Ok(class) if agreed.abstract_syntax == class.as_str() => class,
        Ok(_) => {
            association.drain_data().await?;
            let status = Status::new(status::CLASS_NOT_SUPPORTED, "the class is not that of the presentation context");
            return Ok(status.naming(tags::AFFECTED_SOP_CLASS_UID));
        }
        Err(status) => {
            association.drain_data().await?;
            return Ok(status);
        }
    };
    let instance = match uid(request, tags::AFFECTED_SOP_INSTANCE_UID) {
        Ok(instance) => instance,
        Err(status) => {
            association.drain_data().await?;
            return Ok(status);
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
    match receive(association, archive, offer).await? {
        Ok(()) => Ok(Status::new(status::SUCCESS, "")),
        Err(error) => {
            tracing::info!(%error, "an object was refused");
            Ok(Status::from(&error))
        }
    }
}

fn uid(request: &DataSet, tag: archive_model::Tag) -> Result<Uid, Status> {
    let text = request.text(tag).unwrap_or_default();
    Uid::parse(text).map_err(|error| Status::new(status::INVALID_INSTANCE, format!("{tag}: {error}")).naming(tag))
}

async fn receive(
    association: &mut Association,
    archive: &Archive,
    offer: Offer,
) -> Result<Result<(), StoreError>, Ended> {
    let mut ingest = match archive.store(offer).await {
        Ok(ingest) => ingest,
        Err(error) => {
            association.drain_data().await?;
            return Ok(Err(error));
        }
    };
    loop {
        match association.next().await? {
            Received::Data { bytes, last } => {
                if let Err(error) = ingest.push(bytes).await {
                    drop(ingest);
                    if !last {
                        association.drain_data().await?;
                    }
                    return Ok(Err(error));
                }
                if last {
                    // D-1: success is the proof, and nothing else.
                    return Ok(ingest.finish().await.map(|_stored| ()));
                }
            }
            Received::Command { .. } | Received::Released => {
                association.abort().await;
                return Err(Ended::Broken("the object did not come to its end".into()));
            }
        }
    }
}
