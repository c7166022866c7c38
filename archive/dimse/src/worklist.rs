//! C-FIND of the modality worklist as provider (PS3.4 K.4.1): answers as they are found, until the last or a C-CANCEL.

use crate::{
    association::{Association, Ended},
    command,
    find::{Heard, cancel, identifier, in_words},
    status::{self, Status},
};
use archive_model::{DataSet, tags, transfer_syntax, write_data_set};
use archive_service::Archive;

/// Answers one C-FIND-RQ; the returned status is the final one, not yet sent.
pub(crate) async fn find(
    association: &mut Association,
    archive: &Archive,
    context: u8,
    request: &DataSet,
) -> Result<Status, Ended> {
    let identifier = match identifier(association, context).await? {
        Ok(identifier) => identifier,
        Err(status) => return Ok(status),
    };
    let syntax = association.contexts.get(&context).map(|own| own.transfer_syntax.clone()).unwrap_or_default();
    let encoding = transfer_syntax(&syntax).encoding;
    let words = identifier.texts(tags::SPECIFIC_CHARACTER_SET).to_vec();
    let mut matches = match archive.worklist().find(identifier) {
        Ok(matches) => matches,
        Err(error) => return Ok(Status::from(&error)),
    };
    let pending = command::response(request, &Status::new(status::PENDING, ""), true);
    loop {
        let answer = tokio::select! {
            biased;
            received = association.next() => {
                match cancel(received?, command::message_id(request)) {
                    Heard::Cancel => return Ok(Status::new(status::CANCEL, "")),
                    Heard::Nothing => continue,
                    Heard::Other(received) => {
                        association.hold(received).await?;
                        continue;
                    }
                }
            }
            answer = matches.next() => answer,
        };
        match answer {
            None => return Ok(Status::new(status::SUCCESS, "")),
            Some(Err(error)) => return Ok(Status::from(&error)),
            Some(Ok(mut answer)) => {
                in_words(&mut answer, &words);
                association.send(context, &pending, Some(&write_data_set(&answer, encoding))).await?;
            }
        }
    }
}
